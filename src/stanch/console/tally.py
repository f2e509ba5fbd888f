"""How many acts there were on each day, counted in the index of the log and kept."""

import threading

from stanch.ledger.index import update_index
from stanch.store import Tables

DAY_MS = 86_400_000


class DayCounts:
    """The counts of each day; what was counted once is not counted again, for entries never change."""

    def __init__(self) -> None:
        self._days: dict[int, dict[str, int]] = {}
        self._next = 0
        self._lock = threading.Lock()

    def upto_now(self, tables: Tables, origin: str) -> dict[int, dict[str, int]]:
        """Return the counts by the first millisecond of each day, after the entries since the last call."""
        update_index(tables, origin)
        with self._lock:
            with tables.read() as connection:
                rows = connection.exec_driver_sql(
                    "SELECT time_ms - time_ms % 86400000 AS day, phase, status, count(*), max(idx) FROM ledger_index"
                    " WHERE origin = ? AND idx >= ? GROUP BY day, phase, status",
                    (origin, self._next),
                ).all()
            for day, phase, status, count, last in rows:
                self._next = max(self._next, int(last) + 1)
                if phase in {"outcome", "denied"}:
                    what = "refused" if phase == "denied" else "done" if status == 1 else "failed"
                    counts = self._days.setdefault(int(day), {})
                    counts[what] = counts.get(what, 0) + int(count)
            return {day: dict(counts) for day, counts in self._days.items()}
