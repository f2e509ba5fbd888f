"""Transactions on the project's tables, with the same promises on every database."""

import contextlib
import functools
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, LiteralString

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from stanch.errors import CommitUnknown, Conflict, StoreError
from stanch.store.statement import run

Dialect = Literal["sqlite", "postgresql"]
_MOST_ROWS = 128
LEASE_POLL_SECONDS = 0.05


class Tables:
    """An opened database. Writers take turns, also those of other processes; readers see the last commit.

    SQL text handed to ``exec_driver_sql`` marks its parameters with ``?`` on both dialects.

    Attributes:
        name: How messages name the database; without any secret.
        dialect: ``sqlite`` or ``postgresql``.
        row_lock: What to add to a SELECT so that the rows it found stay as they are; empty where writers take turns.
        server_ms: SQL of the server's own time (milliseconds UTC); NULL where there is no clock but the writer's.
    """

    dialect: Dialect = "sqlite"
    row_lock: LiteralString = ""
    server_ms: LiteralString = "NULL"

    def __init__(self, name: str, *, writer: Engine, reader: Engine) -> None:
        self.name = name
        self._writer = writer
        self._reader = reader
        self._lock = threading.Lock()
        self._kept: Connection | None = None

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection that alone may write; commit at the end, roll back on any exception.

        No other writer of this database runs meanwhile (``BEGIN IMMEDIATE``; on PostgreSQL READ COMMITTED under an
        advisory lock), so what is read inside the block still holds at its commit. The commit is durable when the block
        is left. Never wait inside the block for something that writes.

        Raises:
            Conflict: A row breaks a uniqueness or foreign-key rule, or one that forbids a change.
            CommitUnknown: The connection broke while committing; only reading back tells what became of the change.
            StoreError: The transaction could not be made durable; nothing was changed.
        """
        with self._lock, self._errors(), self._connected() as connection, connection.begin() as transaction:
            yield connection
            try:
                transaction.commit()
            except DBAPIError as error:
                if not error.connection_invalidated:
                    connection.invalidate(error)  # it may be in the transaction still, and SQLAlchemy thinks it is not
                    raise
                what = f"{self.name}: the connection broke while committing"
                raise CommitUnknown(what, why=self._reason(error)) from error

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection that reads one snapshot and cannot write.

        Raises:
            StoreError: The database cannot be read.
        """
        with self._errors(), self._reader.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def rehearsal(self) -> Iterator["Tables"]:
        """Yield these tables inside one writing transaction of which nothing stays.

        Raises:
            Conflict: As :meth:`write`.
            StoreError: The database failed.
        """
        with self._lock, self._errors(), self._connected() as connection, connection.begin() as transaction:
            yield self.within(connection)
            transaction.rollback()

    def within(self, connection: Connection) -> "Tables":
        """Return these tables inside a writing transaction that somebody else began and will end."""
        return _Within(self, connection)

    def lease(self, name: str, *, wait_seconds: float = 0.0) -> AbstractContextManager[bool]:
        """Return a block that yields whether it holds the lease ``name`` until its end.

        A lease saves repeated work between processes and hosts; nothing may be wrong if two hold it.
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        """Yield the connection that writes. Of SQLite a sound one is kept: its pool would cost as much as a commit.

        Of a server it comes from the pool each time, which asks whether the server is still there.
        """
        connection, self._kept = self._kept or self._writer.connect(), None
        try:
            yield connection
        except BaseException:
            connection.close()  # which undoes whatever is still open
            raise
        if self.dialect == "sqlite":
            self._kept = connection
        else:
            connection.close()

    def insert(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert whole rows, in the order of the table's columns."""
        start, count = 0, _MOST_ROWS
        # Many rows a statement: a driver lets go of the interpreter at each, and every switch between threads costs as
        # much as a row. Powers of two keep the statements few, so that they stay prepared.
        while start < len(rows):
            while count > len(rows) - start:
                count //= 2
            values = tuple(itertools.chain.from_iterable(rows[start : start + count]))
            run(connection, _insertion(table, count), values)
            start += count

    def scrub(self) -> None:
        """Leave no byte of deleted rows in SQLite's files: its write-ahead log is emptied.

        SQLite overwrites what it deletes (``secure_delete``); only the log keeps older pages.

        Raises:
            StoreError: Somebody else reads the database, so its log cannot be emptied now.
        """
        with self._lock, self._errors():
            raw = self._writer.raw_connection()
            try:
                busy = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                raw.close()
        if busy:
            raise StoreError(
                f"{self.name}: its write-ahead log still holds older pages",
                why="another process reads the database",
                next_step="close the other processes, then repeat",
            )

    def close(self) -> None:
        """Give back all connections."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        self._reader.dispose()
        self._writer.dispose()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise Conflict(f"{self.name}: the change was refused", why=self._reason(error)) from error
        except SQLAlchemyError as error:
            what = f"{self.name}: the database failed; nothing was changed"
            next_step = "see that its disk is not full and that the database runs, then repeat"
            raise StoreError(what, why=self._reason(error), next_step=next_step) from error

    def _reason(self, error: SQLAlchemyError) -> str:
        """Return the driver's own text: SQLAlchemy's would show the parameters, which may be personal."""
        return str(getattr(error, "orig", None) or type(error).__name__)


class _Within(Tables):
    """Tables that read and write in one transaction, and never commit it."""

    def __init__(self, outer: Tables, connection: Connection) -> None:
        self.name, self.dialect = outer.name, outer.dialect
        self.row_lock, self.server_ms = outer.row_lock, outer.server_ms
        self._connection = connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        with self._errors():
            yield self._connection

    read = write


@functools.lru_cache(256)
def _insertion(table: Table, count: int) -> LiteralString:
    """Return the statement that inserts so many rows: only names of the schema enter it."""
    marks: Any = ", ".join([f"({', '.join('?' * len(table.columns))})"] * count)
    return f"INSERT INTO {table.name} ({column_names(table)}) VALUES {marks}"  # noqa: S608 - as said above


def column_names(table: Table) -> str:
    """Return the names of a table's columns as an SQL list."""
    return ", ".join(table.columns.keys())
