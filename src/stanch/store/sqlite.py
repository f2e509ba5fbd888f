"""SQLite that keeps what a commit promises: settings read back and compared, network file systems refused."""

import contextlib
import fcntl
import functools
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, LiteralString

from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.pool import QueuePool, StaticPool
from sqlalchemy.util import LRUCache

from stanch.crypto import sha256, sync_folder
from stanch.errors import NotFound, StoreError, StoreUnsafe
from stanch.store.statement import run
from stanch.store.tables import LEASE_POLL_SECONDS, Tables

_OLDEST = (3, 37, 0)  # STRICT tables
_PRAGMAS: dict[str, str | int] = {
    "journal_mode": "wal",
    "synchronous": 2,
    "foreign_keys": 1,
    "busy_timeout": 5000,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "secure_delete": 1,
    "fullfsync": 1,
    "checkpoint_fullfsync": 1,
}
# A writer changes pages all over the indexes: kept in memory and in the log for longer, each is written fewer times.
_WRITER: dict[str, str | int] = {"cache_size": -16_000, "wal_autocheckpoint": 8000}
_COMPILED: LRUCache[Any, Any] = LRUCache(500)
"""SQL text of statements, for every database of this process: to make it takes longer than to run it."""
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse"}


class SqliteTables(Tables):
    """A database in a file."""

    @contextlib.contextmanager
    def lease(self, name: str, *, wait_seconds: float = 0.0) -> Iterator[bool]:
        """See :meth:`stanch.store.tables.Tables.lease`: a lock of a file beside the database, gone with the process."""
        until, held = time.monotonic() + wait_seconds, False
        file = _open_lock(f"{self.name}.lease-{sha256(name.encode()).hex()[:16]}")
        try:
            while not (held := _lock(file)) and time.monotonic() < until:
                time.sleep(LEASE_POLL_SECONDS)
            yield held
        finally:
            if held:
                fcntl.flock(file, fcntl.LOCK_UN)  # closing alone would leave it to a process that was forked meanwhile
            os.close(file)


def connect_sqlite(path: Path, *, create: bool = False) -> Tables:
    """Return the database in the file ``path``; see :func:`stanch.store.uri.open_tables`. No table is made yet."""
    if sqlite3.sqlite_version_info < _OLDEST:
        raise StoreUnsafe(f"SQLite {sqlite3.sqlite_version}: expected 3.37 or newer")
    if not path.is_file() and not create:
        raise NotFound(f"{path}: there is no database", next_step="make a workspace with: stanch init")
    if create:
        _create_file(path)
    refuse_network(path, Path("/proc/self/mountinfo").read_text())
    writer = _engine(path, begin="BEGIN IMMEDIATE", read_only=False)
    return SqliteTables(str(path), writer=writer, reader=_engine(path, begin="BEGIN", read_only=True))


def copy_sqlite(path: Path, target: Path) -> None:
    """Copy the database as it was last committed to ``target`` (0600), whole or not at all.

    Raises:
        StoreError: The copy could not be made durable.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        _create_file(partial)
        with closing(_connect(path, read_only=True)) as source, closing(sqlite3.connect(partial)) as copy:
            source.backup(copy)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(target)
        sync_folder(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{target}: the copy of the database could not be made", why=str(error)) from error


def refuse_network(path: Path, mountinfo: str) -> None:
    """Refuse a database on a network file system, whose locks and syncs cannot be relied on.

    Args:
        path: The database file; its folder exists.
        mountinfo: The text of ``/proc/self/mountinfo`` (proc(5)).

    Raises:
        StoreUnsafe: The mount that holds the file is of such a kind.
    """
    folder = f"{path.parent.resolve()}/"
    kind, depth = "", -1
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        mount = before.split(" ")[4].encode().decode("unicode_escape").rstrip("/")  # spaces stand as \040
        # A later line of the same mount point lies on top of the earlier one.
        if folder.startswith(f"{mount}/") and len(mount) >= depth:
            kind, depth = after.split(" ")[0], len(mount)
    if kind.split(".")[0] in _NETWORK:
        raise StoreUnsafe(
            f"{path}: lies on a {kind} file system",
            why="its locks and syncs do not keep what a commit promises",
            next_step="put the database on a local disk",
        )


def _open_lock(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: the lease cannot be taken", why=os.strerror(error.errno or 0)) from error


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def bound_caches(most: int) -> None:
    """Let the pages that all connections of this process keep take no more than about ``most`` bytes together.

    It is SQLite's soft limit of its heap: a page that is needed then takes the place of one that was not for longest.
    """
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"PRAGMA soft_heap_limit={int(most)}")


def _create_file(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"{path}: the database cannot be made", why=os.strerror(error.errno or 0)) from error


def _engine(path: Path, *, begin: LiteralString, read_only: bool) -> Engine:
    def connect() -> sqlite3.Connection:
        return _connect(path, read_only=read_only)

    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool if read_only else StaticPool,
        hide_parameters=True,
        execution_options={"compiled_cache": _COMPILED},
    )
    engine.dialect = _dialect()  # what was compiled is found again under the same dialect alone

    # The driver's own transaction handling is off (isolation_level None), so that BEGIN is exactly this text.
    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        run(connection, begin)

    return engine


@functools.cache
def _dialect() -> Dialect:
    engine = create_engine("sqlite://")
    engine.connect().close()  # a dialect learns SQLite's version at the first connection of its engine
    engine.dispose()
    return engine.dialect


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        for name, wanted in _PRAGMAS.items():
            _set(connection, name, wanted, path)
        for name, wanted in {} if read_only else _WRITER.items():
            _set(connection, name, wanted, path)
        _set(connection, "query_only", int(read_only), path)
    except BaseException:
        connection.close()
        raise
    return connection


def _set(connection: sqlite3.Connection, name: str, wanted: str | int, path: Path) -> None:
    connection.execute(f"PRAGMA {name}={wanted}")
    found: Any = connection.execute(f"PRAGMA {name}").fetchone()[0]
    if found != wanted:
        raise StoreUnsafe(f"{path}: SQLite setting {name}: expected {wanted}, found {found}")
