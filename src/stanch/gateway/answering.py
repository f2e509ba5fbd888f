"""One request from its charge to its outcome: what is recorded, forwarded, settled. The guarded kind is below."""

import asyncio
import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypedDict, TypeVar

from sqlalchemy import Connection

from stanch.access import Session
from stanch.crypto import hmac_sha256
from stanch.errors import StoreError
from stanch.gateway.budgets import Charge, Limits
from stanch.gateway.desk import INFER, LOGPROBS, Desk, network_of
from stanch.gateway.dialect import Dialect, Header, Reader, Usage, Writer
from stanch.gateway.exchange import Exchange, new_id
from stanch.gateway.logprobs import bits_of
from stanch.gateway.model import ServedModel
from stanch.gateway.problem import UpstreamFailed
from stanch.gateway.rebuild import Stream, Tally, rebuild_whole
from stanch.gateway.request import EmbeddingsRequest, GenerateRequest, forwarded, prompt_bytes
from stanch.gateway.sse import KEEP_ALIVE, EventParser
from stanch.gateway.upstream import Upstream, read_whole
from stanch.guard import Action
from stanch.terms import EntryRef, JsonValue
from stanch.workspace import Done, Request

KEEP_ALIVE_SECONDS = 15.0
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


@dataclass(frozen=True, slots=True)
class Speech:
    """How a dialect of text is read and written."""

    reader: Callable[[Any], Reader]
    writer: Callable[[Header, Any], Writer]


class Used(TypedDict, total=False):
    """What a request used of its budgets besides requests; the arguments of :meth:`Budgets.settle`."""

    used_tokens: int
    drawn: set[str]
    vectors: int
    bits: int


class Act(ABC, Generic[R]):
    """Answers one request. :meth:`run` ends when the outcome is durable; :meth:`end` then says that it is the end.

    Attributes:
        begun: Set when the intent is durable.
    """

    kind: ClassVar[tuple[str, str]]
    """The kind of act, and its action in the policies."""

    def __init__(self, desk: Desk, upstream: Upstream, prepared: Prepared[R]) -> None:
        self.begun = asyncio.Event()
        self._desk = desk
        self._upstream = upstream
        self._given = prepared
        self._since = time.monotonic()
        self._charge = self._charged(str(prepared.model.ref.digest), desk.budgets.now_ms())

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
        request = Request(*self.kind, self._given.model.ref, self._intent(), reserve=self._reserve)
        await self._desk.door(self._given.session, also=self._also()).act_async(request, self._act)

    @abstractmethod
    async def end(self) -> None:
        """Send what says that the answer is whole."""

    @abstractmethod
    async def _answer(self) -> None:
        """Forward the request and check the answer."""

    @abstractmethod
    def _charged(self, model: str, now_ms: int) -> Charge:
        """Return what is reserved."""

    @abstractmethod
    def _used(self) -> Used:
        """Return what was used so far."""

    @abstractmethod
    def _outcome(self) -> dict[str, JsonValue]:
        """Return what the outcome records: digests and counts, never text."""

    def _also(self) -> tuple[str, ...]:
        """Return the further actions that the request needs."""
        return ()

    async def _act(self, _ref: EntryRef) -> Done[None]:
        self.begun.set()
        try:
            await self._answer()
        except BaseException:
            # What a failed request used is settled on its own: its outcome is the failure that the door records.
            used = self._used()
            settling = asyncio.to_thread(lambda: self._desk.budgets.settle_alone(self._charge, **used))
            with contextlib.suppress(StoreError):  # else the whole reservation stays charged
                await asyncio.shield(settling)
            raise
        return Done(None, self._outcome(), settle=self._settle)

    def _reserve(self, connection: Connection) -> None:
        self._desk.budgets.reserve(connection, self._charge, self._given.limits)

    def _settle(self, connection: Connection) -> None:
        self._desk.budgets.settle(connection, self._charge, **self._used())

    def _asked(self, media: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        given = self._given
        body = forwarded(given.request, given.model.upstream_name)
        return self._upstream.ask(given.model.url(given.dialect), body, media=media)

    def _intent(self) -> dict[str, JsonValue]:
        """Return what the intent records: digests and counts, never text."""
        given = self._given
        prompt = hmac_sha256(
            self._desk.audit_key, b"stanch/prompt/v1\x00" + forwarded(given.request, given.request.model)
        )
        reserved = {"reserved_tokens": self._charge.tokens}
        reserved |= {"reserved_vectors": self._charge.vectors} if self._charge.vectors else {}
        reserved |= {"reserved_bits": self._charge.bits} if self._charge.bits else {}
        return {
            "request": given.exchange.id, "dialect": given.dialect, "guard": given.model.guard_digest,
            "prompt": prompt.hex(), "prompt_bytes": prompt_bytes(given.request),
            "network": network_of(given.exchange.address), "digest_source": "asserted", "watermark": "none", **reserved,
        }  # fmt: skip

    def _prompt_size(self) -> int:
        """Return an estimate of the prompt's tokens."""
        return -(-prompt_bytes(self._given.request) // 4)

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._since) * 1000)


