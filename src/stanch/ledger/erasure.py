"""Erasure of personal data: openings and personal columns go, the tree and every proof stay.

What is left of a person is the pseudonym, which still links the person's acts to each other, and whatever backups and
exports others keep.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import orjson
from sqlalchemy import Connection, delete, select, update

from stanch.errors import InvalidInput, NotFound, NotPermitted
from stanch.ledger.entry import read_event
from stanch.ledger.index import EntryQuery
from stanch.ledger.read import LedgerReader
from stanch.store import BlobStore
from stanch.store.schema.access import principal as principal_table
from stanch.store.schema.ledger import ledger_index, ledger_opening, ledger_subject
from stanch.store.schema.workspace import resource

BASIS = re.compile("[a-z0-9][a-z0-9-]{0,31}")
"""What a code for the legal basis looks like, for example ``gdpr-17-1-b``."""

_PAYLOAD = re.compile(r'"(payload/sha256/[0-9a-f]{2}/[0-9a-f]{64})"')
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be erased: all that is known of one principal, or one field in entries before a time.

    Attributes:
        principal: Pseudonymous id, or None.
        field: Field path of a commitment, for example ``actor.user.email_addr``, or None.
        before_ms: With ``field``: entries before this time (milliseconds UTC).
    """

    principal: str | None = None
    field: str | None = None
    before_ms: int | None = None

    def __post_init__(self) -> None:
        if (self.principal is None) == (self.field is None) or (self.field is None) != (self.before_ms is None):
            raise InvalidInput("erasure: expected a principal, or a field together with a time")


@dataclass(frozen=True, slots=True)
class Erased:
    """How much was erased: openings, columns of the person's row, payload blobs, and copies of the person's words."""

    openings: int
    columns: int
    payloads: int
    words: int


Forget = Callable[[Connection, frozenset[str]], int]
"""Erases the copies of the values with these commitments that stand elsewhere in the database; returns how many."""


def erase(reader: LedgerReader, blobs: BlobStore, selection: Selection, forget: Forget, *, now_ms: int) -> Erased:
    """Erase the selection, and every opening whose time of retention has passed.

    The caller records the act before. Afterwards no byte of an erased value is left in the database's tables, in
    SQLite's write-ahead log, in PostgreSQL's statistics, or in the blobs. PostgreSQL's own write-ahead log, its
    replicas and its archives keep what was written before, for as long as whoever runs the server lets them.

    Args:
        reader: The log.
        blobs: Where payloads lie.
        selection: What is erased.
        forget: Called in the transaction that erases the openings.
        now_ms: Now (milliseconds UTC).

    Raises:
        NotFound: There is no such principal.
        NotPermitted: An artifact under legal hold is concerned; nothing was erased.
        StoreError: Another process keeps SQLite's write-ahead log open, or the role may not vacuum PostgreSQL's
            statistics; the rows are erased, the files are not yet.
    """
    fields = _commitments_before(reader, selection)
    tunings = _tunings(reader)  # which brings the index up to the last entry: who acted on what is held must be known
    with reader.tables.write() as connection:
        found = _select(connection, selection, fields, now_ms)
        concerned = {row.principal for row in found}
        if selection.principal is not None:
            concerned.add(selection.principal)
        _refuse_held(connection, reader.origin, concerned, tunings)
        columns = _clear_person(connection, selection.principal) if selection.principal is not None else 0
        for row in found:
            connection.execute(delete(ledger_opening).where(ledger_opening.c.commitment == row.commitment))
        words = forget(connection, frozenset(fields | {row.commitment for row in found}))
    payloads = _drop_payloads(blobs, (row.value for row in found))
    reader.tables.scrub()
    return Erased(len(found), columns, payloads, words)


def _commitments_before(reader: LedgerReader, selection: Selection) -> set[str]:
    """Return the commitments to the field in entries before the time."""
    found: set[str] = set()
    if selection.field is None or selection.before_ms is None:
        return found
    for _, data in reader.tail():
        if b'"commitments"' in data:
            entry = orjson.loads(data)
            commitments = entry["unmapped"]["stanch"].get("commitments", {})
            if entry["time"] < selection.before_ms and selection.field in commitments:
                found.add(commitments[selection.field])
    return found


@dataclass(frozen=True, slots=True)
class _Row:
    commitment: str
    principal: str
    value: str


def _select(connection: Connection, selection: Selection, fields: set[str], now_ms: int) -> list[_Row]:
    table = ledger_opening.c
    columns = select(table.commitment, table.principal, table.value)
    queries = [columns.where(table.retain_until_ms < now_ms)]
    if selection.principal is not None:
        queries.append(columns.where(table.principal == selection.principal))
    wanted = list(fields)
    queries += [
        columns.where(table.commitment.in_(wanted[start : start + _CHUNK])) for start in range(0, len(wanted), _CHUNK)
    ]
    rows = {row.commitment: _Row(*row) for query in queries for row in connection.execute(query)}
    return list(rows.values())


def _tunings(reader: LedgerReader) -> dict[str, set[str]]:
    """Return by principal the digests of the models that they tuned: a tuning's subject is its data alone."""
    found: dict[str, set[str]] = {}
    for _, data in reader.select(EntryQuery(kind="tune.run", phase="outcome", status=1)):
        event = read_event(data)
        found.setdefault(event.actor.user.uid, set()).add(str((event.unmapped.stanch.payload or {}).get("model")))
    return found


def _refuse_held(
    connection: Connection, origin: str, principals: Iterable[str], tunings: Mapping[str, set[str]]
) -> None:
    """Refuse where somebody concerned acted on an artifact that must be kept as it is, or tuned it."""
    kept = select(resource.c.digest, resource.c.name).where(resource.c.legal_hold == 1)
    held = {row.digest: row.name for row in connection.execute(kept)}
    acted = (
        select(ledger_subject.c.digest)
        .join(
            ledger_index,
            (ledger_index.c.origin == ledger_subject.c.origin) & (ledger_index.c.idx == ledger_subject.c.idx),
        )
        .join(resource, (resource.c.digest == ledger_subject.c.digest) & (resource.c.legal_hold == 1))
        .where(ledger_subject.c.origin == origin)
        .limit(1)
    )
    for principal in principals:
        tuned = sorted(tunings.get(principal, set()) & held.keys())
        digest = tuned[0] if tuned else connection.scalar(acted.where(ledger_index.c.principal == principal))
        if digest is not None:
            raise NotPermitted(
                f"erasure: {principal} acted on {held[digest]}, which is under legal hold",
                why="what is known of it must be kept until the hold is lifted",
                next_step="ask whoever ordered the hold",
            )


def _clear_person(connection: Connection, principal: str) -> int:
    personal = [column for column in principal_table.c if column.info["personal"]]
    row = connection.execute(select(*personal).where(principal_table.c.id == principal)).one_or_none()
    if row is None:
        raise NotFound(f"principal {principal}: is not known here")
    cleared = {column.name: None for column in personal}
    connection.execute(update(principal_table).where(principal_table.c.id == principal).values(cleared))
    return sum(value is not None for value in row)


def _drop_payloads(blobs: BlobStore, values: Iterable[str]) -> int:
    """Delete the payload blobs that erased openings point to."""
    dropped = 0
    for value in values:
        if match := _PAYLOAD.fullmatch(value):
            with suppress(NotFound):  # an attempt before this one deleted it
                blobs.delete(match[1])
                dropped += 1
    return dropped
