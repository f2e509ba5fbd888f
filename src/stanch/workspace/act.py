"""What somebody wants to do, and what it brought about: the words that verbs and the door share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from sqlalchemy import Connection

from stanch.access import Decision
from stanch.crypto import canonical_json
from stanch.ledger import Opening
from stanch.terms import ArtifactRef, Digest, JsonValue

T = TypeVar("T")
Clock = Callable[[], float]


def nothing_to_undo() -> None:
    """Undo nothing: the act gave nothing away."""


def nothing_to_settle(_connection: Connection) -> None:
    """Settle nothing: the act reserved nothing."""


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What an act brought about.

    Attributes:
        value: The result for the caller.
        payload: What the outcome records of it: digests and counts, never content.
        egress_bytes: Bytes of weights that were handed out, if any; the permission is then asked for once more.
        undo: Destroys the result if the outcome cannot be recorded.
        stays: Whether the result stays where nobody knows if the outcome is recorded: what a row or an entry names
            already, if it is, must not be gone. Otherwise it is destroyed then, too.
        about: Pseudonymous id of the person whose account or rights it changed.
        settle: Runs in the outcome's transaction, for example to give back what was reserved and not used.
    """

    value: T
    payload: Mapping[str, JsonValue] = field(default_factory=dict)
    egress_bytes: int | None = None
    undo: Callable[[], None] = nothing_to_undo
    stays: bool = False
    about: str = ""
    settle: Callable[[Connection], None] = nothing_to_settle


def nothing_spent() -> Done[None]:
    """A failure brought nothing about."""
    return Done(None)


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants to do.

    Attributes:
        kind: The verb, for example ``release.create``; see :mod:`stanch.workspace.kinds`.
        action: Its Cedar action.
        resource: What it is done to.
        payload: What the intent records.
        approval: The approvals that count, if some are needed; they are used up with the intent.
        openings: Personal values that the intent records; the log keeps their commitments only.
        reserve: Runs in the intent's transaction, for example to charge a budget. What it raises is what the act
            raises, and the intent is not recorded; a :class:`stanch.errors.NotPermitted` is recorded as a refusal.
        spent: Asked when the act failed: what its outcome records besides the failure, and settles.
    """

    kind: str
    action: str
    resource: ArtifactRef
    payload: Mapping[str, JsonValue] = field(default_factory=dict)
    approval: "ApprovalNeed | None" = None
    openings: tuple[Opening, ...] = ()
    reserve: Callable[[Connection], None] = nothing_to_settle
    spent: Callable[[], Done[None]] = nothing_spent

    @property
    def params_digest(self) -> Digest:
        """SHA-256 of the canonical JSON of the payload."""
        return Digest.sha256(canonical_json(dict(self.payload)))


@dataclass(frozen=True, slots=True)
class ApprovalNeed:
    """Whose yes is needed, and to what.

    Attributes:
        request: Digest of what is approved.
        requester: Who asks; not counted.
        consume: Uses the approvals up in the intent's transaction.
        right: The Cedar action that each approver must be permitted on the same artifact at that moment, too.
    """

    request: Digest
    requester: str
    consume: Callable[[Connection, str], None]
    right: str


class Who(Protocol):
    """Who acts: a session of :mod:`stanch.access`."""

    @property
    def principal(self) -> str:
        """Pseudonymous id ``p_…``."""
        ...

    @property
    def key_id(self) -> str:
        """The key with which the principal logged in."""
        ...

    @property
    def kind(self) -> str:
        """What kind of credential that is, for example ``local``."""
        ...


class Judge(Protocol):
    """Says whether a request is permitted; facts are loaded afresh for every answer."""

    def decide(self, request: Request, act: str = "") -> Decision:
        """Return the decision; approvals that ``act`` itself has used up still count.

        Raises:
            NotAuthenticated: The session has ended.
        """
        ...

    def policy(self) -> str:
        """Return the digest of the policies that are active now."""
        ...

    def approvals_digest(self, request: Request) -> str:
        """Return the digest of the approvals that count for a request; empty if it needs none."""
        ...
