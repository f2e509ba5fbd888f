"""Requests for text: streamed or whole, and through the guard."""

import asyncio
import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from stanch.crypto import hmac_sha256
from stanch.errors import ExternalError
from stanch.gateway.act import Act, Prepared
from stanch.gateway.budgets import CUT, DRAWN, Amounts, Budget
from stanch.gateway.desk import INFER, LOGPROBS, Desk
from stanch.gateway.dialect import Header, Reader, Usage, Writer
from stanch.gateway.exchange import new_id
from stanch.gateway.logprobs import bits_of
from stanch.gateway.probe import texts_of
from stanch.gateway.problem import UpstreamFailed, UpstreamTimeout
from stanch.gateway.rebuild import Stream, Tally, rebuild_whole
from stanch.gateway.request import GenerateRequest
from stanch.gateway.sse import KEEP_ALIVE, Event, EventParser
from stanch.gateway.upstream import Upstream, read_whole
from stanch.gateway.watermark import Watermark
from stanch.guard import Action
from stanch.terms import JsonValue
from stanch.workspace import Request

KEEP_ALIVE_SECONDS = 15.0
_LONG = 4096
_LONE = b"stanch/lone/v1\x00"
_MOST_LONE = 256  # an entry of the log has place for them
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Speech:
    """How a dialect of text is read and written."""

    reader: Callable[[Any], Reader]
    writer: Callable[[Header, Any], Writer]


