"""Group commit: one thread writes what many callers wait for, so that they share one sync to the disk.

An entry is acknowledged after COMMIT and never before. Size and frontier are read again under the database's write
lock in each transaction, so several processes on one file, and several hosts on one PostgreSQL, take turns and the
indexes have no gap.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from sqlalchemy import Connection, select

from stanch.crypto import Frontier, leaf_hash
from stanch.errors import ClockWentBack, CommitUnknown, LedgerUnavailable, StanchError, StoreError, Tampered
from stanch.ledger.commitment import Opening
from stanch.store import Tables
from stanch.store.schema import ledger as schema
from stanch.terms import EntryRef

_MAX_BATCH = 4096
_MAX_BATCH_BYTES = 8 << 20
_MAX_QUEUE = 16_384
_MAX_QUEUE_BYTES = 64 << 20
_QUEUE_WAIT = 2.0
_READ_BACK_SECONDS = 45.0
_READ_BACK_PAUSE = 0.2
_CLOCK_LEEWAY_MS = 60_000

Within = Callable[[Connection], None]
"""Runs in the entry's own transaction; raising keeps this entry, and it alone, out of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedEntry:
    """An encoded entry on its way into the log."""

    data: bytes
    act: str
    principal: str
    time_ms: int
    openings: tuple[Opening, ...] = ()
    within: Within | None = None


class _Item:
    """An entry in the queue, with its leaf hash and the future that its caller holds."""

    __slots__ = ("entry", "future", "leaf")

    def __init__(self, entry: PreparedEntry) -> None:
        self.entry = entry
        self.leaf = leaf_hash(entry.data)
        self.future: Future[EntryRef] = Future()


class Committer:
    """The one writer of a log in this process. Its thread starts with the first entry."""

    def __init__(self, tables: Tables, origin: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._tables = tables
        self._origin = origin
        self._monotonic = monotonic
        self._queue: deque[_Item] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._stopped: StanchError | None = None
        self._thread: threading.Thread | None = None

    def submit(self, entry: PreparedEntry) -> Future[EntryRef]:
        """Queue an entry; the future resolves once it is durable.

        Raises:
            LedgerUnavailable: The log was closed or stopped, or the queue stayed full for two seconds.
        """
        item = _Item(entry)
        with self._changed:
            deadline = self._monotonic() + _QUEUE_WAIT
            while self._stopped is None and self._full(entry):
                if not self._changed.wait(deadline - self._monotonic()):
                    raise LedgerUnavailable("log: the queue of entries stayed full for 2 seconds")
            if self._stopped is not None:
                raise _unavailable(self._stopped)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stanch-committer", daemon=True)
                self._thread.start()
            self._queue.append(item)
            self._bytes += len(entry.data)
            self._changed.notify_all()
        return item.future

    def stop(self, reason: StanchError) -> None:
        """Refuse further entries for ``reason``; what is queued is still written. Returns when that is done."""
        with self._changed:
            self._stopped = self._stopped or reason
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _full(self, entry: PreparedEntry) -> bool:
        return len(self._queue) >= _MAX_QUEUE or (
            bool(self._queue) and self._bytes + len(entry.data) > _MAX_QUEUE_BYTES
        )

    def _run(self) -> None:
        while batch := self._take():
            try:
                self._commit(batch)
            except BaseException as error:  # noqa: BLE001 - whatever went wrong, no caller may wait for ever
                for item in batch:
                    if not item.future.done():
                        item.future.set_exception(_unavailable(error))

    def _take(self) -> list[_Item]:
        """Wait for entries and return all that are queued, up to the batch limits; empty when stopped and drained."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._queue or self._stopped is not None)
                batch = self._drain()
                self._changed.notify_all()
                if batch or (not self._queue and self._stopped is not None):
                    return batch

    def _drain(self) -> list[_Item]:
        batch: list[_Item] = []
        size = 0
        while self._queue and len(batch) < _MAX_BATCH and size < _MAX_BATCH_BYTES:
            item = self._queue.popleft()
            size += len(item.entry.data)
            self._bytes -= len(item.entry.data)
            if item.future.set_running_or_notify_cancel():
                batch.append(item)
        return batch

    def _commit(self, batch: list[_Item]) -> None:
        size = 0
        try:
            with self._tables.write() as connection:
                size, frontier, updated_ms = _read_log(connection, self._origin)
                batch = [item for item in batch if _admit(connection, item, updated_ms)]
                if batch:
                    self._insert(connection, size, batch)
                    frontier = frontier.append(item.leaf for item in batch)
                    connection.exec_driver_sql(
                        "UPDATE ledger_log SET size = ?, frontier = ?, updated_ms = ? WHERE origin = ?",
                        (frontier.size, frontier.to_bytes(), batch[-1].entry.time_ms, self._origin),
                    )
        except CommitUnknown:
            if not self._is_durable(size, batch):
                raise
        for index, item in enumerate(batch, start=size):
            item.future.set_result(EntryRef(index, item.leaf, item.entry.act))

    def _is_durable(self, first: int, batch: list[_Item]) -> bool:
        """Read back whether a batch whose COMMIT was not answered is in the log from index ``first`` on.

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
                    raise
                time.sleep(_READ_BACK_PAUSE)

    def _insert(self, connection: Connection, size: int, batch: list[_Item]) -> None:
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


def _read_log(connection: Connection, origin: str) -> tuple[int, Frontier, int]:
    # Beside the write lock the row itself is locked where a dialect can: whatever writes, no index is given twice.
    log = schema.ledger_log.c
    row = connection.execute(
        select(log.size, log.frontier, log.updated_ms).where(log.origin == origin).with_for_update()
    ).one_or_none()
    if row is None:
        raise Tampered(f"log {origin}: its row is gone from the database")
    return row[0], Frontier.parse(row[0], row[1]), row[2]


def _admit(connection: Connection, item: _Item, updated_ms: int) -> bool:
    """Run what belongs into the entry's transaction; on a refusal its future fails and the batch goes on."""
    try:
        _check_clock(item.entry.time_ms, updated_ms)
        if item.entry.within is not None:
            with connection.begin_nested():
                item.entry.within(connection)
    except Exception as error:  # noqa: BLE001 - handed to the caller that waits for this entry
        item.future.set_exception(error)
        return False
    return True


def _check_clock(time_ms: int, updated_ms: int) -> None:
    if time_ms < updated_ms - _CLOCK_LEEWAY_MS:
        raise ClockWentBack(
            f"entry: its time is {(updated_ms - time_ms) // 1000} s before the last recorded one",
            next_step="set the clock of this machine",
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
