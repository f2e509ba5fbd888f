"""What a check reads of the database: rows in pages, the query index, openings, cosignatures, anchors and keys."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, select

from stanch.errors import InvalidInput, NotFound, VerificationError
from stanch.ledger.checkpoint import parse_checkpoint
from stanch.ledger.commitment import Opening
from stanch.ledger.damage import LogDamaged
from stanch.ledger.fsck_tile import OWN_KEY, CheckedTile, IndexTuple, RegisteredKey, Rules, TileRows, check_tile
from stanch.ledger.hashes import TileHashes
from stanch.ledger.note import parse_note
from stanch.ledger.policy import TrustPolicy
from stanch.ledger.read import LedgerReader
from stanch.ledger.tiles import TILE_WIDTH
from stanch.store.schema.access import credential
from stanch.store.schema.ledger import ledger_anchor, ledger_checkpoint, ledger_cosignature, ledger_opening

PAGE = 16 * TILE_WIDTH
"""How many rows are read at once."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one log as they stood when the check began."""

    reader: LedgerReader
    size: int
    frontier: bytes
    keys: dict[str, RegisteredKey]

    @classmethod
    def of(cls, reader: LedgerReader) -> "Rows":
        """Read what the log says of itself.

        Raises:
            NotFound: The database holds no such log.
        """
        with reader.tables.read() as connection:
            row = connection.exec_driver_sql(
                "SELECT size, frontier FROM ledger_log WHERE origin = ?", (reader.origin,)
            ).one_or_none()
            table = credential.c
            known = select(table.id, table.principal, table.public, table.revoked_ms).where(table.kind == OWN_KEY)
            registered = {row.id: RegisteredKey(*row[1:]) for row in connection.execute(known)}
        if row is None:
            raise NotFound(f"log {reader.origin}: is not in this database")
        return cls(reader, row[0], row[1], registered)

    def outside(self) -> int | None:
        """Return the index of a row outside the log, if there is one."""
        with self.reader.tables.read() as connection:
            found: int | None = connection.exec_driver_sql(
                "SELECT min(idx) FROM ledger_entry WHERE origin = ? AND (idx < 0 OR idx >= ?)",
                (self.reader.origin, self._size_now(connection)),
            ).scalar()
        return found

    def _size_now(self, connection: Connection) -> int:
        query = "SELECT size FROM ledger_log WHERE origin = ?"
        return int(connection.exec_driver_sql(query, (self.reader.origin,)).scalar_one())


def check_page(reader: LedgerReader, rules: Rules, page: range) -> list[CheckedTile]:
    """Check up to :data:`PAGE` rows, tile by tile.

    Raises:
        LogDamaged: The first difference.
    """
    with reader.tables.read() as connection:
        entries, leaves = _read_entries(connection, rules.origin, page)
        indexed, index, subjects = _read_index(connection, rules.origin, page)
    hashes, checked = TileHashes(reader.blobs, rules.published), []
    for first in page[::TILE_WIDTH]:
        part = slice(first - page.start, first - page.start + TILE_WIDTH)
        digests = {i: found for i, found in subjects.items() if first <= i < first + TILE_WIDTH}
        rows = TileRows(first, entries[part], leaves[part], indexed - first, index[part], digests)
        checked.append(check_tile(rules, rows, hashes))
    return checked


def _read_entries(connection: Connection, origin: str, page: range) -> tuple[list[bytes], list[bytes]]:
    """Return the bytes and the stored leaf hashes of rows without a gap."""
    rows = _fetch(
        connection,
        "SELECT idx, data, leaf_hash FROM ledger_entry WHERE origin = ? AND idx >= ? AND idx < ? ORDER BY idx",
        (origin, page.start, page.stop),
    )
    for index, row in zip(page, rows, strict=False):
        if row[0] != index:
            raise LogDamaged("entry", index, expected="a row", found="none")
    if len(rows) < len(page):
        raise LogDamaged("entry", page.start + len(rows), expected="a row", found="none")
    return [row[1] for row in rows], [row[2] for row in rows]


def _fetch(connection: Connection, query: str, parameters: tuple[str, int, int]) -> list[Any]:
    """Return rows as the driver gives them; to make SQLAlchemy's of them takes an eighth of a check."""
    cursor = connection.exec_driver_sql(query, parameters).cursor
    assert cursor is not None  # noqa: S101 - a SELECT has one
    return list(cursor.fetchall())


