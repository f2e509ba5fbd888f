"""The model's server: one request out, and its answer's bytes in pieces, read no faster than they are wanted."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stanch.errors import MissingExtraError
from stanch.gateway.problem import UpstreamFailed, UpstreamProtocol, UpstreamTimeout
from stanch.store.http import check_url

if TYPE_CHECKING:
    import aiohttp

MAX_WHOLE = 4 << 20
_READ_AHEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the gateway waits, in seconds.

    Attributes:
        connect: For a connection.
        idle: For the next bytes, the first ones included.
        total: For the whole answer, a slow client included.
    """

    connect: float = 10.0
    idle: float = 60.0
    total: float = 600.0


class Upstream:
    """Connections to the servers of models. Certificates are checked; no redirect, proxy or cookie is used."""

    def __init__(self, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make ready; belongs into the event loop that will serve.

        Raises:
            MissingExtraError: aiohttp is not installed.
        """
        try:
            import aiohttp  # noqa: PLC0415 - an optional part
        except ImportError as error:
            raise MissingExtraError("gateway") from error
        wait = self.patience
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=wait.connect, sock_read=wait.idle),
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=_READ_AHEAD,
            trust_env=False,
        )

    async def close(self) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()

    async def probe(self, url: str) -> None:
        """Return if a server says that it is well, or has nothing to say about it.

        Raises:
            UpstreamFailed: It cannot be reached, or says that it is not well.
        """
        import aiohttp  # noqa: PLC0415 - see open

        assert self._session is not None  # noqa: S101 - the server opens it before it serves
        try:
            async with self._session.get(f"{url.rstrip('/')}/health", allow_redirects=False) as response:
                status = response.status
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamFailed("the model's server cannot be reached", why=type(error).__name__) from error
        if status >= 500:
            raise UpstreamFailed("the model's server is not ready", why=f"status {status}")

    @contextlib.asynccontextmanager
    async def ask(self, url: str, body: bytes, *, media: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send a request, and yield the pieces of an answer of the media type ``media``.

        Leaving the block early ends the connection. Nothing that the server says about an error is kept.

        Raises:
            UpstreamTimeout: The server did not connect or answer in time.
            UpstreamFailed: It refused, or the connection broke.
            UpstreamProtocol: Its answer is of another type or encoding.
        """
        import aiohttp  # noqa: PLC0415 - see open

        assert self._session is not None  # noqa: S101 - the server opens it before it serves
        check_url(url)
        headers = {"content-type": "application/json", "accept": media, "accept-encoding": "identity"}
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                try:
                    if response.status != 200:
                        raise UpstreamFailed("the model's server refused", why=f"status {response.status}")
                    encoding = response.headers.get("content-encoding", "identity")
                    if (
                        response.content_type != media
                        or encoding != "identity"
                        or (response.charset or "utf-8") != "utf-8"
                    ):
                        raise UpstreamProtocol("the model's server answered in another media type or encoding")
                    yield response.content.iter_any()
                finally:
                    response.close()  # what was not read is not waited for
        except TimeoutError as error:
            raise UpstreamTimeout("the model's server did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamFailed("the model's server failed", why=type(error).__name__) from error


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
