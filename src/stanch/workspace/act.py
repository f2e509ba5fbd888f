"""The one door: authorise → record the intent → run → record the outcome.

Nothing else in stanch appends to the log or asks for permission. If the intent cannot be made durable, the act does not
happen. A refusal is recorded. A result is handed out only after its outcome is durable.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from sqlalchemy import Connection

from stanch.access import Decision
from stanch.errors import NotPermitted, OutcomeNotRecorded, StanchError, StoreError
from stanch.ledger import Act, Credential, Ledger, denied, intent, new_act_id, outcome
from stanch.terms import ArtifactRef, Digest, EntryRef, JsonValue

T = TypeVar("T")
Clock = Callable[[], float]


def nothing_to_undo() -> None:
    """Undo nothing: the act gave nothing away."""


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What an act brought about.

    Attributes:
        value: The result for the caller.
        payload: What the outcome records of it: digests and counts, never content.
        egress_bytes: Bytes of weights that were handed out, if any.
        undo: Destroys the result if the outcome cannot be recorded.
    """

    value: T
    payload: Mapping[str, JsonValue] = field(default_factory=dict)
    egress_bytes: int | None = None
    undo: Callable[[], None] = nothing_to_undo


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants to do.

    Attributes:
        kind: The verb, for example ``release.create``.
        action: Its Cedar action.
        resource: What it is done to.
        payload: What the intent records.
        approval: The approvals that count, if some are needed; they are used up with the intent.
    """

    kind: str
    action: str
    resource: ArtifactRef
    payload: Mapping[str, JsonValue] = field(default_factory=dict)
    approval: "ApprovalNeed | None" = None


@dataclass(frozen=True, slots=True)
class ApprovalNeed:
    """Whose yes is needed: to which request, made by whom, and how the yes is used up in the intent's transaction."""

    request: Digest
    requester: str
    consume: Callable[[Connection, str], None]


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


@dataclass(frozen=True, slots=True)
class Door:
    """Runs acts for one session on one log."""

    ledger: Ledger
    who: Who
    profile: str
    decide: Callable[[Request], Decision]
    clock: Clock = time.time

    def act(self, request: Request, run: Callable[[EntryRef], Done[T]]) -> T:
        """Do ``run`` if it is permitted and recorded.

        Args:
            request: What is to be done.
            run: Does it; it is given the place of the intent in the log.

        Raises:
            NotPermitted: Refused; the refusal is in the log.
            ApprovalsMissing: Another act used the approvals up meanwhile; this refusal is in the log, too.
            LedgerUnavailable: The intent could not be made durable; nothing was done.
            OutcomeNotRecorded: It was done, but the log could not take the outcome; the result was withheld.
        """
        decision = self.decide(request)
        act = Act(
            kind=request.kind,
            id=new_act_id(self._now()),
            principal=self.who.principal,
            profile="team" if self.profile == "team" else "solo",
            subject=(request.resource,),
            policy=str(decision.policy),
            decision=decision.reasons,
            credential=Credential(kind="local", key_id=self.who.key_id),
        )
        if not decision.allowed:
            self._record_refusal(act)
            decision.require()
        need = request.approval
        within = (lambda connection: need.consume(connection, act.id)) if need is not None else None
        try:
            ref = self.ledger.append(intent(act, time_ms=self._now(), payload=request.payload), within=within)
        except NotPermitted:
            self._record_refusal(act)
            raise
        try:
            done = run(ref)
        except BaseException as error:
            self._record_failure(act, error)
            raise
        try:
            self.ledger.append(outcome(act, time_ms=self._now(), payload=done.payload, egress_bytes=done.egress_bytes))
        except BaseException as error:
            done.undo()
            if not isinstance(error, StanchError):
                raise
            raise OutcomeNotRecorded(
                f"{request.kind} ran, but its outcome could not be recorded; its result was withheld",
                why=error.what,
                next_step="free space or repair the database, then: stanch log verify",
            ) from error
        return done.value

    def _record_refusal(self, act: Act) -> None:
        try:
            self.ledger.append(denied(act, time_ms=self._now()))
        except StoreError as error:
            raise NotPermitted(
                f"{act.kind}: refused", why=f"and the refusal could not be recorded: {error.what}"
            ) from error

    def _record_failure(self, act: Act, error: BaseException) -> None:
        """Record how the act failed; a log that cannot take it leaves the open intent as the evidence."""
        result: Literal["failed", "cancelled"] = "failed" if isinstance(error, Exception) else "cancelled"
        slug = error.slug if isinstance(error, StanchError) else type(error).__name__
        try:
            self.ledger.append(outcome(act, time_ms=self._now(), result=result, payload={"error": slug}))
        except StoreError as second:
            error.add_note(f"the failure could not be recorded either: {second.what}")

    def _now(self) -> int:
        return int(self.clock() * 1000)
