"""Who can release a share of a copy's key: people who registered the key that shares are wrapped to.

The log is the register. An entry of the kind ``key.register`` is signed with its principal's own key, so no row that
somebody changes or adds makes another key an approver's.
"""

from stanch.access import decide
from stanch.crypto import VerifyKey
from stanch.errors import InvalidInput
from stanch.ledger import EntryQuery
from stanch.ledger.entry import read_event
from stanch.ledger.signature import check_act
from stanch.release import Approver
from stanch.terms import ArtifactRef
from stanch.workspace.opening import Workspace

REGISTER = "key.register"


def find_approver(workspace: Workspace, name: str, model: ArtifactRef) -> Approver:
    """Return a person as an approver of copies of a model, with the newest key that the person registered.

    Raises:
        InvalidInput: There is nobody of that name, or the person has no registered key.
        NotPermitted: The policies do not let the person approve.
        NoTrustedSignature: The registration is not the person's own.
    """
    people = workspace.people
    principal = people.find(name)
    involved = principal in people.involved(model, workspace.ledger.reader())
    context = people.context_of(principal, mfa=True, involved=involved, approvals=0)  # the sign-in shows the factor
    facts, policies = people.directory.facts_of(principal), people.authority.policies()
    decide(facts, "release:approve", people.resource_facts(model), context, policies).require()
    recipient, key = _find_registered(workspace, principal, name)
    return Approver.of(principal, recipient, key)


def _find_registered(workspace: Workspace, principal: str, name: str) -> tuple[str, VerifyKey]:
    reader = workspace.ledger.reader()
    done = EntryQuery(principal=principal, kind=REGISTER, phase="outcome", newest_first=True)
    for outcome in reader.query(done):
        ended = read_event(reader.entry(outcome.index))
        if ended.unmapped.stanch.result != "done":
            continue
        act = EntryQuery(act=ended.metadata.correlation_uid, phase="intent", limit=1)
        begun = read_event(reader.entry(next(reader.query(act)).index))
        ours = begun.unmapped.stanch
        key = workspace.people.approvals.key_of(principal, ours.credential.key_id if ours.credential else "")
        if key is None or ours.kind != REGISTER or begun.attestation.chain_uid != workspace.ledger.origin:
            break
        check_act(begun, key)
        return str((ours.payload or {})["recipient"]), key
    raise InvalidInput(
        f"{name[:64]}: has no registered key that a share could be wrapped to",
        next_step="the approver runs: stanch access key register RECIPIENT",
    )
