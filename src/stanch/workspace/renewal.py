"""A server's certificate, taken anew when its files change or SIGHUP asks for it; connections that are open stay."""

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

from stanch.crypto.certificate import certificate_end
from stanch.errors import InvalidInput, StanchError
from stanch.ledger import EntryQuery, decode_entry
from stanch.terms import JsonValue
from stanch.watch import Alarm, Severity
from stanch.workspace.listening import Part, tls_context
from stanch.workspace.noting import note
from stanch.workspace.opening import Workspace

LOOK_SECONDS = 5.0
"""How often the files are looked at. A change is taken once they have been the same for two looks: whoever renews them
writes one after the other."""
KINDS: dict[Part, str] = {"gateway": "gateway.certificate", "console": "console.certificate"}
DETECTOR = "certificate"
_TOLD_FOR = timedelta(days=1)


class Newest(ssl.SSLContext):
    """Stands before the newest context: each new connection gets that one.

    The context is exchanged as a whole. So no connection meets a certificate without its key, and no session that was
    opened under an authority which is no longer trusted is resumed.

    Attributes:
        newest: What new connections get.
    """

    newest: ssl.SSLContext

    def wrap_bio(self, *args: Any, **how: Any) -> ssl.SSLObject:  # noqa: ANN401 - as its base
        """Return a connection under the newest context."""
        return self.newest.wrap_bio(*args, **how)


class Renewal:
    """Keeps the context of one server up to date.

    Attributes:
        context: How TLS is spoken; None without a certificate.
    """

    def __init__(
        self, workspace: Workspace, part: Part, load: Callable[[], ssl.SSLContext | None] | None = None
    ) -> None:
        """Load the context for the first time.

        Args:
            workspace: Whose settings name the files.
            part: Which server.
            load: Makes a context of the files, and whatever else is made of them; otherwise the context alone.

        Raises:
            InvalidInput: A file cannot be used.
        """
        self._workspace, self._part = workspace, part
        self._load = load or (lambda: tls_context(workspace, part))
        settings, folder = getattr(workspace.config, part), workspace.folder
        authorities = workspace.config.access.authorities if part == "gateway" else ()
        names = [settings.certificate, settings.private_key or settings.certificate, *authorities]
        self._files = [folder / name for name in names]
        self._taken = self._last = self._state()
        self._news: dict[str, JsonValue] | None = None
        found, self.context = self._load(), None
        if found is not None:
            self.context = Newest(ssl.PROTOCOL_TLS_SERVER)
            self.context.newest = found

    async def keep(self) -> None:
        """Look every few seconds, and at once at SIGHUP, until cancelled.

        Of a server that was started from a terminal SIGHUP says that the terminal is gone, and ends it.
        """
        asked = asyncio.Event()
        if not os.isatty(0):
            with contextlib.suppress(RuntimeError, ValueError):  # another thread than the main one: a test's
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), LOOK_SECONDS)
            if self.context is not None:
                await asyncio.to_thread(self.look, now=asked.is_set())
            asked.clear()

    def look(self, *, now: bool = False) -> None:
        """Take what is new in the files, or keep what there is; the log says which.

        Args:
            now: Take it though it may have been written this moment, and though nothing seems to have changed.
        """
        found = self._state()
        is_still, self._last = found == self._last, found
        if self.context is not None and (now or (is_still and found != self._taken)):
            self._taken = found
            self._news = self._take(self.context)
        if self._news is not None:
            with contextlib.suppress(StanchError):  # the store may come back; it is told then
                note(self._workspace, KINDS[self._part], self._news)
                self._news = None

    def _take(self, context: Newest) -> dict[str, JsonValue]:
        try:
            until = certificate_end(self._files[0])
            if until <= self._workspace.now():
                raise InvalidInput(f"{self._files[0]}: ended on {until.astimezone(UTC):%Y-%m-%d}")
            loaded = self._load()
        except StanchError as error:
            why = f"{error.what}: {error.why}" if error.why else error.what
            return {"state": "kept", "why": why[:200]}
        if loaded is not None:
            context.newest = loaded
        return {"state": "taken", "until": int(until.timestamp())}

    def _state(self) -> tuple[tuple[int, ...], ...]:
        return tuple(map(_stat, self._files))


def kept_certificates(workspace: Workspace) -> Iterator[Alarm]:
    """Yield an alarm for each time in the last day that a server kept its old certificate, since the new was broken."""
    reader = workspace.ledger.reader()
    since_ms = int((workspace.now() - _TOLD_FOR).timestamp() * 1000)
    found = [
        (part, ref.index) for part, kind in KINDS.items()
        for ref in reader.query(EntryQuery(kind=kind, since_ms=since_ms))
    ]  # fmt: skip
    for part, index in found:
        entry = decode_entry(reader.entry(index))
        told, at = entry["unmapped"]["stanch"]["payload"], entry["time"] // 1000
        if told["state"] == "kept":
            yield Alarm(
                detector=DETECTOR, signal=f"the {part} keeps its old certificate: {told['why']}"[:200], principal=None,
                model=None, window_start=at, at=at, severity=Severity.HIGH, statistic=1.0, threshold=1.0,
                entries=(index,),
            )  # fmt: skip


def _stat(path: Path) -> tuple[int, ...]:
    """Return what changes with a file; nothing of one that is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
