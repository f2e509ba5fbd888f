"""``stanch migrate``: bring the database of a workspace to this release."""

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.terms import JsonValue


@click.command(cls=Leaf)
def migrate() -> Result:
    """Bring the workspace's database to the schema of this release.

    An SQLite file is copied first. No row that exists is rewritten, and doing it again does nothing.
    """
    from stanch.config import load_config  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.config.load import user_config_file  # noqa: PLC0415 - same
    from stanch.store import migrate as bring_forward  # noqa: PLC0415 - same
    from stanch.workspace.opening import SETTINGS, find_workspace  # noqa: PLC0415 - same

    folder = find_workspace(current().workspace)
    config = load_config(folder / SETTINGS, user_file=user_config_file())
    done = bring_forward(config.workspace.tables, base=folder)
    copy = str(done.copy) if done.copy else None
    data: dict[str, JsonValue] = {"before": done.before, "after": done.after, "copy": copy}
    if done.before == done.after:
        return Result(data, f"schema     revision {done.after}: nothing to do")
    lines = [f"schema     revision {done.before} became {done.after}"]
    if copy:
        lines.append(f"copy       {copy}; delete it when all works: it holds what is later erased")
    return Result(data, "\n".join([*lines, "next       stanch log verify"]))
