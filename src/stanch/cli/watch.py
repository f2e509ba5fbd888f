"""``stanch watch``: what the detectors saw, and what people did about it."""

import click

from stanch.cli.frame import Group
from stanch.cli.watch_alerts import COMMANDS


@click.group(cls=Group)
def watch() -> None:
    """Alerts: see them, take them on, close them, deliver them."""


for _command in COMMANDS:
    watch.add_command(_command)