class Answering(Act[GenerateRequest]):
    """Answers a request for text, through the guard."""

    kind = INFER

    def __init__(self, desk: Desk, upstream: Upstream, prepared: Prepared[GenerateRequest], speech: Speech) -> None:
        super().__init__(desk, upstream, prepared)
        exchange, request = prepared.exchange, prepared.request
        self._reader = speech.reader(request)
        self._dropped = self._reader.dropped
        self._writer = speech.writer(Header(exchange.id, int(desk.workspace.door.clock()), request.model), request)
        self._stream: Stream | None = None
        self._tally = Tally()
        self._whole = b""
        self._is_open = False  # whether a server writes, or wrote, a whole answer that nobody has counted
        self._first_ms = -1
        self._written = time.monotonic()
        self._guard_seconds = 0.0

    @functools.cached_property
    def _texts(self) -> list[str]:
        """What the model reads."""
        return texts_of(self._given.request)

    @functools.cached_property
    def _incident(self) -> str:
        """What a block is called, opaque and random."""
        return f"inc_{new_id()}"

    async def end(self) -> None:
        """Send what says that the answer is whole."""
        exchange = self._given.exchange
        if self._stream is None:
            return await exchange.answer(self._whole)
        usage = Usage(self._prompt_tokens(), self._tally.completion_tokens())
        incident = self._incident if self._stream.is_blocked else ""
        return await exchange.end_stream(b"".join(self._stream.tail(incident, usage)))

    async def _answer(self) -> None:
        await self._elsewhere_if_long(self._sum_up)
        await (self._play_stream() if self._given.request.stream else self._fetch_whole())

    def _watermark(self) -> Watermark:
        return self._given.model.watermark

    def _also(self) -> tuple[str, ...]:
        return () if self._given.request.alternatives is None else (LOGPROBS,)

    def _reserved(self) -> Amounts:
        most = self._most_tokens
        return Amounts(tokens=most + self._prompt_size(), bits=self._bits(most))

    def _used(self) -> Amounts:
        tally, stream = self._tally, self._stream
        completion = self._most_tokens if self._is_open else tally.completion_tokens()
        if tally.usage is None or (stream is not None and not stream.is_whole):
            # Nobody has counted it to its end: each character may be a token.
            completion = max(completion, min(tally.scanned, self._most_tokens))
        prompt = max(self._prompt_tokens(), self._prompt_size())
        return Amounts(tokens=prompt + completion, bits=self._bits(tally.entries))

    @property
    def _most_tokens(self) -> int:
        """How many tokens the answer may have, all choices together."""
        return self._given.request.choices * self._given.request.most_tokens

    def _counted(self) -> tuple[int, int]:
        return self._prompt_tokens(), self._tally.completion_tokens()

    def _verdict(self) -> str:
        return str(self._tally.action)

    def _windows(self) -> Mapping[Budget, Iterable[str]]:
        return {DRAWN: self._tally.drawn, CUT: self._tally.attempted}

    def _probe(self) -> dict[str, JsonValue]:
        """Flag the prompt; of a long one only for those who may ask. The others are refused, and that is recorded."""
        given = self._given
        if self._is_long:
            judge = self._desk.judge(given.session, given.model.ref, (*self._also(), self.kind[1]))
            if not judge.decide(Request(*self.kind, given.model.ref)).allowed:
                return {}
        return self._desk.probes.judge(given.session.principal, self._texts, given.model.guard.policy.index)

    def _sum_up(self) -> None:
        self._desk.windows.add(self._charge.principal, self._charge.model, "\n".join(self._texts[-1:]))

    async def _play_stream(self) -> None:
        given = self._given
        self._stream = stream = Stream(given.model.guard, self._reader, self._writer, self._desk.audit_key)
        self._tally = stream.tally
        parser = EventParser()
        async with self._asked("text/event-stream") as pieces:
            with self._kept_alive():
                async for piece in pieces:
                    await self._pass_on(stream, parser.feed(piece))
                    if stream.is_ended or stream.is_blocked:
                        return
        if not stream.is_whole:
            raise UpstreamFailed("the model's server broke off its answer")

    async def _pass_on(self, stream: Stream, events: list[Event]) -> None:
        """Send what the events give, at once; where one is not allowed, what those before it gave."""
        began = time.perf_counter()
        try:
            stream.take(*events)
        finally:
            frames = stream.frames()
            self._guard_seconds += time.perf_counter() - began
            if frames:
                self._first_ms = self._elapsed_ms() if self._first_ms < 0 else self._first_ms
                self._written = time.monotonic()
                await self._given.exchange.write_stream(b"".join(frames))

    async def _fetch_whole(self) -> None:
        self._is_open = True
        try:
            async with self._asked("application/json") as pieces:
                text = await read_whole(pieces)
        except ExternalError as error:
            self._is_open = isinstance(error, UpstreamTimeout)
            raise
        taken = self._reader.read_whole(text)
        # A long answer takes as long as a stream of it; the others are not kept waiting.
        began = time.perf_counter()
        self._whole, self._tally = await asyncio.to_thread(
            rebuild_whole, self._given.model.guard, self._reader, taken, self._writer, self._incident,
            self._prompt_size(), budget_key=self._desk.audit_key,
        )  # fmt: skip
        self._is_open = False
        self._guard_seconds = time.perf_counter() - began

    @contextlib.contextmanager
    def _kept_alive(self) -> Iterator[None]:
        """While nothing is sent, tell the client now and then that the connection lives."""
        loop, telling = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        waiting: asyncio.TimerHandle

        def look() -> None:
            nonlocal waiting
            left = self._written + KEEP_ALIVE_SECONDS - time.monotonic()
            if left <= 0:
                self._written, left = time.monotonic(), KEEP_ALIVE_SECONDS
                if not telling:  # else the client does not read
                    telling.add(task := loop.create_task(self._given.exchange.write_stream(KEEP_ALIVE)))
                    task.add_done_callback(telling.discard)
            waiting = loop.call_later(left, look)

        waiting = loop.call_later(KEEP_ALIVE_SECONDS, look)
        try:
            yield
        finally:
            waiting.cancel()
            for task in telling:
                task.cancel()

    def _measure(self) -> None:
        super()._measure()
        metrics, tally = self._desk.metrics, self._tally
        if self._first_ms >= 0:
            metrics.ttft.observe(self._first_ms / 1000)
        metrics.guard.observe(self._guard_seconds)
        metrics.held.observe(tally.held)
        for kind, count in (tally.findings or {"none": 1}).items():
            metrics.verdicts.labels(str(tally.action), kind).inc(count)

    async def _intent(self) -> dict[str, JsonValue]:
        probe = await self._elsewhere_if_long(self._probe)
        request, found = self._given.request, await super()._intent()
        if request.tool_names:
            found["tools"] = [*sorted(self._keyed("tool", name) for name in request.tool_names)]
        return found | {"stream": request.stream, "probe": probe}

    def _outcome(self) -> dict[str, JsonValue]:
        tally = self._tally
        if self._stream is not None:
            self._stream.count()
        runs, repeated = tally.repetition()
        findings: dict[str, JsonValue] = dict(sorted(tally.findings.items()))
        labels = {dictionary.label for dictionary in self._given.model.guard.policy.dictionaries}
        payload = super()._outcome() | {
            "verdict": str(tally.action), "findings": findings, "scanned": tally.scanned, "released": tally.released,
            "answer": tally.digest(self._desk.audit), "prompt_tokens": self._prompt_tokens(),
            "completion_tokens": tally.completion_tokens(), "drawn": len(tally.drawn),
            "attempted": len(tally.attempted), "terms": sum(tally.findings[label] for label in labels),
            **self._lone(), "folded_chars": tally.folded_chars, "runs": runs, "repeated": repeated,
            "first_ms": self._first_ms,
        }  # fmt: skip
        if self._given.request.alternatives is not None:
            payload |= {
                "logprob_bits": self._bits(tally.entries), "entries": tally.entries, "surprisal": tally.surprisal,
            }  # fmt: skip
        if self._watermark().root is not None:
            payload["watermark"] = self._marked
        return payload | ({"incident": self._incident} if tally.action == Action.BLOCK else {})

    def _lone(self) -> dict[str, JsonValue]:
        """Return how many lone windows chance gives in such an answer, in millionths, how many there are, and which."""
        tally, index = self._tally, self._given.model.guard.policy.index
        chance = index.header.fill_fp if index is not None else 0.0
        digests = sorted(hmac_sha256(self._desk.audit_key, _LONE + window)[:8].hex() for window in tally.lone)
        return {
            "lone": len(digests), "lone_windows": [*digests[:_MOST_LONE]],
            "lone_expected": math.ceil(tally.folded_chars * chance * 1e6),
        }  # fmt: skip

    def _prompt_tokens(self) -> int:
        usage = self._tally.usage
        return usage.prompt if usage is not None else self._prompt_size()

    def _bits(self, tokens: int) -> int:
        """Return the information in the log-probabilities of so many tokens."""
        alternatives = self._given.request.alternatives
        return 0 if alternatives is None else math.ceil(tokens * bits_of(alternatives, self._given.model.vocabulary))

    @property
    def _is_long(self) -> bool:
        return 4 * self._prompt_size() > _LONG

    async def _elsewhere_if_long(self, work: Callable[[], T]) -> T:
        """Do work on the texts here, or in another thread if the request is so long that others would notice."""
        return await asyncio.to_thread(work) if self._is_long else work()