class Answering(Act[GenerateRequest]):
    """Answers a request for text, through the guard."""

    kind = INFER

    def __init__(self, desk: Desk, upstream: Upstream, prepared: Prepared[GenerateRequest], speech: Speech) -> None:
        super().__init__(desk, upstream, prepared)
        exchange, request = prepared.exchange, prepared.request
        self._reader = speech.reader(request)
        self._writer = speech.writer(Header(exchange.id, int(desk.workspace.door.clock()), request.model), request)
        self._incident = f"inc_{new_id()}"
        self._stream: Stream | None = None
        self._tally = Tally()
        self._whole = b""
        self._first_ms = -1

    async def end(self) -> None:
        """Send what says that the answer is whole."""
        exchange = self._given.exchange
        if self._stream is None:
            return await exchange.answer(self._whole)
        for frame in self._stream.tail(self._incident, Usage(self._prompt_tokens(), self._tally.completion_tokens())):
            await exchange.write_stream(frame)
        return await exchange.end_stream()

    async def _answer(self) -> None:
        await (self._play_stream() if self._given.request.stream else self._fetch_whole())

    def _also(self) -> tuple[str, ...]:
        return () if self._given.request.alternatives is None else (LOGPROBS,)

    def _charged(self, model: str, now_ms: int) -> Charge:
        request = self._given.request
        most = request.choices * request.most_tokens
        return Charge(
            self._given.session.principal, model, most + self._prompt_size(), now_ms, bits=self._bits(most)
        )  # fmt: skip

    def _used(self) -> Used:
        tally = self._tally
        tokens = self._prompt_tokens() + tally.completion_tokens()
        return {"used_tokens": tokens, "drawn": tally.drawn, "bits": self._bits(tally.entries)}

    async def _play_stream(self) -> None:
        given = self._given
        self._stream = stream = Stream(given.model.guard, self._reader, self._writer, self._desk.audit_key)
        self._tally = stream.tally
        parser = EventParser()
        async with self._asked("text/event-stream") as raw, contextlib.aclosing(self._patiently(raw)) as pieces:
            async for piece in pieces:
                for event in parser.feed(piece):
                    for frame in stream.take(event):
                        await self._write(frame)
                    if stream.is_ended or stream.is_blocked:
                        return
        if not stream.is_whole:
            raise UpstreamFailed("the model's server broke off its answer")

    async def _fetch_whole(self) -> None:
        async with self._asked("application/json") as pieces:
            text = await read_whole(pieces)
        taken = self._reader.read_whole(text)
        # A long answer takes as long as a stream of it; the others are not kept waiting.
        self._whole, self._tally = await asyncio.to_thread(
            rebuild_whole, self._given.model.guard, taken, self._writer, self._incident, self._prompt_size()
        )

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

    def _intent(self) -> dict[str, JsonValue]:
        return super()._intent() | {"stream": self._given.request.stream}

    def _outcome(self) -> dict[str, JsonValue]:
        tally = self._tally
        is_blocked = tally.action == Action.BLOCK
        findings: dict[str, JsonValue] = dict(sorted(tally.findings.items()))
        dropped: dict[str, JsonValue] = dict(sorted(self._reader.dropped.items()))
        payload: dict[str, JsonValue] = {
            "request": self._given.exchange.id, "verdict": str(tally.action), "findings": findings, "dropped": dropped,
            "scanned": tally.scanned, "released": tally.released, "answer": tally.digest(self._desk.audit_key),
            "prompt_tokens": self._prompt_tokens(), "completion_tokens": tally.completion_tokens(),
            "drawn": len(tally.drawn), "attempted": tally.attempted,
            "first_ms": self._first_ms, "total_ms": self._elapsed_ms(),
        }  # fmt: skip
        if self._given.request.alternatives is not None:
            payload["logprob_bits"] = self._bits(tally.entries)
        return payload | ({"incident": self._incident} if is_blocked else {})

    def _prompt_tokens(self) -> int:
        usage = self._tally.usage
        return usage.prompt if usage is not None else self._prompt_size()

    def _bits(self, tokens: int) -> int:
        """Return the information in the log-probabilities of so many tokens."""
        alternatives = self._given.request.alternatives
        return 0 if alternatives is None else math.ceil(tokens * bits_of(alternatives, self._given.model.vocabulary))
