"""Group commit: one thread at a time writes what many callers wait for, so that they share one sync to the disk.

An entry is acknowledged after COMMIT and never before. Size and frontier are read again under the database's write
lock in each transaction, so several processes on one file, and several hosts on one PostgreSQL, take turns and the
indexes have no gap.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from msgspec import Struct
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from stanch.crypto import Frontier, leaf_hash
from stanch.errors import (
    ClockAhead,
    ClockWentBack,
    CommitUnknown,
    LedgerUnavailable,
    LogRolledBack,
    StanchError,
    StoreError,
    Tampered,
)
from stanch.ledger.commitment import Opening
from stanch.ledger.proof import stored_frontier
from stanch.store import Tables
from stanch.store.schema import ledger as schema
from stanch.store.statement import run
from stanch.terms import EntryRef

_MAX_BATCH = 4096
_MAX_BATCH_BYTES = 8 << 20
_MAX_QUEUE = 16_384
_MAX_QUEUE_BYTES = 64 << 20
_QUEUE_WAIT = 2.0
_READ_BACK_SECONDS = 45.0
_READ_BACK_PAUSE = 0.2
_CLOCK_LEEWAY_MS = 60_000
_PATIENCE = 0.1

Within = Callable[[Connection], None]
"""Runs in the entry's own transaction; raising keeps this entry, and it alone, out of the log."""


class PreparedEntry(Struct, frozen=True, kw_only=True):
    """An encoded entry on its way into the log."""

    data: bytes
    act: str
    principal: str
    time_ms: int
    openings: tuple[Opening, ...] = ()
    within: Within | None = None


class _Queued(Future[EntryRef]):
    """An entry in the queue, with its leaf hash; resolves once it is durable.

    Whoever waits for it writes what is queued, unless somebody does already.
    """

    def __init__(self, entry: PreparedEntry, committer: "Committer") -> None:
        super().__init__()
        self.entry = entry
        self.leaf = leaf_hash(entry.data)
        self._committer = committer

    def result(self, timeout: float | None = None) -> EntryRef:
        """See :meth:`concurrent.futures.Future.result`."""
        if not self.done():
            self._committer.help_out(self, can_wait=timeout is None)
        return super().result(timeout)

    def add_done_callback(self, fn: Callable[[Future[EntryRef]], object]) -> None:
        """See :meth:`concurrent.futures.Future.add_done_callback`."""
        super().add_done_callback(fn)
        self._committer.wake()


class _Undo(Exception):
    """Nothing of a batch may be recorded."""


