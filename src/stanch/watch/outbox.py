"""The outbox: what is still to be delivered, written with the alert and kept until a sink took it or it is dead.

At least once: a sink may take a delivery twice when the answer to the first was lost, and knows it by its key. A sink
that is down is asked again after 5 seconds, then each time twice as long, at most an hour, for 24 hours. What waits for
it waits with what failed, so that one that hangs holds the others up once in a pass; the most severe comes first.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection, case, func, insert, select, update

from stanch.crypto import canonical_json, parse_json, random_bytes, sha256
from stanch.crypto.prf import RandomBytes
from stanch.errors import StanchError
from stanch.store import Tables
from stanch.store.schema.alerts import alert as alerts
from stanch.store.schema.alerts import outbox
from stanch.terms import JsonValue
from stanch.watch.alarm import Alarm, Severity
from stanch.watch.alert import Alert, AlertState
from stanch.watch.book import list_alerts, record_alarm, save_alert
from stanch.watch.escalation import escalate, escalation_due, tier_of
from stanch.watch.incident import Incident
from stanch.watch.suppress import DELIVERY

FIRST_MS, MOST_MS, GIVE_UP_MS = 5_000, 3_600_000, 86_400_000
SPREAD_PERCENT = 20
MOST_AT_ONCE, MOST_OPEN = 256, 100_000


class Sink(Protocol):
    """Where alerts are delivered to."""

    @property
    def name(self) -> str:
        """Its name in the settings."""
        ...

    @property
    def tier(self) -> int:
        """Tier 1 is told at once, the next ones when nobody takes an alert on."""
        ...

    def deliver(self, notice: "Notice") -> None:
        """Hand a notice over; return only once the other side took it.

        Raises:
            StanchError: It did not; no message carries a secret.
        """
        ...


@dataclass(frozen=True, slots=True)
class Notice:
    """What a sink is told: its key, by which a receiver knows a repeat, and the facts; ids, kinds and counts only."""

    key: str
    facts: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass over the outbox did."""

    sent: int
    retried: int
    dead: tuple[str, ...]


def raise_alarm(connection: Connection, alarm: Alarm, sinks: Iterable[Sink], at_ms: int) -> Alert:
    """Record an alarm and, if people have to be told of it, its deliveries to the first tier, in one."""
    return _raise(connection, alarm, _told(sinks, 0), at_ms)


def _raise(connection: Connection, alarm: Alarm, sinks: Iterable[Sink], at_ms: int) -> Alert:
    raised = record_alarm(connection, alarm, at_ms)
    if raised.is_news:
        post(connection, raised.alert, raised.event, sinks, at_ms)
    return raised.alert


def post(connection: Connection, alert: Alert, event: str, sinks: Iterable[Sink], at_ms: int) -> None:
    """Write one delivery for each sink; what was written before under the same key stays as it is."""
    _post(connection, alert.id, describe(alert, event), [sink.name for sink in sinks], at_ms)


def post_turn(connection: Connection, alert: Alert, names: Collection[str], at_ms: int) -> None:
    """Tell those of the named sinks that were told of an alert that a person closed it or opened it again."""
    told = select(outbox.c.sink).where(outbox.c.alert == alert.id, outbox.c.sink.in_(names)).distinct()
    word = "closed" if alert.state is AlertState.CLOSED else "reopened"
    facts = describe(alert, f"{word}-{alert.changed_ms}")
    _post(connection, alert.id, facts, connection.scalars(told).all(), at_ms)


def post_incident(
    connection: Connection, incident: Incident, event: str, sinks: Iterable[Sink], at_ms: int
) -> None:  # fmt: skip
    """Write one delivery for each sink of the first tier: an incident was opened or has changed."""
    names = [sink.name for sink in _told(sinks, 0)]
    _post(connection, incident.id, describe_incident(incident, event, at_ms), names, at_ms)


