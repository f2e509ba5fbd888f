"""Releases and recipients: what was proposed, which copies were made, and who approved each."""

from functools import cached_property
from typing import Annotated

from msgspec import Meta, Struct

from stanch.access import Approval
from stanch.console.desk import Call
from stanch.console.pages.paging import Paged, take
from stanch.console.route import Nothing
from stanch.crypto import parse_json
from stanch.errors import InvalidInput, StanchError
from stanch.sign import TrustedKeys
from stanch.workspace.copies import KeptCopy
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_approve import read_kept, take_approval
from stanch.workspace.verbs_receipt import list_receipts
from stanch.workspace.verbs_release import model_of, release_folder


class Vote(Struct, frozen=True):
    """An approver of a copy, and whether the share was released."""

    principal: str
    name: str
    given: bool


class CopyState(Struct, frozen=True):
    """A copy for one recipient: its request, its manifest once it was made, who approved it, and its receipt.

    Attributes:
        received_at: When it arrived, as its recipient signed and the log holds; empty while that is waited for.
        receipt: The entry that took the receipt in; -1 while it is waited for.
    """

    release: str
    recipient: str
    key: str
    not_after: str
    made_ms: int
    manifest: str
    request: str
    needed: int
    counted: int
    votes: tuple[Vote, ...]
    trouble: str
    mine: bool
    received_at: str
    receipt: int


class ReleaseRow(Struct, frozen=True):
    """A release: its model, line and number, who proposed it, and how many copies are made, approved, signed for."""

    name: str
    model: str
    digest: str
    lineage: str
    number: int
    proposer: str
    recipients: int
    made: int
    approved: int
    received: int


class ReleaseList(Struct, frozen=True):
    """Releases, and where the next part of the list begins."""

    releases: tuple[ReleaseRow, ...]
    next: str


class ReleaseView(Struct, frozen=True):
    """One release with its copies, and the name of the log that statements name."""

    release: ReleaseRow
    entry: int
    checkpoint: int
    copies: tuple[CopyState, ...]
    origin: str


class RecipientRow(Struct, frozen=True):
    """Somebody who gets copies, by the key that they are sealed to."""

    name: str
    key: str
    copies: tuple[CopyState, ...]


class RecipientList(Struct, frozen=True):
    """Recipients, and where the next part of the list begins."""

    recipients: tuple[RecipientRow, ...]
    next: str


class HandIn(Struct, frozen=True, forbid_unknown_fields=True):
    """An approval that its approver signed elsewhere, as ``approve-offline --origin`` wrote it."""

    recipient: Annotated[str, Meta(max_length=256)]
    approval: Annotated[str, Meta(max_length=1 << 18)]


class HandedIn(Struct, frozen=True):
    """How many people approve the copy now, and how many must."""

    approvals: int
    needed: int


class _Handed(Struct, frozen=True, forbid_unknown_fields=True):
    type: Annotated[str, Meta(pattern=r"^urn:stanch:handed-approval:v1\Z")]
    share: bytes
    statement: bytes
    key_id: str
    signature: bytes


def list_releases(call: Call, asked: Paged) -> ReleaseList:
    """Show all releases."""
    shown, after = take(load_releases(call), lambda state: state.facts.name, asked)
    look = Look(call)
    return ReleaseList(tuple(_row(look, state, look.copies(state)) for state in shown), after)


def show_release(call: Call, _asked: Nothing) -> ReleaseView:
    """Show one release by its name.

    Raises:
        NotFound: There is none.
        InvalidInput: It is no name.
    """
    state = ReleaseState.load(release_folder(call.workspace, call.path["name"]))
    facts, look = state.facts, Look(call)
    copies = look.copies(state)
    return ReleaseView(_row(look, state, copies), facts.entry, facts.checkpoint, copies, call.workspace.ledger.origin)


def list_recipients(call: Call, asked: Paged) -> RecipientList:
    """Show who gets copies; two names with one key are two recipients."""
    found: dict[tuple[str, str], list[CopyState]] = {}
    look = Look(call)
    for state in load_releases(call):
        for copy in look.copies(state):
            found.setdefault((copy.recipient, copy.key), []).append(copy)
    rows = [RecipientRow(name, key, tuple(copies)) for (name, key), copies in found.items()]
    shown, after = take(rows, lambda row: f"{row.name} {row.key}", asked)
    return RecipientList(shown, after)


