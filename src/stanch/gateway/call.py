"""One call over HTTP/1.1 to a model's server: a request out, and its answer's bytes in pieces.

A connection carries one call after the other, never two at a time, and only as long as every answer ends in due form
with nothing behind it: what a server sends too much or too late belongs to nobody, and ends the connection.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Self

from stanch.gateway.problem import UpstreamFailed, UpstreamProtocol, UpstreamTimeout

_FINAL = 200
_READ_AHEAD = 1 << 16
_MOST_BARE = 1 << 16
"""So many bytes of heads and framing, and one read more, may bring nothing of the answer."""


class Call(asyncio.Protocol, AsyncIterator[bytes]):
    """The answer to the last request as it arrives; iterating over it yields its body, read no faster than is wanted.

    Iterating raises UpstreamTimeout if nothing arrives for a while, UpstreamProtocol for what is no HTTP/1.1, and
    UpstreamFailed if the connection ends before the answer does.

    Attributes:
        status: What the head says; 0 until it is there.
        is_free: Whether another request may be sent.
        is_unheard: Whether the connection was lost before anything of an answer came.
        since: When the last answer was left, by the loop's clock.
        out: Where requests are written, once there is a connection.
    """

    out: asyncio.WriteTransport

    def __init__(self, idle: float) -> None:
        import httptools  # noqa: PLC0415 - an optional part; run_server has seen that it is there

        self.status = 0
        self.is_free = self.is_unheard = False
        self.since = 0.0
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._size = self._bare = 0
        self._is_paused = self._is_over = False
        self._keep: Callable[[Call], None] | None = None
        self._error: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._due = 0.0
        self._watching: asyncio.TimerHandle | None = None

    def send(self, request: bytes) -> None:
        """Send a request; from here on this is its answer."""
        self.status = self._bare = 0
        self._headers.clear()
        self._is_over = self.is_free = False
        self._keep = None
        if self._watching is None:
            self._watching = self._loop.call_later(self._idle, self._watch)
        self.out.write(request)

    async def head(self) -> None:
        """Wait for the head of the answer; see the class for the errors."""
        while not self.status:
            await self._more()

    def values(self, name: bytes) -> list[bytes]:
        """Return what the head says under a name (in lower case)."""
        return [value for known, value in self._headers if known == name]

    def leave(self, keep: "Callable[[Call], None]") -> None:
        """Want no more of the answer. If its end follows and nothing else, ``keep`` is given the free connection."""
        self._keep = keep
        self.since = self._loop.time()
        if self._is_over or self._pieces or self._is_paused:
            self._let_go()

    def end(self) -> None:
        """End the connection; what was not read is not waited for."""
        self.is_free = False
        self._unwatch()
        self.out.abort()

    def __aiter__(self) -> Self:
        """Return this answer itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return what has arrived since."""
        while not self._pieces:
            await self._more()
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._is_paused and not self._is_over:
            self._is_paused = False
            self._transport.resume_reading()
        return piece

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        if self._is_over:
            raise StopAsyncIteration
        self._due = self._loop.time() + self._idle
        self._waiting = self._loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _watch(self) -> None:
        """End a wait that is too long, and a connection that nobody uses. One timer for all waits: most are short."""
        left = self._due - self._loop.time() if self._waiting is not None else self._idle
        if self._keep is not None:
            self.end()
        elif left <= 0:
            self._finish(UpstreamTimeout("the model's server did not answer in time"))
        else:
            self._watching = self._loop.call_later(left, self._watch)

    def _unwatch(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _finish(self, error: Exception | None = None) -> None:
        if not self._is_over:
            self._is_over, self._error = True, error
            self._wake()

    def _let_go(self) -> None:
        """Hand the connection on, or end it if it may carry nothing more."""
        if self.is_free and self._keep is not None and not (self._pieces or self._is_paused):
            self._keep(self)
        else:
            self.end()

    def _go_on(self) -> None:
        """Hand on or end a connection whose answer nobody wants; read no more of one that lies unread."""
        if self._keep is not None and (self._is_over or self._pieces):
            self._let_go()
        elif self._size > _READ_AHEAD and not self._is_paused and not self._is_over:
            self._is_paused = True
            self._transport.pause_reading()

    # What the transport says.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvloop's
        """Begin."""
        self._transport = self.out = transport

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        if self._is_over:
            self.end()  # nobody asked for it
            return
        self._bare += len(data)
        try:
            self._parser.feed_data(data)
        except Exception as error:  # noqa: BLE001 - whatever it was, the answer cannot be read
            self.is_free = False
            self._finish(UpstreamProtocol("the model's server sent what is no HTTP/1.1", why=type(error).__name__))
        if self._pieces:
            self._wake()
        if self._bare > _MOST_BARE:
            self._finish(UpstreamProtocol("the model's server sent too long a head"))
        self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        """End; an answer that says neither its length nor its end is whole when the connection is closed."""
        self.is_free = False
        self._unwatch()
        self.is_unheard = not (self._is_over or self.status or self._bare)
        is_whole = (
            error is None and self.status and not self.values(b"content-length") + self.values(b"transfer-encoding")
        )
        self._finish(None if is_whole else UpstreamFailed("the model's server broke off its answer"))

    # What the parser says.

    def on_message_begin(self) -> None:
        """Take the beginning of an answer; one that nobody asked for ends the use of the connection."""
        self.is_free = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what stands behind the body is left out."""
        if not self.status:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Take the status; an answer that only announces another (RFC 9110, section 15.2) is none."""
        status = self._parser.get_status_code()
        if status < _FINAL:
            self._headers.clear()
        elif not self._is_over:
            self.status = status
            self._wake()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body; what comes behind it, such as another answer, is none."""
        if not self._is_over:
            self._pieces.append(body)
            self._size += len(body)
            self._bare = 0

    def on_message_complete(self) -> None:
        """Note that the answer has ended, unless it only announced another."""
        if self.status and not self._is_over:
            self.is_free = self._parser.should_keep_alive()
            self._finish()
