"""Principals: who there is, with which roles and keys; and what an administrator does about it."""

from typing import Annotated

from msgspec import Meta, Struct

from stanch.access import ROLES, ApiKeyOrder, Facts, Grant
from stanch.access.roll import facts_after
from stanch.access.strangers import read as read_strangers
from stanch.console.desk import Call
from stanch.console.keys import KeyRow, keys_of
from stanch.console.pages.budgets import Used, uses_of
from stanch.console.pages.log import Row, Word, rows_of
from stanch.console.pages.paging import Paged
from stanch.console.rate import Rate, read_rate
from stanch.console.route import Nothing
from stanch.errors import InvalidInput, NotFound
from stanch.ledger import EntryQuery
from stanch.workspace.verbs_access import (
    Newcomer,
    grant_role,
    issue_key,
    register_newcomer,
    resume_principal,
    revoke_grant,
    revoke_key,
    suspend_principal,
)

_HISTORY = 25
Days = Annotated[int, Meta(ge=1, le=366)]


class GrantRow(Struct, frozen=True):
    """A role that somebody holds."""

    id: str
    role: str
    scope: str
    expires_ms: int
    granted_by: str


class PrincipalRow(Struct, frozen=True):
    """A person or a service."""

    id: str
    name: str
    kind: str
    issuer: str
    suspended: bool
    clearance: int
    roles: tuple[str, ...]


class Stranger(Struct, frozen=True):
    """Somebody who signed in at an issuer and is not registered."""

    issuer: str
    subject: str
    attempts: int
    last_ms: int


class PrincipalList(Struct, frozen=True):
    """Principals, strangers, the roles that there are, and where the next part of the list begins."""

    principals: tuple[PrincipalRow, ...]
    strangers: tuple[Stranger, ...]
    roles: tuple[str, ...]
    issuers: tuple[str, ...]
    next: str
    may_grant: bool


class PrincipalView(Struct, frozen=True):
    """One principal: grants, keys, what was used of each budget, its requests beside what is usual, its latest acts."""

    principal: PrincipalRow
    grants: tuple[GrantRow, ...]
    keys: tuple[KeyRow, ...]
    used: tuple[Used, ...]
    rate: Rate | None
    history: tuple[Row, ...]
    roles: tuple[str, ...]
    models: tuple[str, ...]
    may_grant: bool
    may_suspend: bool


