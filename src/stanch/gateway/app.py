"""The ASGI application: the table of endpoints and the life of a request. No answer leaves unrecorded."""

import asyncio
import contextlib
import functools
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from stanch.errors import NotAuthenticated, NotFound, StanchError
from stanch.gateway.act import Act, Prepared
from stanch.gateway.answering import Answering, Speech
from stanch.gateway.budgets import Limits
from stanch.gateway.desk import Desk
from stanch.gateway.dialect import Dialect
from stanch.gateway.dialect_messages import MessagesReader, MessagesWriter
from stanch.gateway.dialect_openai import ChatWriter, CompletionsWriter, OpenAiReader
from stanch.gateway.dialect_responses import ResponsesReader, ResponsesWriter
from stanch.gateway.embedding import Embedding
from stanch.gateway.exchange import Exchange, Receive, Scope, Send
from stanch.gateway.metrics import ENDPOINT_OTHERS
from stanch.gateway.model import ServedModel
from stanch.gateway.problem import NotReady, UpstreamTimeout, code_of
from stanch.gateway.request import ChatRequest, CompletionRequest, EmbeddingsRequest, read_request
from stanch.gateway.request_messages import MessagesRequest
from stanch.gateway.request_responses import ResponsesRequest
from stanch.gateway.upstream import Upstream
from stanch.guard import GuardError, check_text

MAX_STREAMS, MAX_EACH = 1024, 768
INTENT_SECONDS = 5.0
BODY_SECONDS = 30.0
READY_SECONDS = 1.0
"""For how long an answer about readiness holds; anybody may ask."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is asked for under one path: its dialect, its requests, and how text is read and written (None: vectors)."""

    dialect: Dialect
    request: type[Any]
    speech: Speech | None = None


ENDPOINTS = {
    "POST /v1/chat/completions": Endpoint(
        "chat", ChatRequest, Speech(functools.partial(OpenAiReader, is_chat=True), ChatWriter)
    ),
    "POST /v1/completions": Endpoint(
        "completions", CompletionRequest, Speech(functools.partial(OpenAiReader, is_chat=False), CompletionsWriter)
    ),
    "POST /v1/embeddings": Endpoint("embeddings", EmbeddingsRequest),
    "POST /v1/messages": Endpoint("messages", MessagesRequest, Speech(MessagesReader, MessagesWriter)),
    "POST /v1/responses": Endpoint("responses", ResponsesRequest, Speech(ResponsesReader, ResponsesWriter)),
}
_OTHERS = ("GET /healthz", "GET /readyz", "GET /v1/models")


