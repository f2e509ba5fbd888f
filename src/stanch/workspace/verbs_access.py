"""Verbs about people and services: add, register, grant, revoke, suspend, resume, explain; and keys of services."""

from collections.abc import Sequence
from dataclasses import dataclass

from stanch.access import ApiKeyOrder, ApiKeyRecord, Explanation, Grant, ResourceFacts, explain
from stanch.access.apikey import Secret
from stanch.access.facts import WORKSPACE_SCOPE
from stanch.access.principal import PrincipalKind
from stanch.access.roles import check_role, check_separation
from stanch.crypto import VerifyKey
from stanch.crypto.passphrase import Passphrase
from stanch.errors import InvalidInput
from stanch.ledger import EntryQuery, decode_entry
from stanch.terms import ArtifactRef, Digest, EntryRef, JsonValue
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.people import People

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """Somebody for whom an issuer vouches, or a service of this workspace that will act with API keys.

    Attributes:
        name: What it is shown as.
        kind: ``user`` or ``service``.
        issuer: Who vouches; empty for a service of this workspace.
        subject: Its name at the issuer; empty likewise.
        roles: Roles to grant.
        clearance: Highest sensitivity of a model that it may use.
    """

    name: str
    kind: PrincipalKind
    issuer: str = ""
    subject: str = ""
    roles: tuple[str, ...] = ()
    clearance: int = 0


def workspace_ref(workspace: Workspace) -> ArtifactRef:
    """Return what the log calls the workspace as a whole."""
    return ArtifactRef("workspace", "workspace", Digest.sha256(workspace.ledger.origin.encode()))


def add_person(
    workspace: Workspace,
    name: str,
    roles: Sequence[str],
    *,
    key: VerifyKey | None = None,
    passphrase: Passphrase | None = None,
    clearance: int = 0,
    vouched: tuple[str, str] | None = None,
) -> str:
    """Register a person with a local key, grant the roles, and return the pseudonymous id.

    The intent names a key that the person brings. One that is made here was in the hand of whoever acts, which the log
    shows so: such a person approves only where the key is named.

    Args:
        workspace: The workspace.
        name: What the person is called here.
        roles: Roles to grant.
        key: The public half of the key that the person has made; None makes one here, in the keyring.
        passphrase: Locks a key that is made here.
        clearance: Highest sensitivity of a model that the person may use.
        vouched: Issuer and subject, if the person also signs in there: both ways lead to one principal, who signs
            approvals with the key and hands them in at the console.

    Raises:
        InvalidInput: The name is taken or malformed, there is no such role, or the key is not Ed25519. Nobody is
            registered then.
        SeparationOfDuties: In profile ``team``, one person may not hold these roles together. Likewise.
        Conflict: The subject or the key is registered already.
    """
    people, days = workspace.people, workspace.config.access.grant_days

    def run(_ref: EntryRef) -> Done[str]:
        _check_roles(workspace, roles)
        if vouched is not None:
            people.directory.require_unknown(*vouched)  # before a key file is written that nobody would own
        local = key or workspace.keys.add_person(name, passphrase=passphrase).public

        def register(on: People) -> tuple[str, list[Grant]]:
            made = on.directory.register(local, display=name, clearance=clearance, name=vouched).id
            return made, _grant_all(on, made, roles, days)

        try:
            (principal, grants), settle = people.rehearse(register)
        except BaseException:
            undo()
            raise
        payload = _registered(principal, "user", clearance, grants) | {"key": local.key_id}
        return Done(principal, payload, undo=undo, stays=True, about=principal, settle=settle)

    def undo() -> None:
        if key is None:
            workspace.keys.drop_person(name)

    asked: dict[str, JsonValue] = {"kind": "user", "clearance": clearance, "roles": [*roles], "days": days}
    if key is not None:
        asked["key"] = key.key_id
    return workspace.door.act(Request("access.add", "access:grant", workspace_ref(workspace), asked), run)


