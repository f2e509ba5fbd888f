"""The query index: what each entry is about, derived from the entries and rebuilt from them at any time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import LiteralString, NamedTuple, Self

import msgspec
from msgspec import Raw, Struct
from sqlalchemy import Connection

from stanch.errors import InvalidInput
from stanch.store import Tables
from stanch.store.schema.ledger import ledger_index, ledger_subject
from stanch.store.statement import Row, run
from stanch.terms import Digest, EntryRef

_BATCH = 2048
_ENTRIES: LiteralString = " JOIN ledger_entry AS e USING (origin, idx)"


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryQuery:
    """Which entries are wanted; what is None does not restrict. Times are milliseconds UTC, half open.

    Attributes:
        status: OCSF ``status_id``: 1 success, 2 failure, 99 intent or abandoned.
        first: Only entries from this index on.
        before: Only entries with a lower index.
        holds: Only entries whose bytes hold these; each is looked through, which takes a while.
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
    first: int | None = None
    before: int | None = None
    holds: bytes | None = None
    limit: int | None = None
    newest_first: bool = False


@dataclass(frozen=True, slots=True)
class EntryState:
    """What the index knows of how an entry stands; of its time, principal and subjects a query tells."""

    index: int
    kind: str
    phase: str
    status: int


class _User(Struct, gc=False):
    uid: str


class _Actor(Struct, gc=False):
    user: _User


class _Metadata(Struct, gc=False):
    correlation_uid: str


class _Subject(Struct, gc=False):
    digest: str


class _Ours(Struct, gc=False):
    phase: str
    kind: str = ""
    subject: Raw = Raw(b"")


class _Unmapped(Struct, gc=False):
    stanch: _Ours


class _Entry(Struct, gc=False):
    """The part of :class:`stanch.ledger.ocsf.Event` that the index holds; all of it takes five times as long."""

    actor: _Actor
    metadata: _Metadata
    status_id: int
    time: int
    unmapped: _Unmapped


_ENTRY, _SUBJECTS = msgspec.json.Decoder(_Entry), msgspec.json.Decoder(list[_Subject])


class IndexRow(NamedTuple):
    """What the index keeps of one entry, in the order of its columns."""

    origin: str
    idx: int
    act: str
    phase: str
    kind: str
    principal: str
    time_ms: int
    status: int
    subjects: str

    @classmethod
    def of(cls, origin: str, index: int, data: bytes) -> Self:
        """Derive the row from an entry's bytes. Whether they are canonical is for :func:`stanch.ledger.fsck` to say.

        Raises:
            InvalidInput: They are no entry.
        """
        try:
            entry = _ENTRY.decode(data)
            ours = entry.unmapped.stanch
            return cls(
                origin, index, entry.metadata.correlation_uid, ours.phase, ours.kind, entry.actor.user.uid, entry.time,
                entry.status_id, str(ours.subject, "utf-8"),
            )  # fmt: skip
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"entry {index}: it is not an entry of a log", next_step="stanch log verify") from error

    @property
    def digests(self) -> list[str]:
        """The digests of its subjects, each once."""
        if not self.subjects:
            return []
        return sorted({subject.digest for subject in _SUBJECTS.decode(self.subjects)})


def update_index(tables: Tables, origin: str) -> None:
    """Bring the index up to the log's size.

    Raises:
        InvalidInput: A row of the log is no entry.
        StoreError: The database failed.
    """
    # Entries are read before the write lock is taken: whoever commits does not wait for that.
    while rows := [IndexRow.of(origin, index, data) for index, data in _missing(tables, origin)]:
        subjects = [(origin, row.idx, digest) for row in rows for digest in row.digests]
        with tables.write() as connection:
            if _next(connection, origin) == rows[0].idx:  # otherwise another process was faster
                tables.insert(connection, ledger_index, rows)
                tables.insert(connection, ledger_subject, subjects)


def _next(connection: Connection, origin: str) -> int:
    found = connection.exec_driver_sql("SELECT max(idx) FROM ledger_index WHERE origin = ?", (origin,)).scalar()
    return 0 if found is None else int(found) + 1