def _post(
    connection: Connection, about: str, facts: dict[str, JsonValue], names: Iterable[str], at_ms: int
) -> None:  # fmt: skip
    for name in names:
        key = delivery_key(about, str(facts["event"]), name)
        if connection.execute(select(outbox.c.key).where(outbox.c.key == key)).one_or_none() is not None:
            continue
        # Not before what the sink has still to be told of the same thing: its end must not overtake its beginning.
        earlier = (outbox.c.alert == about) & (outbox.c.sink == name) & (outbox.c.state == "waiting")
        waiting = connection.scalar(select(func.max(outbox.c.next_ms)).where(earlier))
        connection.execute(insert(outbox).values(
            key=key, alert=about, sink=name, payload=canonical_json(facts), attempts=0, created_ms=at_ms,
            next_ms=max(at_ms, waiting or 0), state="waiting", problem="",
        ))  # fmt: skip


def escalate_due(connection: Connection, sinks: Iterable[Sink], at_ms: int) -> int:
    """Hand on every urgent alert that waited too long; return how many."""
    known, count = tuple(sinks), 0
    for alert in list_alerts(connection, AlertState.OPEN, limit=MOST_OPEN):
        after = escalate(alert, at_ms)
        if after is not None:
            save_alert(connection, alert, after)
            post(connection, after, f"escalated-{after.escalations}", _told(known, after.escalations), at_ms)
            count += 1
    return count


def deliver_due(tables: Tables, sinks: Iterable[Sink], at_ms: int, *, rng: RandomBytes = random_bytes) -> Pass:
    """Deliver what is due, the most severe first; what fails waits longer, and after 24 hours it is dead.

    A sink that fails is not asked again in this pass, and all that is due to it waits until it is. What comes up
    meanwhile is delivered in its turn. No transaction is open while a sink is asked.
    """
    known, began = {sink.name: sink for sink in sinks}, time.monotonic()
    sent, retried, failed, dead = 0, 0, set[str](), list[str]()
    for _ in range(MOST_AT_ONCE):
        now = at_ms + int(1000 * (time.monotonic() - began))
        row = _next_due(tables, now, failed)
        if row is None:
            break
        problem = _attempt(known.get(row.sink), Notice(row.key, _facts(row.payload)))
        with tables.write() as connection:
            if problem:
                failed.add(row.sink)
                gone = _put_off(connection, row, problem, at_ms, at_ms + retry_after(row.attempts, rng=rng))
                if gone:
                    others = [sink for sink in known.values() if sink.name != row.sink]
                    _tell_dead(connection, row.sink, others, at_ms)
                dead += gone
                retried += row.key not in gone
            else:
                mine = (outbox.c.key == row.key) & (outbox.c.state == "waiting")
                connection.execute(update(outbox).where(mine).values(state="sent", attempts=row.attempts + 1))
                sent += 1
    return Pass(sent, retried, tuple(dead))


def _next_due(tables: Tables, at_ms: int, failed: Collection[str]) -> Any:  # noqa: ANN401 - a row of SQLAlchemy
    """Return what is delivered next: the most severe, and of those first to a sink to which nothing waits again."""
    due = (outbox.c.state == "waiting") & (outbox.c.next_ms <= at_ms) & outbox.c.sink.not_in(failed)
    rank = case({severity.value: place for place, severity in enumerate(Severity)}, value=alerts.c.severity, else_=9)
    with tables.read() as connection:
        tried = (outbox.c.state == "waiting") & (outbox.c.attempts > 0)
        ailing = connection.scalars(select(outbox.c.sink).where(tried).distinct()).all()
        query = select(outbox).join(alerts, alerts.c.id == outbox.c.alert, isouter=True).where(due)
        order = (rank.desc(), outbox.c.sink.in_(ailing), outbox.c.next_ms, outbox.c.created_ms, outbox.c.key)
        return connection.execute(query.order_by(*order).limit(1)).one_or_none()


def _put_off(connection: Connection, row: Any, problem: str, at_ms: int, next_ms: int) -> list[str]:  # noqa: ANN401
    """Let all that is due to a sink wait until it is asked again; return what was tried for 24 hours, and is dead."""
    failed = (outbox.c.key == row.key) & (outbox.c.state == "waiting")
    connection.execute(update(outbox).where(failed).values(attempts=row.attempts + 1, problem=problem))
    due = (outbox.c.state == "waiting") & (outbox.c.sink == row.sink) & (outbox.c.next_ms <= at_ms)
    old = due & (outbox.c.created_ms <= at_ms - GIVE_UP_MS)
    gone = connection.scalars(select(outbox.c.key).where(old)).all()
    connection.execute(update(outbox).where(old).values(state="dead", problem=problem))
    connection.execute(update(outbox).where(due).values(next_ms=next_ms))
    return [*gone]


