"""``stanch access``: who may do what."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from stanch.access.roles import ROLES
from stanch.cli.access_key import key
from stanch.cli.access_policy import approve, policy
from stanch.cli.frame import Group, Result, current
from stanch.cli.named import digest_of, resource_of
from stanch.errors import InvalidInput
from stanch.terms import Digest, JsonValue

if TYPE_CHECKING:
    from stanch.access import Explanation, Glass, Grant
    from stanch.crypto import VerifyKey


@click.group(cls=Group)
def access() -> None:
    """Who may do what."""


access.add_command(key)
access.add_command(policy)
access.add_command(approve)


@access.command("who")
@click.option("--unused", metavar="DAYSd", help="Only grants that permitted nothing for so long, for example 30d.")
def who(unused: str | None) -> Result:
    """List the principals and their roles."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_access import unused_grants  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        directory = workspace.people.directory
        people = [directory.facts_of(principal.id) for principal in directory.principals()]
        chosen = {grant.id for facts in people for grant in facts.grants}
        if unused is not None:
            chosen = {grant.id for grant in unused_grants(workspace, _days(unused))}
    shown = [(facts.principal, [grant for grant in facts.grants if grant.id in chosen]) for facts in people]
    shown = [(principal, grants) for principal, grants in shown if grants or unused is None]
    lines = [
        f"{principal.display or '(erased)':<16} {principal.id}{'  suspended' if principal.suspended else ''}\n"
        + "\n".join(f"    {grant.role:<18} {_until(grant.expires_ms)}  {grant.id}{_on(grant)}" for grant in grants)
        for principal, grants in shown
    ]
    data: list[JsonValue] = [
        {
            "name": principal.display,
            "principal": principal.id,
            "kind": principal.kind,
            "suspended": principal.suspended,
            "roles": [grant.role for grant in grants],
            "grants": [_grant_data(grant) for grant in grants],
        }
        for principal, grants in shown
    ]
    return Result({"people": data}, "\n".join(lines) or "every grant was used")


def _days(text: str) -> int:
    number = text.removesuffix("d")
    if not number.isdecimal() or not 1 <= int(number) <= 3650:
        raise InvalidInput(f"--unused: expected days such as 30d, found {text[:20]!r}")
    return int(number)


def _until(expires_ms: int | None) -> str:
    return "for good" if expires_ms is None else f"until {_date(expires_ms)}"


