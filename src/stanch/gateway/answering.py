"""One request from its charge to its outcome: what is recorded, forwarded, guarded and settled."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Connection

from stanch.access import Session
from stanch.crypto import hmac_sha256
from stanch.errors import StoreError
from stanch.gateway.budgets import Amounts, Charge, Grown, Limits
from stanch.gateway.desk import INFER, Desk, network_of, note
from stanch.gateway.dialect import AnswerReader, Dialect, Usage
from stanch.gateway.exchange import Exchange, new_id
from stanch.gateway.model import ServedModel
from stanch.gateway.probe import texts_of
from stanch.gateway.problem import QuotaExhausted, UpstreamFailed, UpstreamProtocol
from stanch.gateway.rebuild import Header, Stream, Tally, rebuild_whole
from stanch.gateway.request import GenerateRequest, forwarded, prompt_bytes
from stanch.gateway.sse import KEEP_ALIVE, EventParser
from stanch.gateway.upstream import Upstream, read_whole
from stanch.guard import Action
from stanch.terms import EntryRef, JsonValue
from stanch.workspace import Done, Request

KEEP_ALIVE_SECONDS = 15.0
DRAWN_KIND = "gateway.drawn"
_LONG = 4096
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that was understood: who asks which model for what, and what it may use."""

    exchange: Exchange
    request: GenerateRequest = field(repr=False)
    dialect: Dialect
    model: ServedModel
    session: Session
    limits: Limits


