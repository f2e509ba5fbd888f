"""One HTTP exchange over ASGI, with the limits that hold before anything is believed."""

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from stanch.access.authenticator import Bearer, ClientLeaf, Credential
from stanch.crypto import random_bytes
from stanch.errors import InvalidInput, NotAuthenticated
from stanch.gateway.problem import RequestTooLarge, RequestTooSlow, UnsupportedMedia, problem_body, status_of
from stanch.gateway.sse import write_event

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY = 1 << 20
MAX_HEADERS = 16 << 10
LEAF = "stanch.client-leaf"
"""Where the server puts the DER certificate that the TLS layer verified."""
_TRACE = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")
EVENTS, JSON = b"text/event-stream", b"application/json"
_BETA = ("POST /v1/messages", b"beta=true")


def new_id() -> str:
    """Return 26 random letters and digits, 128 bits."""
    return base64.b32encode(random_bytes(16)).decode().rstrip("=").lower()


class Exchange:
    """A request and its answer.

    Attributes:
        id: What the answer's header ``x-stanch-request`` says, and the log.
        started: Whether the answer's head was sent.
        is_typed: Whether the events of the stream have types, so that one that says of a failure needs one.
        status: How it ended: the status, ``broken`` for a stream that ended in a failure, ``gone`` without an answer.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.id = new_id()
        self.started = False
        self.is_typed = False
        self.status = "gone"
        self._is_stream = False
        self._scope = scope
        self._receive = receive
        self._send = send

    @property
    def target(self) -> str:
        """Method and path."""
        return f"{self._scope['method']} {self._scope['path']}"

    @property
    def address(self) -> str:
        """The address of whoever asks: as the socket says, or a proxy that the settings trust."""
        client = self._scope.get("client")
        return client[0] if client else ""

    @property
    def program(self) -> str:
        """What kind of program says that it asks: the first name in its ``User-Agent``, without a version."""
        told = next((value for name, value in self._scope["headers"] if name == b"user-agent"), b"")
        return told.decode("latin-1").partition("/")[0].strip().lower()[:64]

    @property
    def trace(self) -> tuple[str, str]:
        """Ids of the trace and of the span that the request says it belongs to (W3C Trace Context), or nothing."""
        told = [value for name, value in self._scope["headers"] if name == b"traceparent"]
        found = _TRACE.fullmatch(told[0]) if len(told) == 1 else None
        return (found[1].decode(), found[2].decode()) if found else ("", "")

    def check_head(self) -> None:
        """Refuse too long a head, and a query; the one that clients of Anthropic's beta API send says nothing.

        Raises:
            RequestTooLarge: The headers are longer than 16 KiB.
            InvalidInput: There is a query string.
        """
        if sum(len(name) + len(value) for name, value in self._scope["headers"]) > MAX_HEADERS:
            raise RequestTooLarge("the request's headers are too long")
        if self._scope.get("query_string") and (self.target, self._scope["query_string"]) != _BETA:
            raise InvalidInput("the request was refused: it has a query string")

    def credential(self) -> Credential:
        """Return what the request carries to say who asks.

        Raises:
            NotAuthenticated: Nothing, or more than one thing.
        """
        headers = self._scope["headers"]
        # Clients of the Anthropic API say their key in a header of its own.
        given = [b"bearer " + value for name, value in headers if name == b"x-api-key"]
        given += [value for name, value in headers if name == b"authorization"]
        leaf = self._scope.get(LEAF)
        if not given and leaf is not None:
            return ClientLeaf(leaf)
        if len(given) != 1 or leaf is not None or given[0][:7].lower() != b"bearer ":
            raise NotAuthenticated("not authenticated")
        try:
            return Bearer(given[0][7:].decode("ascii"), self.address)
        except UnicodeDecodeError:
            raise NotAuthenticated("not authenticated") from None

    async def body(self, seconds: float) -> bytes:
        """Read the request's body, which must be there in time.

        Raises:
            UnsupportedMedia: It is not declared to be JSON.
            RequestTooLarge: It is longer than 1 MiB.
            RequestTooSlow: It was not there in time.
            ConnectionAbortedError: The client is gone.
        """
        types = [value for name, value in self._scope["headers"] if name == b"content-type"]
        if len(types) != 1 or types[0].partition(b";")[0].strip().lower() != JSON:
            raise UnsupportedMedia("the request's body is not JSON")
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(seconds):
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionAbortedError
                    body += message.get("body", b"")
                    if len(body) > MAX_BODY:
                        raise RequestTooLarge("the request's body is too long")
                    more = message.get("more_body", False)
        except TimeoutError:
            raise RequestTooSlow("the request's body was not there in time") from None
        return bytes(body)

    async def disconnected(self) -> None:
        """Return when the client is gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def write_stream(self, data: bytes) -> None:
        """Send a piece of an event stream; returns when the client's side took it."""
        await self._write(data, more=True)

    async def end_stream(self, data: bytes) -> None:
        """Send the last piece of an event stream."""
        await self._write(data, more=False)

    async def answer(self, body: bytes, status: int = 200) -> None:
        """Send a whole answer."""
        await self._start(status, JSON, len(body))
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, error: BaseException) -> None:
        """Say that there is no answer, or that it broke off: then without the mark that ends a whole one."""
        if self._is_stream:
            self.status = "broken"
            body = problem_body(error, self.id)
            if self.is_typed:
                body = b'{"type":"error",' + body.removeprefix(b"{")
            await self.end_stream(write_event(body, "error" if self.is_typed else ""))
        elif not self.started:
            await self.answer(problem_body(error, self.id), status_of(error))

    async def _write(self, data: bytes, *, more: bool) -> None:
        if not self.started:
            await self._start(200, EVENTS, None)
            self._is_stream = True
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _start(self, status: int, media: bytes, length: int | None) -> None:
        headers = [(b"content-type", media), (b"x-stanch-request", self.id.encode()), (b"cache-control", b"no-store")]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        if status in {429, 503}:
            headers.append((b"retry-after", b"60" if status == 429 else b"1"))
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        self.started, self.status = True, str(status)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
