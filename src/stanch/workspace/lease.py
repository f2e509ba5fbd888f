"""Signs of life: each running act holds a row that is renewed, so that an act whose process died is found.

The row is written in the transaction of the act's intent and deleted in that of its outcome. Whoever deletes an expired
row is the one, and the only one, who may record the act as abandoned.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

from sqlalchemy import Connection, delete, select, update

from stanch.errors import Conflict, StoreError
from stanch.store import Tables
from stanch.store.schema.workspace import act_lease
from stanch.store.statement import run

LEASE_SECONDS = 120.0
RENEW_SECONDS = 30.0


class Leases:
    """The leases of one workspace; one thread renews all that this process holds."""

    def __init__(self, tables: Tables, clock: Callable[[], float], *, renew_seconds: float = RENEW_SECONDS) -> None:
        self._tables = tables
        self._clock = clock
        self._seconds = renew_seconds
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, connection: Connection, act: str) -> None:
        """Write the lease of an act, in the transaction of its intent."""
        values = (act, socket.gethostname(), os.getpid(), self._until())
        run(connection, "INSERT INTO act_lease (act, host, pid, until_ms) VALUES (?, ?, ?, ?)", values)

    def end(self, connection: Connection, act: str) -> None:
        """Delete the lease of an act, in the transaction of its outcome.

        Raises:
            Conflict: There is none: the act never began, or somebody recorded it as abandoned meanwhile.
        """
        if not run(connection, "DELETE FROM act_lease WHERE act = ? RETURNING act", (act,)):
            raise Conflict(f"act {act}: holds no lease", why="it never began, or was recorded as abandoned meanwhile")

    def take(self, connection: Connection, act: str) -> None:
        """Delete an expired lease, in the transaction that records the act as abandoned.

        Raises:
            Conflict: Another one took it, or it was renewed.
        """
        expired = (act_lease.c.act == act) & (act_lease.c.until_ms <= self._now())
        if not connection.execute(delete(act_lease).where(expired)).rowcount:
            raise Conflict(f"act {act}: its lease is not there to be taken")

    def expired(self) -> tuple[str, ...]:
        """Return the acts whose lease has expired, oldest first (act ids begin with their time)."""
        with self._tables.read() as connection:
            found = run(connection, "SELECT act FROM act_lease WHERE until_ms <= ? ORDER BY act", (self._now(),))
        return tuple(act for (act,) in found)

    def running(self) -> tuple[str, ...]:
        """Return the acts that hold a lease, expired or not: those whose outcome is not recorded yet."""
        with self._tables.read() as connection:
            return tuple(connection.execute(select(act_lease.c.act).order_by(act_lease.c.act)).scalars())

    @contextlib.contextmanager
    def renewing(self, act: str) -> Iterator[None]:
        """Renew the lease of an act every 30 s until the block is left."""
        with self._lock:
            self._held.add(act)
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._renew_often, name="stanch-leases", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._held.discard(act)

    def close(self) -> None:
        """End the renewing."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _renew_often(self) -> None:
        while not self._closing.wait(self._seconds):
            with self._lock:
                held = tuple(self._held)
            if held:
                # The store may come back before the lease has expired; three tries fit into it.
                with contextlib.suppress(StoreError), self._tables.write() as connection:
                    connection.execute(
                        update(act_lease).where(act_lease.c.act.in_(held)).values(until_ms=self._until())
                    )

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _until(self) -> int:
        return self._now() + int(LEASE_SECONDS * 1000)
