"""Verbs of approvers: register the key that shares are wrapped to, and release a share of a copy's key."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from stanch.access import Approval, ApprovalStatement, sign_approval
from stanch.crypto.recipient import Recipient, parse_public
from stanch.crypto.stanza import KeyProvider
from stanch.errors import InvalidInput, NotPermitted, PolicyViolation
from stanch.release import QuorumFiles, QuorumRecord, approve, check_approval, read_record
from stanch.sign import TrustedKeys
from stanch.terms import Digest, EntryRef, JsonValue
from stanch.workspace.act import Done, Request
from stanch.workspace.approvers import APPROVING
from stanch.workspace.copies import KeptCopy
from stanch.workspace.opening import Workspace
from stanch.workspace.people import People
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_access import workspace_ref
from stanch.workspace.verbs_release import model_of, model_of_copy, release_folder


@dataclass(frozen=True, slots=True)
class Released:
    """A share that was released.

    Attributes:
        count: How many people have approved exactly this request.
        needed: How many must.
        approval: The signed approval as a file, for the recipient.
    """

    count: int
    needed: int
    approval: bytes


def register_key(workspace: Workspace, recipient: str) -> str:
    """Register the public key that shares of whoever acts are wrapped to, and return its id. The newest one counts.

    Raises:
        InvalidInput: It is no public key of stanch's own kinds.
    """
    key = parse_public(recipient)
    # The entry of the intent is the registration: it holds the key, and whoever acts has signed it.
    asked = Request("key.register", "release:approve", workspace_ref(workspace), {"recipient": str(key)})
    return workspace.door.act(asked, lambda _ref: _registered(key))


def _registered(key: Recipient) -> Done[str]:
    return Done(key.key_id, {"key_id": key.key_id})


def load_record(workspace: Workspace, name: str, recipient: str) -> QuorumRecord:
    """Return the record of the copy that was made last for a recipient, as the publisher signed it.

    Raises:
        NotFound: No copy was made yet.
        InvalidInput: The copy opens without approvals.
        VerificationError: The record is not the publisher's, or is about another request than the release's.
    """
    return _load(workspace, name, recipient)[2]


def approve_release(
    workspace: Workspace, name: str, recipient: str, identity: KeyProvider, *, request: Digest
) -> Released:
    """Release the share of whoever acts to the recipient, and sign an approval of exactly one request.

    Args:
        workspace: The workspace.
        name: Name of the release.
        recipient: The recipient's name in it.
        identity: The key that the share is wrapped to.
        request: Digest of the quorum's request, as it was shown to whoever acts.

    Raises:
        SeparationOfDuties: Whoever acts took part in making, auditing or proposing it.
        NotPermitted: Whoever acts is no approver of this copy.
        PolicyViolation: The copy's request is another one, or the release's file names another model than the log.
        InvalidInput: The request has expired.
        NoIdentityMatched: ``identity`` is another key than the one that was registered.
    """
    state, kept, record = _load(workspace, name, recipient)
    people, now = workspace.people, workspace.now()
    asked = record.request
    if asked.digest != request:
        raise PolicyViolation(
            f"the request for {recipient}'s copy is another: expected {request}, found {asked.digest}",
            next_step="look at it again: stanch release approve without --request shows it",
        )
    expires = asked.release.expires
    if now >= expires:
        raise InvalidInput(f"the request expired at {asked.release.not_after}", next_step="propose the release again")
    ref = model_of_copy(workspace, state, kept)

    def run(_ref: EntryRef) -> Done[Released]:
        x, approval = asked.share_of(people.local.key.key_id), approve(record, identity, people.local.key, now=now)
        statement = ApprovalStatement(
            request=request, approver=people.session.principal, origin=workspace.ledger.origin,
            created_ms=int(now.timestamp() * 1000), expires_ms=int(expires.timestamp() * 1000),
        )  # fmt: skip
        settle = _record(people, sign_approval(people.local.key, statement))
        count = _count_with(workspace, state, request)
        kept.add_approval(x, approval)
        payload: dict[str, JsonValue] = {"request": str(request), "share": x, "approvals": count}
        released = Released(count, asked.m, approval)
        return Done(released, payload, undo=lambda: kept.drop_approval(x), settle=settle)

    return workspace.door.act(Request("release.approve", "release:approve", ref, {"request": str(request)}), run)


def take_approval(workspace: Workspace, name: str, recipient: str, share: bytes, signed: Approval) -> Released:
    """Keep an approval that whoever acts has signed elsewhere, with keys that are not here.

    Args:
        workspace: The workspace.
        name: Name of the release.
        recipient: The recipient's name in it.
        share: The signed approval that releases the share.
        signed: The signed statement that approves exactly the same request.

    Raises:
        NotPermitted: Whoever acts did not sign both, or may not approve.
        VerificationError: A signature does not hold, or the request is another one.
        InvalidInput: A part is malformed, of another workspace or expired.
    """
    state, kept, record = _load(workspace, name, recipient)
    people, asked, ref = workspace.people, record.request, model_of_copy(workspace, state, kept)

    def run(_ref: EntryRef) -> Done[Released]:
        x = check_approval(record, share)
        statement = ApprovalStatement.parse(signed.statement)
        approver = asked.approvers[x - 1]
        if statement.request != asked.digest:
            raise PolicyViolation(
                f"approval: expected one of {asked.digest}, found {statement.request}",
                next_step="show the request again, and approve that one",
            )
        if {statement.approver, approver.principal} != {people.session.principal}:
            raise NotPermitted("approval: is another person's", next_step="its approver hands it in")
        settle = _record(people, signed)
        count = _count_with(workspace, state, asked.digest)
        kept.add_approval(x, share)
        payload: dict[str, JsonValue] = {"request": str(asked.digest), "share": x, "approvals": count}
        released = Released(count, asked.m, share)
        return Done(released, payload, undo=lambda: kept.drop_approval(x), settle=settle)

    payload: dict[str, JsonValue] = {"request": str(asked.digest)}
    return workspace.door.act(Request("release.approve", "release:approve", ref, payload), run)


def _record(people: People, signed: Approval) -> Callable[[Connection], None]:
    """Check a signed approval, and return what stores it."""
    return people.rehearse(lambda on: on.approvals.record_approval(signed))[1]


def _count_with(workspace: Workspace, state: ReleaseState, request: Digest) -> int:
    """Return how many people approve a request once whoever acts does."""
    people = workspace.people
    mine, requester = people.session.principal, state.facts.requester
    model = model_of(state)
    involved = people.involved(model, workspace.ledger.reader()) | people.unfit(request, APPROVING, model)
    others = people.approvals.count_approvals(request, requester=requester, involved={*involved, mine})
    return others + (mine not in {requester, *involved})


def read_kept(state: ReleaseState, kept: KeptCopy, files: QuorumFiles | None, trusted: TrustedKeys) -> QuorumRecord:
    """Return the record of a kept copy, as the publisher signed it.

    Raises:
        InvalidInput: The copy opens without approvals.
        VerificationError: The record is not the publisher's, or is about another request than the release's.
    """
    recipient = kept.facts.recipient
    if files is None:
        raise InvalidInput(
            f"{recipient}'s copy opens without approvals",
            why="profile solo has no approvers",
            next_step=f"deliver it: stanch release deliver COPY URI; it was made for {recipient} alone",
        )
    record = read_record(files.record, trusted)
    asked, wanted = record.request, state.facts.request(recipient)
    if asked.release != wanted or asked.manifest_sha256 != kept.facts.manifest_sha256:
        raise PolicyViolation(
            f"{kept.folder}: the record is about another request than the release's",
            next_step="make the copy again: stanch release create",
        )
    return record


def _load(workspace: Workspace, name: str, recipient: str) -> tuple[ReleaseState, KeptCopy, QuorumRecord]:
    state = ReleaseState.load(release_folder(workspace, name))
    state.facts.request(recipient)  # refuses whom it was not proposed for
    kept = KeptCopy.newest(state.folder, recipient)
    return state, kept, read_kept(state, kept, kept.quorum, TrustedKeys(workspace.keys.publics("publisher")))
