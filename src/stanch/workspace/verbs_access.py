"""Verbs about people: add, grant, revoke, explain."""

from collections.abc import Sequence

from stanch.access import Context, Explanation, Grant, default_policies, explain
from stanch.access.roles import check_role, check_separation
from stanch.crypto.passphrase import Passphrase
from stanch.terms import ArtifactRef, Digest, EntryRef
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace


def workspace_ref(workspace: Workspace) -> ArtifactRef:
    """Return what the log calls the workspace as a whole."""
    return ArtifactRef("workspace", "workspace", Digest.sha256(workspace.ledger.origin.encode()))


def add_person(workspace: Workspace, name: str, roles: Sequence[str], *, passphrase: Passphrase | None = None) -> str:
    """Register a person with a new local key, grant the roles, and return the pseudonymous id.

    Raises:
        InvalidInput: The name is taken or malformed, or there is no such role. Nobody is registered then.
        SeparationOfDuties: In profile ``team``, one person may not hold these roles together. Likewise.
    """
    people = workspace.people

    def run(_ref: EntryRef) -> Done[str]:
        for index, role in enumerate(roles):
            check_role(role)
            if people.team:
                check_separation(roles[:index], role)
        key = workspace.keys.add_person(name, passphrase=passphrase)
        principal = people.directory.register(key.public, display=name).id
        for role in roles:
            _grant(workspace, principal, role, workspace.config.access.grant_days)
        return Done(principal, {"principal": principal, "roles": list(roles)})

    return workspace.door.act(Request("access.add", "access:grant", workspace_ref(workspace)), run)


def grant_role(workspace: Workspace, name: str, role: str, days: int) -> Grant:
    """Give a role for some days."""

    def run(_ref: EntryRef) -> Done[Grant]:
        made = _grant(workspace, workspace.people.find(name), role, days)
        return Done(made, {"grant": made.id, "role": role})

    return workspace.door.act(Request("access.grant", "access:grant", workspace_ref(workspace)), run)


def revoke_grant(workspace: Workspace, grant_id: str) -> None:
    """End a grant now."""

    def run(_ref: EntryRef) -> Done[None]:
        workspace.people.directory.revoke(grant_id)
        return Done(None, {"grant": grant_id})

    workspace.door.act(Request("access.revoke", "access:grant", workspace_ref(workspace)), run)


def explain_access(workspace: Workspace, action: str, resource: ArtifactRef) -> Explanation:
    """Say why whoever acts may or may not do ``action``; asking about oneself needs no permission."""
    people = workspace.people
    involved = people.session.principal in people.involved(resource, workspace.ledger.reader())
    context = Context(mfa=people.session.mfa, team=people.team, involved=involved)
    return explain(people.facts(), action, people.resource_facts(resource), context, default_policies())


def _grant(workspace: Workspace, principal: str, role: str, days: int) -> Grant:
    people = workspace.people
    return people.directory.grant(principal, role, granted_by=people.session.principal, team=people.team, days=days)
