"""Anchors: places outside the reach of whoever holds the log, where whole checkpoints are kept and never replaced."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import delete, insert

from stanch.crypto import sha256
from stanch.errors import LogRolledBack, StoreError
from stanch.ledger.checkpoint import SignedCheckpoint
from stanch.ledger.note import parse_note
from stanch.store import Tables
from stanch.store.schema.ledger import ledger_anchor
from stanch.store.statement import run

_AWAY_SECONDS = 60.0


class Anchor(Protocol):
    """A place that keeps checkpoints.

    Attributes:
        uri: What it is called in settings, messages and the table of anchors.
        outside: Whether it lies on another device than the log.
    """

    uri: str
    outside: bool

    def keep(self, signed: SignedCheckpoint) -> None:
        """Keep a checkpoint; keeping the same one again does nothing.

        Raises:
            LogRolledBack: It keeps another checkpoint of the same size.
            StoreError: It could not be kept.
        """
        ...

    def notes(self, origin: str) -> Iterator[bytes]:
        """Yield the kept notes of a log, smallest size first."""
        ...

    def newest(self, origin: str) -> bytes | None:
        """Return the kept note of the largest size, or None."""
        ...


class _Kept(NamedTuple):
    """How many entries a checkpoint at an anchor covers, and when it was kept."""

    size: int
    created_ms: int


class Anchors:
    """The anchors of one log, what they keep, and when a checkpoint goes to them next."""

    def __init__(
        self,
        tables: Tables,
        anchors: Sequence[Anchor],
        *,
        every_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.anchors = tuple(anchors)
        self._tables = tables
        self._every_ms = int(every_seconds * 1000)
        self._clock = clock
        self._newest: dict[str, bytes | None] = {}
        self._away: dict[str, float] = {}

    def keep(self, signed: SignedCheckpoint) -> None:
        """Keep a checkpoint at every anchor.

        Raises:
            LogRolledBack: An anchor keeps another checkpoint of this size.
            StoreError: An anchor could not keep it; those before it did.
        """
        for anchor in self.anchors:
            self._keep(anchor, signed)

    def keep_when_due(self, signed: SignedCheckpoint) -> None:
        """Keep a checkpoint where the last one is older than the interval. An anchor out of reach waits."""
        for anchor in self.anchors:
            if self._is_due(anchor, signed):
                with self._reached(anchor):
                    self._keep(anchor, signed)

    def memories(self, origin: str) -> dict[str, bytes]:
        """Return the newest kept note of each anchor that can be reached, by the anchor's name."""
        for anchor in self.anchors:
            if anchor.uri not in self._newest and not self._is_away(anchor):
                with self._reached(anchor):
                    self._newest[anchor.uri] = anchor.newest(origin)
        return {f"anchor {uri}": note for uri, note in self._newest.items() if note is not None}

    def notes(self, origin: str) -> Iterator[tuple[str, bytes]]:
        """Yield every kept note with its place.

        Raises:
            StoreError: An anchor cannot be read.
        """
        for anchor in self.anchors:
            for note in anchor.notes(origin):
                yield f"anchor {anchor.uri}", note

    def last_ms(self, origin: str) -> dict[str, int | None]:
        """Return when each anchor kept its largest checkpoint, as the log's own table remembers it."""
        found = {anchor.uri: self._last(anchor, origin) for anchor in self.anchors}
        return {uri: None if last is None else last.created_ms for uri, last in found.items()}

    @contextlib.contextmanager
    def _reached(self, anchor: Anchor) -> Iterator[None]:
        """Go on where an anchor is out of reach, and leave it alone for a minute: publishing must not wait for it."""
        try:
            yield
        except StoreError:
            self._away[anchor.uri] = time.monotonic() + _AWAY_SECONDS

    def _is_away(self, anchor: Anchor) -> bool:
        return self._away.get(anchor.uri, 0.0) > time.monotonic()

    def _is_due(self, anchor: Anchor, signed: SignedCheckpoint) -> bool:
        if self._is_away(anchor):
            return False
        last, now_ms = self._last(anchor, signed.checkpoint.origin), self._clock() * 1000
        if last is None:
            return True
        # A time that lies ahead was written by a clock that was wrong: it puts nothing off.
        is_time = not last.created_ms <= now_ms < last.created_ms + self._every_ms
        return is_time and last.size < signed.checkpoint.size

    def _last(self, anchor: Anchor, origin: str) -> "_Kept | None":
        """Return what an anchor kept of the largest size."""
        query = "SELECT size, created_ms FROM ledger_anchor WHERE origin = ? AND kind = ? ORDER BY size DESC LIMIT 1"
        with self._tables.read() as connection:
            found = run(connection, query, (origin, anchor.uri))
        return _Kept(*found[0]) if found else None

    def _keep(self, anchor: Anchor, signed: SignedCheckpoint) -> None:
        anchor.keep(signed)
        self._newest[anchor.uri] = signed.note
        checkpoint = signed.checkpoint
        key = {"origin": checkpoint.origin, "kind": anchor.uri, "size": checkpoint.size}
        with self._tables.write() as connection:
            connection.execute(delete(ledger_anchor).filter_by(**key))
            row = key | {"proof": signed.note, "created_ms": int(self._clock() * 1000)}
            connection.execute(insert(ledger_anchor).values(row))


def anchor_key(origin: str, size: int) -> str:
    """Return under which key an anchor keeps a checkpoint: keys of one log sort by size."""
    return f"{anchor_folder(origin)}/{size:020d}.note"


def check_same(uri: str, signed: SignedCheckpoint, kept: bytes) -> None:
    """Refuse to go on where an anchor keeps another checkpoint of the same size.

    Raises:
        LogRolledBack: The two differ.
    """
    if parse_note(kept).text != signed.checkpoint.text():
        raise LogRolledBack(
            f"log: anchor {uri} keeps another checkpoint of {signed.checkpoint.size} entries",
            why="this log was restored from an older state, or rewritten",
            next_step="stop all writers; keep both notes as evidence; stanch log verify names the first difference",
        )


def anchor_folder(origin: str) -> str:
    """Return the folder of one log's checkpoints at an anchor."""
    return sha256(origin.encode()).hex()[:32]