class ToRegister(Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody to register: a service, or a person for whom an issuer vouches."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    kind: Annotated[str, Meta(pattern=r"^(user|service)\Z")] = "user"
    issuer: Word = ""
    subject: Annotated[str, Meta(max_length=512)] = ""
    role: Annotated[str, Meta(max_length=40)] = ""
    clearance: Annotated[int, Meta(ge=0, le=100)] = 0


class Registered(Struct, frozen=True):
    """The pseudonymous id of who was registered."""

    principal: str


class ToGrant(Struct, frozen=True, forbid_unknown_fields=True):
    """A role for some days."""

    role: Annotated[str, Meta(max_length=40)]
    days: Annotated[int, Meta(ge=1, le=180)] = 30


class Granted(Struct, frozen=True):
    """The id of the new grant."""

    grant: str


class ToIssue(Struct, frozen=True, forbid_unknown_fields=True):
    """A key for a service: one model (or ``workspace``), one network, one action."""

    model: Annotated[str, Meta(max_length=80)]
    network: Annotated[str, Meta(max_length=64)]
    action: Annotated[str, Meta(max_length=40)] = "model:infer"
    days: Days = 90


class Issued(Struct, frozen=True):
    """A new key. Its secret is shown now and never again."""

    key: str
    secret: str
    principal: str
    name: str
    expires_ms: int


def list_principals(call: Call, asked: Paged) -> PrincipalList:
    """Show everybody who is registered, and who tried to sign in without being so."""
    with call.workspace.tables.read() as connection:
        found = facts_after(connection, call.now_ms, after=asked.after, limit=asked.limit + 1)
        strangers = [Stranger(one.issuer, one.subject, one.attempts, one.last_ms) for one in read_strangers(connection)]
    shown = tuple(_row(facts) for facts in found[: asked.limit])
    after = shown[-1].id if len(found) > asked.limit else ""
    issuers = tuple(section.issuer for section in call.workspace.config.access.issuers)
    return PrincipalList(shown, tuple(strangers), tuple(sorted(ROLES)), issuers, after, call.may("access:grant"))


def show_principal(call: Call, _asked: Nothing) -> PrincipalView:
    """Show one principal.

    Raises:
        NotFound: Nobody of that id is registered.
    """
    people, identity = call.workspace.people, call.path["id"]
    facts = people.directory.facts_of(identity)
    names = call.names(grant.granted_by for grant in facts.grants)
    history: tuple[Row, ...] = ()
    rate: Rate | None = None
    if call.may("log:read"):
        rate = read_rate(call, identity)
        history = rows_of(call, EntryQuery(principal=identity, newest_first=True, limit=_HISTORY))
    models = tuple(section.digest for section in call.workspace.config.gateway.models)
    may = call.may("access:grant")
    return PrincipalView(
        _row(facts), tuple(_grant(grant, names) for grant in facts.grants), keys_of(call, identity),
        uses_of(call, identity), rate, history, tuple(sorted(ROLES)), models, may,
        may and identity != call.session.principal,
    )  # fmt: skip


def register(call: Call, asked: ToRegister) -> Registered:
    """Register a service, or a person of an issuer.

    Raises:
        InvalidInput: A person without an issuer and a subject, or no such role.
        Conflict: The subject is registered already.
        NotPermitted: The role is missing.
    """
    if asked.kind == "user" and not (asked.issuer and asked.subject):
        raise InvalidInput("a person needs an issuer and a subject", next_step="or: stanch access add NAME")
    newcomer = Newcomer(
        name=asked.name, kind="service" if asked.kind == "service" else "user", issuer=asked.issuer,
        subject=asked.subject, roles=(asked.role,) if asked.role else (), clearance=asked.clearance,
    )  # fmt: skip
    return Registered(register_newcomer(call.workspace, newcomer))


def grant(call: Call, asked: ToGrant) -> Granted:
    """Give a role in the workspace for some days.

    Raises:
        NotPermitted: The role is missing, or duties must be separated.
    """
    return Granted(grant_role(call.workspace, call.path["id"], asked.role, asked.days).id)


def revoke(call: Call, _asked: Nothing) -> Nothing:
    """End a grant now.

    Raises:
        NotFound: There is none, or it is another principal's.
    """
    facts = call.workspace.people.directory.facts_of(call.path["id"])
    if call.path["grant"] not in {one.id for one in facts.grants}:
        raise NotFound("there is no such grant")
    revoke_grant(call.workspace, call.path["grant"])
    return Nothing()


def suspend(call: Call, _asked: Nothing) -> Nothing:
    """Let the principal do nothing from now on.

    Raises:
        InvalidInput: There is no such principal, or it is whoever asks.
    """
    suspend_principal(call.workspace, call.path["id"])
    return Nothing()


def resume(call: Call, _asked: Nothing) -> Nothing:
    """Lift its suspension.

    Raises:
        InvalidInput: There is no such principal, or it is not suspended.
    """
    resume_principal(call.workspace, call.path["id"])
    return Nothing()


def issue(call: Call, asked: ToIssue) -> Issued:
    """Make an API key for a service; its secret is shown once.

    Raises:
        InvalidInput: The order is malformed, or the principal is no service.
    """
    order = ApiKeyOrder(
        principal=call.path["id"], models=(asked.model,), networks=(asked.network,), actions=(asked.action,),
        days=asked.days,
    )  # fmt: skip
    record, secret = issue_key(call.workspace, order)
    name = call.names([record.principal]).get(record.principal, record.principal)
    return Issued(record.id, secret.text, record.principal, name, record.expires_ms)


def end_key(call: Call, _asked: Nothing) -> Nothing:
    """Refuse an API key from now on.

    Raises:
        NotFound: There is none, or it is another principal's.
    """
    keys = {record.id for record in call.workspace.people.api_keys.keys(call.path["id"])}
    if call.path["key"] not in keys:
        raise NotFound("there is no such key")
    revoke_key(call.workspace, call.path["key"])
    return Nothing()


def _row(facts: Facts) -> PrincipalRow:
    one = facts.principal
    return PrincipalRow(
        one.id, one.display or "(erased)", one.kind, one.issuer or "", one.suspended, one.clearance,
        tuple(sorted({grant.role for grant in facts.grants})),
    )  # fmt: skip


def _grant(grant: Grant, names: dict[str, str]) -> GrantRow:
    by = names.get(grant.granted_by, grant.granted_by)
    return GrantRow(grant.id, grant.role, grant.scope, grant.expires_ms or 0, by)
