"""The second listener, for this machine alone: figures for a monitoring system."""

import contextlib
from typing import Any

from stanch.errors import InvalidInput
from stanch.gateway.exchange import Receive, Scope, Send
from stanch.gateway.metrics import CONTENT_TYPE, Metrics
from stanch.store.host import is_loopback
from stanch.workspace import Workspace
from stanch.workspace.listening import host_and_port


def monitor_server(workspace: Workspace, metrics: Metrics) -> Any:  # noqa: ANN401 - a uvicorn server
    """Return the server that the settings name, or None.

    Raises:
        InvalidInput: Another machine could connect, or there is no such port.
    """
    import uvicorn  # noqa: PLC0415 - an optional part; run_server has seen that it is there

    if not (listen := workspace.config.gateway.metrics_listen):
        return None
    host, port = host_and_port(listen, "gateway.metrics_listen")
    if not is_loopback(host):
        raise InvalidInput(
            "gateway.metrics_listen: only this machine may read the figures",
            next_step="let the monitoring system's agent run here",
        )

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        found = (scope["type"], scope["method"], scope["path"]) == ("http", "GET", "/metrics")
        headers = [(b"content-type", CONTENT_TYPE)]
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
        await send({"type": "http.response.body", "body": metrics.page() if found else b"", "more_body": False})

    config = uvicorn.Config(
        app, host=host, port=port, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
        proxy_headers=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]  # the gateway's server ends it
    return server
