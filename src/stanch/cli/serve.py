"""``stanch serve``: gateway, watch and console, each a process of its own, under one that keeps them alive."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING

import click

from stanch.cli.attended import DRAIN_SECONDS
from stanch.cli.frame import Frame, Leaf, Result, current
from stanch.errors import InvalidInput, MissingExtraError, StanchError

if TYPE_CHECKING:
    from stanch.workspace import Workspace

MOST_DEATHS, WITHIN_SECONDS, REMEMBERED_SECONDS = 5, 60.0, 600.0
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 60.0
_POLL = 0.1
_OWN_FAULT = frozenset({2, 3})
"""Exit codes of wrong settings and missing rights. A part that ends so at once, when it was never there before, will
again; one that served comes back when the rights do. A database that is not there (4) comes back, too."""


@click.command("serve", cls=Leaf)
@click.option("--gateway-only", is_flag=True, help="Start the gateway alone.")
@click.option("--watch-only", is_flag=True, help="Start the watch alone.")
@click.option("--console-only", is_flag=True, help="Start the console alone.")
@click.option("--check", is_flag=True, help="Open everything that the settings name, say what it is, and end.")
def serve(*, gateway_only: bool, watch_only: bool, console_only: bool, check: bool) -> Result:
    """Serve the workspace until told to end: models over the gateway, detectors over the log, pages over the console.

    Each part is a process of its own. One that dies is started again; five deaths of the gateway in a minute end all.
    """
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light

    asked = [name for name, only in zip(PARTS, (gateway_only, watch_only, console_only), strict=True) if only]
    if len(asked) > 1:
        raise InvalidInput("serve: --gateway-only, --watch-only and --console-only exclude each other")
    lines = []
    with open_workspace(current()) as workspace:
        parts = asked or list(PARTS)
        if not workspace.config.gateway.models and not asked:
            parts.remove("gateway")
            lines.append("gateway    not started: [[gateway.models]] names no model")
        lines += [f"{name:<10} {_EXAMINE[name](workspace, thorough=check)}" for name in parts]
    if check:
        return Result({"parts": [*parts], "ready": True}, "\n".join([*lines, "ready      nothing was started"]))
    vital = {"gateway"} & {*parts} or {*parts}
    code = _supervise([Child(name, command_of(current(), name), vital=name in vital) for name in parts])
    return Result({"parts": [*parts], "ready": False}, "\n".join([*lines, "ended"]), code)


def _gateway(workspace: "Workspace", *, thorough: bool) -> str:
    """Return where the gateway listens; what would be unsafe is refused."""
    _require("gateway", "uvicorn", "httptools")

    from stanch.gateway.serve import build_gateway  # noqa: PLC0415 - as above
    from stanch.workspace.listening import listening, tls_context  # noqa: PLC0415 - as above

    listening(workspace, "gateway")
    tls_context(workspace, "gateway")
    if thorough:
        build_gateway(workspace)
    return workspace.config.gateway.listen


def _watch(workspace: "Workspace", *, thorough: bool) -> str:
    """Return whom the watch tells; sinks are made and files of audits opened, so that what is missing shows now."""
    from stanch.workspace.alerting import sinks_of  # noqa: PLC0415 - as above

    sinks = sinks_of(workspace)
    if thorough:
        from stanch.cli.watch_serve import check_audits  # noqa: PLC0415 - as above

        if any(sink.kind == "apprise" for sink in workspace.config.alerts.sinks):
            _require("watch", "apprise")
        check_audits(workspace)
    return f"tells {', '.join(sink.name for sink in sinks) or 'nobody: [[alerts.sinks]] names no sink'}"


def _console(workspace: "Workspace", *, thorough: bool) -> str:
    """Return the console's address; what would be unsafe is refused."""
    _require("console", "uvicorn", "starlette", "jinja2")

    from stanch.console.serve import address_of  # noqa: PLC0415 - as above
    from stanch.workspace.listening import tls_context  # noqa: PLC0415 - as above

    address = address_of(workspace)
    tls_context(workspace, "console")
    if thorough:
        from stanch.console.app import build_app  # noqa: PLC0415 - as above

        build_app(workspace, address=address)
    return address


