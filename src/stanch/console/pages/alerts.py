"""Alerts: what the detectors raised, what people do about each, and what is kept quiet."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct
from sqlalchemy import func, select

from stanch.console.desk import Call
from stanch.console.pages.log import Row, rows_at
from stanch.console.pages.paging import Cursor, Limit
from stanch.console.route import Nothing
from stanch.errors import InvalidInput, NotFound
from stanch.ledger import EntryQuery
from stanch.ledger.entry import read_event
from stanch.store.schema.alerts import alert
from stanch.watch import Severity, detectors
from stanch.watch.alert import MAX_REASON, Alert, AlertState, Conclusion
from stanch.watch.book import list_alerts as list_all
from stanch.watch.book import list_suppressions, load_alert
from stanch.watch.incident_book import list_incidents
from stanch.workspace.verbs_alerts import Change, Quiet, move_alert, suppress_alerts

Reason = Annotated[str, Meta(min_length=1, max_length=MAX_REASON)]
Time = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?Z?)?\Z")]
_SHOWN_ENTRIES = 32
_LOOKED_THROUGH = 500
_KEY = re.compile(r"[0-9a-f]{32}")


class AlertRow(Struct, frozen=True):
    """An alert: what was measured, about whom, how it stands."""

    id: str
    detector: str
    signal: str
    severity: str
    state: str
    conclusion: str
    principal: str
    name: str
    model: str
    count: int
    raised_ms: int
    owner: str


class Kept(Struct, frozen=True):
    """A suppression that holds: which alarms it keeps quiet, who answers for it, why, until when."""

    id: str
    detector: str
    principal: str
    model: str
    owner: str
    reason: str
    expires_ms: int


class AlertQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which alerts are wanted: of one state, or all; at most ``limit`` of them, those after ``after``."""

    state: Literal["", "open", "suppressed", "acknowledged", "investigating", "contained", "closed"] = ""
    after: Cursor = ""
    limit: Limit = 50


class AlertList(Struct, frozen=True):
    """Alerts, the newest first, where the next part begins, and what is kept quiet now."""

    alerts: tuple[AlertRow, ...]
    next: str
    asked: AlertQuery
    waiting: int
    quiet: tuple[Kept, ...]
    detectors: tuple[str, ...]
    may_act: bool


class AlertView(Struct, frozen=True):
    """One alert with its evidence, the incidents that it belongs to, and the steps that it can take."""

    alert: AlertRow
    statistic: float
    threshold: float
    window_ms: int
    first_ms: int
    last_ms: int
    changed_ms: int
    escalations: int
    proposed: str
    entries: int
    evidence: tuple[Row, ...]
    steps: tuple[Row, ...]
    incidents: tuple[str, ...]
    can: tuple[str, ...]


class Move(Struct, frozen=True, forbid_unknown_fields=True):
    """A step forward: nobody is told of the alert any more."""

    to: Literal["acknowledged", "investigating"]


class Verdict(Struct, frozen=True, forbid_unknown_fields=True):
    """What a closed alert was."""

    verdict: Literal["true", "false", "benign"]


class Reopening(Struct, frozen=True, forbid_unknown_fields=True):
    """Why an alert is opened again."""

    reason: Reason


