"""The model's server: one request out, and its answer's bytes in pieces, read no faster than they are wanted."""

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import SplitResult

from stanch.gateway.call import Call
from stanch.gateway.problem import UpstreamFailed, UpstreamProtocol, UpstreamTimeout
from stanch.store.http import check_url

MAX_WHOLE = 4 << 20


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the gateway waits, in seconds.

    Attributes:
        connect: For a connection.
        idle: For the head of the answer, and then for its next bytes.
        total: For the whole answer, a slow client included.
    """

    connect: float = 10.0
    idle: float = 60.0
    total: float = 600.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """The way to the servers of models. Certificates are checked; no redirect, proxy or cookie is used."""

    patience: Patience = Patience()

    async def probe(self, url: str) -> None:
        """Return if a server says that it is well, or has nothing to say about it.

        Raises:
            UpstreamFailed: It cannot be reached, or says that it is not well.
            UpstreamProtocol: It answers something else than HTTP/1.1.
        """
        async with self._call("GET", f"{url.rstrip('/')}/health", "accept: */*\r\n") as call:
            if call.status >= 500:
                raise UpstreamFailed("the model's server is not ready", why=f"status {call.status}")

    @contextlib.asynccontextmanager
    async def ask(self, url: str, body: bytes, *, media: str, more: str = "") -> AsyncIterator[Call]:
        """Send a request, with ``more`` lines in its head, and yield the answer, of the media type ``media``.

        Leaving the block ends the connection. Nothing that the server says about an error is kept.

        Raises:
            UpstreamTimeout: The server did not connect or answer in time.
            UpstreamFailed: It refused, or the connection broke.
            UpstreamProtocol: Its answer is of another type or encoding, or no HTTP/1.1.
        """
        headers = f"accept: {media}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{more}"
        async with self._call("POST", url, headers, body) as call:
            if call.status != 200:
                raise UpstreamFailed("the model's server refused", why=f"status {call.status}")
            if not _is_plain(call, media):
                raise UpstreamProtocol("the model's server answered in another media type or encoding")
            yield call

    @contextlib.asynccontextmanager
    async def _call(self, method: str, url: str, headers: str, body: bytes = b"") -> AsyncIterator[Call]:
        """Send a request, and yield its answer once the head is there."""
        parts = check_url(url)
        try:
            async with asyncio.timeout(self.patience.connect):
                transport, call = await _connect(parts, self.patience)
        except TimeoutError as error:
            raise UpstreamTimeout("the model's server did not answer in time") from error
        except OSError as error:
            raise UpstreamFailed("the model's server cannot be reached", why=type(error).__name__) from error
        try:
            target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
            head = f"{method} {target} HTTP/1.1\r\nhost: {parts.netloc}\r\nuser-agent: stanch\r\n{headers}"
            transport.write(f"{head}accept-encoding: identity\r\nconnection: close\r\n\r\n".encode() + body)
            await call.head()
            yield call
        finally:
            transport.abort()  # what was not read is not waited for


async def _connect(parts: SplitResult, patience: Patience) -> tuple[asyncio.WriteTransport, Call]:
    """Connect to the first address of a server that answers; each has its share of the time."""
    tls = _tls() if parts.scheme == "https" else None
    host, port, error = str(parts.hostname), parts.port or (443 if tls else 80), OSError("the name has no address")
    places = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, (address, *_) in places:
        try:
            async with asyncio.timeout(patience.connect / len(places)):
                return await _open(str(address), port, Call(patience.idle), tls, host)
        except OSError as found:
            error = found
    raise error


async def _open(
    address: str, port: int, call: Call, tls: ssl.SSLContext | None, name: str
) -> tuple[asyncio.WriteTransport, Call]:
    """Connect, with TLS if there is a context; the certificate must be that of ``name``."""
    loop = asyncio.get_running_loop()
    if tls is None:
        transport, _ = await loop.create_connection(lambda: call, address, port)
        return transport, call
    # Reading is paused below TLS: uvloop's TLS drops what it read while paused when the server closes. And what comes
    # before TLS is nobody's: so the call is told of the connection only then.
    raw, _ = await loop.create_connection(asyncio.Protocol, address, port)
    try:
        call.connection_made(raw)
        secured = await loop.start_tls(raw, call, tls, server_hostname=name)
    except BaseException:
        raw.abort()
        raise
    assert secured is not None  # noqa: S101 - only a transport that is closing has none
    return secured, call


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _is_plain(call: Call, media: str) -> bool:
    """Say whether an answer is of this media type and in UTF-8, and nothing but the framing is wrapped around it."""
    kinds = call.values(b"content-type")
    kind, *parameters = (part.strip().lower() for part in b";".join(kinds).split(b";"))
    charsets = {part.partition(b"=")[2].strip(b' "') for part in parameters if part.startswith(b"charset")}
    wrapped = [*call.values(b"content-encoding"), *call.values(b"transfer-encoding")]
    plain = {value.strip().lower() for value in wrapped} <= {b"identity", b"chunked"}
    return len(kinds) == 1 and kind == media.encode() and charsets <= {b"utf-8"} and plain


async def read_whole(pieces: AsyncIterator[bytes], *, most: int = MAX_WHOLE) -> str:
    """Return the text of a whole answer.

    Raises:
        UpstreamProtocol: It is too long, or not UTF-8.
    """
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > most:
            raise UpstreamProtocol("the model's server sent too long an answer")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise UpstreamProtocol("the model's server sent bytes that are not UTF-8") from None