def hand_in(call: Call, asked: HandIn) -> HandedIn:
    """Take an approval of a copy. The approver signed it with keys that no server ever holds.

    Raises:
        NotPermitted: Whoever hands it in is not who signed it, or may not approve.
        InvalidInput: It is malformed, or of another request.
    """
    from msgspec import ValidationError, convert  # noqa: PLC0415 - used here alone

    try:
        handed = convert(parse_json(asked.approval.encode(), what="approval"), _Handed)
    except (ValidationError, UnicodeEncodeError) as error:
        raise InvalidInput(
            "approval: expected the file that `stanch release approve-offline --origin` wrote", why=str(error)[:200]
        ) from error
    signed = Approval(handed.statement, handed.key_id, handed.signature)
    made = take_approval(call.workspace, call.path["name"], asked.recipient, handed.share, signed)
    return HandedIn(made.count, made.needed)


def load_releases(call: Call) -> list[ReleaseState]:
    """Return every release of the workspace."""
    return ReleaseState.load_all(call.workspace.state / "releases")


class Look:
    """A look at the copies of releases; what they have in common is read once."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._names: dict[str, str] = {}

    def name(self, principal: str) -> str:
        """Return what a principal is shown as."""
        if principal not in self._names:
            self._names[principal] = self.call.names([principal]).get(principal, principal)
        return self._names[principal]

    @cached_property
    def _trusted(self) -> TrustedKeys:
        return TrustedKeys(self.call.workspace.keys.publics("publisher"))

    @cached_property
    def _receipts(self) -> dict[str, tuple[str, int]]:
        return {one.manifest.hex: (one.at, entry) for entry, one in list_receipts(self.call.workspace)}

    def copies(self, state: ReleaseState) -> tuple[CopyState, ...]:
        """Return how each copy of a release stands."""
        newest: dict[str, KeptCopy] = {}
        for kept in KeptCopy.all_of(state.folder):
            other = newest.get(kept.facts.recipient)
            if other is None or other.facts.created_ms < kept.facts.created_ms:
                newest[kept.facts.recipient] = kept
        return tuple(self._copy(state, recipient, newest.get(recipient)) for recipient in sorted(state.facts.requests))

    def _copy(self, state: ReleaseState, recipient: str, kept: KeptCopy | None) -> CopyState:
        """Return how the copy of one recipient stands; it may not be made yet."""
        facts, call = state.facts, self.call
        request, files = facts.requests[recipient], kept.quorum if kept is not None else None
        made_ms, manifest = (kept.facts.created_ms, kept.facts.manifest_sha256) if kept is not None else (0, "")
        votes: tuple[Vote, ...] = ()
        digest, needed, counted, trouble = str(request.digest), 0, 0, ""
        if kept is not None and files is not None:
            try:
                asked = read_kept(state, kept, files, self._trusted).request
            except StanchError as error:
                trouble = error.what
            else:
                approvals = call.workspace.people.approvals
                # Who took part is asked of the log, which takes longer: only where there is anything to count.
                if approvals.count_approvals(asked.digest, requester=facts.requester):
                    involved = call.workspace.people.involved(model_of(state), call.workspace.ledger.reader())
                    counted = approvals.count_approvals(asked.digest, requester=facts.requester, involved=involved)
                votes = tuple(
                    Vote(approver.principal, self.name(approver.principal), x in files.approvals)
                    for x, approver in enumerate(asked.approvers, 1)
                )
                digest, needed = str(asked.digest), asked.m
        mine = any(vote.principal == call.session.principal and not vote.given for vote in votes)
        return CopyState(
            facts.name, recipient, request.recipient_key, request.not_after, made_ms, manifest, digest, needed,
            counted, votes, trouble, mine, *self._receipts.get(manifest, ("", -1)),
        )  # fmt: skip


def _row(look: Look, state: ReleaseState, copies: tuple[CopyState, ...]) -> ReleaseRow:
    facts = state.facts
    first = next(iter(facts.requests.values()))
    return ReleaseRow(
        facts.name, state.model.name, facts.digest, first.lineage, first.release_number,
        look.name(facts.requester), len(copies),
        sum(copy.made_ms > 0 for copy in copies),
        sum(0 < copy.needed <= copy.counted for copy in copies), sum(bool(copy.received_at) for copy in copies),
    )  # fmt: skip
