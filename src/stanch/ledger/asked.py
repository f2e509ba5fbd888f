"""Who asked for what lately, permitted or not: kept, so that an entry of the log is looked at once."""

import threading
from typing import LiteralString

from stanch.ledger.index import update_index
from stanch.store import Tables
from stanch.store.statement import run

_PAGE = 16_384
_BEGUN = (("intent", 99), ("denied", 2))
_END: LiteralString = "SELECT coalesce(max(idx) + 1, 0) FROM ledger_index WHERE origin = ?"
_EARLIEST: LiteralString = (
    "SELECT min(idx) FROM ledger_index WHERE origin = ? AND phase = ? AND status = ? AND time_ms >= ?"
)
# The rows in the order of the log are read twice as fast as those that an index by time would find.
_ROWS: LiteralString = (
    "SELECT kind, subjects, principal, time_ms FROM ledger_index WHERE origin = ? AND idx >= ? AND idx < ?"
    " AND CASE phase WHEN 'intent' THEN 99 WHEN 'denied' THEN 2 END = status"
)


class LastAsked:
    """When each principal last asked for each thing, of one log. Entries never change."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], dict[str, int]] = {}
        self._next: int | None = None
        self._since_ms = 0
        self._lock = threading.Lock()

    def since(self, tables: Tables, origin: str, since_ms: int) -> dict[tuple[str, str], frozenset[str]]:
        """Return who began or was refused what since a time, from the index of the log; no entry is read.

        Returns:
            Principals by kind of act and subjects, as the entry has them, in JSON (empty: none).

        Raises:
            InvalidInput: A row of the log is no entry.
            StoreError: The database failed.
        """
        update_index(tables, origin)
        with self._lock:
            if since_ms < self._since_ms:
                self._last, self._next = {}, None
            self._since_ms = since_ms
            with tables.read() as connection:
                end = run(connection, _END, (origin,))[0][0]
                if self._next is None:
                    firsts = [run(connection, _EARLIEST, (origin, *state, since_ms))[0][0] for state in _BEGUN]
                    self._next = min((first for first in firsts if first is not None), default=end)
            for start in range(self._next, end, _PAGE):
                stop = min(start + _PAGE, end)
                with tables.read() as connection:
                    rows = run(connection, _ROWS, (origin, start, stop))
                for kind, subjects, principal, time_ms in rows:
                    who = self._last.setdefault((kind, subjects), {})
                    who[principal] = max(time_ms, who.get(principal, 0))
                self._next = stop
            late = {
                what: {principal: time_ms for principal, time_ms in who.items() if time_ms >= since_ms}
                for what, who in self._last.items()
            }
            self._last = {what: who for what, who in late.items() if who}
            return {what: frozenset(who) for what, who in self._last.items()}
