"""The one door: authorise → record the intent → run → record the outcome.

Nothing else in stanch appends to the log or asks for permission. If the intent cannot be made durable, the act does not
happen. A refusal is recorded. A result is handed out only after its outcome is durable.

The order stands once, in :meth:`Door._steps`, as a generator that names what is to be done next. Two drivers do it: one
waits (:meth:`Door.act`), the other awaits (:meth:`Door.act_async`, for the gateway); both through the same committer.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from msgspec.structs import replace
from sqlalchemy import Connection

from stanch.access import Decision
from stanch.errors import CommitUnknown, InvalidInput, NotPermitted, OutcomeNotRecorded, StanchError, StoreError
from stanch.ledger import Act, Credential, Entry, Ledger, Within, denied, intent, new_act_id, outcome
from stanch.terms import EntryRef, JsonValue
from stanch.workspace.act import Clock, Done, Judge, Request, Who
from stanch.workspace.kinds import covers
from stanch.workspace.lease import Leases

T = TypeVar("T")

DECISION_SECONDS = 60.0
"""How long a decision holds before an act begins."""
WITNESS_SECONDS = 30.0
"""How long an act waits for witnesses before it is given up."""
_WITHHELD = "its outcome could not be recorded; its result was withheld"
_UNKNOWN = "nobody knows whether its outcome is recorded; what it made stays"


@dataclass(frozen=True, slots=True)
class Witnessing:
    """Which kinds of acts wait for a checkpoint that witnesses have cosigned, and how they wait.

    Attributes:
        kinds: A name covers itself and every kind below it.
        wait: Called as ``wait(entry, seconds)``; returns when a checkpoint that covers the entry has enough
            cosignatures, and raises :class:`stanch.errors.StanchError` when it has not in time.
    """

    kinds: tuple[str, ...]
    wait: Callable[[EntryRef, float], None]

    def required(self, kind: str) -> bool:
        """Say whether acts of this kind wait."""
        return any(covers(name, kind) for name in self.kinds)


@dataclass(frozen=True, slots=True)
class _Append:
    """Append an entry, and go on when it is durable."""

    entry: Entry
    within: Within | None = None


@dataclass(frozen=True, slots=True)
class _Ask:
    """Call something that may wait for a database or for witnesses."""

    question: Callable[[], Any]
    is_quick: bool = False


@dataclass(frozen=True, slots=True)
class _Run:
    """Do the act itself."""

    ref: EntryRef


_Steps = Generator[_Append | _Ask | _Run, Any, T]


@dataclass(frozen=True, slots=True)
class _Permit:
    """A decision that allowed, and when it was made."""

    decision: Decision
    at: float


@dataclass(frozen=True, slots=True)
class Door:
    """Runs acts for one session on one log.

    Attributes:
        is_quick: Whether the judge answers without waiting for anything, so that an event loop may ask it.
    """

    ledger: Ledger
    who: Who
    profile: str
    judge: Judge
    leases: Leases
    witnessing: Witnessing | None = None
    clock: Clock = time.time
    sign: Callable[[Entry], Entry] = lambda entry: entry
    is_quick: bool = False

    def act(self, request: Request, run: Callable[[EntryRef], Done[T]]) -> T:
        """Do ``run`` if it is permitted and recorded.

        Args:
            request: What is to be done.
            run: Does it; it is given the place of the intent in the log.

        Raises:
            NotPermitted: Refused; the refusal is in the log.
            ApprovalsMissing: Another act used the approvals up meanwhile; this refusal is in the log, too.
            LedgerUnavailable: The intent could not be made durable; nothing was done.
            QuorumUnmet: The witnesses did not cosign in time; nothing was done.
            OutcomeNotRecorded: It was done, but the log could not take the outcome; the result was withheld. Or nobody
                knows whether it took it; then what the act says :attr:`Done.stays` stays.

        An entry on its way is waited for even through Ctrl-C, so that the log and the act agree; the interruption then
        meets the next step.
        """
        steps: _Steps[T] = self._steps(request)
        interrupted: KeyboardInterrupt | None = None
        try:
            step = next(steps)
            while True:
                try:
                    answer, interrupted = self._do(step, run, interrupted)
                except BaseException as error:  # noqa: BLE001 - the steps decide what each error means
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            if interrupted is not None:
                raise interrupted from None
            value: T = end.value
            return value

    def _do(
        self, step: _Append | _Ask | _Run, run: Callable[[EntryRef], Done[T]], interrupted: KeyboardInterrupt | None
    ) -> tuple[Any, KeyboardInterrupt | None]:
        """Do one step; only an entry is still written after an interruption."""
        match step:
            case _Append(entry, within):
                return _wait(self.ledger.append_nowait(entry, within=within), interrupted)
            case _ if interrupted is not None:
                raise interrupted
            case _Ask(question):
                return question(), None
            case _Run(ref):
                return run(ref), None

    async def act_async(self, request: Request, run: Callable[[EntryRef], Awaitable[Done[T]]]) -> T:
        """Do ``run`` if it is permitted and recorded; as :meth:`act`, for an event loop.

        An entry on its way is waited for even when the task is cancelled, so that the log and the act agree; the
        cancellation then meets the next step.
        """
        steps: _Steps[T] = self._steps(request)
        cancelled: asyncio.CancelledError | None = None
        try:
            step = next(steps)
            while True:
                try:
                    answer, cancelled = await self._perform(step, run, cancelled)
                except GeneratorExit:
                    raise  # the loop is gone; the lease expires and the act is found abandoned
                except BaseException as error:  # noqa: BLE001 - the steps decide what each error means
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            if cancelled is not None:
                raise cancelled from None
            value: T = end.value
            return value

    async def _perform(
        self,
        step: _Append | _Ask | _Run,
        run: Callable[[EntryRef], Awaitable[Done[T]]],
        cancelled: asyncio.CancelledError | None,
    ) -> tuple[Any, asyncio.CancelledError | None]:
        """Do one step; only an entry is still written after a cancellation."""
        if isinstance(step, _Append):
            return await _settle(self.ledger.append_nowait(step.entry, within=step.within), cancelled)
        if cancelled is not None:
            raise cancelled
        if isinstance(step, _Ask):
            if step.is_quick:
                return step.question(), None
            return await asyncio.to_thread(step.question), None
        return await run(step.ref), None

    def _steps(self, request: Request) -> _Steps[T]:
        act, permit = yield from self._authorise(request)
        ref = yield from self._begin(request, act)
        try:
            with self.leases.renewing(act.id):
                if self.witnessing is not None and self.witnessing.required(request.kind):
                    yield _Ask(lambda: self._wait_for_witnesses(ref))
                yield from self._confirm(request, act, permit, seconds=DECISION_SECONDS)
                done: Done[T] = yield _Run(ref)
                if done.egress_bytes is not None:
                    yield from self._confirm_release(request, act, permit, done)
        except GeneratorExit:
            raise  # nobody drives any more: nothing can be recorded here
        except BaseException as error:
            yield from self._record_failure(act, error, request)
            raise
        yield from self._finish(request, act, done)
        return done.value

    def _authorise(self, request: Request) -> _Steps[tuple[Act, _Permit]]:
        """Decide, and record a refusal."""
        act = Act(
            kind=request.kind,
            id=new_act_id(self._now()),
            principal=self.who.principal,
            profile="team" if self.profile == "team" else "solo",
            subject=(request.resource,),
            credential=Credential(kind=self.who.kind, key_id=self.who.key_id),
        )
        at = self.clock()
        try:
            decision: Decision = yield _Ask(lambda: self.judge.decide(request), self.is_quick)
        except (NotPermitted, InvalidInput):  # the session has ended, or the policies in force are no valid set
            yield from self._record_refusal(act)
            raise
        act = replace(act, policy=str(decision.policy), decision=decision.reasons, glass=decision.glass)
        if not decision.allowed:
            yield from self._record_refusal(act)
            decision.require()
        return act, _Permit(decision, at)

    def _begin(self, request: Request, act: Act) -> _Steps[EntryRef]:
        """Record the intent; its transaction uses the approvals up and writes the lease."""
        approvals: str = yield _Ask(lambda: self.judge.approvals_digest(request), self.is_quick)
        payload: dict[str, JsonValue] = {**request.payload, "params_digest": str(request.params_digest)}
        if approvals:
            payload["approvals_digest"] = approvals
        need = request.approval

        def within(connection: Connection) -> None:
            if need is not None:
                need.consume(connection, act.id)
            request.reserve(connection)
            self.leases.begin(connection, act.id)

        try:
            entry = self.sign(intent(act, time_ms=self._now(), payload=payload, openings=request.openings))
            ref: EntryRef = yield _Append(entry, within)
        except NotPermitted:
            yield from self._record_refusal(act)
            raise
        except (StanchError, GeneratorExit):
            raise
        except BaseException as error:
            # An interruption says nothing about the entry. It is first in the queue: if it became durable there is a
            # lease, and the outcome that follows it says `cancelled`; if not, that outcome is refused.
            yield from self._record_failure(act, error, request)
            raise
        return ref

    def _wait_for_witnesses(self, ref: EntryRef) -> None:
        assert self.witnessing is not None  # noqa: S101 - asked for only then
        self.witnessing.wait(ref, WITNESS_SECONDS)

    def _confirm(self, request: Request, act: Act, permit: _Permit, *, seconds: float) -> _Steps[None]:
        """Decide again if the decision is older than so many seconds, or if the policies changed since."""
        # A clock that was set back says nothing about how old the decision is.
        fresh = 0 <= self.clock() - permit.at < seconds
        if not fresh or (yield _Ask(self.judge.policy, self.is_quick)) != str(permit.decision.policy):
            again: Decision = yield _Ask(lambda: self.judge.decide(request, act.id))
            again.require()

    def _confirm_release(self, request: Request, act: Act, permit: _Permit, done: Done[T]) -> _Steps[None]:
        """Decide again, just before weights are handed out; a refusal destroys them."""
        try:
            yield from self._confirm(request, act, permit, seconds=0)
        except BaseException:
            done.undo()
            raise

    def _finish(self, request: Request, act: Act, done: Done[T]) -> _Steps[None]:
        """Record the outcome; without it the result is destroyed, unless it stays where nobody knows."""
        try:
            about = replace(act, target=done.about)
            entry = outcome(about, time_ms=self._now(), payload=done.payload, egress_bytes=done.egress_bytes)

            def within(connection: Connection) -> None:
                done.settle(connection)
                self.leases.end(connection, act.id)

            yield _Append(entry, within)
        except BaseException as error:
            stays = done.stays and isinstance(error, CommitUnknown)
            if not stays:
                done.undo()
            if not isinstance(error, StanchError):
                raise
            withheld = OutcomeNotRecorded(
                f"{act.kind} ran, but {_UNKNOWN if stays else _WITHHELD}",
                why=error.why or error.what,
                next_step=error.next_step or "free space or repair the database, then: stanch log verify",
            )
            yield from self._record_failure(act, withheld, request)
            raise withheld from error

    def _record_refusal(self, act: Act) -> _Steps[None]:
        try:
            yield _Append(denied(act, time_ms=self._now()))
        except StoreError as error:
            raise NotPermitted(
                f"{act.kind}: refused", why=f"and the refusal could not be recorded: {error.what}"
            ) from error

    def _record_failure(self, act: Act, error: BaseException, request: Request) -> _Steps[None]:
        """Record how the act failed; a log that cannot take it leaves the open intent as the evidence."""
        result: Literal["failed", "cancelled"] = "failed" if isinstance(error, Exception) else "cancelled"
        slug = error.slug if isinstance(error, StanchError) else type(error).__name__
        spent = request.spent()
        entry = outcome(act, time_ms=self._now(), result=result, payload={**spent.payload, "error": slug})

        def within(connection: Connection) -> None:
            self.leases.end(connection, act.id)
            spent.settle(connection)

        try:
            yield _Append(entry, within)
        except StoreError as second:
            error.add_note(f"the failure could not be recorded either: {second.what}")

    def _now(self) -> int:
        return int(self.clock() * 1000)


def _wait(
    appending: Future[EntryRef], interrupted: KeyboardInterrupt | None
) -> tuple[EntryRef, KeyboardInterrupt | None]:
    """Wait until an entry is durable, and return with it the interruption that came before or meanwhile."""
    while True:
        try:
            return appending.result(), interrupted
        except KeyboardInterrupt as error:
            interrupted = error


async def _settle(
    appending: Future[EntryRef], cancelled: asyncio.CancelledError | None
) -> tuple[EntryRef, asyncio.CancelledError | None]:
    """Wait until an entry is durable, and return with it the cancellation that came before or meanwhile."""
    loop = asyncio.get_running_loop()
    while not appending.done():
        waiting = loop.create_future()
        appending.add_done_callback(functools.partial(_tell, loop, waiting))
        try:
            await waiting
        except asyncio.CancelledError as error:
            cancelled = error
    return appending.result(), cancelled


def _tell(loop: asyncio.AbstractEventLoop, waiting: asyncio.Future[None], _done: Future[EntryRef]) -> None:
    """Wake whoever waits for an entry; runs in the thread that wrote it, when the loop may have ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_wake, waiting)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