@dataclass(slots=True)
class Gateway:
    """Serves the models of one workspace.

    Attributes:
        desk: Who may, and what is recorded.
        models: The models by the name that clients ask for.
        upstream: The servers of the models.
        limits: The budgets by the name of the model.
        most_streams: How many requests are answered at once; more are told to come again.
        most_each: How many requests of one principal are read and answered at once; likewise.
        intent_seconds: How long a request waits for its intent to be durable.
        body_seconds: How long a request's body may take to arrive.
    """

    desk: Desk
    models: Mapping[str, ServedModel]
    upstream: Upstream
    limits: Mapping[str, Limits]
    most_streams: int = MAX_STREAMS
    most_each: int = MAX_EACH
    intent_seconds: float = INTENT_SECONDS
    body_seconds: float = BODY_SECONDS
    _running: int = 0
    _each: Counter[str] = field(default_factory=Counter)
    _readiness: asyncio.Task[None] | None = None
    _looked_at: float = 0.0
    _left_behind: set[asyncio.Task[None]] = field(default_factory=set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event, as ASGI 3 says."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(Exchange(scope, receive, send))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        working = [asyncio.create_task(work) for work in (self.desk.keep_flushing(), self.desk.keep_telling())]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._left_behind:
            await asyncio.wait(self._left_behind)
        self.upstream.close()
        for task in working:
            task.cancel()
        with contextlib.suppress(StanchError):  # a log that cannot be written now is told by every other act
            await asyncio.to_thread(self.desk.flush, is_last=True)
        await asyncio.wait(working)
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, exchange: Exchange) -> None:
        """Answer one request; an error becomes a constant, and one of an unknown person is counted."""
        try:
            await self._route(exchange)
        except ConnectionAbortedError:
            return  # the client is gone; what began is recorded as cancelled
        except Exception as error:  # noqa: BLE001 - whatever it was, the client reads a constant and nothing of the cause
            if isinstance(error, NotAuthenticated | NotFound):
                self.desk.refusals.note(code_of(error), exchange.address)
            await exchange.fail(error)
        finally:
            known = exchange.target in {*ENDPOINTS, *_OTHERS}
            self.desk.metrics.requests.labels(exchange.target if known else ENDPOINT_OTHERS, exchange.status).inc()

    async def _route(self, exchange: Exchange) -> None:
        exchange.check_head()
        if exchange.target == "GET /healthz":
            return await exchange.answer(b'{"status":"alive"}')
        if exchange.target == "GET /readyz":
            return await self._tell_ready(exchange)
        if exchange.target in ENDPOINTS:
            return await self._infer(exchange, ENDPOINTS[exchange.target])
        if exchange.target == "GET /v1/models" or exchange.target.startswith("GET /v1/models/"):
            return await self._tell_models(exchange, exchange.target.removeprefix("GET /v1/models").removeprefix("/"))
        raise NotFound("there is no such endpoint")

    async def _tell_ready(self, exchange: Exchange) -> None:
        """Say what the last look found. However many ask, there is one look at a time, and one a second."""
        known = self._readiness
        if known is None or (known.done() and time.monotonic() - self._looked_at > READY_SECONDS):
            known = self._readiness = asyncio.create_task(self._look_ready())
        await asyncio.shield(known)
        await exchange.answer(b'{"status":"ready"}')

    async def _look_ready(self) -> None:
        """Return if policies are confirmed, the log takes entries, and one model at least can be answered for.

        Whoever balances load takes a server out for a 503: one model's server that is down does not end the others.
        """
        try:
            await asyncio.to_thread(self.desk.authority.policies)
            await asyncio.to_thread(self.desk.check_writable)
            lacking = await asyncio.gather(*map(self._lacking, self.models.values()))
            for name, error in zip(self.models, lacking, strict=True):
                self.desk.metrics.ready.labels(name).set(error is None)
            if None not in lacking:
                raise NotReady("no model can be answered for", why="; ".join(str(error) for error in lacking))
        finally:
            self._looked_at = time.monotonic()

    async def _lacking(self, model: ServedModel) -> StanchError | None:
        """Return why a model cannot be answered for: its certificate, its guard or its server."""
        try:
            await asyncio.to_thread(self._check_model, model)
            await self.upstream.probe(model.upstream, model.papers)
        except StanchError as error:
            return error
        return None

    def _check_model(self, model: ServedModel) -> None:
        """Look at a certificate, and take a word through a guard: its engines, its index and its key are at hand."""
        if model.certificate is not None:
            model.certificate.check(self.desk.workspace.now())
        try:
            check_text(model.guard, "ready")
        except GuardError as error:
            raise NotReady("a guard does not work", why=error.why) from error

    async def _tell_models(self, exchange: Exchange, wanted: str) -> None:
        """List the models that whoever asks may use; the others do not exist for it."""
        session = await asyncio.to_thread(self.desk.authenticate, exchange.credential())

        def allowed() -> list[dict[str, object]]:
            return [
                {"id": name, "object": "model", "created": 0, "owned_by": "stanch"}
                for name, model in self.models.items()
                if wanted in {"", name} and self.desk.may_infer(session, model.ref)
            ]

        found = await asyncio.to_thread(allowed)
        if wanted and not found:
            raise NotFound("there is no such model")
        await exchange.answer(orjson.dumps(found[0] if wanted else {"object": "list", "data": found}))

    async def _infer(self, exchange: Exchange, endpoint: Endpoint) -> None:
        """Authenticate, read, decide, charge, record, forward, guard, record again, and only then end the answer."""
        credential = exchange.credential()
        session = self.desk.recognise(credential)
        if session is None:
            session = await asyncio.to_thread(self.desk.authenticate, credential)
        with self._one_of(session.principal):
            body = await exchange.body(self.body_seconds)
            with self._running_one():
                request = read_request(body, endpoint.request)
                model = self.models.get(request.model)
                if model is None or endpoint.dialect not in model.dialects:
                    raise NotFound("there is no such model")
                exchange.is_typed = endpoint.dialect == "messages"
                prepared = Prepared(exchange, request, endpoint.dialect, model, session, self.limits[model.name])
                act: Act[Any] = (
                    Embedding(self.desk, self.upstream, prepared)
                    if endpoint.speech is None
                    else Answering(self.desk, self.upstream, prepared, endpoint.speech)
                )
                await self._watched(exchange, act, act.run())
                await act.end()

    @contextlib.contextmanager
    def _one_of(self, principal: str) -> Iterator[None]:
        """Take one of the places that a principal has; bodies that do not come take no others."""
        if self._each[principal] >= self.most_each:
            raise NotReady("as many requests of one principal are answered as there may be")
        self._each[principal] += 1
        try:
            yield
        finally:
            self._each[principal] -= 1
            if not self._each[principal]:
                del self._each[principal]

    @contextlib.contextmanager
    def _running_one(self) -> Iterator[None]:
        """Take one of the places that there are."""
        if self._running >= self.most_streams:
            raise NotReady("the gateway answers as many requests as it can")
        self._running += 1
        self.desk.metrics.active.inc()
        try:
            yield
        finally:
            self._running -= 1
            self.desk.metrics.active.dec()

    async def _watched(self, exchange: Exchange, act: Act[Any], run: Coroutine[Any, Any, None]) -> None:
        """Await a run; give it up when its intent is not durable in time, its client is gone, or it takes too long.

        A run that was given up still writes down that it was.
        """
        loop = asyncio.get_running_loop()
        over, end = loop.create_future(), loop.time() + self.upstream.patience.total

        def look(_task: asyncio.Task[None] | None = None) -> None:
            if not over.done():
                over.set_result(None)

        waiting: asyncio.TimerHandle

        def look_at_intent() -> None:
            nonlocal waiting
            if act.is_begun:
                waiting = loop.call_at(end, look)
            else:
                look()

        waiting = loop.call_at(min(end, loop.time() + self.intent_seconds), look_at_intent)
        task, gone = loop.create_task(run), loop.create_task(exchange.disconnected())
        task.add_done_callback(look)
        gone.add_done_callback(look)
        try:
            await over
            if task.done():
                task.result()
            elif gone.done():
                raise ConnectionAbortedError
            elif not act.is_begun:
                raise NotReady("the request could not be recorded in time")
            else:
                raise UpstreamTimeout("the answer took too long")
        finally:
            gone.cancel()
            waiting.cancel()
            if not task.done():
                task.cancel()
                self._left_behind.add(task)
                task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._left_behind.discard(task)
        if not task.cancelled():
            task.exception()  # it is in the log; nobody waits for it any more
