"""One request from its charge to its outcome: what is recorded, forwarded, settled, whatever is asked for."""

import asyncio
import contextlib
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Generic, TypeVar

from sqlalchemy import Connection

from stanch.access import Session
from stanch.errors import StoreError
from stanch.gateway.budgets import NO_WINDOWS, Amounts, Budget, Charge, Grown, Limits
from stanch.gateway.desk import Desk, network_of
from stanch.gateway.dialect import Dialect
from stanch.gateway.exchange import Exchange
from stanch.gateway.model import ServedModel
from stanch.gateway.problem import QuotaExhausted, code_of
from stanch.gateway.request import EmbeddingsRequest, GenerateRequest, forwarded, prompt_bytes
from stanch.gateway.standing import Stale
from stanch.gateway.telemetry import Operation
from stanch.gateway.upstream import Upstream
from stanch.gateway.watermark import NO_WATERMARK, Watermark
from stanch.terms import EntryRef, JsonValue
from stanch.trace.text_order import HEADER
from stanch.workspace import Done, Request
from stanch.workspace.noting import note

DRAWN_KIND = "gateway.drawn"
R = TypeVar("R", bound=GenerateRequest | EmbeddingsRequest)


@dataclass(frozen=True, slots=True)
class Prepared(Generic[R]):
    """A request that was understood: who asks which model for what, and what it may use."""

    exchange: Exchange
    request: R = field(repr=False)
    dialect: Dialect
    model: ServedModel
    session: Session
    limits: Limits