class Committer:
    """The one writer of a log in this process: a thread that starts with the first entry, and those who wait for one.

    A thread that waits writes itself, which spares two switches between threads, each as dear as several entries. The
    main thread never does: Ctrl-C strikes there, and may not strike in a commit.
    """

    def __init__(self, tables: Tables, origin: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._tables = tables
        self._origin = origin
        self._monotonic = monotonic
        self._queue: deque[_Queued] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._turn = threading.Lock()
        self._since = 0.0
        self._is_idle = False
        self._is_woken = False
        self._stopped: StanchError | None = None
        self._thread: threading.Thread | None = None
        self._last: tuple[int, bytes] | None = None

    def submit(self, entry: PreparedEntry) -> Future[EntryRef]:
        """Queue an entry; the future resolves once it is durable.

        Raises:
            LedgerUnavailable: The log was closed or stopped, or the queue stayed full for two seconds.
        """
        item = _Queued(entry, self)
        with self._lock:
            if self._full(entry):
                self._wait_for_room(entry)
            if self._stopped is not None:
                raise _unavailable(self._stopped)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stanch-committer", daemon=True)
                self._thread.start()
            self._queue.append(item)
            self._bytes += len(entry.data)
            if len(self._queue) == 1:
                self._since = self._monotonic()
                if self._is_idle:
                    self._changed.notify_all()
        return item

    @property
    def waiting(self) -> int:
        """How many entries are queued."""
        return len(self._queue)

    def help_out(self, future: Future[EntryRef], *, can_wait: bool) -> None:
        """Write what is queued in this thread, or see to it that the other one does, unless ``future`` was written."""
        if not can_wait or threading.current_thread() is threading.main_thread():
            self.wake()
            return
        with self._turn:
            while not future.done():
                self._write(self._drain())

    def wake(self) -> None:
        """Let the thread write what is queued now."""
        with self._lock:
            if self._queue:
                self._is_woken = True
                self._changed.notify_all()

    def stop(self, reason: StanchError) -> None:
        """Refuse further entries for ``reason``; what is queued is still written. Returns when that is done."""
        with self._lock:
            self._stopped = self._stopped or reason
            self._changed.notify_all()
            self._room.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            with self._turn:
                pass  # one of those who wait for an entry may still be writing

    def _wait_for_room(self, entry: PreparedEntry) -> None:
        self._is_woken = True
        self._changed.notify_all()
        if not self._room.wait_for(lambda: self._stopped is not None or not self._full(entry), _QUEUE_WAIT):
            raise LedgerUnavailable("log: the queue of entries stayed full for 2 seconds")

    def _full(self, entry: PreparedEntry) -> bool:
        return len(self._queue) >= _MAX_QUEUE or (
            bool(self._queue) and self._bytes + len(entry.data) > _MAX_QUEUE_BYTES
        )

    def _run(self) -> None:
        while self._wait():
            with self._turn:
                self._write(self._drain())

    def _wait(self) -> bool:
        """Wait until the queue is to be written; false when stopped and empty.

        An entry that nobody waits for is written after a moment, so that whoever waits for others can write it too.
        """
        with self._lock:
            while self._stopped is None and not self._is_woken:
                self._is_idle = not self._queue
                patience = self._since + _PATIENCE - self._monotonic() if self._queue else None
                if patience is not None and patience <= 0:
                    break
                self._changed.wait(patience)
            self._is_woken = self._is_idle = False
            return bool(self._queue) or self._stopped is None

    def _drain(self) -> list[_Queued]:
        """Take what is queued, up to the batch limits, out of the queue."""
        batch: list[_Queued] = []
        size = 0
        with self._lock:
            while self._queue and len(batch) < _MAX_BATCH and size < _MAX_BATCH_BYTES:
                item = self._queue.popleft()
                size += len(item.entry.data)
                self._bytes -= len(item.entry.data)
                if item.set_running_or_notify_cancel():
                    batch.append(item)
            self._room.notify_all()
        return batch

    def _write(self, batch: list[_Queued]) -> None:
        """Commit entries, and tell whoever waits what became of them."""
        if not batch:
            return
        try:
            self._commit(batch)
        except BaseException as error:  # noqa: BLE001 - whatever went wrong, no caller may wait for ever
            if isinstance(error, LogRolledBack):
                with self._lock:
                    self._stopped = self._stopped or error
                    self._changed.notify_all()
                    self._room.notify_all()
            for item in batch:
                if not item.done():
                    item.set_exception(_unavailable(error))

    def _commit(self, batch: list[_Queued]) -> None:
        size = 0
        try:
            with self._tables.write() as connection:
                log = self._read_log(connection)
                size, is_alone = log.frontier.size, len(batch) == 1
                batch = [item for item in batch if _admit(connection, item, log, is_alone=is_alone)]
                if not batch:
                    raise _Undo  # noqa: TRY301 - the transaction is undone by leaving it so
                self._insert(connection, size, batch)
                frontier = log.frontier.append(item.leaf for item in batch)
                updated_ms = max(log.updated_ms, *(item.entry.time_ms for item in batch))
                run(
                    connection,
                    "UPDATE ledger_log SET size = ?, frontier = ?, updated_ms = ? WHERE origin = ?",
                    (frontier.size, frontier.to_bytes(), updated_ms, self._origin),
                )
        except _Undo:
            return
        except CommitUnknown:
            durable = self._is_durable(size, batch)
            if durable is None:
                for item in batch:
                    item.set_exception(_unanswered())
                return
            if not durable:
                raise
        self._last = (size + len(batch) - 1, batch[-1].leaf)
        for index, item in enumerate(batch, start=size):
            item.set_result(EntryRef(index, item.leaf, item.entry.act))

    def _read_log(self, connection: Connection) -> "_Log":
        """Return the log as it stands.

        Raises:
            LogRolledBack: It lacks an entry that was acknowledged here, as after a fail-over to a server that had not
                received it yet.
        """
        # Beside the write lock the row itself is locked where a dialect can: whatever writes, no index is given twice.
        lock, now = self._tables.row_lock, self._tables.server_ms
        query = (
            f"SELECT size, frontier, updated_ms, {now},"  # noqa: S608 - own words
            " (SELECT leaf_hash FROM ledger_entry WHERE origin = ledger_log.origin AND idx = ?)"
            f" FROM ledger_log WHERE origin = ?{lock}"
        )
        last, leaf = self._last or (-1, None)
        found = run(connection, query, (last, self._origin))
        if not found:
            raise Tampered(f"log {self._origin}: its row is gone from the database")
        size, frontier, updated_ms, server_ms, stored = found[0]
        if leaf is not None and (size <= last or stored != leaf):
            raise LogRolledBack(
                f"log: was rolled back: entry {last}, which was acknowledged here, is not in its database any more",
                why="an older database took its place, as a server does that took over and had not received everything",
                next_step="stop all writers and bring the newest database back, or: stanch log recover",
            )
        return _Log(stored_frontier(size, frontier), updated_ms, server_ms)

    def _is_durable(self, first: int, batch: list[_Queued]) -> bool | None:
        """Read back whether a batch whose COMMIT was not answered is in the log from ``first`` on; None: none answers.

        The write lock is waited for, so that the server has finished with the broken connection before it is asked.
        """
        deadline = self._monotonic() + _READ_BACK_SECONDS
        while True:
            try:
                with self._tables.write() as connection:
                    leaves = connection.exec_driver_sql(
                        "SELECT leaf_hash FROM ledger_entry WHERE origin = ? AND idx >= ? AND idx < ? ORDER BY idx",
                        (self._origin, first, first + len(batch)),
                    ).scalars()
                    # A leaf binds the act's random id, so equal leaves are these entries and not another host's.
                    return list(leaves) == [item.leaf for item in batch]
            except StoreError:
                if self._monotonic() > deadline:
                    return None
                time.sleep(_READ_BACK_PAUSE)

    def _insert(self, connection: Connection, size: int, batch: list[_Queued]) -> None:
        rows = [(self._origin, index, item.entry.data, item.leaf) for index, item in enumerate(batch, start=size)]
        self._tables.insert(connection, schema.ledger_entry, rows)
        openings = [
            (
                opening.commitment,
                opening.field,
                opening.salt,
                opening.value_json,
                opening.principal or item.entry.principal,
                opening.retain_until_ms,
            )
            for item in batch
            for opening in item.entry.openings
        ]
        if openings:
            connection.exec_driver_sql(
                "INSERT INTO ledger_opening (commitment, field, salt, value, principal, retain_until_ms)"
                " VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (commitment) DO NOTHING",  # the same salt, field and value, recorded twice
                openings,
            )


class _Log(NamedTuple):
    """The log as a batch finds it: its frontier, the last recorded time, and the server's time where it has one."""

    frontier: Frontier
    updated_ms: int
    server_ms: int | None

    def check_clock(self, time_ms: int) -> None:
        """Refuse a time before the last recorded one, or ahead of the server's; both within a minute are one.

        A recorded time that is itself ahead of the server's is a fault of that clock and binds nobody.
        """
        last_ms = self.updated_ms if self.server_ms is None else min(self.updated_ms, self.server_ms)
        if time_ms < last_ms - _CLOCK_LEEWAY_MS:
            raise ClockWentBack(
                f"entry: its time is {(last_ms - time_ms) // 1000} s before the last recorded one",
                why="this clock is behind, or that of whoever recorded the last one was ahead",
                next_step="set the clock of this machine; if it is right: stanch log recover",
            )
        if self.server_ms is not None and time_ms > self.server_ms + _CLOCK_LEEWAY_MS:
            raise ClockAhead(
                f"entry: its time is {(time_ms - self.server_ms) // 1000} s ahead of the database server's",
                next_step="set the clock of this machine, or of the server",
            )


def _admit(connection: Connection, item: _Queued, log: _Log, *, is_alone: bool) -> bool:
    """Run what belongs into the entry's transaction; on a refusal its future fails and the batch goes on.

    Of an entry that is alone the whole transaction is undone then, so it needs no savepoint.
    """
    within, is_begun = item.entry.within, False
    try:
        log.check_clock(item.entry.time_ms)
        if within is not None and is_alone:
            within(connection)
        elif within is not None:
            run(connection, "SAVEPOINT entry")
            is_begun = True
            within(connection)
            run(connection, "RELEASE SAVEPOINT entry")
    except Exception as error:  # noqa: BLE001 - handed to the caller that waits for this entry
        if is_begun:
            # If even this fails, the whole batch does: nothing of a refused entry may be committed.
            run(connection, "ROLLBACK TO SAVEPOINT entry")
        item.set_exception(_unavailable(error) if isinstance(error, SQLAlchemyError) else error)
        return False
    return True


def _unanswered() -> CommitUnknown:
    return CommitUnknown(
        "log: nobody knows whether the entry is durable",
        why=f"the connection broke while committing, and the server stayed away for {_READ_BACK_SECONDS:.0f} s",
        next_step="when the server is back: stanch log query",
    )


def _unavailable(cause: BaseException) -> LedgerUnavailable:
    """Return a fresh error for each caller: an exception object carries one traceback."""
    what = cause.what if isinstance(cause, StanchError) else type(cause).__name__
    error = LedgerUnavailable(
        "log: the entry could not be made durable; the act must not happen",
        why=what,
        next_step=getattr(cause, "next_step", ""),
    )
    error.__cause__ = cause
    return error