def register_newcomer(workspace: Workspace, newcomer: Newcomer) -> str:
    """Register somebody who has no local key here, grant the roles, and return the pseudonymous id.

    Raises:
        InvalidInput: There is no such role, or issuer and subject are malformed. Nobody is registered then.
        SeparationOfDuties: In profile ``team``, one principal may not hold these roles together. Likewise.
        Conflict: The subject is registered already.
    """
    issuer = newcomer.issuer or f"service:{workspace.ledger.origin}"
    people, days = workspace.people, workspace.config.access.grant_days

    def register(on: People) -> tuple[str, list[Grant]]:
        made = on.directory.register_subject(
            issuer, newcomer.subject or newcomer.name, display=newcomer.name, kind=newcomer.kind,
            clearance=newcomer.clearance,
        ).id  # fmt: skip
        return made, _grant_all(on, made, newcomer.roles, days)

    def run(_ref: EntryRef) -> Done[str]:
        _check_roles(workspace, newcomer.roles)
        (principal, grants), settle = people.rehearse(register)
        payload = _registered(principal, newcomer.kind, newcomer.clearance, grants)
        return Done(principal, payload, about=principal, settle=settle)

    asked: dict[str, JsonValue] = {
        "kind": newcomer.kind, "clearance": newcomer.clearance, "roles": [*newcomer.roles], "days": days,
    }  # fmt: skip
    return workspace.door.act(Request("access.register", "access:grant", workspace_ref(workspace), asked), run)


def grant_role(workspace: Workspace, name: str, role: str, days: int, *, on: ArtifactRef | None = None) -> Grant:
    """Give a role for some days, in the whole workspace or on one artifact."""
    scope = WORKSPACE_SCOPE if on is None else ResourceFacts.of(on).scope
    people, principal = workspace.people, workspace.people.find(name)

    def run(_ref: EntryRef) -> Done[Grant]:
        made, settle = people.rehearse(lambda on: _grant(on, principal, role, days, scope=scope))
        return Done(made, {**_recorded(made), "to": principal}, about=principal, settle=settle)

    asked: dict[str, JsonValue] = {"to": principal, "role": role, "scope": scope, "days": days}
    return workspace.door.act(Request("access.grant", "access:grant", workspace_ref(workspace), asked), run)


def revoke_grant(workspace: Workspace, grant_id: str) -> None:
    """End a grant now."""

    def run(_ref: EntryRef) -> Done[None]:
        principal, settle = workspace.people.rehearse(lambda on: on.directory.revoke(grant_id))
        return Done(None, asked, about=principal, settle=settle)

    asked: dict[str, JsonValue] = {"grant": grant_id}
    workspace.door.act(Request("access.revoke", "access:grant", workspace_ref(workspace), asked), run)


def suspend_principal(workspace: Workspace, name: str) -> str:
    """Let a person or service do nothing from now on, and return its pseudonymous id.

    Its browser sessions end; its API keys, tokens and certificates are refused until it is resumed. Nobody suspends
    themselves: so there is always somebody left who can resume.

    Raises:
        InvalidInput: There is no such principal, or it is whoever acts.
    """
    people, principal = workspace.people, workspace.people.find(name)

    def run(_ref: EntryRef) -> Done[str]:
        if principal == people.session.principal:
            raise InvalidInput("nobody suspends themselves", next_step="ask another platform administrator")
        _, settle = people.rehearse(lambda on: on.directory.suspend(principal))
        return Done(principal, asked, about=principal, settle=settle)

    asked: dict[str, JsonValue] = {"principal": principal}
    return workspace.door.act(Request("access.suspend", "access:grant", workspace_ref(workspace), asked), run)


def resume_principal(workspace: Workspace, name: str) -> str:
    """Lift a suspension, and return the pseudonymous id.

    Raises:
        InvalidInput: There is no such principal, or it is not suspended.
    """
    people, principal = workspace.people, workspace.people.find(name)

    def run(_ref: EntryRef) -> Done[str]:
        if not people.directory.facts_of(principal).principal.suspended:
            raise InvalidInput(f"{name[:64]} is not suspended", next_step="stanch access who")
        _, settle = people.rehearse(lambda on: on.directory.suspend(principal, suspended=False))
        return Done(principal, asked, about=principal, settle=settle)

    asked: dict[str, JsonValue] = {"principal": principal}
    return workspace.door.act(Request("access.resume", "access:grant", workspace_ref(workspace), asked), run)


def issue_key(workspace: Workspace, order: ApiKeyOrder) -> tuple[ApiKeyRecord, Secret]:
    """Make an API key for a service; its secret is returned once."""
    people = workspace.people

    def run(_ref: EntryRef) -> Done[tuple[ApiKeyRecord, Secret]]:
        made, settle = people.rehearse(lambda on: on.api_keys.issue_key(order, issued_by=people.session.principal))
        return Done(made, asked | {"key": made[0].id, "expires_ms": made[0].expires_ms}, settle=settle)

    asked: dict[str, JsonValue] = {
        "to": order.principal, "models": [*order.models], "networks": [*order.networks], "actions": [*order.actions],
        "days": order.days,
    }  # fmt: skip
    return workspace.door.act(Request("key.issue", "access:grant", workspace_ref(workspace), asked), run)


