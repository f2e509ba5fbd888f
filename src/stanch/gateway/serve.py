"""A gateway from the settings of a workspace, and the server that it runs in."""

import asyncio
import contextlib
import ctypes
import gc
import resource
import ssl
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from stanch.config import GatewayModelSection, GatewaySection
from stanch.errors import InvalidInput, MissingExtraError
from stanch.gateway.app import Gateway
from stanch.gateway.budgets import Limits
from stanch.gateway.certified import certificate_of
from stanch.gateway.connection import connection_class
from stanch.gateway.desk import Desk
from stanch.gateway.guarding import build_guard
from stanch.gateway.model import ServedModel
from stanch.gateway.monitor import monitor_server
from stanch.gateway.rederive import rederive
from stanch.gateway.upstream import Papers, Upstream
from stanch.gateway.watermark import Watermark
from stanch.store.http import check_url
from stanch.store.sqlite import bound_caches
from stanch.terms import ArtifactRef, Digest
from stanch.workspace import Workspace
from stanch.workspace.incoming import renew_authorities
from stanch.workspace.listening import listening, serve_until, tls_context, trusted_proxies
from stanch.workspace.renewal import Renewal

DRAIN_SECONDS = 30
_SWITCH_SECONDS = 0.0005
_COLLECT_AFTER = 10_000
"""Objects more than were freed: a request makes and frees thousands, and leaves few for the collector."""
_CACHES = 6_000_000
"""Bytes for pages of the database, of all connections together: a gateway appends, and reads little."""
_ARENA_MAX = -8
"""``M_ARENA_MAX`` of mallopt(3)."""


def build_gateway(workspace: Workspace) -> Gateway:
    """Return the gateway that the settings describe; what they name is opened and compiled, budgets derived anew.

    Raises:
        InvalidInput: No model, two of one name, a server that plain HTTP would reach over a network, or as
            :func:`stanch.gateway.guarding.build_guard`.
        VerificationError: As there.
        NotCertified: A model lacks the leak certificate that the settings require.
    """
    settings = workspace.config.gateway
    if settings.otlp_endpoint:
        check_url(settings.otlp_endpoint)
    if not settings.models:
        raise InvalidInput("the gateway has no model", next_step="add a table [[gateway.models]] to stanch.toml")
    models: dict[str, ServedModel] = {}
    limits: dict[str, Limits] = {}
    for section in settings.models:
        if section.name in models:
            raise InvalidInput(f"gateway.models: two have the name {section.name[:80]!r}")
        model = models[section.name] = _model(workspace, section)
        limits[section.name] = limits_of(settings, model.protected_windows)
    desk = Desk.of(workspace)
    for model in models.values():
        desk.metrics.tell_guard(model.name, model.guard_digest, model.guard.policy)
    by_digest = {str(model.ref.digest): limits[name] for name, model in models.items()}
    desk.budgets.name_corpora({str(model.ref.digest): model.index for model in models.values() if model.index})
    rederive(desk.budgets, workspace.ledger.reader(), by_digest)
    return Gateway(desk, models, Upstream(), limits)


def limits_of(settings: GatewaySection, protected_windows: int) -> Limits:
    """Return what each principal may use of a model."""
    return Limits(
        settings.requests_per_minute, settings.tokens_per_day, settings.protected_windows or protected_windows,
        settings.vectors_per_day, settings.logprob_bits_per_day, settings.logprob_bits_in_total,
        requests_per_day=settings.requests_per_day, requests_in_total=settings.requests_in_total,
        tokens_per_minute=settings.tokens_per_minute, tokens_in_total=settings.tokens_in_total,
        vectors_per_minute=settings.vectors_per_minute, vectors_in_total=settings.vectors_in_total,
        bits_per_minute=settings.logprob_bits_per_minute, cut_windows=settings.cut_windows or None,
    )  # fmt: skip