def _read_index(connection: Connection, origin: str, page: range) -> tuple[int, list[IndexTuple], dict[int, list[str]]]:
    """Return how many entries the query index covers, its rows of some of them, and their subjects."""
    where = (origin, page.start, page.stop)
    last = connection.exec_driver_sql(
        "SELECT coalesce(max(idx), -1) FROM ledger_index WHERE origin = ?", (origin,)
    ).scalar_one()
    rows = _fetch(
        connection,
        "SELECT idx, act, phase, kind, principal, time_ms, status, subjects FROM ledger_index"
        " WHERE origin = ? AND idx >= ? AND idx < ? ORDER BY idx",
        where,
    )
    subjects: dict[int, list[str]] = {}
    for index, digest in connection.exec_driver_sql(
        "SELECT idx, digest FROM ledger_subject WHERE origin = ? AND idx >= ? AND idx < ? ORDER BY digest", where
    ):
        subjects.setdefault(index, []).append(digest)
    return last + 1, rows, subjects


class Openings:
    """The stored openings: each opens its commitment, and each commitment is in the log."""

    def __init__(self) -> None:
        self.count = 0
        self._missing: dict[str, str] = {}

    @classmethod
    def check(cls, reader: LedgerReader) -> "Openings":
        """Check that every opening opens its commitment.

        Raises:
            LogDamaged: One does not; its value is not shown.
        """
        openings, table = cls(), ledger_opening.c
        with reader.tables.read() as connection:
            for commitment, field, salt, value in connection.execute(
                select(table.commitment, table.field, table.salt, table.value)
            ):
                place = f"opening {commitment[:16]}… of {field}"
                try:
                    Opening(field, salt, orjson.loads(value)).check(commitment)
                except orjson.JSONDecodeError as error:
                    raise LogDamaged(place, None, expected="JSON", found="other bytes") from error
                except (InvalidInput, VerificationError) as error:
                    raise LogDamaged(place, None, expected="its commitment", found="another value") from error
                openings.count += 1
                openings._missing[commitment] = place
        return openings

    def found(self, commitments: Iterable[str]) -> None:
        """Note that an entry holds these commitments."""
        for commitment in commitments:
            self._missing.pop(commitment, None)

    def require_all(self) -> None:
        """Raise :class:`LogDamaged` for an opening whose commitment no entry holds."""
        for place in self._missing.values():
            raise LogDamaged(place, None, expected="an entry that holds its commitment", found="none")


def stored_anchors(reader: LedgerReader) -> list[tuple[str, bytes]]:
    """Return the notes that the table of anchors remembers, with their place."""
    table = ledger_anchor.c
    query = select(table.kind, table.size, table.proof).where(table.origin == reader.origin)
    with reader.tables.read() as connection:
        found = connection.execute(query).all()
    return [(f"anchor row {kind} {size}", proof) for kind, size, proof in found]


def check_cosignatures(reader: LedgerReader, policy: TrustPolicy, first: int, last: int) -> int:
    """Check the stored cosignatures over ``first`` to ``last`` entries; return how many are of the policy's witnesses.

    Raises:
        LogDamaged: A line is malformed, or does not verify, or its columns say something else.
    """
    table, keys = ledger_cosignature.c, {(w.key.name, w.key.key_id.hex()): w.key for w in policy.witnesses}
    query = (
        select(table.size, table.key_name, table.key_id, table.line, table.time_s, ledger_checkpoint.c.note)
        .join(
            ledger_checkpoint,
            (ledger_checkpoint.c.origin == table.origin) & (ledger_checkpoint.c.size == table.size),
        )
        .where(table.origin == reader.origin, table.size.between(first, last))
    )
    verified = 0
    with reader.tables.read() as connection:
        rows = connection.execute(query).all()
    for size, name, key_id, line, time_s, note in rows:
        place = f"cosignature of {name} over {size} entries"
        try:
            text = parse_note(note).text
            parse_checkpoint(text)
            ((found, payload),) = parse_note(f"{text}\n{line}".encode()).signatures
        except (VerificationError, ValueError) as error:
            raise LogDamaged(place, None, expected="one signature line", found="something else") from error
        if (found, payload[:4].hex(), int.from_bytes(payload[4:12], "big")) != (name, key_id, time_s):
            raise LogDamaged(place, None, expected="the key and time of its own line", found="others")
        if key := keys.get((name, key_id)):
            try:
                key.check(text, payload[4:])
            except VerificationError as error:
                raise LogDamaged(place, None, expected="a signature of its witness", found="another") from error
            verified += 1
    return verified