def anything_due(connection: Connection, at_ms: int) -> bool:
    """Say whether :func:`escalate_due` or :func:`deliver_due` would find something to do."""
    waiting = (outbox.c.state == "waiting") & (outbox.c.next_ms <= at_ms)
    if connection.execute(select(outbox.c.key).where(waiting).limit(1)).one_or_none() is not None:
        return True
    due = map(escalation_due, list_alerts(connection, AlertState.OPEN, limit=MOST_OPEN))
    return any(when is not None and when <= at_ms for when in due)


def delivery_key(alert: str, event: str, sink: str) -> str:
    """Return the key of a delivery: the first 16 bytes of SHA-256 over canonical JSON of the three, in hex."""
    return sha256(canonical_json([alert, event, sink]))[:16].hex()


def retry_after(attempts: int, *, rng: RandomBytes = random_bytes) -> int:
    """Return how long to wait after so many failures before: ``min(5 s · 2^n, 1 h) ± 20 %``, in milliseconds.

    The spread keeps many deliveries from meeting a sink that has just come back all at once.
    """
    wait = min(FIRST_MS << min(attempts, 20), MOST_MS)
    spread = wait * SPREAD_PERCENT // 100
    return wait - spread + int.from_bytes(rng(8), "big") % (2 * spread + 1)


def describe_incident(incident: Incident, event: str, at_ms: int) -> dict[str, JsonValue]:
    """Return what sinks are told of an incident: its summary, in the words that they also use of an alert."""
    return {
        **incident.summary(), "event": event, "alert": incident.id, "detector": "incident",
        "signal": incident.state.value, "severity": Severity.CRITICAL.value, "principal": None, "model": None,
        "count": 1, "first_at": incident.discovered_ms // 1000, "last_at": at_ms // 1000, "raised_ms": at_ms,
        "entries": list(incident.entries[-16:]),
    }  # fmt: skip


def describe(alert: Alert, event: str) -> dict[str, JsonValue]:
    """Return what sinks are told of an alert."""
    return {
        "schema": "urn:stanch:alert:v1", "event": event, "alert": alert.id, "detector": alert.detector,
        "signal": alert.signal, "severity": alert.severity.value, "state": alert.state.value,
        "principal": alert.principal, "model": alert.model, "window_start": alert.window_start, "count": alert.count,
        "first_at": alert.first_at, "last_at": alert.last_at, "raised_ms": alert.raised_ms,
        "entries": list(alert.entries[:16]),
        "containment": alert.containment.value if alert.containment is not None else None,
    }  # fmt: skip


def _attempt(sink: Sink | None, notice: Notice) -> str:
    """Deliver, and return what went wrong in words without a secret; empty: nothing."""
    if sink is None:
        return "the settings no longer name this sink"
    try:
        sink.deliver(notice)
    except StanchError as error:
        return error.what[:200]
    except Exception as error:  # noqa: BLE001 - one sink's bug must not keep the others from being told
        return type(error).__name__
    return ""


def _facts(payload: bytes) -> Mapping[str, JsonValue]:
    found = parse_json(payload, what="outbox")
    return found if isinstance(found, dict) else {}


def _told(sinks: Iterable[Sink], escalations: int) -> list[Sink]:
    known = tuple(sinks)
    tier = tier_of(escalations, [sink.tier for sink in known])
    return [sink for sink in known if sink.tier == tier]


def _tell_dead(connection: Connection, sink: str, others: list[Sink], at_ms: int) -> None:
    """Raise the alert that deliveries to a sink failed for good, on every other sink, once an hour."""
    now = at_ms // 1000
    alarm = Alarm(
        detector=DELIVERY, signal=sink, principal=None, model=None, window_start=now - now % 3600, at=now,
        severity=Severity.HIGH, statistic=1.0, threshold=1.0, entries=(),
    )  # fmt: skip
    _raise(connection, alarm, others, at_ms)
