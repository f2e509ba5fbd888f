"""The models' servers: one request out, and its answer's bytes in pieces, read no faster than they are wanted."""

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeAlias
from urllib.parse import SplitResult

from stanch.config import GatewayModelSection
from stanch.errors import InvalidInput
from stanch.gateway.call import Call
from stanch.gateway.problem import UpstreamBusy, UpstreamFailed, UpstreamProtocol, UpstreamRefused, UpstreamTimeout
from stanch.store.http import check_url
from stanch.terms import SecretStr
from stanch.workspace.secret import read_secret

_Where: TypeAlias = tuple[SplitResult, ssl.SSLContext | None]

MAX_WHOLE = 4 << 20
_MOST_FREE = 256
_FREE_SECONDS = 2.0
"""For how long a connection may be used again; most servers close one that nobody uses after five seconds."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Papers:
    """What a model's server is shown, and whom it has to show itself as. Two are equal if they are one.

    Attributes:
        key: Its bearer token, if it asks for one.
        tls: The authorities that it is believed by, and our certificate; None: the system's authorities, and none.
    """

    key: SecretStr | None = None
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, folder: Path, section: GatewayModelSection) -> Self:
        """Return what the settings of a workspace in ``folder`` say of one model.

        Raises:
            InvalidInput: The secret or a file cannot be used.
        """
        name = f"gateway.models: {section.name[:80]!r}:"
        key, tls = None, None
        if section.upstream_key is not None:
            key = read_secret(section.upstream_key, folder, what=f"{name} upstream_key")
            if not key.reveal().isascii():
                raise InvalidInput(f"{name} upstream_key: expected ASCII")
        if section.upstream_authority or section.upstream_certificate:
            authority = folder / section.upstream_authority if section.upstream_authority else None
            try:
                tls = ssl.create_default_context(cafile=authority)
                if section.upstream_certificate:
                    private_key = section.upstream_private_key or section.upstream_certificate
                    tls.load_cert_chain(folder / section.upstream_certificate, folder / private_key)
            except (OSError, ssl.SSLError) as error:
                raise InvalidInput(
                    f"{name} upstream_authority or upstream_certificate cannot be used", why=type(error).__name__
                ) from error
        return cls(key, tls)


NO_PAPERS = Papers()


@dataclass(frozen=True, slots=True)
class Upstream:
    """The way to the servers of models. Certificates are checked; no redirect, proxy or cookie is used.

    Connections are kept for the next call for a moment. One object belongs to one event loop.
    """

    patience: Patience = Patience()
    _free: dict[tuple[str, str, Papers], list[Call]] = field(default_factory=dict)

    async def probe(self, url: str, papers: Papers = NO_PAPERS) -> None:
        """Return if a server says that it is well, or has nothing to say about it.

        Raises:
            UpstreamFailed: It cannot be reached, or says that it is not well.
            UpstreamProtocol: It answers something else than HTTP/1.1.
        """
        async with self._call("GET", f"{url.rstrip('/')}/health", "accept: */*\r\n", papers) as call:
            if call.status >= 500:
                raise UpstreamFailed("the model's server is not ready", why=f"status {call.status}")

    @contextlib.asynccontextmanager
    async def ask(
        self, url: str, body: bytes, *, media: str, more: str = "", papers: Papers = NO_PAPERS
    ) -> AsyncIterator[Call]:
        """Send a request, with ``more`` lines in its head, and yield the answer, of the media type ``media``.

        Leaving the block before the answer's end ends the connection. Nothing that the server says about an error is
        kept.

        Raises:
            UpstreamTimeout: The server did not connect or answer in time.
            UpstreamRefused: It says that the request cannot be answered.
            UpstreamBusy: It says that it answers as much as it can.
            UpstreamFailed: It does not answer for another reason, or the connection broke.
            UpstreamProtocol: Its answer is of another type or encoding, or no HTTP/1.1.
        """
        headers = f"accept: {media}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{more}"
        async with self._call("POST", url, headers, papers, body) as call:
            if call.status != 200:
                raise _refusal(call.status)
            if not _is_plain(call, media):
                raise UpstreamProtocol("the model's server answered in another media type or encoding")
            yield call

    def close(self) -> None:
        """End the connections that nobody uses."""
        for free in self._free.values():
            while free:
                free.pop().end()

    @contextlib.asynccontextmanager
    async def _call(
        self, method: str, url: str, headers: str, papers: Papers, body: bytes = b""
    ) -> AsyncIterator[Call]:
        """Send a request, and yield its answer once the head is there."""
        parts = _checked(url)
        target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        head = f"{method} {target} HTTP/1.1\r\nhost: {parts.netloc}\r\nuser-agent: stanch\r\n{headers}"
        if papers.key is not None:
            head += f"authorization: Bearer {papers.key.reveal()}\r\n"
        free = self._free.setdefault((parts.scheme, parts.netloc, papers), [])
        call = await self._answered(
            free, (parts, papers.tls), f"{head}accept-encoding: identity\r\n\r\n".encode() + body
        )
        try:
            yield call
        except BaseException:
            call.end()
            raise
        call.leave(lambda left: free.append(left) if len(free) < _MOST_FREE else left.end())

    async def _answered(self, free: list[Call], where: _Where, request: bytes) -> Call:
        """Send a request, and return its call once the head of the answer is there."""
        call = _take(free)
        was_free = call is not None
        while True:
            call = call or await self._connect(*where)
            call.send(request)
            try:
                await call.head()
            except UpstreamFailed:
                call.end()
                # A server may close a connection that nobody uses just when it is used again; then it is asked anew.
                if not (was_free and call.is_unheard):
                    raise
                call, was_free = None, False
            except BaseException:
                call.end()
                raise
            else:
                return call

    async def _connect(self, parts: SplitResult, own: ssl.SSLContext | None) -> Call:
        """Connect to the first address of a server that answers; each has its share of the time."""
        patience, tls = self.patience, own or _tls() if parts.scheme == "https" else None
        host, port, error = str(parts.hostname), parts.port or (443 if tls else 80), OSError("the name has no address")
        try:
            async with asyncio.timeout(patience.connect):
                places = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
                for *_, (address, *_) in places:
                    try:
                        async with asyncio.timeout(patience.connect / len(places)):
                            return await _open(str(address), port, Call(patience.idle), tls, host)
                    except OSError as found:
                        error = found
                raise error
        except TimeoutError as late:
            raise UpstreamTimeout("the model's server did not answer in time") from late
        except OSError as lost:
            raise UpstreamFailed("the model's server cannot be reached", why=type(lost).__name__) from lost


def _refusal(status: int) -> UpstreamFailed:
    """Return the error for a status that is no answer; a client is told what it can do about it, and no more."""
    kind = {400: UpstreamRefused, 413: UpstreamRefused, 422: UpstreamRefused, 429: UpstreamBusy, 503: UpstreamBusy}
    return kind.get(status, UpstreamFailed)("the model's server refused", why=f"status {status}")


def _take(free: list[Call]) -> Call | None:
    """Return the connection that was used last, unless too long ago; earlier ones are then of no use either."""
    while free:
        call = free.pop()
        if call.is_free and asyncio.get_running_loop().time() - call.since < _FREE_SECONDS:
            return call
        call.end()
    return None


async def _open(address: str, port: int, call: Call, tls: ssl.SSLContext | None, name: str) -> Call:
    """Connect, with TLS if there is a context; the certificate must be that of ``name``."""
    loop = asyncio.get_running_loop()
    if tls is None:
        await loop.create_connection(lambda: call, address, port)
        return call
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
    call.out = secured
    return call


_checked = functools.lru_cache(1024)(check_url)


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
