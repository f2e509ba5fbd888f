"""``stanch watch``: what the detectors promise, what they keep of it, and how far they have read."""

import click

from stanch.cli.frame import Group
from stanch.cli.watch_simulate import COMMANDS


@click.group(cls=Group)
def watch() -> None:
    """Detectors over the log: promises, simulations, progress."""


for _command in COMMANDS:
    watch.add_command(_command)
