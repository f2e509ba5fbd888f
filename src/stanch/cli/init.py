"""``stanch init`` and ``stanch status``: begin, and look."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.crypto.passphrase import Passphrase
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.access import Facts
    from stanch.terms import JsonValue


@click.command(cls=Leaf)
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--profile", type=click.Choice(["solo", "team"]), default="solo", help="One person, or all rules on.")
@click.option("--owner", default="owner", help="Name of the first principal.")
@click.option(
    "--owner-passphrase-file",
    "passphrase_file",
    type=click.Path(path_type=Path),
    help="Lock the owner's key with this passphrase; profile team needs it.",
)
def init(folder: Path, profile: str, owner: str, passphrase_file: Path | None) -> Result:
    """Make a workspace in FOLDER: keys, log, settings."""
    from stanch.workspace import Workspace  # noqa: PLC0415 - keeps `stanch --help` light

    chosen: Literal["solo", "team"] = "team" if profile == "team" else "solo"
    if chosen == "team" and passphrase_file is None:
        raise InvalidInput(
            "init: expected --owner-passphrase-file with profile team",
            why="the first administrator could let nobody in: that takes a second factor",
            next_step="write a passphrase of your choice into a file (mode 0600) and name it",
        )
    passphrase = Passphrase.read(passphrase_file) if passphrase_file else None
    with Workspace.init(folder, profile=chosen, owner=owner, passphrase=passphrase) as workspace:
        origin, vkey = workspace.ledger.origin, workspace.ledger.verifier.vkey
    data: dict[str, JsonValue] = {
        "folder": str(folder), "profile": profile, "owner": owner, "origin": origin, "vkey": vkey,
    }  # fmt: skip
    return Result(
        data,
        f"workspace  {folder} ({profile}); log {origin}\n"
        f"log key    {vkey}\n"
        f"next       keep the log key where this machine's administrators cannot change it; then: {_FIRST[chosen]}",
    )


_FIRST = {"solo": "stanch scan FILE", "team": "stanch access add NAME --role ROLE --key KEY.pub.pem"}
"""What whoever made a workspace may do next: in a team an administrator reads no data."""


@click.command(cls=Leaf)
def status() -> Result:
    """Say what the workspace holds, whether its log is whole, and what the doctor would object to."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.health import examine  # noqa: PLC0415 - same
    from stanch.workspace.health_check import State  # noqa: PLC0415 - same
    from stanch.workspace.verbs_glass import overdue_reviews  # noqa: PLC0415 - same
    from stanch.workspace.witnessing import watchers  # noqa: PLC0415 - same

    frame = current()
    with open_workspace(frame) as workspace:
        checkpoint = workspace.ledger.publish().checkpoint
        directory = workspace.people.directory
        people = [directory.facts_of(principal.id) for principal in directory.principals()]
        profile, folder = workspace.people.ground.profile, workspace.folder
        running, witnesses = workspace.leases.running(), workspace.ledger.witnesses
        releases = sorted(path.name for path in (workspace.state / "releases").glob("*") if path.is_dir())
        overdue = overdue_reviews(workspace)
        watching = watchers(workspace.ledger)
    checks = examine(folder)
    found = {
        state: sorted({check.name for check in checks if check.state is state})
        for state in (State.FAILED, State.WARNING)
    }
    lines = [
        f"workspace  {folder} ({profile})",
        f"log        {checkpoint.origin}: {checkpoint.size} entries, {len(running)} intents without outcome",
        *(f"person     {facts.principal.display or facts.principal.id}: {_standing(facts)}" for facts in people),
        *(f"release    {name}" for name in releases),
        *(f"overdue    review of emergency rights {one.id}: stanch access review {one.id}" for one in overdue),
        *watching,
        *(f"{state:<10} {', '.join(names)}: stanch doctor" for state, names in found.items() if names),
        "next       stanch log verify",
    ]
    data: dict[str, JsonValue] = {
        "folder": str(folder),
        "profile": profile,
        "origin": checkpoint.origin,
        "entries": checkpoint.size,
        "intents_open": list(running),
        "witnesses": [witness.url for witness in witnesses],
        "people": [
            {
                "name": facts.principal.display,
                "principal": facts.principal.id,
                "kind": facts.principal.kind,
                "suspended": facts.principal.suspended,
                "roles": [grant.role for grant in facts.grants],
            }
            for facts in people
        ],
        "releases": list(releases),
        "watchers": list(watching),
        "reviews_overdue": [one.id for one in overdue],
        "failed": list(found[State.FAILED]),
        "warnings": list(found[State.WARNING]),
    }
    return Result(data, "\n".join(lines), 1 if found[State.FAILED] else 0)


def _standing(facts: "Facts") -> str:
    roles = ", ".join(grant.role for grant in facts.grants) or "no role"
    return f"suspended; {roles}" if facts.principal.suspended else roles
