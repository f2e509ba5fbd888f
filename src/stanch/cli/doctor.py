"""``stanch doctor``: is everything as it should be?"""

from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.errors import NotFound

if TYPE_CHECKING:
    from stanch.terms import JsonValue


@click.command(cls=Leaf)
def doctor() -> Result:
    """Check environment, settings, keys, database and log; exit 1 if something fails. Nothing is changed."""
    from stanch.workspace.health import examine  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.health_check import State  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.opening import find_workspace  # noqa: PLC0415 - same

    named = current().workspace
    try:
        folder = find_workspace(named)
    except NotFound:
        if named is not None:
            raise
        folder = None
    checks = examine(folder)
    lines = []
    for check in checks:
        lines.append(f"{check.state:<8} {check.name:<15} {check.found}")
        if check.next_step:
            lines.append(f"{'':<8} {'next':<15} {check.next_step}")
    failed = sum(check.state is State.FAILED for check in checks)
    warned = sum(check.state is State.WARNING for check in checks)
    where = "no workspace here" if folder is None else str(folder)
    lines.append(f"{where}: {len(checks)} checks, {failed} failed, {warned} warnings")
    data: list[JsonValue] = [
        {"name": check.name, "state": str(check.state), "found": check.found, "next": check.next_step}
        for check in checks
    ]
    return Result({"folder": str(folder or ""), "checks": data}, "\n".join(lines), min(failed, 1))