def _date(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"


def _on(grant: "Grant") -> str:
    return "" if grant.scope == "workspace" else f"  on {grant.scope}"


def _grant_data(grant: "Grant") -> JsonValue:
    return {
        "grant": grant.id, "principal": grant.principal, "role": grant.role, "scope": grant.scope,
        "expires_ms": grant.expires_ms,
    }  # fmt: skip


@access.command("add")
@click.argument("name")
@click.option(
    "--role", "roles", multiple=True, help=f"A role to grant; may be repeated. One of: {', '.join(sorted(ROLES))}."
)
@click.option("--service", "kind", flag_value="service", help="A service without a local key: it acts with API keys.")
@click.option("--issuer", default="", help="Who vouches for it: a URL of [[access.issuers]], or mtls:<hex>.")
@click.option("--subject", default="", help="Its name at that issuer.")
@click.option(
    "--signs", "kind", flag_value="signer", help="With --issuer: make a local key as well; whoever approves needs one."
)
@click.option(
    "--key", "key_file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The public half of the key that the person made: stanch key new --kind person.",
)  # fmt: skip
@click.option("--clearance", type=click.IntRange(0, 100), default=0, help="Highest sensitivity it may use.")
@click.option("--new-passphrase-file", type=click.Path(), help="Lock a key that is made here with this passphrase.")
def add(
    name: str,
    roles: tuple[str, ...],
    *,
    kind: str | None,
    key_file: Path | None,
    clearance: int,
    new_passphrase_file: str | None,
    **vouched: str,
) -> Result:
    """Register a person with a local key, a service, or somebody for whom an issuer vouches; grant roles.

    Without --key the person's key is made here, by you: such a person approves copies only where the key is named.
    """
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto.passphrase import Passphrase  # noqa: PLC0415 - same
    from stanch.workspace.verbs_access import Newcomer, add_person, register_newcomer  # noqa: PLC0415 - same

    issuer, subject = vouched["issuer"], vouched["subject"]
    if bool(issuer) != bool(subject):
        raise InvalidInput("access add: --issuer and --subject belong together")
    if kind == "signer" and not issuer:
        raise InvalidInput("access add: --signs is for a person with --issuer", next_step="leave it out")
    if key_file is not None and (kind is not None or new_passphrase_file):
        raise InvalidInput(
            "access add: --key is of a person who has made a key already",
            next_step="leave out --service, --signs and --new-passphrase-file",
        )
    key = _public_of(key_file)
    passphrase = Passphrase.read(Path(new_passphrase_file)) if new_passphrase_file else None
    with open_workspace(current()) as workspace:
        if kind == "service" or (issuer and kind is None and key is None):
            newcomer = Newcomer(
                name=name, kind="service" if kind == "service" else "user", issuer=issuer, subject=subject, roles=roles,
                clearance=clearance,
            )  # fmt: skip
            principal = register_newcomer(workspace, newcomer)
        else:
            principal = add_person(
                workspace, name, roles, key=key, passphrase=passphrase, clearance=clearance,
                vouched=(issuer, subject) if issuer else None,
            )  # fmt: skip
    return Result({"name": name, "principal": principal, "roles": list(roles)}, f"added  {name} ({principal})")


def _public_of(path: Path | None) -> "VerifyKey | None":
    from stanch.crypto import VerifyKey  # noqa: PLC0415 - keeps `stanch --help` light

    return VerifyKey.from_pem(path.read_bytes(), what=str(path)) if path is not None else None


@access.command("grant")
@click.argument("name")
@click.argument("role")
@click.option("--days", type=click.IntRange(1, 180), help="How long; otherwise [access] grant_days.")
@click.option("--on", "target", help="One resource only: a path, or model:NAME@sha256:HEX. Otherwise the workspace.")
def grant(name: str, role: str, days: int | None, target: str | None) -> Result:
    """Give NAME a ROLE for some days; ``stanch access add --help`` names the roles."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_access import grant_role  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        on = resource_of(workspace, target) if target is not None else None
        chosen = days if days is not None else workspace.config.access.grant_days
        made = grant_role(workspace, name, role, chosen, on=on)
    text = f"granted  {name} is {role} {_until(made.expires_ms)} ({made.id}){_on(made)}"
    data: dict[str, JsonValue] = {"name": name, "role": role, "grant": made.id, "scope": made.scope}
    return Result(data, text)


@access.command("revoke")
@click.argument("grant_id", metavar="GRANT")
def revoke(grant_id: str) -> Result:
    """End a grant now."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_access import revoke_grant  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        revoke_grant(workspace, grant_id)
    return Result({"grant": grant_id}, f"revoked  {grant_id}")


@access.command("suspend")
@click.argument("name", metavar="WHO")
def suspend(name: str) -> Result:
    """Let WHO do nothing from now on: sessions end, keys and tokens are refused until it is resumed."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_access import suspend_principal  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        principal = suspend_principal(workspace, name)
    return Result({"principal": principal, "suspended": True}, f"suspended  {name} ({principal})")


@access.command("resume")
@click.argument("name", metavar="WHO")
def resume(name: str) -> Result:
    """Lift the suspension of WHO, who then signs in anew."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_access import resume_principal  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        principal = resume_principal(workspace, name)
    return Result({"principal": principal, "suspended": False}, f"resumed    {name} ({principal})")


@access.command("rekey")
@click.argument("name", metavar="WHO")
@click.option("--new-passphrase-file", type=click.Path(), help="Lock the new key with this passphrase.")
@click.option(
    "--key", "key_file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The public half of the key that WHO made; otherwise one is made here.",
)  # fmt: skip
def rekey(name: str, new_passphrase_file: str | None, key_file: Path | None) -> Result:
    """Give WHO a new local key: the earlier one, lost or seen by others, is refused from now on."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto.passphrase import Passphrase  # noqa: PLC0415 - same
    from stanch.workspace.verbs_person import replace_local_key, take_local_key  # noqa: PLC0415 - same

    if key_file is not None and new_passphrase_file is not None:
        raise InvalidInput(
            "access rekey: --new-passphrase-file is of a key that is made here", next_step="leave it out"
        )
    key = _public_of(key_file)
    passphrase = Passphrase.read(Path(new_passphrase_file)) if new_passphrase_file else None
    with open_workspace(current()) as workspace:
        if key is not None:
            key_id = take_local_key(workspace, name, key)
        else:
            key_id = replace_local_key(workspace, name, passphrase=passphrase)
    return Result({"name": name, "key_id": key_id}, f"rekeyed  {name} signs in with {key_id}")


@access.command("clear")
@click.argument("name", metavar="WHO")
@click.argument("clearance", type=click.IntRange(0, 100))
def clear(name: str, clearance: int) -> Result:
    """Let WHO use models up to the sensitivity CLEARANCE."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_person import clear_principal  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        principal = clear_principal(workspace, name, clearance)
    return Result({"principal": principal, "clearance": clearance}, f"cleared  {name} up to {clearance}")


@access.command("classify")
@click.argument("model")
@click.argument("sensitivity", type=click.IntRange(0, 100))
def classify(model: str, sensitivity: int) -> Result:
    """Ask a clearance of at least SENSITIVITY of whoever uses MODEL: sha256:HEX, or its folder."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_artifact import classify_model  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        digest = digest_of(model)
        classify_model(workspace, digest, sensitivity)
    return Result({"model": str(digest), "sensitivity": sensitivity}, f"classified  {digest} at {sensitivity}")


@access.command("restore")
@click.argument("model")
def restore(model: str) -> Result:
    """Lift the quarantine of MODEL: sha256:HEX, or its folder."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_artifact import restore_model  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        digest = digest_of(model)
        restore_model(workspace, digest)
    return Result({"model": str(digest)}, f"restored  {digest}")


@access.command("why")
@click.argument("name", metavar="WHO")
@click.argument("action")
@click.argument("resource", default="workspace")
@click.option("--request", help="Count the approvals of this request, sha256:HEX.")
def why(name: str, action: str, resource: str, request: str | None) -> Result:
    """Say why WHO may or may not do ACTION on RESOURCE: workspace, a path, or model:NAME@sha256:HEX."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_access import explain_access  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        ref = resource_of(workspace, resource)
        digest = Digest.parse(request) if request is not None else None
        found = explain_access(workspace, action, ref, who=name, request=digest)
        names = {
            principal.id: principal.display or principal.id for principal in workspace.people.directory.principals()
        }
    allowed = found.decision.allowed
    title = f"{names[found.facts.principal.id]} {'may' if allowed else 'may not'} {action} on {ref.name}"
    lines = [f"{'ALLOWED' if allowed else 'DENIED':<8} {title}", *_answers(found, names)]
    data: dict[str, JsonValue] = {
        "allowed": allowed,
        "principal": found.facts.principal.id,
        "action": action,
        "permits": [answer.policy for answer in found.permits if answer.holds],
        "forbids": [answer.policy for answer in found.forbids if answer.holds],
        "next": found.next_step,
    }
    return Result(data, "\n".join(lines), 0 if allowed else 3)


def _answers(found: "Explanation", names: dict[str, str]) -> list[str]:
    lines = []
    for answer in found.permits:
        given = ""
        if answer.grant is not None:
            given = f"granted by {names.get(answer.grant.granted_by, answer.grant.granted_by)}, "
            given += f"{_until(answer.grant.expires_ms)}{_on(answer.grant)}"
        lines.append(f"  permits  {answer.policy:<22} {'holds' if answer.holds else 'does not hold':<15} {given}")
    for answer in found.forbids:
        said = "cannot be asked" if answer.failed else "blocks" if answer.holds else "does not block"
        lines.append(f"  forbids  {answer.policy:<22} {said:<15} {answer.fact}")
    if found.next_step:
        lines.append(f"  next     {found.next_step}")
    return [line.rstrip() for line in lines]


@access.command("break-glass")
@click.option("--reason", "source", type=click.File("r"), required=True, help="A file with the reason; - for stdin.")
@click.option("--for", "duration", default="15m", help="How long, at most 60m.")
def break_glass(source: TextIO, duration: str) -> Result:
    """Open emergency rights for some minutes: recorded, alarmed, and reviewed by somebody else within 72 hours."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_glass import break_glass as open_rights  # noqa: PLC0415 - same

    number = duration.removesuffix("m")
    if not number.isdecimal():
        raise InvalidInput(f"--for: expected minutes such as 15m, found {duration[:20]!r}")
    reason = source.read(10_000)
    with open_workspace(current()) as workspace:
        opened = open_rights(workspace, reason, int(number))
    text = (
        f"open     {opened.id} until {_moment(opened.until_ms)}\n"
        "rights   data:read, model:quarantine, release:revoke, case:read; every act carries this id\n"
        f"review   by another person before {_moment(opened.review_due_ms)}: stanch access review {opened.id}"
    )
    return Result(_glass_data(opened), text)


@access.command("review")
@click.argument("glass", required=False)
def review(glass: str | None) -> Result:
    """List what is due for review, or note that you reviewed the emergency rights GLASS."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_glass import find_due, review_glass  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        if glass is not None:
            return Result(_glass_data(review_glass(workspace, glass)), f"reviewed  {glass}")
        due = find_due(workspace)
    lines = [
        *(f"overdue   {one.id} of {one.principal}, since {_moment(one.review_due_ms)}" for one in due.overdue),
        *(f"review    {one.id} of {one.principal}, before {_moment(one.review_due_ms)}" for one in due.unreviewed),
        *(f"unused    {one.id} {one.role} of {one.principal}{_on(one)}" for one in due.unused),
        *(f"ending    {one.id} {one.role} of {one.principal} {_until(one.expires_ms)}" for one in due.ending),
        *(f"stranger  {one.subject} of {one.issuer}, {one.attempts} attempts" for one in due.strangers),
    ]
    data: dict[str, JsonValue] = {
        "overdue": [_glass_data(one) for one in due.overdue],
        "unreviewed": [_glass_data(one) for one in due.unreviewed],
        "unused": [_grant_data(one) for one in due.unused],
        "ending": [_grant_data(one) for one in due.ending],
        "strangers": [
            {"issuer": one.issuer, "subject": one.subject, "attempts": one.attempts} for one in due.strangers
        ],
    }
    return Result(data, "\n".join(lines) or "nothing is due", 1 if due.overdue else 0)


def _moment(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%MZ}"


def _glass_data(glass: "Glass") -> dict[str, JsonValue]:
    return {
        "glass": glass.id, "principal": glass.principal, "until_ms": glass.until_ms,
        "review_due_ms": glass.review_due_ms, "reviewed_by": glass.reviewed_by,
    }  # fmt: skip
