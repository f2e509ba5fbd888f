"""Who can release a share of a copy's key: people who registered the key that shares are wrapped to.

The log is the register. An entry of the kind ``key.register`` is signed with its principal's own key, and entries that
are signed in turn say which key that is, back to whoever made the workspace: no row makes another key an approver's.
Whoever gives somebody a new key has had it in hand. Such a person approves only where whoever makes the copy names the
key as well, as the person read it out: ``NAME=KEY-ID``.
"""

from collections.abc import Sequence

from stanch.access import decide
from stanch.crypto import VerifyKey
from stanch.errors import InvalidInput
from stanch.release import Approver
from stanch.terms import ArtifactRef
from stanch.workspace.opening import Workspace
from stanch.workspace.rights import read_rights
from stanch.workspace.rights_log import RightsLog

APPROVING = "release:approve"
"""The Cedar action that an approver must be permitted when a copy is made, approved and delivered."""


def find_approvers(workspace: Workspace, names: Sequence[str], model: ArtifactRef) -> list[Approver]:
    """Return people as approvers of copies of a model, each with the newest key that the person registered.

    Args:
        workspace: The workspace.
        names: The name or id of each; ``NAME=KEY-ID`` takes only what was registered with exactly this local key.
        model: What copies are of.

    Raises:
        InvalidInput: There is nobody of a name, or the person has no registered key, or the newest registration is not
            signed with a key that the log says is the person's, or with another one than was named, or somebody else
            gave the person that key and none was named.
        NotPermitted: The policies do not let a person approve.
    """
    log = read_rights(workspace.tables, workspace.ledger.reader())
    return [_find(workspace, log, *name.partition("=")[::2], model) for name in names]


def _find(workspace: Workspace, log: RightsLog, name: str, named: str, model: ArtifactRef) -> Approver:
    people = workspace.people
    principal = people.find(name)
    involved = principal in people.involved(model, workspace.ledger.reader())
    context = people.context_of(principal, mfa=True, involved=involved, approvals=0)  # the sign-in shows the factor
    facts, policies = people.directory.facts_of(principal), people.authority.policies()
    decide(facts, APPROVING, people.resource_facts(model), context, policies).require()
    recipient, key = _registered(workspace, log, principal, name)
    _require_own(log, key.key_id, name, named)
    return Approver.of(principal, recipient, key)


def _registered(workspace: Workspace, log: RightsLog, principal: str, name: str) -> tuple[str, VerifyKey]:
    found, why = log.registered.get(principal), ""
    if found is not None:
        key = workspace.people.approvals.key_of(principal, found.key_id)
        if not found.fault and key is not None:
            return found.recipient, key
        why = f"entry {found.index} registered one, but {found.fault or 'the key that signed it does not count now'}"
    raise InvalidInput(
        f"{name[:64]}: has no registered key that a share could be wrapped to",
        why=why,
        next_step="the approver runs: stanch access key register RECIPIENT",
    )


def _require_own(log: RightsLog, key_id: str, name: str, named: str) -> None:
    """Refuse a key that is another one than was named, or that somebody else may have while none was named."""
    if named and named != key_id:
        raise InvalidInput(
            f"{name[:64]}: expected a registration with the local key {named[:64]}, found one with {key_id}",
            next_step="ask the approver which local key it was: stanch access key register shows it",
        )
    if not named and (doubt := log.doubt(key_id)):
        raise InvalidInput(
            f"{name[:64]}: somebody else may have the local key of this approver",
            why=doubt,
            next_step=f"ask the approver, not whoever gave the key, for its id; then: --approver {name[:64]}=KEY-ID",
        )