def _missing(tables: Tables, origin: str) -> list[Row]:
    """Return index and bytes of the first entries that the index lacks."""
    with tables.read() as connection:
        return run(
            connection, "SELECT idx, data FROM ledger_entry WHERE origin = ? AND idx >= ? ORDER BY idx LIMIT ?",
            (origin, _next(connection, origin), _BATCH),
        )  # fmt: skip


def query_index(tables: Tables, origin: str, query: EntryQuery) -> Iterator[EntryRef]:
    """Yield the entries that a query asks for, from an index that is first brought up to date.

    Raises:
        InvalidInput: The limit is not positive.
        StoreError: The database failed.
    """
    return (EntryRef(*row) for row in _select(tables, origin, "i.idx, e.leaf_hash, i.act", _ENTRIES, query))


def query_entries(tables: Tables, origin: str, query: EntryQuery) -> Iterator[tuple[int, bytes]]:
    """Yield index and bytes of the entries that a query asks for. Raises as :func:`query_index` does."""
    return iter(_select(tables, origin, "i.idx, e.data", _ENTRIES, query))


def query_states(tables: Tables, origin: str, query: EntryQuery) -> Iterator[EntryState]:
    """Yield how the entries stand that a query asks for; no entry is read. Raises as :func:`query_index` does."""
    join = _ENTRIES if query.holds is not None else ""
    return (EntryState(*row) for row in _select(tables, origin, "i.idx, i.kind, i.phase, i.status", join, query))


def _select(tables: Tables, origin: str, columns: LiteralString, join: LiteralString, query: EntryQuery) -> list[Row]:
    if query.limit is not None and query.limit < 1:
        raise InvalidInput(f"query: expected a limit of 1 or more, found {query.limit}")
    update_index(tables, origin)
    on_sqlite = tables.dialect == "sqlite"
    conditions: dict[LiteralString, object] = {
        "i.act = ?": query.act,
        "i.kind = ?": query.kind,
        "i.phase = ?": query.phase,
        "i.status = ?": query.status,
        "i.principal = ?": query.principal,
        "i.time_ms >= ?": query.since_ms,
        "i.time_ms < ?": query.until_ms,
        "i.idx >= ?": query.first,
        "i.idx < ?": query.before,
        "instr(e.data, ?) > 0" if on_sqlite else "position(? in e.data) > 0": query.holds,
        "i.idx IN (SELECT idx FROM ledger_subject WHERE origin = i.origin AND digest = ?)": (
            None if query.subject is None else str(query.subject)
        ),
    }
    wanted = {text: value for text, value in conditions.items() if value is not None}
    where = " AND ".join(["i.origin = ?", *wanted])
    # Only constant texts of this module enter the statement; every value is a parameter. A state alone is few of the
    # entries: the plus keeps SQLite from walking the whole log in its order, where no limit ends the walk.
    by = "+i.idx" if query.limit is None and query.status is not None else "i.idx"
    order = f"{by} {'DESC' if query.newest_first else 'ASC'}{'' if query.limit is None else ' LIMIT ?'}"
    limit = () if query.limit is None else (query.limit,)
    with tables.read() as connection:
        source = f"ledger_index AS i{_hint(query) if connection.dialect.name == 'sqlite' else ''}{join}"
        statement = f"SELECT {columns} FROM {source} WHERE {where} ORDER BY {order}"  # noqa: S608 - own words
        return run(connection, statement, (origin, *wanted.values(), *limit))


def _hint(query: EntryQuery) -> LiteralString:
    """Return the index that finds the fewest: SQLite, without statistics, prefers its key and reads the whole log."""
    if query.subject is not None:
        return ""
    if query.act is not None:
        return " INDEXED BY ledger_index_act"
    if query.principal is None and query.kind is None:
        return ""
    what: LiteralString = "kind" if query.principal is None else "principal"
    # By time only where all of a period is wanted, since what is found by time is then sorted.
    order: LiteralString = "" if query.limit is None and query.since_ms is not None else "newest_of_"
    return f" INDEXED BY ledger_index_{order}{what}"
