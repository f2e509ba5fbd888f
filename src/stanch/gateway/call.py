"""One call over HTTP/1.1 to a model's server: a request out, and its answer's bytes in pieces.

Each call has a connection of its own, which ends with it: what a server sends too much or too late belongs to nobody.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Self

from stanch.gateway.problem import UpstreamFailed, UpstreamProtocol, UpstreamTimeout

_FINAL = 200
_READ_AHEAD = 1 << 16
_MOST_BARE = 1 << 16
"""So many bytes of heads and framing, and one read more, may bring nothing of the answer."""


class Call(asyncio.Protocol, AsyncIterator[bytes]):
    """The answer to one request as it arrives; iterating over it yields its body, read no faster than it is wanted.

    Iterating raises UpstreamTimeout if nothing arrives for a while, UpstreamProtocol for what is no HTTP/1.1, and
    UpstreamFailed if the connection ends before the answer does.

    Attributes:
        status: What the head says; 0 until it is there.
    """

    def __init__(self, idle: float) -> None:
        import httptools  # noqa: PLC0415 - an optional part; run_server has seen that it is there

        self.status = 0
        self._idle = idle
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._size = self._bare = 0
        self._is_paused = self._is_over = False
        self._error: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Wait for the head of the answer; see the class for the errors."""
        while not self.status:
            await self._more()

    def values(self, name: bytes) -> list[bytes]:
        """Return what the head says under a name (in lower case)."""
        return [value for known, value in self._headers if known == name]

    def __aiter__(self) -> Self:
        """Return this answer itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return what has arrived since."""
        while not self._pieces:
            await self._more()
        piece = b"".join(self._pieces)
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
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        late = UpstreamTimeout("the model's server did not answer in time")
        patience = loop.call_later(self._idle, self._end, late)
        try:
            await self._waiting
        finally:
            patience.cancel()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _end(self, error: Exception | None = None) -> None:
        if not self._is_over:
            self._is_over, self._error = True, error
            self._wake()

    # What the transport says.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvloop's
        """Begin."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        if self._is_over:
            return
        self._bare += len(data)
        try:
            self._parser.feed_data(data)
        except Exception as error:  # noqa: BLE001 - whatever it was, the answer cannot be read
            self._end(UpstreamProtocol("the model's server sent what is no HTTP/1.1", why=type(error).__name__))
        if self._bare > _MOST_BARE:
            self._end(UpstreamProtocol("the model's server sent too long a head"))
        if self._size > _READ_AHEAD and not self._is_paused and not self._is_over:
            self._is_paused = True
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """End; an answer that says neither its length nor its end is whole when the connection is closed."""
        is_whole = (
            error is None and self.status and not self.values(b"content-length") + self.values(b"transfer-encoding")
        )
        self._end(None if is_whole else UpstreamFailed("the model's server broke off its answer"))

    # What the parser says.

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
            self._wake()

    def on_message_complete(self) -> None:
        """Note that the answer has ended, unless it only announced another."""
        if self.status:
            self._end()
