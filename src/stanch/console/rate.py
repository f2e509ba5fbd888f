"""What one principal asked of models in each hour of a week, beside what is usual of it."""

from msgspec import Struct

from stanch.console.desk import Call
from stanch.ledger.index import update_index
from stanch.watch.baseline import load_baseline
from stanch.watch.counts import HOUR
from stanch.watch.events import INFER

HOURS = 168
_HOUR_MS = 1000 * HOUR


class Hour(Struct, frozen=True):
    """One hour: requests, and the least, mean and most that is usual; all 0 without a baseline."""

    start_ms: int
    requests: int
    least: float = 0.0
    usual: float = 0.0
    most: float = 0.0


class Rate(Struct, frozen=True):
    """A week by hours, whether there is a baseline, and all of it in one sentence."""

    hours: tuple[Hour, ...]
    has_baseline: bool
    told: str


def read_rate(call: Call, principal: str) -> Rate:
    """Return the last week of a principal, the open hour last."""
    now = call.now_ms // _HOUR_MS
    hours = range(now - HOURS + 1, now + 1)
    counts, tables, origin = _count(call, principal, hours[0]), call.workspace.tables, call.workspace.ledger.origin
    baseline = load_baseline(tables, origin, principal)
    rows = tuple(
        Hour(hour * _HOUR_MS, counts.get(hour, 0), *(baseline.usual(hour) if baseline is not None else ()))
        for hour in hours
    )
    return Rate(rows, baseline is not None, _tell(rows, has_baseline=baseline is not None))


def _count(call: Call, principal: str, since: int) -> dict[int, int]:
    update_index(call.workspace.tables, call.workspace.ledger.origin)
    with call.workspace.tables.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT time_ms / 3600000 AS hour, count(*) FROM ledger_index"
            " WHERE origin = ? AND principal = ? AND time_ms >= ? AND kind = ? AND phase = 'intent' GROUP BY hour",
            (call.workspace.ledger.origin, principal, since * _HOUR_MS, INFER),
        ).all()
    return {int(hour): int(count) for hour, count in rows}


def _tell(hours: tuple[Hour, ...], *, has_baseline: bool) -> str:
    total = sum(hour.requests for hour in hours)
    if not has_baseline:
        return f"{total:,} requests to models in a week. There is no baseline yet: too few hours of it are known."
    above = sum(hour.requests > hour.most for hour in hours)
    usual = sum(hour.usual for hour in hours)
    return (
        f"{total:,} requests to models in a week, where {usual:,.0f} are usual; "
        f"{above} of {len(hours)} hours lie above the band of what is usual."
    )
