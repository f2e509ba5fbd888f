"""``stanch access policy`` and ``stanch access approve``: the policies in force and how they change."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Group, Leaf, Result, current
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

if TYPE_CHECKING:
    from stanch.access import PolicyVersion
    from stanch.workspace.verbs_policy import CheckedChange

_MAX_FILE = 1 << 20
_SHOWN = 10

_WITHOUT = click.option(
    "--without", multiple=True, help="Id of a forbid of the default set that this one leaves out; repeatable."
)
_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group(cls=Group)
def policy() -> None:
    """The policies in force, and how they change."""


@policy.command("show")
@click.option("--history", is_flag=True, help="List the versions instead of the text.")
def show(*, history: bool) -> Result:
    """Print the policies in force."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_policy import show_policies  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        active, versions = show_policies(workspace)
    data: dict[str, JsonValue] = {**_data(active), "text": active.text, "history": [_data(one) for one in versions]}
    lines = [f"{one.version:>4}  {one.state:<8} {_date(one.activated_ms)}  {one.digest}" for one in versions]
    shipped = f"   0  {'active' if active.version == 0 else 'retired':<8} shipped"
    return Result(data, "\n".join([shipped, *lines]) if history else active.text.rstrip())


@policy.command("check")
@_FILE
@_WITHOUT
def check(file: Path, without: tuple[str, ...]) -> Result:
    """Check FILE, and show how it would have decided the requests of the last week."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_policy import check_policies  # noqa: PLC0415 - same

    text = _read(file)
    with open_workspace(current()) as workspace:
        checked, team = check_policies(workspace, text, without), workspace.people.team
    step = f"stanch access policy activate {file}"
    if team or without:
        step = f"two other people: stanch access approve {file}; then: {step}"
    return Result(_change_data(checked), "\n".join([*_change_lines(checked), f"next      {step}"]))


@policy.command("activate")
@_FILE
@_WITHOUT
def activate(file: Path, without: tuple[str, ...]) -> Result:
    """Put FILE in force as a new version."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_policy import activate_policies  # noqa: PLC0415 - same

    text = _read(file)
    with open_workspace(current()) as workspace:
        made = activate_policies(workspace, text, without)
    return Result(
        _data(made), f"in force  version {made.version}, {made.digest}\nundo      stanch access policy rollback"
    )


@policy.command("rollback")
def rollback() -> Result:
    """Put the version before the one in force back; works whatever is in force."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_policy import rollback_policies  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        made = rollback_policies(workspace)
    return Result(_data(made), f"in force  version {made.version}, {made.digest}")


@click.command("approve", cls=Leaf)
@_FILE
@_WITHOUT
def approve(file: Path, without: tuple[str, ...]) -> Result:
    """Sign an approval of exactly the change of policies in FILE, good for a week."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_policy import approve_policies  # noqa: PLC0415 - same

    text = _read(file)
    with open_workspace(current()) as workspace:
        checked = approve_policies(workspace, text, without)
    return Result(
        _change_data(checked), "\n".join([*_change_lines(checked), f"approved  by you: {checked.change.digest}"])
    )


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
        text = data.decode()
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read", why=error.strerror or "") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: policies are UTF-8 text") from error
    if len(data) > _MAX_FILE:
        raise InvalidInput(f"{path}: expected at most {_MAX_FILE} bytes, found {len(data)}")
    return text


def _change_lines(checked: "CheckedChange") -> list[str]:
    simulation = checked.simulation
    parts = (("adds", checked.added), ("removes", checked.removed), ("changes", checked.changed))
    lines = [f"{label:<9} {', '.join(names)}" for label, names in parts if names]
    lines.append(
        f"{'simulated':<9} {simulation.requests} requests of the last week: "
        f"{simulation.newly_allowed} newly allowed, {simulation.newly_denied} newly denied"
    )
    for one in simulation.differences[:_SHOWN]:
        said = "allowed" if one.after else "denied"
        lines.append(f"  {said:<8} {one.principal} {one.action} on {one.scope} ({one.situation} situation)")
    lines.append(f"{'request':<9} {checked.change.digest}, approvals by others: {checked.approvals}")
    return lines


def _change_data(checked: "CheckedChange") -> dict[str, JsonValue]:
    simulation = checked.simulation
    return {
        "request": str(checked.change.digest),
        "after": checked.change.after.version,
        "added": list(checked.added),
        "removed": list(checked.removed),
        "changed": list(checked.changed),
        "approvals": checked.approvals,
        "simulated": {
            "requests": simulation.requests,
            "newly_allowed": simulation.newly_allowed,
            "newly_denied": simulation.newly_denied,
        },
    }


def _data(version: "PolicyVersion") -> dict[str, JsonValue]:
    return {
        "version": version.version, "policy": str(version.digest), "state": version.state,
        "without": list(version.without), "before": version.before, "activated_ms": version.activated_ms,
    }  # fmt: skip


def _date(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"
