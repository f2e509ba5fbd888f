"""The book of alerts: rows of alerts and suppressions. Every function runs inside a transaction of the caller's.

So an alert, its deliveries, and whatever led to it (a detector's state, an entry of the ledger) are durable together.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from stanch.errors import Conflict, NotFound
from stanch.store.schema.alerts import alert as alerts
from stanch.store.schema.alerts import suppression as suppressions
from stanch.watch.alarm import Alarm, Containment, Severity
from stanch.watch.alert import (
    ERASED,
    Alert,
    AlertState,
    Conclusion,
    alert_id,
    awaken,
    is_news,
    raise_alert,
    repeat_alert,
)
from stanch.watch.suppress import Suppression


@dataclass(frozen=True, slots=True)
class Raised:
    """What an alarm did: the alert as it is now, and whether people have to be told of it."""

    alert: Alert
    is_news: bool

    @property
    def event(self) -> str:
        """What they are told: ``raised``, and ``raised-COUNT`` of an alert that they were told of before."""
        return "raised" if self.alert.count == 1 else f"raised-{self.alert.count}"


def record_alarm(connection: Connection, alarm: Alarm, at_ms: int) -> Raised:
    """Make the alert of an alarm, or raise the count of the one that stands for it already.

    That one is open again if it was closed or quiet, or if it gets worse, unless a suppression covers the alarm.
    """
    known = find_alert(connection, alert_id(alarm))
    quiet = any(one.covers(alarm, at_ms) for one in list_suppressions(connection, at_ms))
    if known is None:
        made = raise_alert(alarm, at_ms=at_ms, suppressed=quiet)
        connection.execute(insert(alerts).values(**_row(made)))
        return Raised(made, is_news=not quiet)
    again, news = repeat_alert(known, alarm), not quiet and is_news(known, alarm)
    after = awaken(again, at_ms=at_ms) if news else again
    save_alert(connection, known, after)
    return Raised(after, is_news=news)


def load_alert(connection: Connection, key: str) -> Alert:
    """Return an alert.

    Raises:
        NotFound: There is none.
    """
    found = find_alert(connection, key)
    if found is None:
        raise _no_alert(key)
    return found


def load_alerts(connection: Connection, keys: Sequence[str]) -> tuple[Alert, ...]:
    """Return several alerts in the order that was asked for.

    Raises:
        NotFound: There is none of one of these ids.
    """
    found = {row.id: _alert(row) for row in connection.execute(select(alerts).where(alerts.c.id.in_(keys)))}
    if missing := [key for key in keys if key not in found]:
        raise _no_alert(missing[0])
    return tuple(found[key] for key in keys)


def list_alerts(
    connection: Connection, state: AlertState | None = None, *, after: str = "", limit: int = 1000
) -> tuple[Alert, ...]:
    """Return alerts, the newest first; those that follow the alert ``after``, and none if that one is not there."""
    query = select(alerts).order_by(alerts.c.raised_ms.desc(), alerts.c.id).limit(limit)
    if state is not None:
        query = query.where(alerts.c.state == state.value)
    if after:
        raised_ms = select(alerts.c.raised_ms).where(alerts.c.id == after).scalar_subquery()
        same = (alerts.c.raised_ms == raised_ms) & (alerts.c.id > after)
        query = query.where((alerts.c.raised_ms < raised_ms) | same)
    return tuple(_alert(row) for row in connection.execute(query))


@dataclass(frozen=True, slots=True)
class Count:
    """How many alerts of one detector stand alike: their state, and what closed ones were found to be."""

    detector: str
    state: AlertState
    conclusion: Conclusion | None
    alerts: int


def count_alerts(connection: Connection) -> tuple[Count, ...]:
    """Return how many alerts there are, by detector, state and conclusion."""
    alike = (alerts.c.detector, alerts.c.state, alerts.c.conclusion)
    rows = connection.execute(select(*alike, func.count()).group_by(*alike))
    return tuple(
        Count(name, AlertState(state), Conclusion(conclusion) if conclusion else None, int(count))
        for name, state, conclusion, count in rows
    )


def save_alert(connection: Connection, before: Alert, after: Alert) -> None:
    """Replace an alert by what it is after a step.

    Raises:
        Conflict: It is no longer what the step was taken from; nothing was changed.
    """
    same = (alerts.c.id == before.id) & (alerts.c.state == before.state.value) & (alerts.c.count == before.count)
    if not connection.execute(update(alerts).where(same).values(**_row(after))).rowcount:
        raise Conflict(f"alert {before.id}: changed meanwhile", next_step="look at it again")


def add_suppression(connection: Connection, made: Suppression) -> None:
    """Keep a suppression that :func:`stanch.watch.suppress.check_suppression` let pass."""
    connection.execute(insert(suppressions).values(**asdict(made)))


def forget_reasons(connection: Connection, owner: str | None, before_ms: int | None) -> int:
    """Erase the reasons of a principal's suppressions, or of all that were made before a time; return how many."""
    mine = suppressions.c.owner == owner if before_ms is None else suppressions.c.created_ms < before_ms
    erasing = update(suppressions).where(mine, suppressions.c.reason != ERASED).values(reason=ERASED)
    return connection.execute(erasing).rowcount


def list_suppressions(connection: Connection, at_ms: int) -> tuple[Suppression, ...]:
    """Return the suppressions that hold at a time, those that end first at the head."""
    query = select(suppressions).where(suppressions.c.expires_ms > at_ms).order_by(suppressions.c.expires_ms)
    return tuple(Suppression(**row._mapping) for row in connection.execute(query))  # noqa: SLF001 - SQLAlchemy's name


def find_alert(connection: Connection, key: str) -> Alert | None:
    """Return an alert, if there is one of this id."""
    row = connection.execute(select(alerts).where(alerts.c.id == key)).one_or_none()
    return None if row is None else _alert(row)


def _no_alert(key: str) -> NotFound:
    return NotFound(f"there is no alert {key[:40]!r}", next_step="stanch watch alerts")


def _row(alert: Alert) -> dict[str, Any]:
    """Return an alert's columns; floats as text that reads back as the same float on both databases."""
    return asdict(alert) | {
        "severity": alert.severity.value,
        "statistic": repr(float(alert.statistic)),
        "threshold": repr(float(alert.threshold)),
        "entries": json.dumps(alert.entries),
        "containment": alert.containment.value if alert.containment else None,
        "state": alert.state.value,
        "conclusion": alert.conclusion.value if alert.conclusion else None,
    }


def _alert(row: Any) -> Alert:  # noqa: ANN401 - a row of SQLAlchemy
    return Alert(**dict(row._mapping) | {  # noqa: SLF001 - SQLAlchemy's name
        "severity": Severity(row.severity), "statistic": float(row.statistic), "threshold": float(row.threshold),
        "entries": tuple(json.loads(row.entries)),
        "containment": Containment(row.containment) if row.containment else None,
        "state": AlertState(row.state), "conclusion": Conclusion(row.conclusion) if row.conclusion else None,
    })  # fmt: skip
