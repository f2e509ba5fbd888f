"""``stanch watch``: what the detectors promise and saw, and what people did about it."""

import click

from stanch.cli import watch_alerts, watch_serve, watch_simulate
from stanch.cli.frame import Group


@click.group(cls=Group)
def watch() -> None:
    """Alerts, and the detectors that raise them."""


for _command in (*watch_alerts.COMMANDS, *watch_simulate.COMMANDS, *watch_serve.COMMANDS):
    watch.add_command(_command)
