"""The HTTP face of a witness (C2SP tlog-witness): an ASGI application, and a server for it.

``POST /add-checkpoint`` asks for a cosignature; ``GET /<sha256 hex of origin>/checkpoint`` shows the last one.
It speaks plain HTTP: what it says is signed. Outside one machine it stands behind a server that speaks TLS.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from stanch.errors import MissingExtraError, NotFound, StoreError
from stanch.ledger.witness import MAX_REQUEST, TEXT_TYPE, WitnessReply
from stanch.ledger.witness_store import WitnessStore

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_CHECKPOINT = re.compile(r"/([0-9a-f]{64})/checkpoint")


class WitnessApp:
    """An ASGI application that serves one witness."""

    def __init__(self, store: WitnessStore) -> None:
        self._store = store

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3, HTTP only)."""
        if scope["type"] != "http":
            return
        reply = await self._answer(scope, receive)
        headers = [(b"content-type", reply.content_type.encode()), (b"content-length", str(len(reply.body)).encode())]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})

    async def _answer(self, scope: Message, receive: Receive) -> WitnessReply:
        method, path = scope["method"], scope["path"]
        try:
            if path == "/add-checkpoint":
                if method != "POST":
                    return WitnessReply(405, b"only POST\n")
                body = await _read(receive)
                return await asyncio.to_thread(self._store.add_checkpoint, body)
            if match := _CHECKPOINT.fullmatch(path):
                if method not in {"GET", "HEAD"}:
                    return WitnessReply(405, b"only GET\n")
                return WitnessReply(200, await asyncio.to_thread(self._store.note, match[1]))
        except NotFound as error:
            return WitnessReply(404, f"{error.what}\n".encode())
        except StoreError:
            return WitnessReply(503, b"the witness cannot keep what it would sign\n")
        return WitnessReply(404, b"no such page\n", TEXT_TYPE)


async def _read(receive: Receive) -> bytes:
    """Return the body, or its first bytes with one too many: the parser refuses that."""
    body, more = b"", True
    while more and len(body) <= MAX_REQUEST:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False) and message["type"] == "http.request"
    return body


def serve(store: WitnessStore, host: str, port: int, *, ready: Callable[[int], None]) -> None:
    """Serve a witness until the process is told to end.

    Args:
        store: The witness.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        ready: Called with the port once the server listens.

    Raises:
        MissingExtraError: The extra ``gateway`` is not installed.
        StoreError: The address cannot be used.
    """
    try:
        import uvicorn  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise MissingExtraError("gateway") from error
    config = uvicorn.Config(
        WitnessApp(store), host=host, port=port, log_level="warning", access_log=False, lifespan="off",
        server_header=False, h11_max_incomplete_event_size=MAX_REQUEST, limit_concurrency=64, timeout_keep_alive=30,
    )  # fmt: skip
    try:
        listener = config.bind_socket()
    except SystemExit as error:  # uvicorn's way to say that the address is taken
        raise StoreError(f"witness: {host}:{port} cannot be listened on") from error
    try:
        listener.listen()
        ready(listener.getsockname()[1])
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()
