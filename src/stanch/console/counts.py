"""What the log holds by day, today last."""

from msgspec import Struct

from stanch.console.desk import Call
from stanch.console.tally import DAY_MS


class Day(Struct, frozen=True):
    """One day (UTC): acts that were done, that failed, and that were refused."""

    start_ms: int
    done: int = 0
    failed: int = 0
    refused: int = 0


def count_days(call: Call, days: int) -> tuple[Day, ...]:
    """Return the last days, today last; a day without an act counts nothing."""
    today = call.now_ms - call.now_ms % DAY_MS
    first = today - (days - 1) * DAY_MS
    found = call.desk.days.upto_now(call.workspace.tables, call.workspace.ledger.origin)
    return tuple(Day(start, **found.get(start, {})) for start in range(first, today + DAY_MS, DAY_MS))
