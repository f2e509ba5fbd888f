"""One connection of a client over HTTP/1.1: a bounded head, and the certificate that it showed."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from stanch.errors import MissingExtraError
from stanch.gateway.exchange import LEAF, MAX_HEADERS, Receive, Scope, Send


def connection_class() -> type[asyncio.Protocol]:
    """Return what uvicorn makes of each connection.

    Raises:
        MissingExtraError: uvicorn or httptools is not installed.
    """
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415 - an optional part
    except ImportError as error:
        raise MissingExtraError("gateway") from error

    class Connection(HttpToolsProtocol):
        """Ends a connection whose head does not end, and tells the application the client's verified certificate."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base
            super().connection_made(transport)
            self._in_head, self._head = True, 0
            tls = transport.get_extra_info("ssl_object")
            leaf = tls.getpeercert(binary_form=True) if tls is not None else None
            if leaf:
                self.app = functools.partial(_tell_leaf, self.app, leaf)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head, self._head = True, 0

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            # The parser below has no limit of its own. A head within it is refused by the application, with a reason.
            self._head += len(data) if self._in_head else 0
            super().data_received(data)
            if self._in_head and self._head > 2 * MAX_HEADERS and self.transport is not None:
                self.transport.abort()

    return Connection


async def _tell_leaf(app: Callable[..., Any], leaf: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    await app({**scope, LEAF: leaf}, receive, send)
