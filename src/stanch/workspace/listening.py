"""How a server of the workspace listens: where, under which certificate, and until when."""

import asyncio
import contextlib
import ipaddress
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeAlias

from stanch.errors import InvalidInput
from stanch.store.host import is_loopback
from stanch.workspace.connection import Networks
from stanch.workspace.opening import Workspace

Part: TypeAlias = Literal["gateway", "console"]


def host_and_port(listen: str, setting: str) -> tuple[str, int]:
    """Return the two parts of ``HOST:PORT``.

    Raises:
        InvalidInput: There is no such port.
    """
    host, _, port = listen.rpartition(":")
    if int(port) > 65_535:
        raise InvalidInput(f"{setting}: there is no such port")
    return host.strip("[]"), int(port)


def listening(workspace: Workspace, part: Part) -> tuple[str, int]:
    """Return host and port of a server.

    Raises:
        InvalidInput: The port is none, or another machine could connect without TLS.
    """
    settings = getattr(workspace.config, part)
    host, port = host_and_port(settings.listen, f"{part}.listen")
    if not is_loopback(host) and not settings.certificate:
        raise InvalidInput(
            f"{part}.listen: another host than this machine needs a certificate",
            next_step=f"set {part}.certificate and {part}.private_key",
        )
    return host, port


def trusted_proxies(workspace: Workspace) -> Networks:
    """Return the networks of the proxies whose ``X-Forwarded-For`` the gateway believes.

    Raises:
        InvalidInput: One of them is no network.
    """
    try:
        return tuple(map(ipaddress.ip_network, workspace.config.gateway.trusted_proxies))
    except ValueError as error:
        raise InvalidInput(
            "gateway.trusted_proxies: expected addresses and networks, such as 10.0.0.0/24", why=str(error)[:120]
        ) from error


def tls_context(workspace: Workspace, part: Part) -> ssl.SSLContext | None:
    """Return how TLS is spoken: 1.2 and later; the gateway asks for a client's certificate of a trusted authority.

    Raises:
        InvalidInput: A file cannot be used.
    """
    settings, folder = getattr(workspace.config, part), workspace.folder
    if not settings.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        private = folder / (settings.private_key or settings.certificate)
        context.load_cert_chain(folder / settings.certificate, private, password="")  # no question at a terminal
        for name in workspace.config.access.authorities if part == "gateway" else ():
            context.load_verify_locations(folder / name)
            context.verify_mode = ssl.CERT_OPTIONAL  # a key will do, too; what is shown must be valid
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise InvalidInput(f"the {part}'s certificate cannot be used", why=why) from error
    return context


async def serve_until(
    stop: threading.Event | None,
    server: Any,  # noqa: ANN401 - a uvicorn server
    ready: Callable[[], None],
    keep: Callable[[], Coroutine[Any, Any, None]],
    listener: socket.socket | None = None,
) -> None:
    """Serve until ``stop`` is set, or without it until SIGTERM or SIGINT; ``ready`` is called once requests are taken.

    Args:
        stop: Ends the server when set.
        server: What serves.
        ready: Called when it listens.
        keep: Runs beside it until it ends: keeps its certificate up to date.
        listener: A socket that listens already; otherwise one is made.
    """
    # uvicorn raises the signal again once it has ended, which would end the process before the outcome is recorded.
    server.capture_signals = contextlib.nullcontext
    if stop is None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, setattr, server, "should_exit", True)
    keeping = asyncio.create_task(keep())
    serving = asyncio.create_task(server.serve(sockets=[listener] if listener is not None else None))
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    if server.started:
        ready()
    while stop is not None and not serving.done():
        if await asyncio.to_thread(stop.wait, 0.1):
            server.should_exit = True
            break
    try:
        await serving
    finally:
        keeping.cancel()
