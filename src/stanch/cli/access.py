"""``stanch access``: who may do what."""

from datetime import UTC, datetime
from pathlib import Path

import click

from stanch.cli.frame import Group, Result, current
from stanch.terms import JsonValue


@click.group(cls=Group)
def access() -> None:
    """Who may do what."""


@access.command("who")
def who() -> Result:
    """List the principals and their roles."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light

    with open_workspace(current()) as workspace:
        directory = workspace.people.directory
        people = [directory.facts_of(principal.id) for principal in directory.principals()]
    lines = [
        f"{facts.principal.display or '(erased)':<16} {facts.principal.id}\n"
        + "\n".join(f"    {grant.role:<18} {_until(grant.expires_ms)}  {grant.id}" for grant in facts.grants)
        for facts in people
    ]
    data: list[JsonValue] = [
        {
            "name": facts.principal.display,
            "principal": facts.principal.id,
            "roles": [grant.role for grant in facts.grants],
        }
        for facts in people
    ]
    return Result({"people": data}, "\n".join(lines))


def _until(expires_ms: int | None) -> str:
    return "for good" if expires_ms is None else f"until {datetime.fromtimestamp(expires_ms / 1000, UTC):%Y-%m-%d}"


@access.command("add")
@click.argument("name")
@click.option("--role", "roles", multiple=True, help="A role to grant; may be repeated.")
@click.option("--new-passphrase-file", type=click.Path(), help="Lock the new person's key with this passphrase.")
def add(name: str, roles: tuple[str, ...], new_passphrase_file: str | None) -> Result:
    """Register a person with a new local key, and grant roles."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.secrets import read_passphrase  # noqa: PLC0415 - same
    from stanch.workspace.verbs_access import add_person  # noqa: PLC0415 - same

    passphrase = read_passphrase(Path(new_passphrase_file)) if new_passphrase_file else None
    with open_workspace(current()) as workspace:
        principal = add_person(workspace, name, roles, passphrase=passphrase)
    return Result({"name": name, "principal": principal, "roles": list(roles)}, f"added  {name} ({principal})")


@access.command("grant")
@click.argument("name")
@click.argument("role")
@click.option("--days", type=click.IntRange(1, 180), default=30, help="How long the grant lasts.")
def grant(name: str, role: str, days: int) -> Result:
    """Give NAME a ROLE for some days."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_access import grant_role  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        made = grant_role(workspace, name, role, days)
    text = f"granted  {name} is {role} {_until(made.expires_ms)} ({made.id})"
    return Result({"name": name, "role": role, "grant": made.id}, text)


@access.command("revoke")
@click.argument("grant_id", metavar="GRANT")
def revoke(grant_id: str) -> Result:
    """End a grant now."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_access import revoke_grant  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        revoke_grant(workspace, grant_id)
    return Result({"grant": grant_id}, f"revoked  {grant_id}")


@access.command("why")
@click.argument("action")
@click.argument("resource", default="workspace")
def why(action: str, resource: str) -> Result:
    """Say why whoever acts may or may not do ACTION on RESOURCE: workspace, a model folder, or a data set file."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.artifacts import artifact_at  # noqa: PLC0415 - same
    from stanch.workspace.verbs_access import explain_access, workspace_ref  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        ref = workspace_ref(workspace) if resource == "workspace" else artifact_at(Path(resource))
        found = explain_access(workspace, action, ref)
        name = workspace.people.name
    allowed = found.decision.allowed
    lines = [
        f"{'ALLOWED' if allowed else 'DENIED'}   {name} {'may' if allowed else 'may not'} {action} on {resource}",
        *(f"  permits  {answer.policy:<22} {'holds' if answer.holds else 'does not hold'}" for answer in found.permits),
        *(
            f"  forbids  {answer.policy:<22} {'blocks' if answer.holds else 'does not block'}"
            for answer in found.forbids
        ),
        *([f"  next     {found.next_step}"] if found.next_step else []),
    ]
    data: dict[str, JsonValue] = {
        "allowed": allowed,
        "action": action,
        "permits": [answer.policy for answer in found.permits if answer.holds],
        "forbids": [answer.policy for answer in found.forbids if answer.holds],
        "next": found.next_step,
    }
    return Result(data, "\n".join(lines), 0 if allowed else 3)
