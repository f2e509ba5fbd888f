"""The query index: what each entry is about, derived from the entries and rebuilt from them at any time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import LiteralString

from sqlalchemy import Connection

from stanch.errors import InvalidInput
from stanch.ledger.entry import read_event
from stanch.ledger.ocsf import Event
from stanch.store import Tables
from stanch.store.statement import Row, run
from stanch.terms import Digest, EntryRef

_BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryQuery:
    """Which entries are wanted; what is None does not restrict. Times are milliseconds UTC, half open.

    Attributes:
        status: OCSF ``status_id``: 1 success, 2 failure, 99 intent or abandoned.
        before: Only entries with a lower index.
        limit: At most so many entries; None for all.
        newest_first: Order of the answer; the order of the log otherwise.
    """

    act: str | None = None
    kind: str | None = None
    phase: str | None = None
    status: int | None = None
    principal: str | None = None
    subject: Digest | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    before: int | None = None
    limit: int | None = None
    newest_first: bool = False


@dataclass(frozen=True, slots=True)
class EntryState:
    """What the index knows of how an entry stands; of its time, principal and subjects a query tells."""

    index: int
    kind: str
    phase: str
    status: int


@dataclass(frozen=True, slots=True)
class IndexRow:
    """What the index keeps of one entry."""

    act: str
    phase: str
    kind: str
    principal: str
    time_ms: int
    status: int
    subjects: tuple[str, ...]

    @classmethod
    def of(cls, event: Event) -> "IndexRow":
        """Derive the row from an entry's event."""
        ours = event.unmapped.stanch
        return cls(
            event.metadata.correlation_uid,
            ours.phase,
            ours.kind or "",
            event.actor.user.uid,
            event.time,
            event.status_id,
            tuple(sorted({subject.digest for subject in ours.subject})),
        )


def update_index(tables: Tables, origin: str) -> None:
    """Bring the index up to the log's size.

    Raises:
        StoreError: The database failed.
    """
    while _behind(tables, origin):
        with tables.write() as connection:
            rows = connection.exec_driver_sql(
                "SELECT idx, data FROM ledger_entry WHERE origin = ? AND idx >= ? ORDER BY idx LIMIT ?",
                (origin, _next(connection, origin), _BATCH),
            ).all()
            _insert(connection, origin, [(index, IndexRow.of(read_event(data))) for index, data in rows])


def _next(connection: Connection, origin: str) -> int:
    found = connection.exec_driver_sql("SELECT max(idx) FROM ledger_index WHERE origin = ?", (origin,)).scalar()
    return 0 if found is None else int(found) + 1


def _behind(tables: Tables, origin: str) -> bool:
    with tables.read() as connection:
        last = connection.exec_driver_sql("SELECT max(idx) FROM ledger_entry WHERE origin = ?", (origin,)).scalar()
        return last is not None and _next(connection, origin) <= last


def _insert(connection: Connection, origin: str, rows: list[tuple[int, IndexRow]]) -> None:
    if not rows:
        return
    connection.exec_driver_sql(
        "INSERT INTO ledger_index (origin, idx, act, phase, kind, principal, time_ms, status)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(origin, index, r.act, r.phase, r.kind, r.principal, r.time_ms, r.status) for index, r in rows],
    )
    subjects = [(origin, digest, index) for index, row in rows for digest in row.subjects]
    if subjects:
        connection.exec_driver_sql("INSERT INTO ledger_subject (origin, digest, idx) VALUES (?, ?, ?)", subjects)


def query_index(tables: Tables, origin: str, query: EntryQuery) -> Iterator[EntryRef]:
    """Yield the entries that a query asks for, from an index that is first brought up to date.

    Raises:
        InvalidInput: The limit is not positive.
        StoreError: The database failed.
    """
    columns = "i.idx, e.leaf_hash, i.act FROM ledger_index AS i JOIN ledger_entry AS e USING (origin, idx)"
    return (EntryRef(*row) for row in _select(tables, origin, columns, query))


def query_entries(tables: Tables, origin: str, query: EntryQuery) -> Iterator[tuple[int, bytes]]:
    """Yield index and bytes of the entries that a query asks for. Raises as :func:`query_index` does."""
    columns = "i.idx, e.data FROM ledger_index AS i JOIN ledger_entry AS e USING (origin, idx)"
    return iter(_select(tables, origin, columns, query))


def query_states(tables: Tables, origin: str, query: EntryQuery) -> Iterator[EntryState]:
    """Yield how the entries stand that a query asks for; no entry is read. Raises as :func:`query_index` does."""
    columns: LiteralString = "i.idx, i.kind, i.phase, i.status FROM ledger_index AS i"
    return (EntryState(*row) for row in _select(tables, origin, columns, query))


def _select(tables: Tables, origin: str, columns: LiteralString, query: EntryQuery) -> list[Row]:
    if query.limit is not None and query.limit < 1:
        raise InvalidInput(f"query: expected a limit of 1 or more, found {query.limit}")
    update_index(tables, origin)
    conditions = {
        "i.act = ?": query.act,
        "i.kind = ?": query.kind,
        "i.phase = ?": query.phase,
        "i.status = ?": query.status,
        "i.principal = ?": query.principal,
        "i.time_ms >= ?": query.since_ms,
        "i.time_ms < ?": query.until_ms,
        "i.idx < ?": query.before,
        "i.idx IN (SELECT idx FROM ledger_subject WHERE origin = i.origin AND digest = ?)": (
            None if query.subject is None else str(query.subject)
        ),
    }
    wanted = {text: value for text, value in conditions.items() if value is not None}
    where = " AND ".join(["i.origin = ?", *wanted])
    # Only constant texts of this module enter the statement; every value is a parameter.
    # One kind or state is few of the entries: the plus keeps SQLite from walking the whole log in its order, where no
    # limit ends the walk, instead of sorting the few that an index finds.
    few = query.limit is None and (query.kind is not None or query.status is not None)
    by = "+i.idx" if few else "i.idx"
    statement = (
        f"SELECT {columns}"
        f" WHERE {where} ORDER BY {by} {'DESC' if query.newest_first else 'ASC'}"
        f"{'' if query.limit is None else ' LIMIT ?'}"
    )
    limit = () if query.limit is None else (query.limit,)
    with tables.read() as connection:
        return run(connection, statement, (origin, *wanted.values(), *limit))
