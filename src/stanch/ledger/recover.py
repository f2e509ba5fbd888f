"""Recovery of the rows from published bundles and tiles, after an old database was restored or rows were changed.

Nothing is discarded: rows that are not those of the signed history are set aside in a blob before the right ones take
their place. What cannot come back is what stood in the database alone: openings, and entries that were never published.
"""

import base64
import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from sqlalchemy import Connection, delete, insert, select, update

from stanch.crypto import Frontier, leaf_hash, sha256
from stanch.errors import Conflict, Equivocation, NotFound
from stanch.ledger.checkpoint import SignedCheckpoint, open_checkpoint
from stanch.ledger.damage import LogDamaged
from stanch.ledger.entry import read_event
from stanch.ledger.hashes import TileHashes
from stanch.ledger.note import NoteVerifier, open_note
from stanch.ledger.tiles import TILE_WIDTH, tile_key
from stanch.store import CREATE, BlobStore, Tables
from stanch.store.schema.ledger import (
    ledger_checkpoint,
    ledger_entry,
    ledger_index,
    ledger_key,
    ledger_log,
    ledger_subject,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a recovery did.

    Attributes:
        checkpoint: Size of the checkpoint that it went by.
        size: Entries in the log now.
        restored: Rows that were written from bundles.
        set_aside: Rows that were not of the signed history.
        kept_in: Blob that holds those rows; empty if there were none.
        ahead_ms: How far the last entry's time lies ahead (milliseconds), because a clock was wrong.
    """

    checkpoint: int
    size: int
    restored: int
    set_aside: int
    kept_in: str
    ahead_ms: int


def recover(
    tables: Tables, blobs: BlobStore, *, keys: Sequence[NoteVerifier], memories: Mapping[str, bytes], now_ms: int
) -> Recovery:
    """Bring the rows to what the largest remembered checkpoint was signed over.

    Stop every writer before. All of it is one transaction: either the rows lead to the checkpoint's root afterwards, or
    nothing was changed.

    Args:
        tables: The database to bring up; rows behind the checkpoint that continue its history stay.
        blobs: Where the bundles and tiles stand.
        keys: All keys that the log ever had, the newest first. Its present one afterwards is the newest that signed the
            checkpoint or that an entry tells of.
        memories: Signed notes, by where they were found: published checkpoint, high-water file, anchors.
        now_ms: The true time (milliseconds UTC): a last entry whose clock was ahead does not hold up the next ones.

    Raises:
        NotFound: No checkpoint is remembered, or a bundle or tile that it needs is missing.
        Equivocation: Two of them are of one size with different roots.
        LogDamaged: The bundles and tiles do not lead to the checkpoint's root.
    """
    signed = _largest(memories, keys)
    rebuild = _Rebuild(signed, blobs, now_ms)
    with tables.write() as connection:
        rebuild.read(connection)
        kept_in = rebuild.keep_aside() if rebuild.aside else ""
        rebuild.write(connection, rebuild.used(keys))
    return Recovery(
        checkpoint=signed.checkpoint.size,
        size=rebuild.frontier.size,
        restored=len(rebuild.wanted),
        set_aside=len(rebuild.aside),
        kept_in=kept_in,
        ahead_ms=max(0, rebuild.last_ms - now_ms),
    )


def _largest(memories: Mapping[str, bytes], keys: Sequence[NoteVerifier]) -> SignedCheckpoint:
    opened, log = {name: open_checkpoint(note, keys) for name, note in memories.items()}, keys[0].name
    if not opened:
        raise NotFound(f"log {log}: no checkpoint is remembered anywhere", why="so nothing says what its rows were")
    name, signed = max(opened.items(), key=lambda item: item[1].checkpoint.size)
    for other_name, other in opened.items():
        same_size = other.checkpoint.size == signed.checkpoint.size
        if same_size and other.checkpoint.root != signed.checkpoint.root:
            raise Equivocation(
                f"log {log}: {name} and {other_name} are signed over different histories",
                why=f"both have {signed.checkpoint.size} entries",
                next_step="keep both notes as evidence: either the log's key is elsewhere, or an old state went on",
            )
    return signed


@dataclass(slots=True)
class _Rebuild:
    """The rows that must be written and those that must go, found while the bundles are read once."""

    signed: SignedCheckpoint
    blobs: BlobStore
    now_ms: int
    frontier: Frontier = field(default_factory=Frontier)
    wanted: dict[int, bytes] = field(default_factory=dict)
    aside: dict[int, bytes] = field(default_factory=dict)
    rotated_ms: dict[str, int] = field(default_factory=dict)
    last_ms: int = 0

    def read(self, connection: Connection) -> None:
        """Compare each bundle with its tile and its rows, then the root, then what the rows hold behind it."""
        checkpoint, hashes = self.signed.checkpoint, TileHashes(self.blobs, self.signed.checkpoint.size)
        for number in range(-(-checkpoint.size // TILE_WIDTH)):
            entries = hashes.bundle(number)
            leaves = [leaf_hash(entry) for entry in entries]
            if leaves != hashes.tile(0, number):
                raise _damaged(f"bundle {tile_key('entries', number, len(entries))}", "the hashes of its tile")
            self.frontier = self.frontier.append(leaves)
            self._compare(connection, number * TILE_WIDTH, entries, leaves)
            self._note_rotations(entries)
            self.last_ms = read_event(entries[-1]).time
        if self.frontier.root() != checkpoint.root:
            raise _damaged(f"bundles of {checkpoint.size} entries", f"root {checkpoint.root.hex()}")
        self._read_tail(connection)

    def _compare(self, connection: Connection, first: int, entries: list[bytes], leaves: list[bytes]) -> None:
        rows = _rows(connection, self.signed.checkpoint.origin, first, first + len(entries))
        for index, (entry, leaf) in enumerate(zip(entries, leaves, strict=True), start=first):
            row = rows.get(index)
            if row is not None and row != (entry, leaf):
                self.aside[index] = row[0]
            if row != (entry, leaf):
                self.wanted[index] = entry

    def _note_rotations(self, entries: Iterable[bytes]) -> None:
        """Remember when which key was made: a new log key replaced the one before it at that moment."""
        for event in (read_event(entry) for entry in entries if b'"key.rotate"' in entry):
            ours = event.unmapped.stanch
            if ours.kind == "key.rotate" and ours.result == "done" and isinstance(ours.payload, dict):
                self.rotated_ms[str(ours.payload.get("key_id"))] = event.time

    def _read_tail(self, connection: Connection) -> None:
        """Keep the rows behind the checkpoint if they continue this history, as the stored frontier says."""
        origin, start = self.signed.checkpoint.origin, self.frontier.size
        tail = {index: data for index, (data, _) in _rows(connection, origin, start).items()}
        frontier = self.frontier.append(map(leaf_hash, tail.values()))
        continues = list(tail) == list(range(start, frontier.size))
        stored = connection.execute(
            select(ledger_log.c.size, ledger_log.c.frontier).where(ledger_log.c.origin == origin)
        ).one_or_none()
        if tail and continues and stored == (frontier.size, frontier.to_bytes()):
            self.frontier = frontier
            self.last_ms = read_event(tail[frontier.size - 1]).time
            self._note_rotations(tail.values())
        else:
            self.aside |= tail

    def used(self, keys: Sequence[NoteVerifier]) -> list[str]:
        """Return the ids of the log's present key and of those before it, the newest first.

        A key that neither signed nor is told of was made by a rotation that came to no end; only the first needs none.
        """
        signers = {signature.key_id for signature in open_note(self.signed.note, keys).signatures}
        return [
            key.key.key_id
            for key in keys
            if key.key_id in signers or key.key.key_id in self.rotated_ms or key is keys[-1]
        ]

    def keep_aside(self) -> str:
        """Write the rows that will go into a blob, and return its key."""
        rows = [{"index": index, "data": base64.b64encode(data).decode()} for index, data in self.aside.items()]
        data = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
        digest = sha256(data).hex()
        kept_in = f"recovered/sha256/{digest[:2]}/{digest}"
        with contextlib.suppress(Conflict):  # an attempt before this one wrote the same bytes
            self.blobs.put(kept_in, data, mode=CREATE)
        return kept_in

    def write(self, connection: Connection, keys: Sequence[str]) -> None:
        """Put the wanted rows in place; the query index is derived anew at the next publication.

        Args:
            connection: The transaction.
            keys: Ids of the log's present key and of those before it, the newest first.
        """
        checkpoint, origin = self.signed.checkpoint, self.signed.checkpoint.origin
        if self.aside:
            with _changeable(connection):
                for index in self.aside:
                    connection.execute(
                        delete(ledger_entry).where(ledger_entry.c.origin == origin, ledger_entry.c.idx == index)
                    )
        if self.wanted:
            rows = [
                {"origin": origin, "idx": index, "data": data, "leaf_hash": leaf_hash(data)}
                for index, data in self.wanted.items()
            ]
            connection.execute(insert(ledger_entry), rows)
        for table in (ledger_index, ledger_subject):
            connection.execute(delete(table).where(table.c.origin == origin))
        values = {
            "size": self.frontier.size, "frontier": self.frontier.to_bytes(), "key_id": keys[0],
            "updated_ms": min(self.last_ms, self.now_ms),
        }  # fmt: skip
        if not connection.execute(update(ledger_log).where(ledger_log.c.origin == origin).values(values)).rowcount:
            connection.execute(insert(ledger_log).values(origin=origin, **values))
        self._write_replaced(connection, keys)
        at_size = (ledger_checkpoint.c.origin == origin) & (ledger_checkpoint.c.size == checkpoint.size)
        connection.execute(delete(ledger_checkpoint).where(at_size))
        # Marked as not published: publishing it again is harmless, and a crash may have come before it was put.
        connection.execute(insert(ledger_checkpoint).values(
            origin=origin, size=checkpoint.size, root=checkpoint.root, note=self.signed.note,
            created_ms=self.last_ms, published=0,
        ))  # fmt: skip

    def _write_replaced(self, connection: Connection, keys: Sequence[str]) -> None:
        """Put in place since when a replaced key signs beside its successor, where the database does not say so."""
        origin = self.signed.checkpoint.origin
        known = set(connection.execute(select(ledger_key.c.key_id).where(ledger_key.c.origin == origin)).scalars())
        for newer, older in pairwise(keys):
            if older not in known and newer in self.rotated_ms:
                replaced = {"origin": origin, "key_id": older, "replaced_ms": self.rotated_ms[newer]}
                connection.execute(insert(ledger_key).values(replaced))


def _rows(connection: Connection, origin: str, first: int, end: int | None = None) -> dict[int, tuple[bytes, bytes]]:
    """Return data and leaf hash of the rows from ``first`` to before ``end``, or to the last, in order."""
    table = ledger_entry.c
    query = select(table.idx, table.data, table.leaf_hash).where(table.origin == origin, table.idx >= first)
    if end is not None:
        query = query.where(table.idx < end)
    return {index: (data, leaf) for index, data, leaf in connection.execute(query.order_by(table.idx))}


@contextlib.contextmanager
def _changeable(connection: Connection) -> Iterator[None]:
    """Lift the rule that entries are append only, inside one transaction."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ALTER TABLE ledger_entry DISABLE TRIGGER USER")
        yield
        connection.exec_driver_sql("ALTER TABLE ledger_entry ENABLE TRIGGER USER")
        return
    rules = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'ledger_entry'"
    ).all()
    for name, _ in rules:
        connection.exec_driver_sql(f'DROP TRIGGER "{name}"')
    yield
    for _, statement in rules:
        connection.exec_driver_sql(statement)


def _damaged(place: str, expected: str) -> LogDamaged:
    return LogDamaged(place, None, expected=expected, found="others")
