"""One bounded HTTP exchange: TLS verified, no redirects followed, no proxy, a limit on bytes and on the whole time."""

import contextlib
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from stanch import __version__
from stanch.errors import ExternalError, InvalidInput
from stanch.store.host import is_loopback

_URL = re.compile(r"https?://[!-~]+")
_CHUNK = 1 << 16
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What is asked. ``url`` is ``https://…``, or ``http://…`` of this very machine."""

    method: Literal["GET", "HEAD", "POST", "PUT"]
    url: str
    headers: Mapping[str, str] = field(default_factory=lambda: _NONE)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What was answered, whatever the status. Names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def exchange(request: HttpRequest, *, timeout_seconds: float = 10.0, max_bytes: int = 1 << 20) -> HttpResponse:
    """Send one request and return the whole answer.

    Certificates are checked against the system's authorities (or ``SSL_CERT_FILE``). An answer of status 3xx is
    returned like any other: where it points is not visited.

    Args:
        request: What to ask.
        timeout_seconds: For everything after the look-up of the name, also against a server that answers drop by drop.
        max_bytes: The longest body that is accepted.

    Raises:
        InvalidInput: The URL is malformed, carries a user name, or is plain ``http:`` to another machine.
        ExternalError: No connection, no valid certificate, no whole answer in time, or too long a body.
    """
    url = check_url(request.url)
    deadline = time.monotonic() + timeout_seconds
    try:
        with _connected(url, deadline) as connection:
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            headers = {"User-Agent": f"stanch/{__version__}", "Connection": "close", **request.headers}
            connection.request(request.method, target, body=request.body or None, headers=headers)
            with connection.getresponse() as response:
                body = _read(response, max_bytes, url)
                answer = {name.lower(): value for name, value in response.getheaders()}
    except (OSError, http.client.HTTPException) as error:
        raise _failed(url, _explain(error, deadline)) from error
    # A connection that was cut at the deadline may look like one that ended.
    if time.monotonic() > deadline:
        raise _failed(url, f"no whole answer within {timeout_seconds:g} s")
    return HttpResponse(response.status, answer, body)


def check_url(text: str) -> SplitResult:
    """Return the parts of a URL that :func:`exchange` would ask.

    Raises:
        InvalidInput: It is malformed, carries a user name, or is plain ``http:`` to another machine.
    """
    refusal = InvalidInput("URL: expected https://host/path without user name and fragment")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise refusal from error
    if not _URL.fullmatch(text) or not url.hostname or port == 0 or "@" in url.netloc or url.fragment:
        raise refusal
    if url.scheme != "https" and not is_loopback(url.hostname):
        raise InvalidInput(
            f"URL: expected https: for {url.hostname[:100]}, found {url.scheme}:",
            why="without TLS whoever stands between could read and change the answer",
        )
    return url


@contextlib.contextmanager
def _connected(url: SplitResult, deadline: float) -> Iterator[http.client.HTTPConnection]:
    """Yield a connection whose socket is cut at the deadline: a timeout alone starts again with every byte."""
    host = str(url.hostname)
    secure = url.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(host, url.port)
    left = deadline - time.monotonic()
    with socket.create_connection((host, connection.port), timeout=left) as raw, raw.dup() as handle:
        timer = threading.Timer(left, _cut, [handle])
        timer.daemon = True
        timer.start()
        try:
            # Without a closing alert a body of unknown length would be taken as whole although it was cut.
            connection.sock = (
                ssl.create_default_context().wrap_socket(raw, server_hostname=host, suppress_ragged_eofs=False)
                if secure
                else raw
            )
            yield connection
        finally:
            timer.cancel()
            connection.close()


def _cut(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed meanwhile
        handle.shutdown(socket.SHUT_RDWR)


def _read(response: http.client.HTTPResponse, max_bytes: int, url: SplitResult) -> bytes:
    chunks, size = [], 0
    while chunk := response.read1(_CHUNK):
        size += len(chunk)
        if size > max_bytes:
            raise _failed(url, f"the answer is longer than {max_bytes} bytes")
        chunks.append(chunk)
    if response.length:  # what was announced and did not come
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(chunks)


def _explain(error: Exception, deadline: float) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if time.monotonic() > deadline:
        return "no whole answer in time"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer ended early"
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def _failed(url: SplitResult, why: str) -> ExternalError:
    return ExternalError(f"{url.scheme}://{url.hostname}: no usable answer", why=why)