class Silence(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be kept quiet, until when (UTC), and why."""

    detector: Annotated[str, Meta(max_length=80)]
    until: Time
    reason: Reason
    principal: Annotated[str, Meta(max_length=200)] = ""
    model: Annotated[str, Meta(max_length=80)] = ""


class Silenced(Struct, frozen=True):
    """The suppression that was made."""

    id: str
    expires_ms: int


def list_alerts(call: Call, asked: AlertQuery) -> AlertList:
    """Show alerts, the newest first, and what is kept quiet."""
    state = AlertState(asked.state) if asked.state else None
    with call.workspace.tables.read() as connection:
        found = list_all(connection, state, after=asked.after, limit=asked.limit + 1)
        quiet = list_suppressions(connection, call.now_ms)
    shown = found[: asked.limit]
    names = call.names(who for one in quiet for who in (one.principal, one.owner) if who)
    return AlertList(
        rows_of(call, shown),
        shown[-1].id if len(found) > len(shown) else "",
        asked,
        count_alerts(call, AlertState.OPEN),
        tuple(
            Kept(
                one.id, one.detector, names.get(one.principal or "", one.principal or ""), one.model or "",
                names.get(one.owner, one.owner), one.reason, one.expires_ms,
            )
            for one in quiet
        ),
        tuple(detector.name for detector in detectors()),
        call.could("finding:act"),
    )  # fmt: skip


def show_alert(call: Call, _asked: Nothing) -> AlertView:
    """Show one alert, the entries that are its evidence, and what it can become.

    Raises:
        NotFound: There is none.
    """
    key, workspace = call.path["id"], call.workspace
    if not _KEY.fullmatch(key):
        raise NotFound("there is no such alert")
    with workspace.tables.read() as connection:
        found = load_alert(connection, key)
        incidents = tuple(one.id for one in list_incidents(connection) if key in one.alerts)
    return AlertView(
        row_of(call, found), found.statistic, found.threshold, found.window_start * 1000,
        found.first_at * 1000, found.last_at * 1000, found.changed_ms, found.escalations,
        found.containment.value if found.containment else "", len(found.entries),
        rows_at(call, found.entries[:_SHOWN_ENTRIES]), _steps(call, key), incidents,
        _possible(found) if call.could("finding:act") else (),
    )  # fmt: skip


def move(call: Call, asked: Move) -> AlertRow:
    """Take an alert on, or say that it is looked into."""
    return _moved(call, Change(AlertState(asked.to)))


def close(call: Call, asked: Verdict) -> AlertRow:
    """Close an alert and say what it was."""
    return _moved(call, Change(AlertState.CLOSED, Conclusion(asked.verdict)))


def reopen(call: Call, asked: Reopening) -> AlertRow:
    """Open an alert again that was closed or suppressed."""
    return _moved(call, Change(AlertState.OPEN, None, asked.reason))


def suppress(call: Call, asked: Silence) -> Silenced:
    """Keep alarms quiet for at most 90 days; they are recorded all the same."""
    quiet = Quiet(
        detector=asked.detector, principal=asked.principal or None, model=asked.model or None,
        until_ms=time_of(asked.until), reason=asked.reason,
    )  # fmt: skip
    made = suppress_alerts(call.workspace, quiet)
    return Silenced(made.id, made.expires_ms)


def row_of(call: Call, one: Alert) -> AlertRow:
    """Return what lists show of an alert."""
    return rows_of(call, [one])[0]


def rows_of(call: Call, alerts: Sequence[Alert]) -> tuple[AlertRow, ...]:
    """Return what lists show of alerts."""
    names = call.names(who for one in alerts for who in (one.principal, one.owner) if who)
    return tuple(
        AlertRow(
            one.id, one.detector, one.signal, one.severity.value, one.state.value,
            one.conclusion.value if one.conclusion else "", one.principal or "",
            names.get(one.principal or "", one.principal or ""), one.model or "", one.count, one.raised_ms,
            names.get(one.owner, one.owner),
        )
        for one in alerts
    )  # fmt: skip


def time_of(text: str) -> int:
    """Return a time that was typed, in UTC, in milliseconds.

    Raises:
        InvalidInput: There is no such time.
    """
    try:
        return int(datetime.fromisoformat(text.rstrip("Z")).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError as error:
        raise InvalidInput(f"expected a time such as 2026-01-31T18:00, found {text}") from error


def count_waiting(call: Call) -> dict[str, int]:
    """Return how many alerts nobody took on yet, by severity, the most urgent first."""
    query = select(alert.c.severity, func.count()).where(alert.c.state == "open").group_by(alert.c.severity)
    with call.workspace.tables.read() as connection:
        found = {severity: int(count) for severity, count in connection.execute(query)}
    return {level.value: found.get(level.value, 0) for level in reversed(Severity)}


def count_alerts(call: Call, state: AlertState) -> int:
    """Return how many alerts are in one state."""
    query = select(func.count()).where(alert.c.state == state.value)
    with call.workspace.tables.read() as connection:
        return int(connection.scalar(query) or 0)


def _moved(call: Call, change: Change) -> AlertRow:
    if not _KEY.fullmatch(call.path["id"]):
        raise NotFound("there is no such alert")
    return row_of(call, move_alert(call.workspace, call.path["id"], change))


def _steps(call: Call, key: str) -> tuple[Row, ...]:
    """Return the entries that record the newest steps of this alert, among the last 500 of all."""
    reader = call.workspace.ledger.reader()
    query = EntryQuery(kind="watch.alert.state", phase="outcome", newest_first=True, limit=_LOOKED_THROUGH)
    newest = reader.entries(ref.index for ref in reader.query(query))
    payloads = ((index, read_event(data).unmapped.stanch.payload or {}) for index, data in newest.items())
    return rows_at(call, [index for index, payload in payloads if payload.get("alert") == key])


def _possible(one: Alert) -> tuple[str, ...]:
    if one.state is AlertState.CLOSED:
        return ("reopen",)
    steps = {
        AlertState.OPEN: ("acknowledged", "investigating", "close"),
        AlertState.SUPPRESSED: ("acknowledged", "investigating", "close", "reopen"),
        AlertState.ACKNOWLEDGED: ("investigating", "close"),
    }
    return steps.get(one.state, ("close",))