PARTS = ("gateway", "watch", "console")
_EXAMINE = {"gateway": _gateway, "watch": _watch, "console": _console}


def _require(extra: str, *modules: str) -> None:
    """Refuse now what would end a part at once."""
    if any(importlib.util.find_spec(module) is None for module in modules):
        raise MissingExtraError(extra)


def command_of(frame: Frame, part: str) -> list[str]:
    """Return the command of one part, with the global flags of this one."""
    return [
        sys.executable,
        "-m",
        "stanch.cli.attended",
        *frame.flags(),
        part,
        "serve",
        *(["--quiet"] if frame.quiet else []),
    ]


@dataclass(slots=True)
class Child:
    """One part: its name, how it is started, whether the others end without it, its process, and when it died."""

    name: str
    command: Sequence[str]
    vital: bool = True
    process: "subprocess.Popen[bytes] | None" = None
    first: float | None = None
    deaths: list[float] = field(default_factory=list)
    again: float = 0.0

    def start(self) -> None:
        """Start the process. Its standard input ends when this process does, however that ends."""
        self.process = subprocess.Popen(list(self.command), stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - our own command

    def forget(self) -> None:
        """Let go of a process that has ended."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None


def _supervise(children: Sequence[Child]) -> int:
    """Watch until SIGTERM or SIGINT; SIGHUP is handed on, unless it says that the terminal is gone."""
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    def hand_on(number: int, _frame: FrameType | None) -> None:
        for child in children:
            if child.process is not None:
                child.process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if not os.isatty(0):
        signal.signal(signal.SIGHUP, hand_on)
    return supervise(children, stop)


def supervise(children: Sequence[Child], stop: threading.Event, *, clock: Callable[[], float] = time.monotonic) -> int:
    """Keep children alive until told to stop; return 0, or why it was given up.

    A child that ends within a minute of its first start because of its settings ends all with its exit code. After
    five deaths in a minute of one that is vital all are ended, with 70; any other is started again after pauses of up
    to a minute, and the rest goes on.

    Raises:
        StanchError: A vital child died too often.
    """
    try:
        for child in children:
            child.start()
            child.first = clock()
        while not stop.wait(_POLL):
            for child in children:
                code = _look_after(child, clock())
                if code is not None:
                    return code
        return 0
    finally:
        _end(children)


def _look_after(child: Child, now: float) -> int | None:
    """Start a dead child again when it is time; return an exit code if all must end."""
    if child.process is None:
        if now >= child.again:
            child.start()
        return None
    code = child.process.poll()
    if code is None:
        return None
    child.forget()
    if code in _OWN_FAULT and not child.deaths and child.first is not None and now - child.first < WITHIN_SECONDS:
        return code
    child.deaths = [*(death for death in child.deaths if now - death < REMEMBERED_SECONDS), now]
    if child.vital and sum(now - death < WITHIN_SECONDS for death in child.deaths) >= MOST_DEATHS:
        raise StanchError(
            f"{child.name} died {MOST_DEATHS} times in a minute; everything was stopped",
            why=f"its last exit code was {code}",
            next_step=f"see what it says: stanch {child.name} serve",
        )
    wait = min(_FIRST_WAIT * 2 ** (len(child.deaths) - 1), _LONGEST_WAIT)
    click.echo(f"{child.name} ended with {code}; it is started again in {wait:.3g} s", err=True)
    child.again = now + wait
    return None


def _end(children: Sequence[Child]) -> None:
    """Tell all to end, wait until their answers on their way are out, and kill what is left."""
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    until = time.monotonic() + DRAIN_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()