class Answering:
    """Answers one request. :meth:`run` ends when the outcome is durable; :meth:`end` then says that it is the end.

    Attributes:
        begun: Set when the intent is durable.
    """

    def __init__(self, desk: Desk, upstream: Upstream, prepared: Prepared) -> None:
        self.begun = asyncio.Event()
        self._desk = desk
        self._upstream = upstream
        self._given = prepared
        self._reader = AnswerReader(prepared.request)
        self._incident = f"inc_{new_id()}"
        self._header = Header(
            prepared.exchange.id, int(desk.workspace.door.clock()), prepared.request.model, prepared.dialect
        )
        self._stream: Stream | None = None
        self._tally = Tally()
        self._whole = b""
        self._since = time.monotonic()
        self._first_ms = -1
        self._guard_seconds = 0.0
        self._texts = texts_of(prepared.request)
        budgets = desk.budgets
        self._charge = Charge(
            prepared.session.principal, str(prepared.model.ref.digest), self._reserved(), budgets.now_ms()
        )
        self._grown = Grown()

    async def run(self) -> None:
        """Do the act: decide, charge and record, forward and guard, settle and record.

        Raises:
            NotPermitted: Refused, or a budget is used up; the refusal is in the log.
            LedgerUnavailable: The intent could not be made durable; nothing was forwarded.
            OutcomeNotRecorded: The outcome could not be recorded; the answer has no end.
            UpstreamFailed: The model's server failed; the outcome says so.
            UpstreamProtocol: It sent what cannot be checked; likewise.
            GuardError: The guard failed; likewise.
        """
        given = self._given
        probe = await _elsewhere_if_long(self._texts, self._probe)
        request = Request(*INFER, given.model.ref, self._intent(probe), reserve=self._reserve, spent=self._spent)
        try:
            await self._desk.door(given.session).act_async(request, self._act)
        except QuotaExhausted as error:
            self._desk.metrics.refusals.labels(error.budget).inc()
            raise
        finally:
            self._measure()
            with contextlib.suppress(StoreError):  # what was drawn is durable; the next request at the limit is refused
                await self._tell_drawn()

    async def end(self) -> None:
        """Send what says that the answer is whole."""
        exchange = self._given.exchange
        if self._stream is None:
            return await exchange.answer(self._whole)
        usage = Usage(self._prompt_tokens(), self._tally.completion_tokens())
        for frame in self._stream.tail(self._incident, usage if self._given.request.with_usage else None):
            await exchange.write_stream(frame)
        return await exchange.end_stream()

    async def _tell_drawn(self) -> None:
        """Record that the principal's protected windows reached 50, 80 or 100 percent of their limit just now."""
        given, grown = self._given, self._grown
        limit = given.limits.protected_windows
        if percent := grown.crossed(limit):
            payload: dict[str, JsonValue] = {
                "principal": self._charge.principal, "percent": percent, "used": grown.after, "limit": limit
            }  # fmt: skip
            telling = asyncio.to_thread(note, self._desk.workspace, DRAWN_KIND, payload, given.model.ref)
            await asyncio.shield(telling)

    async def _act(self, _ref: EntryRef) -> Done[None]:
        self.begun.set()
        self._desk.metrics.commit.observe(time.monotonic() - self._since)
        await _elsewhere_if_long(self._texts, self._sum_up)
        await (self._play_stream() if self._given.request.stream else self._fetch_whole())
        return self._spent()

    def _probe(self) -> dict[str, JsonValue]:
        given = self._given
        return self._desk.probes.judge(given.session.principal, self._texts, given.model.guard.policy.index)

    def _sum_up(self) -> None:
        self._desk.windows.add(self._charge.principal, self._charge.model, "\n".join(self._texts[-1:]))

    def _measure(self) -> None:
        """Tell the figures of an answer that was begun."""
        metrics, tally = self._desk.metrics, self._tally
        if not self.begun.is_set():
            return
        if self._first_ms >= 0:
            metrics.ttft.observe(self._first_ms / 1000)
        metrics.guard.observe(self._guard_seconds)
        metrics.held.observe(tally.held)
        for kind, count in (tally.findings or {"none": 1}).items():
            metrics.verdicts.labels(str(tally.action), kind).inc(count)
        if dropped := self._reader.dropped.total():
            metrics.dropped.labels(self._given.dialect).inc(dropped)

    def _spent(self) -> Done[None]:
        """Return what the request brought about so far, also when it failed."""
        return Done(None, self._outcome(), settle=self._settle)

    def _reserve(self, connection: Connection) -> None:
        self._charge = self._desk.budgets.reserve(connection, self._charge, self._given.limits)

    def _settle(self, connection: Connection) -> None:
        self._grown = self._desk.budgets.settle(connection, self._charge, self._used(), self._tally.drawn)

    async def _play_stream(self) -> None:
        given = self._given
        self._stream = stream = Stream(given.model.guard, self._reader, self._header, self._desk.audit_key)
        self._tally = stream.tally
        parser = EventParser()
        async with self._asked("text/event-stream") as raw, contextlib.aclosing(self._patiently(raw)) as pieces:
            async for piece in pieces:
                for event in parser.feed(piece):
                    if event.name not in {"", "message"}:
                        raise UpstreamProtocol("the model's server sent an event of another kind")
                    if event.data == "[DONE]":
                        return stream.close()
                    began = time.perf_counter()
                    frames = stream.take(event.data)
                    self._guard_seconds += time.perf_counter() - began
                    for frame in frames:
                        await self._write(frame)
                    if stream.is_blocked:
                        return None
        raise UpstreamFailed("the model's server broke off its answer")

    async def _fetch_whole(self) -> None:
        async with self._asked("application/json") as pieces:
            text = await read_whole(pieces)
        taken = self._reader.read_whole(text)
        given = self._given
        # A long answer takes as long as a stream of it; the others are not kept waiting.
        began = time.perf_counter()
        self._whole, self._tally = await asyncio.to_thread(
            rebuild_whole, given.model.guard, taken, self._header, self._incident
        )
        self._guard_seconds = time.perf_counter() - began

    def _asked(self, media: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        given = self._given
        body = forwarded(given.request, given.model.upstream_name)
        return self._upstream.ask(given.model.url(given.dialect), body, media=media)

    async def _patiently(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield the pieces; while none comes, tell the client now and then that the connection lives."""
        while True:
            waiting = asyncio.ensure_future(anext(pieces, None))
            try:
                while not (await asyncio.wait({waiting}, timeout=KEEP_ALIVE_SECONDS))[0]:
                    await self._given.exchange.write_stream(KEEP_ALIVE)
                piece = waiting.result()
            finally:
                waiting.cancel()
            if piece is None:
                return
            yield piece

    async def _write(self, frame: bytes) -> None:
        if self._first_ms < 0:
            self._first_ms = self._elapsed_ms()
        await self._given.exchange.write_stream(frame)

    def _intent(self, probe: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Return what the intent records: digests and counts, never text."""
        given = self._given
        prompt = hmac_sha256(
            self._desk.audit_key, b"stanch/prompt/v1\x00" + forwarded(given.request, given.request.model)
        )
        return {
            "request": given.exchange.id, "dialect": given.dialect, "stream": given.request.stream,
            "guard": given.model.guard_digest, "reserved": {**self._charge.amounts.record()},
            "charged_ms": self._charge.at_ms, "prompt": prompt.hex(),
            "prompt_bytes": prompt_bytes(given.request), "network": network_of(given.exchange.address),
            "digest_source": "asserted", "watermark": "none", "probe": probe,
        }  # fmt: skip

    def _outcome(self) -> dict[str, JsonValue]:
        """Return what the outcome records."""
        tally = self._tally
        if self._stream is not None:
            self._stream.count()
        is_blocked = tally.action == Action.BLOCK
        findings: dict[str, JsonValue] = dict(sorted(tally.findings.items()))
        dropped: dict[str, JsonValue] = dict(sorted(self._reader.dropped.items()))
        payload: dict[str, JsonValue] = {
            "request": self._given.exchange.id, "verdict": str(tally.action), "findings": findings, "dropped": dropped,
            "scanned": tally.scanned, "released": tally.released, "answer": tally.digest(self._desk.audit_key),
            "prompt_tokens": self._prompt_tokens(), "completion_tokens": tally.completion_tokens(),
            "used": {**self._used().record()},
            "drawn": len(tally.drawn), "attempted": tally.attempted, "lone": tally.lone,
            "folded_chars": tally.folded_chars,
            "first_ms": self._first_ms, "total_ms": self._elapsed_ms(),
        }  # fmt: skip
        return payload | ({"incident": self._incident} if is_blocked else {})

    def _reserved(self) -> Amounts:
        request = self._given.request
        return Amounts(tokens=request.n * request.most_tokens + -(-prompt_bytes(request) // 4))

    def _prompt_tokens(self) -> int:
        usage = self._tally.usage
        return usage.prompt if usage is not None else -(-prompt_bytes(self._given.request) // 4)

    def _used(self) -> Amounts:
        return Amounts(tokens=self._prompt_tokens() + self._tally.completion_tokens())

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._since) * 1000)


async def _elsewhere_if_long(texts: list[str], work: Callable[[], T]) -> T:
    """Do work on texts here, or in another thread if the texts are so long that other requests would notice."""
    return work() if sum(map(len, texts)) <= _LONG else await asyncio.to_thread(work)
