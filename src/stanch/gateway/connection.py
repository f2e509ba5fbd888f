"""One connection of a client over HTTP/1.1: bounded heads and trailers, and the certificate that it showed."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from stanch.errors import MissingExtraError
from stanch.gateway.exchange import LEAF, MAX_HEADERS, Receive, Scope, Send
from stanch.workspace.connection import Networks, Patient


def connection_class(proxies: Networks = ()) -> type[asyncio.Protocol]:
    """Return what uvicorn makes of each connection.

    Args:
        proxies: Whose connections are many clients'.

    Raises:
        MissingExtraError: uvicorn or httptools is not installed.
    """
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415 - an optional part
    except ImportError as error:
        raise MissingExtraError("gateway") from error

    class Connection(Patient, HttpToolsProtocol):
        """Ends a connection that says on and on what is no body: a head, extensions of chunks, trailers.

        Trailers are read and forgotten, and the application is told the client's verified certificate.
        """

        spared = proxies

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base
            super().connection_made(transport)
            self._in_head, self._aside = True, 0
            self.app = _telling_leaf(self.app, transport)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head, self._aside = True, 0

        def on_header(self, name: bytes, value: bytes) -> None:
            if self._in_head:
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._aside = 0
            super().on_body(body)

        def data_received(self, data: bytes) -> None:
            # The parser below has no limit of its own. A head within it is refused by the application, with a reason.
            self._aside += len(data)
            super().data_received(data)
            if self._aside > 2 * MAX_HEADERS:
                self.transport.abort()

    return Connection


def _telling_leaf(app: Callable[..., Any], transport: asyncio.Transport) -> Callable[..., Any]:
    """Return an application that is told the certificate, if there is one."""
    tls = transport.get_extra_info("ssl_object")
    leaf = tls.getpeercert(binary_form=True) if tls is not None else None
    return functools.partial(_tell_leaf, app, leaf) if leaf else app


async def _tell_leaf(app: Callable[..., Any], leaf: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    await app({**scope, LEAF: leaf}, receive, send)
