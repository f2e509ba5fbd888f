"""PostgreSQL that keeps what a commit promises, reached over a connection that nobody can stand in."""

import contextlib
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from stanch.errors import InvalidInput, MissingExtraError, StoreError, StoreUnsafe
from stanch.store.host import is_loopback
from stanch.store.schema import METADATA
from stanch.store.statement import run, with_driver_marks
from stanch.store.tables import LEASE_POLL_SECONDS, Tables, column_names

if TYPE_CHECKING:
    import psycopg

_PARAMETERS = {"sslmode", "sslrootcert", "sslcert", "sslkey", "host"}
_HOST = re.compile(r"[a-z0-9.:_-]{1,253}|/[!-~]{1,100}")
_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
_WANTED = {"synchronous_commit": "on", "fsync": "on", "full_page_writes": "on", "server_encoding": "UTF8"}
_SESSION = {
    "synchronous_commit": "on",
    "lock_timeout": "5000",  # milliseconds
    # A writer that was cut off in the middle gives its turn back; shorter than the ledger waits to read back.
    "idle_in_transaction_session_timeout": "20000",
}
# A broken network is noticed within half a minute, also while waiting for an answer to COMMIT.
_NETWORK: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_COPY_FROM = 64
_WRITE_LOCK = int.from_bytes(b"stanch", "big")
_OWN_TRIGGER = "23000"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is, without any secret.

    Attributes:
        host: Name or address of the server, or the folder of its Unix socket.
        tls: ``sslmode`` and the files that go with it, as libpq names them.
    """

    host: str
    port: int
    user: str | None
    database: str
    tls: Mapping[str, Any]

    @classmethod
    def parse(cls, uri: str) -> "Address":
        """Read ``postgresql://user@host:port/database?sslmode=…``.

        Raises:
            InvalidInput: Malformed, a parameter that is not offered, or ``sslmode`` below ``verify-full`` on a host
                that is not this machine.
        """
        try:
            parts = urlsplit(uri)
            port = parts.port or 5432
            query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        except ValueError as error:
            raise _malformed() from error
        if unknown := sorted(query.keys() - _PARAMETERS):
            raise InvalidInput(f"tables: a postgresql: URI has no parameter {unknown[0][:40]!r}")
        socket = query.pop("host", "")
        host = parts.hostname or socket
        database = unquote(parts.path.removeprefix("/"))
        if not _HOST.fullmatch(host) or (socket and not (host == socket and host.startswith("/"))):
            raise _malformed()
        if not database or set("/\0") & set(database):
            raise _malformed()
        local = bool(socket) or is_loopback(host)
        mode = query.setdefault("sslmode", "prefer" if local else "verify-full")
        if mode not in _MODES or not (local or mode == "verify-full"):
            raise InvalidInput(
                f"tables: expected sslmode=verify-full for {host}, found {mode[:20]!r}",
                why="without it whoever stands between could read and change the rows",
                next_step="give the server a certificate, and set sslrootcert to its authority",
            )
        return cls(host, port, unquote(parts.username) if parts.username else None, database, query)

    @property
    def name(self) -> str:
        """How messages name the database."""
        return f"postgresql://{self.host}/{self.database}"


class PostgresqlTables(Tables):
    """A database that many hosts share."""

    dialect = "postgresql"
    row_lock = " FOR UPDATE"
    server_ms = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        """Yield a connection that is known to live: the server may have been started anew since the last one."""
        with self._writer.connect() as connection:
            yield connection

    def scrub(self) -> None:
        """Leave no byte of deleted rows in the tables that may hold personal data, nor in the server's statistics.

        Its write-ahead log, replicas and archives keep older pages for as long as whoever runs it lets them.

        Raises:
            StoreError: The server left a table out, because its role may not vacuum it.
        """
        names = [table.name for table in METADATA.sorted_tables if any(c.info["personal"] for c in table.c)]
        warnings: list[str] = []

        def hear(said: "psycopg.errors.Diagnostic") -> None:
            if said.severity_nonlocalized == "WARNING":
                warnings.append(said.message_primary or "")

        with self._lock, self._errors(), self._writer.connect() as pooled:
            connection = pooled.execution_options(isolation_level="AUTOCOMMIT")
            driver: Any = connection.connection.driver_connection
            driver.add_notice_handler(hear)
            try:
                connection.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {', '.join(names)}")
                connection.exec_driver_sql("VACUUM (FULL) pg_statistic")  # which samples values of every column
            finally:
                driver.remove_notice_handler(hear)
        if warnings:
            raise StoreError(
                f"{self.name}: its tables or statistics still hold values that were erased",
                why=warnings[0],
                next_step="let stanch's role own the database, or GRANT pg_maintain TO it (PostgreSQL 17); then repeat",
            )

    @contextlib.contextmanager
    def lease(self, name: str, *, wait_seconds: float = 0.0) -> Iterator[bool]:
        """See :meth:`stanch.store.tables.Tables.lease`; it ends with the process, at the latest with its connection."""
        key = int.from_bytes(hashlib.sha256(f"stanch lease {name}".encode()).digest()[:8], "big", signed=True)
        until = time.monotonic() + wait_seconds
        with self._errors(), self._reader.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not (held := _lock(connection, "pg_try_advisory_lock", key)) and time.monotonic() < until:
                time.sleep(LEASE_POLL_SECONDS)
            try:
                yield held
            finally:
                # A session that did not give the lock back must not go back to the pool with it.
                if held and not _lock(connection, "pg_advisory_unlock", key):
                    connection.invalidate()
                    raise _pooled(self.name)

    def insert(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """See :meth:`stanch.store.tables.Tables.insert`; many rows go by COPY."""
        if len(rows) < _COPY_FROM:
            super().insert(connection, table, rows)
            return
        driver = connection.connection.driver_connection
        cursor: psycopg.Cursor[Any] = driver.cursor()  # type: ignore[union-attr]  # the driver is psycopg, as opened here
        try:
            with cursor, cursor.copy(f"COPY {table.name} ({column_names(table)}) FROM STDIN".encode()) as copy:
                for row in rows:
                    copy.write_row(row)
        except driver.Error as error:  # type: ignore[union-attr]  # DB-API: the connection carries its error classes
            raise DBAPIError.instance("COPY", None, error, driver.Error) from error  # type: ignore[union-attr]  # same

    def _reason(self, error: SQLAlchemyError) -> str:
        """Return what went wrong without any value of a row, which PostgreSQL puts into details and some messages."""
        cause = getattr(error, "orig", None)
        diagnosis = getattr(cause, "diag", None)
        if cause is None:
            return type(error).__name__
        if isinstance(error, IntegrityError | DataError) and getattr(cause, "sqlstate", None) != _OWN_TRIGGER:
            return f"{type(cause).__name__} {getattr(diagnosis, 'constraint_name', None) or ''}".rstrip()
        return getattr(diagnosis, "message_primary", None) or str(cause).partition("\n")[0]


def connect_postgresql(uri: str) -> Tables:
    """Return the database at ``uri``; see :func:`stanch.store.uri.open_tables`. Nothing is made or compared yet."""
    address = Address.parse(uri)
    reader = _engine(address, isolation_level="REPEATABLE READ").execution_options(postgresql_readonly=True)
    return PostgresqlTables(address.name, writer=_writer(address), reader=reader)


def _writer(address: Address) -> Engine:
    engine = _engine(address, isolation_level="READ COMMITTED")

    # One writer at a time, on whatever host it runs: each statement after this one sees all that was committed before.
    @event.listens_for(engine, "begin")
    def _take_turns(connection: Connection) -> None:
        run(connection, "SELECT pg_advisory_xact_lock(?)", (_WRITE_LOCK,))

    return engine


def _engine(address: Address, *, isolation_level: str) -> Engine:
    try:
        import psycopg  # noqa: F401, PLC0415 - an optional part; SQLAlchemy imports it by name
    except ImportError as error:
        raise MissingExtraError("postgres") from error
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: _connect(address),
        isolation_level=isolation_level,
        pool_pre_ping=True,
        hide_parameters=True,
    )
    event.listen(engine, "before_cursor_execute", _translate, retval=True)
    return engine


def _translate(
    _connection: Connection, _cursor: object, statement: str, parameters: object, context: object, _many: object
) -> tuple[str, object]:
    """Let hand-written statements mark their parameters with ``?``, as on SQLite; compiled ones pass unchanged."""
    compiled = getattr(context, "compiled", None) is not None
    return statement if compiled else with_driver_marks(statement), parameters


def _connect(address: Address) -> "psycopg.Connection[Any]":
    import psycopg  # noqa: PLC0415 - an optional part

    # What is given here outranks PG… variables and service files. An empty hostaddr keeps PGHOSTADDR from leading a
    # loopback name elsewhere; GSS encryption would take the place of TLS and of the check that verify-full makes.
    settings: dict[str, Any] = {
        "host": address.host,
        "hostaddr": "",
        "port": address.port,
        "user": address.user,
        "dbname": address.database,
        "password": _password(),
        "gssencmode": "disable",
        "application_name": "stanch",
        "options": " ".join(f"-c {name}={value}" for name, value in _SESSION.items()),
    }
    connection = psycopg.connect(**settings, **_NETWORK, **address.tls)
    try:
        _check_settings(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_settings(connection: "psycopg.Connection[Any]", address: Address) -> None:
    """Compare what the connection must promise; whoever stands between may have left out what was asked for."""
    connection.autocommit = True
    wanted, sessions = _WANTED | _SESSION, set()
    for name, found, session in connection.execute(
        "SELECT name, setting, pg_backend_pid() FROM pg_settings WHERE name = ANY(%s)", (list(wanted),)
    ):
        sessions.add(session)
        if found != wanted[name]:
            raise StoreUnsafe(
                f"{address.name}: PostgreSQL setting {name}: expected {wanted[name]}, found {found}",
                why="a commit would not keep what it promises, or a pooler drops what stanch sets for its session",
                next_step="mend the server's configuration; through a pooler nothing but whole sessions can be used",
            )
    sessions |= {session for (session,) in connection.execute("SELECT pg_backend_pid()")}
    if len(sessions) > 1:
        raise _pooled(address.name)
    connection.autocommit = False


def _pooled(name: str) -> StoreUnsafe:
    return StoreUnsafe(
        f"{name}: its sessions change from one transaction to the next",
        why="a pooler in transaction mode stands between: locks and settings would be those of others",
        next_step="connect to the server itself, or give each client a session of its own (pool_mode = session)",
    )


def _password() -> str | None:
    """Return the password from the file that PGPASSWORD_FILE names; libpq itself reads PGPASSFILE.

    Raises:
        InvalidInput: The file cannot be read, or others can read it.
    """
    name = os.environ.get("PGPASSWORD_FILE")
    if not name:
        return None
    path = Path(name)
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise InvalidInput(f"{path}: others can read this password", next_step=f"chmod 600 {path}")
        return path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: the password that PGPASSWORD_FILE names cannot be read") from error


def _lock(connection: Connection, function: str, key: int) -> bool:
    return bool(connection.exec_driver_sql(f"SELECT {function}(?)", (key,)).scalar_one())


def _malformed() -> InvalidInput:
    return InvalidInput("tables: expected postgresql://user@host:port/database?sslmode=verify-full")