def revoke_key(workspace: Workspace, key_id: str) -> EntryRef:
    """Refuse an API key from now on; return the act's intent."""

    def run(ref: EntryRef) -> Done[EntryRef]:
        _, settle = workspace.people.rehearse(lambda on: on.api_keys.revoke_key(key_id))
        return Done(ref, asked, settle=settle)

    asked: dict[str, JsonValue] = {"key": key_id}
    return workspace.door.act(Request("key.revoke", "access:grant", workspace_ref(workspace), asked), run)


def explain_access(
    workspace: Workspace, action: str, resource: ArtifactRef, *, who: str | None = None, request: Digest | None = None
) -> Explanation:
    """Say why somebody may or may not do ``action``.

    Asking about oneself needs no permission; asking about another is an act that needs ``policy:read``. Of another it
    is not known with what they would sign in: they are taken to show a second factor.

    Args:
        workspace: The workspace.
        action: The Cedar action.
        resource: On what.
        who: Name or id; None for whoever acts.
        request: Count the approvals of this request.
    """
    people = workspace.people
    principal = people.session.principal if who is None else people.find(who)

    def answer() -> Explanation:
        reader = workspace.ledger.reader()
        facts = people.directory.facts_of(principal)
        involved = people.involved(resource, reader)
        approvals = 0
        if request is not None:
            approvals = people.approvals.count_approvals(request, requester=principal, involved=involved)
        context = people.context_of(
            principal, involved=principal in involved, approvals=approvals,
            mfa=people.session.mfa if principal == people.session.principal else True,
        )  # fmt: skip
        return explain(facts, action, people.resource_facts(resource), context, people.authority.policies())

    if principal == people.session.principal:
        return answer()
    asked = Request("policy.read", "policy:read", workspace_ref(workspace), {"about": principal})
    return workspace.door.act(asked, lambda _ref: Done(answer()))


def unused_grants(workspace: Workspace, days: int) -> tuple[Grant, ...]:
    """Return the grants in force that permitted no act in the last days; the log knows.

    A grant counts as used by an act that its role permitted, whichever grant of that role it was.
    """
    people, since_ms = workspace.people, int(workspace.now().timestamp() * 1000) - days * DAY_MS
    reader = workspace.ledger.reader()
    found = []
    for principal in people.directory.principals():
        used: set[str] = set()
        for ref in reader.query(EntryQuery(principal=principal.id, phase="intent", since_ms=since_ms)):
            used |= set(decode_entry(reader.entry(ref.index))["unmapped"]["stanch"].get("decision", ()))
        for grant in people.directory.facts_of(principal.id).grants:
            reasons = {f"role-{grant.role}"} if grant.scope == WORKSPACE_SCOPE else {f"scoped-{grant.role}"}
            if grant.granted_ms <= since_ms and not reasons & used:
                found.append(grant)
    return tuple(found)


def _check_roles(workspace: Workspace, roles: Sequence[str]) -> None:
    for index, role in enumerate(roles):
        check_role(role)
        if workspace.people.team:
            check_separation(roles[:index], role)


def _grant(people: People, principal: str, role: str, days: int, *, scope: str = WORKSPACE_SCOPE) -> Grant:
    return people.directory.grant(
        principal, role, granted_by=people.session.principal, team=people.team, scope=scope, days=days
    )


def _grant_all(people: People, principal: str, roles: Sequence[str], days: int) -> list[Grant]:
    return [_grant(people, principal, role, days) for role in roles]


def _registered(principal: str, kind: str, clearance: int, grants: Sequence[Grant]) -> dict[str, JsonValue]:
    """Return what the log says of a newcomer."""
    given: list[JsonValue] = [_recorded(grant) for grant in grants]
    return {"principal": principal, "kind": kind, "clearance": clearance, "grants": given}


def _recorded(grant: Grant) -> dict[str, JsonValue]:
    """Return what the log says of a grant; ``doctor`` holds the database against it."""
    return {"grant": grant.id, "role": grant.role, "scope": grant.scope, "expires_ms": grant.expires_ms}
