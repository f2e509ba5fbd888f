"""Re-derivation of a whole log: rows, bundles, tiles, frontier, roots and signatures, each from the one before.

The first difference is raised with its place. What nobody outside remembers cannot be found: a tail that was cut off
before a checkpoint was signed over it, and a history that was rewritten with the log's own key.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from stanch.crypto import Frontier, leaf_hash, merkle_root
from stanch.errors import InvalidInput, LogRolledBack, NotFound, Tampered, VerificationError
from stanch.ledger.checkpoint import Checkpoint, open_checkpoint
from stanch.ledger.commitment import Opening
from stanch.ledger.entry import Phase, read_event
from stanch.ledger.hashes import TileHashes
from stanch.ledger.index import IndexRow
from stanch.ledger.policy import TrustPolicy
from stanch.ledger.read import LedgerReader
from stanch.ledger.tiles import CHECKPOINT_KEY, TILE_WIDTH, tile_key, tile_width


class LogDamaged(Tampered):
    """A part of the log is not what the rest of it says.

    Attributes:
        place: The damaged object, for example ``entry``, ``bundle``, ``tile log/tile/0/000`` or ``frontier``.
        index: The entry concerned; None where the object is not about one entry.
    """

    def __init__(self, place: str, index: int | None, *, expected: str, found: str) -> None:
        where = place if index is None else f"{place} {index}"
        super().__init__(
            f"log: {where}: expected {expected}, found {found}",
            why="it was changed after it was recorded",
            next_step="keep the files as they are, as evidence; compare with a copy or a kept checkpoint",
        )
        self.place = place
        self.index = index


@dataclass(frozen=True, slots=True, kw_only=True)
class FsckReport:
    """What was checked, all of it without a difference.

    Attributes:
        origin: The log.
        size: Entries in the rows.
        published: Entries that the published checkpoint covers.
        root: Root hash over all rows, hex.
        compared: Names of the checkpoints that the rows lead to; the log's own and those given as anchors.
        openings: How many openings open their commitments.
        intents_open: Acts with an intent and no outcome.
        conclusion: ``consistent with the given anchors``, or ``self-consistent only`` without any.
    """

    origin: str
    size: int
    published: int
    root: str
    compared: tuple[str, ...]
    openings: int
    intents_open: tuple[str, ...]
    conclusion: str


def fsck(reader: LedgerReader, policy: TrustPolicy, *, anchors: Sequence[bytes] = ()) -> FsckReport:
    """Re-derive the log and compare every part.

    Args:
        reader: The log.
        policy: The keys that may have signed its checkpoints.
        anchors: Signed checkpoints (whole notes) that were kept elsewhere. Only they can show a rewritten history.

    Raises:
        LogDamaged: The first difference, with its place.
        LogRolledBack: The log is shorter than a checkpoint signed over it.
        VerificationError: A checkpoint's signature does not verify.
    """
    check = _Check(reader, policy)
    checkpoints = check.checkpoints(anchors)
    check.root()
    for number in range(-(-check.size // TILE_WIDTH)):
        check.tile(number)
    check.upper_tiles()
    check.frontier_row()
    return FsckReport(
        origin=reader.origin,
        size=check.size,
        published=check.published.size,
        root=check.frontier.root().hex(),
        compared=tuple(name for name, _ in checkpoints),
        openings=_check_openings(reader),
        intents_open=tuple(check.open_intents),
        conclusion="consistent with the given anchors" if anchors else "self-consistent only",
    )


class _Check:
    """The state of one run; holds one tile a level and the open intents, never the whole log."""

    def __init__(self, reader: LedgerReader, policy: TrustPolicy) -> None:
        self.reader = reader
        self.policy = policy
        with reader.tables.read() as connection:
            row = connection.exec_driver_sql(
                "SELECT size, frontier FROM ledger_log WHERE origin = ?", (reader.origin,)
            ).one_or_none()
        if row is None:
            raise NotFound(f"log {reader.origin}: is not in this database")
        self.size: int = row[0]
        self.stored_frontier: bytes = row[1]
        self.published = Checkpoint(reader.origin, 0, Frontier().root())
        self.frontier = Frontier()
        self.levels: list[list[bytes]] = []
        self.by_size: dict[int, list[tuple[str, Checkpoint]]] = {}
        self.sizes: list[int] = []
        self.open_intents: dict[str, None] = {}
        self.hashes = TileHashes(reader.blobs, 0)

    def checkpoints(self, anchors: Sequence[bytes]) -> list[tuple[str, Checkpoint]]:
        """Return every checkpoint with its name, after its signature was verified, smallest first."""
        notes = [(f"anchor {number}", note) for number, note in enumerate(anchors)]
        try:
            notes.append((CHECKPOINT_KEY, self.reader.blobs.get(CHECKPOINT_KEY)))
        except NotFound:
            self._need_unpublished()
        with self.reader.tables.read() as connection:
            stored = connection.exec_driver_sql(
                "SELECT size, root, note FROM ledger_checkpoint WHERE origin = ?", (self.reader.origin,)
            ).all()
        notes += [(f"stored checkpoint {size}", note) for size, _, note in stored]
        opened = [(name, open_checkpoint(note, self.policy.logs).checkpoint) for name, note in notes]
        for name, checkpoint in opened:
            self._check_checkpoint(name, checkpoint)
        for (size, root, _), (name, checkpoint) in zip(stored, opened[len(opened) - len(stored) :], strict=True):
            if (size, root) != (checkpoint.size, checkpoint.root):
                raise LogDamaged(name, None, expected="the size and root of its own note", found="others")
        self.published = dict(opened).get(CHECKPOINT_KEY, self.published)
        self.hashes = TileHashes(self.reader.blobs, self.published.size)
        opened.sort(key=lambda item: item[1].size)
        for name, checkpoint in opened:
            self.by_size.setdefault(checkpoint.size, []).append((name, checkpoint))
        self.sizes = list(self.by_size)
        return opened

    def _need_unpublished(self) -> None:
        with self.reader.tables.read() as connection:
            published = connection.exec_driver_sql(
                "SELECT max(size) FROM ledger_checkpoint WHERE origin = ? AND published = 1", (self.reader.origin,)
            ).scalar()
        if published is not None:
            raise LogDamaged(CHECKPOINT_KEY, None, expected=f"a checkpoint of {published} entries", found="none")

    def _check_checkpoint(self, name: str, checkpoint: Checkpoint) -> None:
        if checkpoint.origin != self.reader.origin:
            raise LogDamaged(name, None, expected=f"log {self.reader.origin}", found=f"log {checkpoint.origin}")
        if checkpoint.size > self.size:
            raise LogRolledBack(
                f"log: expected {checkpoint.size} entries as {name} says, found {self.size}",
                why=f"entries {self.size} to {checkpoint.size - 1} were cut off",
                next_step="restore the newest database",
            )

    def tile(self, number: int) -> None:
        """Check up to 256 rows against their bundle, their tile and the index, and take them into the tree."""
        first = number * TILE_WIDTH
        rows = self._rows(first, min(first + TILE_WIDTH, self.size))
        width = tile_width(self.published.size, 0, number)
        leaves = [leaf_hash(data) for data, _ in rows]
        if width:
            self._check_published(number, rows[:width], leaves)
        for index, ((_, stored), leaf) in enumerate(zip(rows, leaves, strict=True), start=first):
            if stored != leaf:
                raise LogDamaged("entry", index, expected=f"leaf hash {stored.hex()}", found=leaf.hex())
        self._check_events(first, [data for data, _ in rows])
        self._grow(first, leaves)
        if width == TILE_WIDTH:
            self._rise(0, number, leaves)

    def _rows(self, first: int, end: int) -> list[tuple[bytes, bytes]]:
        with self.reader.tables.read() as connection:
            found = connection.exec_driver_sql(
                "SELECT idx, data, leaf_hash FROM ledger_entry WHERE origin = ? AND idx >= ? AND idx < ? ORDER BY idx",
                (self.reader.origin, first, end),
            ).all()
        for index, row in enumerate(found, start=first):
            if row[0] != index:
                raise LogDamaged("entry", index, expected="a row", found="none")
        if len(found) < end - first:
            raise LogDamaged("entry", first + len(found), expected="a row", found="none")
        return [(data, leaf) for _, data, leaf in found]

    def _check_published(self, number: int, rows: list[tuple[bytes, bytes]], leaves: list[bytes]) -> None:
        width = len(rows)
        tile = _read(f"tile {tile_key(0, number, width)}", lambda: self.hashes.tile(0, number))
        bundle = _read(f"bundle {tile_key('entries', number, width)}", lambda: self.hashes.bundle(number))
        for offset, (data, _) in enumerate(rows):
            index = number * TILE_WIDTH + offset
            if leaves[offset] == tile[offset] and data == bundle[offset]:
                continue
            # Two of three agree: the third is the one that was changed. Where none agree, the row is named.
            kept = leaf_hash(bundle[offset])
            if kept == leaves[offset]:
                raise LogDamaged(
                    f"tile {tile_key(0, number, width)}, entry", index, expected=kept.hex(), found=tile[offset].hex()
                )
            if leaves[offset] == tile[offset]:
                raise LogDamaged(
                    f"bundle {tile_key('entries', number, width)}, entry",
                    index,
                    expected=tile[offset].hex(),
                    found=kept.hex(),
                )
            raise LogDamaged("entry", index, expected=f"leaf hash {tile[offset].hex()}", found=leaves[offset].hex())

    def _check_events(self, first: int, entries: list[bytes]) -> None:
        indexed, index_rows = _index_rows(self.reader, first, len(entries))
        for index, data in enumerate(entries, start=first):
            try:
                event = read_event(data)
            except InvalidInput as error:
                raise LogDamaged("entry", index, expected="canonical bytes", found=error.what) from error
            if event.attestation.chain_uid != self.reader.origin:
                raise LogDamaged("entry", index, expected=f"log {self.reader.origin}", found="another log's entry")
            row = IndexRow.of(event)
            if index < indexed and index_rows.get(index) != row:
                raise LogDamaged("query index, entry", index, expected="what the entry says", found="another row")
            self._follow(row)

    def _follow(self, row: IndexRow) -> None:
        if row.phase == Phase.INTENT:
            self.open_intents[row.act] = None
        elif row.phase == Phase.OUTCOME:
            self.open_intents.pop(row.act, None)

    def _grow(self, first: int, leaves: list[bytes]) -> None:
        """Append the leaves; stop at each checkpoint's size to compare its root."""
        end = first + len(leaves)
        for size in [*self.sizes[bisect_right(self.sizes, first) : bisect_left(self.sizes, end)], end]:
            self.frontier = self.frontier.append(leaves[self.frontier.size - first : size - first])
            self.root()

    def root(self) -> None:
        """Compare the present root with the checkpoints of this size."""
        for name, checkpoint in self.by_size.get(self.frontier.size, ()):
            if checkpoint.root != self.frontier.root():
                raise LogDamaged(
                    f"entries before {checkpoint.size}, against {name}",
                    None,
                    expected=f"root {checkpoint.root.hex()}",
                    found=self.frontier.root().hex(),
                )

    def _rise(self, level: int, number: int, hashes: list[bytes]) -> None:
        """Take a full tile's hash into the level above; compare the tile there once it is full."""
        if len(self.levels) == level:
            self.levels.append([])
        self.levels[level].append(merkle_root(hashes))
        if len(self.levels[level]) == TILE_WIDTH:
            above = number // TILE_WIDTH
            self._compare(level + 1, above, self.levels[level])
            self._rise(level + 1, above, self.levels[level])
            self.levels[level] = []

    def upper_tiles(self) -> None:
        """Compare the partial tiles above the entries."""
        for level, hashes in enumerate(self.levels, start=1):
            if hashes:
                self._compare(level, (self.published.size >> 8 * level) // TILE_WIDTH, hashes)

    def _compare(self, level: int, number: int, hashes: list[bytes]) -> None:
        place = f"tile {tile_key(level, number, len(hashes))}"
        found = _read(place, lambda: self.hashes.tile(level, number))
        for offset, (expected, actual) in enumerate(zip(hashes, found, strict=True)):
            if expected != actual:
                raise LogDamaged(f"{place}, hash", offset, expected=expected.hex(), found=actual.hex())

    def frontier_row(self) -> None:
        """Compare the stored frontier, and refuse rows that lie outside the log."""
        if self.frontier.to_bytes() != self.stored_frontier:
            raise LogDamaged(
                "frontier", None, expected=self.frontier.to_bytes().hex()[:64], found=self.stored_frontier.hex()[:64]
            )
        with self.reader.tables.read() as connection:
            extra = connection.exec_driver_sql(
                "SELECT min(idx) FROM ledger_entry WHERE origin = ?1 AND (idx < 0 OR idx >="
                " (SELECT size FROM ledger_log WHERE origin = ?1))",
                (self.reader.origin,),
            ).scalar()
        if extra is not None:
            raise LogDamaged("entry", extra, expected="no row outside the log", found="one")


def _read(place: str, read: Any) -> list[bytes]:  # noqa: ANN401 - a closure over one tile read
    """Read a tile or bundle; its absence or wrong length is damage of the log."""
    try:
        hashes: list[bytes] = read()
    except NotFound as error:
        raise LogDamaged(place, None, expected="its bytes", found="none") from error
    except LogDamaged:
        raise
    except VerificationError as error:
        raise LogDamaged(place, None, expected="its full length", found=error.what) from error
    return hashes


def _index_rows(reader: LedgerReader, first: int, count: int) -> tuple[int, dict[int, IndexRow]]:
    """Return how many entries the index covers by now, and its rows of some entries."""
    with reader.tables.read() as connection:
        last = connection.exec_driver_sql(
            "SELECT coalesce(max(idx), -1) FROM ledger_index WHERE origin = ?", (reader.origin,)
        ).scalar_one()
        where = (reader.origin, first, first + count)
        rows = connection.exec_driver_sql(
            "SELECT idx, act, phase, kind, principal, time_ms, status FROM ledger_index"
            " WHERE origin = ? AND idx >= ? AND idx < ?",
            where,
        ).all()
        subjects: dict[int, list[str]] = {}
        for index, digest in connection.exec_driver_sql(
            "SELECT idx, digest FROM ledger_subject WHERE origin = ? AND idx >= ? AND idx < ?", where
        ):
            subjects.setdefault(index, []).append(digest)
    return last + 1, {
        index: IndexRow(act, phase, kind, principal, time_ms, status, tuple(sorted(subjects.get(index, ()))))
        for index, act, phase, kind, principal, time_ms, status in rows
    }


def _check_openings(reader: LedgerReader) -> int:
    count = 0
    for commitment, opening in _openings(reader):
        try:
            opening.check(commitment)
        except (InvalidInput, VerificationError) as error:
            raise LogDamaged(
                f"opening {commitment[:16]}… of {opening.field}", None, expected="its commitment", found="another value"
            ) from error
        count += 1
    return count


def _openings(reader: LedgerReader) -> Iterator[tuple[str, Opening]]:
    with reader.tables.read() as connection:
        for commitment, field, salt, value in connection.exec_driver_sql(
            "SELECT commitment, field, salt, value FROM ledger_opening"
        ):
            try:
                yield commitment, Opening(field, salt, orjson.loads(value))
            except orjson.JSONDecodeError as error:
                raise LogDamaged(f"opening of {field}", None, expected="JSON", found="other bytes") from error