class Act(ABC, Generic[R]):
    """Answers one request. :meth:`run` ends when the outcome is durable; :meth:`end` then says that it is the end.

    Attributes:
        is_begun: Whether the intent is durable.
    """

    kind: ClassVar[tuple[str, str]]
    """The kind of act, and its action in the policies."""

    def __init__(self, desk: Desk, upstream: Upstream, prepared: Prepared[R]) -> None:
        self.is_begun = False
        self._desk = desk
        self._upstream = upstream
        self._given = prepared
        self._since = time.monotonic()
        self._dropped: Counter[str] = Counter()
        self._grown: dict[Budget, Grown] = {}
        self._marked = self._watermark().state
        self._charge = Charge(
            prepared.session.principal, str(prepared.model.ref.digest), self._reserved(), desk.budgets.now_ms(),
            index=prepared.model.index,
        )  # fmt: skip

    async def run(self) -> None:
        """Do the act: decide, charge and record, forward and check, settle and record.

        Raises:
            NotPermitted: Refused, or a budget is used up; the refusal is in the log.
            LedgerUnavailable: The intent could not be made durable; nothing was forwarded.
            OutcomeNotRecorded: The outcome could not be recorded; the answer has no end.
            UpstreamFailed: The model's server failed; the outcome says so.
            UpstreamProtocol: It sent what cannot be checked; likewise.
            GuardError: The guard failed; likewise.
        """
        given = self._given
        self._refuse_exhausted()
        intent = await self._intent()
        try:
            for again in (True, True, False):
                try:
                    await self._attempt(intent)
                    break
                except Stale:  # before anything was recorded
                    if not again:
                        raise
                    await asyncio.to_thread(self._desk.forget)
                    session = await asyncio.to_thread(self._desk.authenticate, given.exchange.credential())
                    given = self._given = replace(given, session=session)
        except QuotaExhausted as error:
            self._desk.exhausted.note(self._charge, error.budget)
            self._desk.metrics.refusals.labels(error.budget).inc()
            raise
        finally:
            if self.is_begun:
                self._measure()
                self._trace(sys.exception())
            with contextlib.suppress(StoreError):  # what was drawn is durable; the next request at the limit is refused
                await self._tell_drawn()

    def _refuse_exhausted(self) -> None:
        """Refuse what a budget refused just now, before anything of it is looked at."""
        given, desk = self._given, self._desk
        if row := desk.exhausted.find(self._charge):
            desk.exhausted.count(self.kind[0], given.session, given.model.ref, row)
            desk.metrics.refusals.labels(row).inc()
            raise QuotaExhausted(row)

    async def _attempt(self, intent: dict[str, JsonValue]) -> None:
        given, desk = self._given, self._desk
        judge = desk.judge(given.session, given.model.ref, (*self._also(), self.kind[1]))

        def reserve(connection: Connection) -> None:
            judge.confirm(connection)
            if given.model.certificate is not None:
                given.model.certificate.check(desk.workspace.now())
            self._charge = desk.budgets.reserve(connection, self._charge, given.limits)

        request = Request(*self.kind, given.model.ref, intent, reserve=reserve, spent=self._spent)
        await desk.door(given.session, judge).act_async(request, self._act)

    @abstractmethod
    async def end(self) -> None:
        """Send what says that the answer is whole."""

    @abstractmethod
    async def _answer(self) -> None:
        """Forward the request and check the answer."""

    @abstractmethod
    def _reserved(self) -> Amounts:
        """Return what the answer may use at most."""

    @abstractmethod
    def _used(self) -> Amounts:
        """Return what was used so far."""

    @abstractmethod
    def _counted(self) -> tuple[int, int]:
        """Return the tokens of the prompt and of the answer so far."""

    def _verdict(self) -> str:
        """Return what the guard said, if it was asked."""
        return ""

    def _windows(self) -> Mapping[Budget, Iterable[str]]:
        """Return keyed fingerprints of the windows of training text that were drawn so far, and cut."""
        return NO_WINDOWS

    def _watermark(self) -> Watermark:
        """Return under which watermark the answer is asked for; what is no text carries none."""
        return NO_WATERMARK

    def _also(self) -> tuple[str, ...]:
        """Return the further actions that the request needs."""
        return ()

    async def _intent(self) -> dict[str, JsonValue]:
        """Return what the intent records: digests and counts, never text."""
        given = self._given
        prompt = self._desk.audit(b"stanch/prompt/v1\x00" + forwarded(given.request, given.request.model))
        return {
            "request": given.exchange.id, "dialect": given.dialect, "guard": given.model.guard_digest,
            "reserved": {**self._charge.amounts.record()}, "charged_ms": self._charge.at_ms,
            "prompt": prompt.hex(), "prompt_bytes": prompt_bytes(given.request),
            "network": network_of(given.exchange.address), "client": self._keyed("client", given.exchange.program),
            "digest_source": "asserted", **self._watermark().record(),
        }  # fmt: skip

    def _keyed(self, kind: str, name: str) -> str:
        """Return what stands in the log for a name that the client chose: equal names look equal, and no more."""
        return self._desk.audit(f"stanch/{kind}/v1\x00{name}".encode())[:8].hex()

    def _outcome(self) -> dict[str, JsonValue]:
        """Return what the outcome records: digests and counts, never text."""
        return {
            "request": self._given.exchange.id, "dropped": {**dict(sorted(self._dropped.items()))},
            "used": {**self._used().record()}, "total_ms": self._elapsed_ms(),
        }  # fmt: skip

    def _measure(self) -> None:
        """Tell the figures of an answer that was begun."""
        if dropped := self._dropped.total():
            self._desk.metrics.dropped.labels(self._given.dialect).inc(dropped)

    def _trace(self, error: BaseException | None) -> None:
        """Note for the collector, if there is one, that an answer was begun and how it ended."""
        given, telemetry = self._given, self._desk.telemetry
        if telemetry is not None:
            failure = "" if error is None else code_of(error) if isinstance(error, Exception) else "cancelled"
            telemetry.note(
                Operation(
                    given.dialect, given.model.name, given.exchange.id, given.exchange.trace,
                    time.monotonic() - self._since, self._counted(), self._verdict(), failure,
                )
            )  # fmt: skip

    async def _tell_drawn(self) -> None:
        """Record that the principal's windows of training text reached 50, 80 or 100 percent of a limit just now."""
        given = self._given
        for budget, grown in self._grown.items():
            limit = given.limits.of(budget) or 0
            if percent := grown.crossed(limit):
                payload: dict[str, JsonValue] = {
                    "principal": self._charge.principal, "budget": budget, "percent": percent, "used": grown.after,
                    "limit": limit,
                }  # fmt: skip
                telling = asyncio.to_thread(note, self._desk.workspace, DRAWN_KIND, payload, given.model.ref)
                await asyncio.shield(telling)

    async def _act(self, _ref: EntryRef) -> Done[None]:
        self.is_begun = True
        self._desk.metrics.commit.observe(time.monotonic() - self._since)
        await self._answer()
        return self._spent()

    def _spent(self) -> Done[None]:
        """Return what the request brought about so far, also when it failed."""
        return Done(None, self._outcome(), settle=self._settle)

    def _settle(self, connection: Connection) -> None:
        used = self._used()
        self._grown = self._desk.budgets.settle(connection, self._charge, used, self._windows())
        self._desk.exhausted.forget(self._charge, used)

    @contextlib.asynccontextmanager
    async def _asked(self, media: str) -> AsyncIterator[AsyncIterator[bytes]]:
        given, watermark = self._given, self._watermark()
        body = forwarded(given.request, given.model.upstream_name)
        asking = self._upstream.ask(
            given.model.url(given.dialect), body, media=media, more=watermark.headers(body), papers=given.model.papers
        )
        async with asking as call:
            self._marked = watermark.seen(call.values(HEADER.encode()), body)
            yield call

    def _prompt_size(self) -> int:
        """Return an estimate of the prompt's tokens."""
        return -(-prompt_bytes(self._given.request) // 4)

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._since) * 1000)
