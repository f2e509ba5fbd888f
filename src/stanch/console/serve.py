"""The server that the console runs in."""

import asyncio
import socket
import threading
from collections.abc import Callable

from stanch.errors import InvalidInput, MissingExtraError
from stanch.store.host import is_loopback
from stanch.workspace import Workspace
from stanch.workspace.connection import Patient
from stanch.workspace.listening import listening, serve_until
from stanch.workspace.renewal import Renewal

DRAIN_SECONDS = 5


def address_of(workspace: Workspace) -> str:
    """Return what a browser's address line begins with.

    Raises:
        InvalidInput: ``console.url`` is plain HTTP to another machine.
    """
    settings = workspace.config.console
    host, port = listening(workspace, "console")
    shown = f"[{host}]" if ":" in host else host
    made = settings.url or f"{'https' if settings.certificate else 'http'}://{shown}:{port}"
    if made.startswith("http:") and not is_loopback(made[7:].rpartition(":")[0].strip("[]") or made[7:]):
        raise InvalidInput("console.url: expected https for another machine", next_step="set console.certificate")
    return made


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
    (host, port), address = listening(workspace, "console"), address_of(workspace)
    renewal = Renewal(workspace, "console")
    app = build_app(workspace, address=address)
    config = uvicorn.Config(
        app, host=host, port=port, ws="none", lifespan="off", log_config=None,
        access_log=False, server_header=False, proxy_headers=False, timeout_graceful_shutdown=DRAIN_SECONDS,
    )  # fmt: skip
    config.load()
    config.http_protocol_class = type("Connection", (Patient, config.http_protocol_class), {})
    config.ssl = renewal.context
    threading.Thread(target=app.prepare, daemon=True).start()
    asyncio.run(serve_until(stop, uvicorn.Server(config), lambda: ready(address), renewal.keep, listener))
