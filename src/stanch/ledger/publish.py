"""Publishing: integrate new entries into tiles, sign a checkpoint, put it where everybody reads it.

Every step may be repeated: two publishers, or one after a crash, write equal bytes. Before anything is signed, all that
this log is known to have signed before is compared with the rows (the rollback guard).
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import LiteralString

from sqlalchemy import Connection

from stanch.crypto import EMPTY_ROOT, Frontier, write_atomic
from stanch.errors import Conflict, InvalidInput, LogRolledBack, NotFound, StoreError, TileConflict
from stanch.ledger.anchor import Anchors
from stanch.ledger.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint, sign_checkpoint
from stanch.ledger.hashes import TileHashes
from stanch.ledger.integrate import integrate
from stanch.ledger.keys import LogKeys
from stanch.ledger.proof import frontier_at, stored_frontier
from stanch.ledger.tiles import CHECKPOINT_KEY, PREFIX
from stanch.ledger.witness_client import WitnessClient
from stanch.store import CREATE, BlobStore, Match, Tables
from stanch.store.statement import Row, run

_PAGE = 4096
_ATTEMPTS = 8


class Publisher:
    """Publishes one log. ``highwater`` is a file of its own that remembers the largest checkpoint ever signed here.

    Attributes:
        keys: The log's keys; whoever replaces the present one sets them.
    """

    def __init__(
        self,
        tables: Tables,
        blobs: BlobStore,
        keys: LogKeys,
        *,
        highwater: Path,
        clock: Callable[[], float],
        witnesses: WitnessClient | None = None,
        anchors: Anchors | None = None,
    ) -> None:
        self._tables = tables
        self._blobs = blobs
        self.keys = keys
        self._highwater = highwater
        self._clock = clock
        self._witnesses = witnesses
        self._anchors = anchors
        self._lock = threading.Lock()

    def publish(self) -> SignedCheckpoint:
        """Publish a checkpoint over all entries that are durable now, and return it.

        Raises:
            LogRolledBack: The rows are shorter than, or differ from, what this log signed before.
            TileConflict: A tile exists with other bytes.
            StoreError: The store failed; publishing again continues.
        """
        with self._lock:
            published = self._published()
            frontier = self.guard()
            pending = self._pending(published.size if published else -1)
            if pending is not None and pending.checkpoint.size < frontier.size:
                self._integrate(published.size if published else 0, pending.checkpoint)
                self._put(pending)
                published = pending.checkpoint
            if published and published.size == frontier.size:
                return self._kept_elsewhere(self._read_published())
            checkpoint = Checkpoint(self.keys.origin, frontier.size, frontier.root())
            self._integrate(published.size if published else 0, checkpoint)
            signed = self._cosigned(self._sign(checkpoint))
            self._put(signed)
            return self._anchored(signed)

    def due(self, size: int) -> bool:
        """Say whether publishing the same ``size`` entries again would ask a witness for a cosignature."""
        return self._witnesses is not None and self._witnesses.due(self.keys.origin, size)

    def guard(self) -> Frontier:
        """Compare the rows with every checkpoint that is remembered, and return the rows' frontier.

        Raises:
            LogRolledBack: A remembered checkpoint is larger than the log, or is of another history.
            TileConflict: The published tiles do not lead to the published root.
        """
        frontier, memories = self._memories()
        for name, remembered in memories.items():
            if remembered.size > frontier.size:
                raise _rolled_back(f"it holds {frontier.size} entries, but {name} was signed over {remembered.size}")
        published = memories.get(CHECKPOINT_KEY, Checkpoint(self.keys.origin, 0, EMPTY_ROOT))
        tiles = TileHashes(self._blobs, published.size).subtree
        rows = frontier_at(published.size, tiles)
        if rows.root() != published.root:
            raise self._conflict(published.size)
        roots = {}
        for size in sorted({m.size for m in memories.values() if m.size > published.size} | {frontier.size}):
            rows = rows.append(leaf for (leaf,) in self._rows("leaf_hash", rows.size, size))
            roots[size] = rows.root()
        if rows != frontier:
            raise _rolled_back(f"rows {published.size} to {frontier.size} do not continue the published tiles")
        for name, remembered in memories.items():
            old = remembered.size < published.size
            root = frontier_at(remembered.size, tiles).root() if old else roots.get(remembered.size, published.root)
            if root != remembered.root:
                raise _rolled_back(f"{name} was signed over another history of {remembered.size} entries")
        return frontier

    def _memories(self) -> tuple[Frontier, dict[str, Checkpoint]]:
        """Return the rows' frontier and every checkpoint that can be reached, by where it was found."""
        # The notes are read before the rows: both only grow, and an honest note is never ahead of its rows.
        notes: dict[str, bytes] = {}
        with contextlib.suppress(NotFound):
            notes[CHECKPOINT_KEY] = self._blobs.get(CHECKPOINT_KEY)
        with contextlib.suppress(FileNotFoundError):
            notes[str(self._highwater)] = self._highwater.read_bytes()
        if self._anchors is not None:
            notes |= self._anchors.memories(self.keys.origin)
        with self._tables.read() as connection:
            notes |= {f"stored note {size}": note for size, note in self._stored_notes(connection)}
            frontier = self._frontier(connection)
        # Mostly they are one note in several places.
        opened = {note: open_checkpoint(note, self.keys.verifiers).checkpoint for note in dict.fromkeys(notes.values())}
        return frontier, {name: opened[note] for name, note in notes.items()}

    def _conflict(self, size: int) -> TileConflict:
        return TileConflict(
            f"log {self.keys.origin}: the tiles of {size} entries do not lead to the root they must",
            next_step="stop all writers; stanch log verify names the first difference",
        )

    def _rows(self, columns: LiteralString, start: int, end: int) -> Iterator[Row]:
        """Yield columns of rows ``start`` to ``end``, a page at a time."""
        query = f"SELECT {columns} FROM ledger_entry WHERE origin = ? AND idx >= ? AND idx < ? ORDER BY idx"  # noqa: S608 - own words
        while start < end:
            with self._tables.read() as connection:
                rows = run(connection, query, (self.keys.origin, start, min(start + _PAGE, end)))
            if len(rows) != min(start + _PAGE, end) - start:
                raise _rolled_back(f"rows are missing between {start} and {min(start + _PAGE, end)}")
            yield from rows
            start += _PAGE

    def _frontier(self, connection: Connection) -> Frontier:
        row = connection.exec_driver_sql(
            "SELECT size, frontier FROM ledger_log WHERE origin = ?", (self.keys.origin,)
        ).one_or_none()
        if row is None:
            raise _rolled_back("its row is gone from the database")
        return stored_frontier(*row)

    def _stored_notes(self, connection: Connection) -> list[tuple[int, bytes]]:
        """Return the notes that are not marked as published and the largest one that is, smallest first."""
        notes = []
        # Only the newest notes can be unpublished, so the walk from the largest one stops at the first that is not.
        for size, note, published in connection.exec_driver_sql(
            "SELECT size, note, published FROM ledger_checkpoint WHERE origin = ? ORDER BY size DESC",
            (self.keys.origin,),
        ):
            notes.append((size, note))
            if published:
                break
        return notes[::-1]

    def _pending(self, published: int) -> SignedCheckpoint | None:
        """Return the largest note that a crash left stored but not published."""
        with self._tables.read() as connection:
            notes = [note for size, note in self._stored_notes(connection) if size > published]
        return open_checkpoint(notes[-1], self.keys.verifiers) if notes else None

    def _published(self) -> Checkpoint | None:
        try:
            return self._read_published().checkpoint
        except NotFound:
            return None

    def _read_published(self) -> SignedCheckpoint:
        return open_checkpoint(self._blobs.get(CHECKPOINT_KEY), self.keys.verifiers)

    def _integrate(self, old_size: int, checkpoint: Checkpoint) -> None:
        """Write the tiles up to the checkpoint, then derive its root from what was written."""
        rows = self._rows("data, leaf_hash", old_size - old_size % 256, checkpoint.size)
        integrate(self._blobs, ((data, leaf) for data, leaf in rows), old_size, checkpoint.size)
        root = frontier_at(checkpoint.size, TileHashes(self._blobs, checkpoint.size).subtree).root()
        if root != checkpoint.root:
            raise self._conflict(checkpoint.size)

    def _sign(self, checkpoint: Checkpoint) -> SignedCheckpoint:
        """Sign, remember and store a note; a larger one that another process stored is returned in its place."""
        with self._tables.write() as connection:
            last = connection.exec_driver_sql(
                "SELECT note FROM ledger_checkpoint WHERE origin = ? ORDER BY size DESC LIMIT 1", (self.keys.origin,)
            ).scalar()
            if last is not None:
                stored = open_checkpoint(last, self.keys.verifiers)
                if stored.checkpoint.size > checkpoint.size or stored.checkpoint == checkpoint:
                    return stored
            now_ms = int(self._clock() * 1000)
            signed = sign_checkpoint(checkpoint, *self.keys.signers(now_ms))
            connection.exec_driver_sql(
                "INSERT INTO ledger_checkpoint (origin, size, root, note, created_ms, published)"
                " VALUES (?, ?, ?, ?, ?, 0)",
                (checkpoint.origin, checkpoint.size, checkpoint.root, signed.note, now_ms),
            )
            # Inside the transaction, whose lock keeps two processes from writing the file out of order.
            self._remember(signed)
        return signed

    def _kept_elsewhere(self, published: SignedCheckpoint) -> SignedCheckpoint:
        """Complete what witnesses and anchors lack of the published checkpoint, and return it."""
        signed = self._cosigned(published)
        if signed.note != published.note:
            self._put(signed)
        return self._anchored(signed)

    def _cosigned(self, signed: SignedCheckpoint) -> SignedCheckpoint:
        """Return the checkpoint with the cosignatures that could be had."""
        if self._witnesses is None:
            return signed
        hashes = TileHashes(self._blobs, signed.checkpoint.size)
        return self._witnesses.cosign(signed, hashes, self._size)

    def _anchored(self, signed: SignedCheckpoint) -> SignedCheckpoint:
        if self._anchors is not None:
            self._anchors.keep_when_due(signed)
        return signed

    def _size(self) -> int:
        with self._tables.read() as connection:
            return self._frontier(connection).size

    def _remember(self, signed: SignedCheckpoint) -> None:
        try:
            write_atomic(self._highwater, signed.note, mode=0o600)
        except InvalidInput as error:
            raise StoreError(error.what, why=error.why) from error

    def _put(self, signed: SignedCheckpoint) -> None:
        """Put the checkpoint where everybody reads it; a smaller one never replaces a larger one."""
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(Conflict):
                self._put_once(signed)
                break
        else:
            raise StoreError(f"{PREFIX}checkpoint: others kept replacing it", next_step="publish again")
        with self._tables.write() as connection:
            connection.exec_driver_sql(
                "UPDATE ledger_checkpoint SET published = 1 WHERE origin = ? AND size <= ? AND size > coalesce(("
                "SELECT size FROM ledger_checkpoint WHERE origin = ? AND published = 1 ORDER BY size DESC LIMIT 1"
                "), -1)",
                (self.keys.origin, signed.checkpoint.size, self.keys.origin),
            )

    def _put_once(self, signed: SignedCheckpoint) -> None:
        try:
            present = self._blobs.head(CHECKPOINT_KEY)
        except NotFound:
            self._blobs.put(CHECKPOINT_KEY, signed.note, mode=CREATE)
            return
        found = self._read_published()
        # The same checkpoint again has more or newer cosignatures; a larger one takes the place of a smaller.
        newer = found.checkpoint == signed.checkpoint and len(found.note) <= len(signed.note)
        if found.note != signed.note and (newer or found.checkpoint.size < signed.checkpoint.size):
            self._blobs.put(CHECKPOINT_KEY, signed.note, mode=Match(present.etag))


def _rolled_back(why: str) -> LogRolledBack:
    return LogRolledBack(
        "log: was rolled back: its rows are not what this log has signed before",
        why=why,
        next_step="stop all writers and restore the newest database, or: stanch log recover",
    )
