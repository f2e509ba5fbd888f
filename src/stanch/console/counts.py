"""What the log holds by day, counted in its index."""

from msgspec import Struct

from stanch.console.desk import Call
from stanch.ledger.index import update_index

DAY_MS = 86_400_000


class Day(Struct, frozen=True):
    """One day (UTC): acts that were done, that failed, and that were refused."""

    start_ms: int
    done: int = 0
    failed: int = 0
    refused: int = 0


def count_days(call: Call, days: int) -> tuple[Day, ...]:
    """Return the last days, today last; a day without an act counts nothing."""
    workspace = call.workspace
    today = call.now_ms - call.now_ms % DAY_MS
    first = today - (days - 1) * DAY_MS
    update_index(workspace.tables, workspace.ledger.origin)
    with workspace.tables.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT time_ms - time_ms % 86400000 AS day, phase, status, count(*) FROM ledger_index"
            " WHERE origin = ? AND time_ms >= ? AND phase IN ('outcome', 'denied') GROUP BY day, phase, status",
            (workspace.ledger.origin, first),
        ).all()
    found: dict[int, dict[str, int]] = {}
    for day, phase, status, count in rows:
        what = "refused" if phase == "denied" else "done" if status == 1 else "failed"
        counts = found.setdefault(int(day), {})
        counts[what] = counts.get(what, 0) + int(count)
    return tuple(Day(start, **found.get(start, {})) for start in range(first, today + DAY_MS, DAY_MS))
