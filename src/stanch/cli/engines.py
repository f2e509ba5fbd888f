"""Who does the parts of a long command: this process, several on this machine, or a Ray cluster."""

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.cli.key_places import KeyPlaces
    from stanch.data.engines import Engine

LOCAL, RAY = "local", "ray"


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say who does its parts."""
    processes = click.option(
        "--processes", type=click.IntRange(1, 256), default=1, help="Processes or Ray workers that share the work."
    )
    engine = click.option(
        "--engine", default=LOCAL, show_default=True, metavar="local|ray|ray://HOST:PORT",
        help="Who does it: this machine, Ray (the cluster of RAY_ADDRESS, or one on this machine), or that cluster.",
    )  # fmt: skip
    return processes(engine(command))


def engine_of(keys: "KeyPlaces", *, engine: str, processes: int) -> "Engine":
    """Return the engine that the options of :func:`shared` name; its workers find keys where ``keys`` says.

    Raises:
        InvalidInput: There is no such engine.
    """
    from stanch.cli.key_places import fetch_secrets  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.data.engines import Local  # noqa: PLC0415 - same
    from stanch.data.scale_ray import Ray  # noqa: PLC0415 - same

    if engine == LOCAL:
        return Local(processes)
    return Ray(partial(fetch_secrets, keys), processes, ray_address(engine))


def ray_address(engine: str) -> str:
    """Return the address of the cluster that ``--engine`` names.

    Raises:
        InvalidInput: There is no such engine.
    """
    if engine != RAY and not engine.startswith("ray://"):
        raise InvalidInput(f"engine: there is no {engine[:80]!r}", next_step="use local, ray or ray://HOST:PORT")
    return os.environ.get("RAY_ADDRESS", "local") if engine == RAY else engine