def run_server(
    workspace: Workspace, gateway: Gateway, *, ready: Callable[[str], None], stop: threading.Event | None = None
) -> None:
    """Serve until told to end; answers on their way get half a minute.

    Args:
        workspace: Whose settings say where to listen, and with which certificate.
        gateway: What answers.
        ready: Called with the URL once requests are taken.
        stop: Ends the server when set; without it SIGTERM and SIGINT do.

    Raises:
        InvalidInput: Another host than this machine without a certificate, or a certificate that cannot be used.
        MissingExtraError: uvicorn, uvloop or httptools is not installed.
    """
    try:
        import httptools  # noqa: F401, PLC0415 - an optional part; missing now is better than at the first request
        import uvicorn  # noqa: PLC0415 - an optional part
        import uvloop  # noqa: PLC0415 - same
    except ImportError as error:
        raise MissingExtraError("gateway") from error
    # The log's writer and the event loop pass the interpreter to each other at every statement; 5 ms each add up.
    sys.setswitchinterval(_SWITCH_SECONDS)
    _allow_connections()
    host, port = listening(workspace, "gateway")
    renewal = Renewal(workspace, "gateway", lambda: _load_tls(workspace, gateway))
    proxies = trusted_proxies(workspace)
    config = uvicorn.Config(
        gateway, host=host, port=port, http=connection_class(proxies), ws="none", lifespan="on", log_config=None,
        access_log=False, server_header=False, timeout_graceful_shutdown=DRAIN_SECONDS,
        proxy_headers=bool(proxies), forwarded_allow_ips=[*map(str, proxies)],
    )  # fmt: skip
    config.load()
    config.ssl = renewal.context
    # What is there now stays: the collector need not look at it again, which it would do in the middle of answers.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    _share_heaps()
    bound_caches(_CACHES)
    monitor = monitor_server(workspace, gateway.desk.metrics)
    uvloop.run(_serve(uvicorn.Server(config), monitor, ready, stop, renewal.keep))


def _load_tls(workspace: Workspace, gateway: Gateway) -> ssl.SSLContext | None:
    """Return how TLS is spoken, and let in whom the authorities of its files vouch for; of broken files do neither."""
    context = tls_context(workspace, "gateway")
    renew_authorities(workspace, gateway.desk.authenticator)
    return context


def _share_heaps() -> None:
    """Let all threads share two heaps of the C library, since each keeps what was freed in it; give back the rest."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # glibc has such heaps
        library.mallopt(_ARENA_MAX, 2)
        library.malloc_trim(0)


def _allow_connections() -> None:
    """Open as many files as the system allows this process: each connection is one, and many systems begin at 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # as many as there are must do
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(
    server: Any,  # noqa: ANN401 - a uvicorn server
    monitor: Any,  # noqa: ANN401 - same, or None
    ready: Callable[[str], None],
    stop: threading.Event | None,
    keep: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    def tell() -> None:
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        ready(f"{'https' if server.config.ssl else 'http'}://{f'[{host}]' if ':' in host else host}:{port}")

    watched = asyncio.create_task(monitor.serve()) if monitor is not None else None
    await serve_until(stop, server, tell, keep)
    if watched is not None:
        monitor.should_exit = True
        await watched


def _model(workspace: Workspace, section: GatewayModelSection) -> ServedModel:
    check_url(section.upstream)
    if "embeddings" in section.dialects and not section.dimensions:
        raise InvalidInput(f"gateway.models: {section.name[:80]!r} embeds, but its dimensions are not set")
    certificate = certificate_of(workspace, section)
    if certificate is not None:
        certificate.check(workspace.now())
    made = build_guard(section, workspace.folder, workspace.keys)
    return ServedModel(
        section.name, ArtifactRef("model", section.name, Digest.parse(section.digest)), section.upstream,
        section.upstream_name or section.name, section.dialects, made.guard, made.digest, section.dimensions,
        section.vocabulary, certificate, Watermark.of(workspace.folder, section), made.facts,
        Papers.of(workspace.folder, section),
    )  # fmt: skip
