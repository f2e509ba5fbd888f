"""The server that the console runs in."""

import asyncio
import contextlib
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from stanch.errors import InvalidInput, MissingExtraError
from stanch.store.host import is_loopback
from stanch.workspace import Workspace

DRAIN_SECONDS = 5


def listening(workspace: Workspace) -> tuple[str, int]:
    """Return host and port.

    Raises:
        InvalidInput: The port is none, or another machine could connect without TLS.
    """
    settings = workspace.config.console
    host, _, port = settings.listen.rpartition(":")
    host = host.strip("[]")
    if int(port) > 65_535:
        raise InvalidInput("console.listen: there is no such port")
    if not is_loopback(host) and not settings.certificate:
        raise InvalidInput(
            "console.listen: another host than this machine needs a certificate",
            next_step="set console.certificate and console.private_key",
        )
    return host, int(port)


def address_of(workspace: Workspace) -> str:
    """Return what a browser's address line begins with.

    Raises:
        InvalidInput: ``console.url`` is plain HTTP to another machine.
    """
    settings = workspace.config.console
    host, port = listening(workspace)
    shown = f"[{host}]" if ":" in host else host
    made = settings.url or f"{'https' if settings.certificate else 'http'}://{shown}:{port}"
    if made.startswith("http:") and not is_loopback(made[7:].rpartition(":")[0].strip("[]") or made[7:]):
        raise InvalidInput("console.url: expected https for another machine", next_step="set console.certificate")
    return made


def tls_context(workspace: Workspace) -> ssl.SSLContext | None:
    """Return how TLS is spoken: 1.2 and later; None without a certificate.

    Raises:
        InvalidInput: A file cannot be used.
    """
    settings = workspace.config.console
    if not settings.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(
            workspace.folder / settings.certificate, workspace.folder / (settings.private_key or settings.certificate)
        )
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput("the console's certificate cannot be used", why=type(error).__name__) from error
    return context


def run_console(
    workspace: Workspace, *, ready: Callable[[str], None], stop: threading.Event | None = None,
    listener: socket.socket | None = None,
) -> None:  # fmt: skip
    """Serve until told to end.

    Args:
        workspace: Whose settings say where to listen, and with which certificate.
        ready: Called with the address once requests are taken.
        stop: Ends the server when set; without it SIGTERM and SIGINT do.
        listener: A socket that listens already; otherwise one is made.

    Raises:
        InvalidInput: Another host than this machine without a certificate, or a certificate that cannot be used.
        MissingExtraError: Starlette or uvicorn is not installed.
    """
    try:
        import uvicorn  # noqa: PLC0415 - an optional part

        from stanch.console.app import build_app  # noqa: PLC0415 - needs that part
    except ImportError as error:
        raise MissingExtraError("console") from error
    (host, port), address = listening(workspace), address_of(workspace)
    context = tls_context(workspace)
    config = uvicorn.Config(
        build_app(workspace, address=address), host=host, port=port, ws="none", lifespan="off", log_config=None,
        access_log=False, server_header=False, proxy_headers=False, timeout_graceful_shutdown=DRAIN_SECONDS,
    )  # fmt: skip
    config.load()
    config.ssl = context
    asyncio.run(_serve(uvicorn.Server(config), lambda: ready(address), stop, listener))


async def _serve(
    server: Any,  # noqa: ANN401 - a uvicorn server
    ready: Callable[[], None],
    stop: threading.Event | None,
    listener: socket.socket | None,
) -> None:
    # uvicorn raises the signal again once it has ended, which would end the process before the outcome is recorded.
    server.capture_signals = contextlib.nullcontext
    if stop is None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, setattr, server, "should_exit", True)
    serving = asyncio.create_task(server.serve(sockets=[listener] if listener is not None else None))
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    if server.started:
        ready()
    while stop is not None and not serving.done():
        if await asyncio.to_thread(stop.wait, 0.1):
            server.should_exit = True
            break
    await serving
