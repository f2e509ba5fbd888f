"""Verbs about alerts: raise, list, take a step, keep quiet, deliver."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from stanch.crypto import canonical_json, random_bytes
from stanch.errors import InvalidInput
from stanch.ledger import Opening
from stanch.terms import EntryRef, JsonValue
from stanch.watch import Alarm
from stanch.watch.alert import Alert, AlertState, Conclusion, Step, advance, check_reason, close_alert, reopen_alert
from stanch.watch.book import add_suppression, list_alerts, load_alert, save_alert
from stanch.watch.outbox import Pass, deliver_due, escalate_due, post_turn, raise_alarm
from stanch.watch.suppress import Suppression, check_suppression
from stanch.workspace.act import Done, Request, nothing_to_settle
from stanch.workspace.alerting import sinks_of
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref

REASON = "watch.alert.reason"
QUIET = "watch.suppression.reason"
_ALERT = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Change:
    """Which step an alert is to take.

    Attributes:
        to: The state; ``open`` reopens.
        conclusion: What it was, when it is closed.
        reason: Why, when it is reopened.
    """

    to: AlertState
    conclusion: Conclusion | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """What is to be kept quiet.

    Attributes:
        detector: Alarms of this detector.
        principal: About this principal (name or id); None: about any.
        model: About this model; None: about any.
        until_ms: Until when.
        reason: Why.
    """

    detector: str
    principal: str | None
    model: str | None
    until_ms: int
    reason: str


def raise_alarms(
    workspace: Workspace, alarms: Sequence[Alarm], *, within: Callable[[Connection], None] = nothing_to_settle
) -> tuple[Alert, ...]:
    """Make alerts of alarms, with their deliveries; ``within`` runs in the same transaction, as does the record.

    So a detector's state and what it saw are durable together: a kill repeats nothing and loses nothing.
    """
    sinks, at_ms = sinks_of(workspace), _now(workspace)

    def settle(raised: list[Alert], connection: Connection) -> None:
        raised.extend(raise_alarm(connection, alarm, sinks, at_ms) for alarm in alarms)
        within(connection)

    def run(_ref: EntryRef) -> Done[list[Alert]]:
        return _raising(settle)

    rows: list[JsonValue] = [
        {"detector": alarm.detector, "signal": alarm.signal, "severity": alarm.severity.value,
         "principal": alarm.principal, "model": alarm.model, "entries": list(alarm.entries[:16])}
        for alarm in alarms[:64]
    ]  # fmt: skip
    payload: dict[str, JsonValue] = {"alarms": rows, "count": len(alarms)}
    request = Request("watch.alert.raise", "serve:run", workspace_ref(workspace), payload)
    raised: list[Alert] = workspace.door.act(request, run)
    return tuple(raised)


def find_alerts(workspace: Workspace, state: AlertState | None = None) -> tuple[Alert, ...]:
    """Return the alerts in one state, or all, the newest first; the look is recorded."""

    def run(_ref: EntryRef) -> Done[tuple[Alert, ...]]:
        with workspace.tables.read() as connection:
            found = list_alerts(connection, state)
        return Done(found, {"alerts": len(found)})

    return workspace.door.act(Request("watch.alert.read", "finding:read", workspace_ref(workspace)), run)


def show_alert(workspace: Workspace, key: str) -> Alert:
    """Return one alert; the look is recorded.

    Raises:
        NotFound: There is none.
    """

    def run(_ref: EntryRef) -> Done[Alert]:
        with workspace.tables.read() as connection:
            return Done(load_alert(connection, key))

    payload: dict[str, JsonValue] = {"alert": _checked(key)}
    return workspace.door.act(Request("watch.alert.read", "finding:read", workspace_ref(workspace), payload), run)


def move_alert(workspace: Workspace, key: str, change: Change) -> Alert:
    """Let an alert take a step. The alert changes in the transaction that records it; a reason is a commitment there.

    Who was told of the alert is told that it is closed, or open again.

    Raises:
        NotFound: There is no such alert.
        InvalidInput: It cannot take this step.
        OutcomeNotRecorded: Somebody else took another step meanwhile; nothing was changed.
    """
    payload: dict[str, JsonValue] = {"alert": _checked(key), "to": change.to.value}
    openings = (Opening.make(REASON, check_reason(change.reason)),) if change.reason else ()
    names = [section.name for section in workspace.config.alerts.sinks]

    def run(_ref: EntryRef) -> Done[Alert]:
        with workspace.tables.read() as connection:
            before = load_alert(connection, key)
        step = _step(before, change, workspace.people.session.principal, _now(workspace))

        def settle(connection: Connection) -> None:
            save_alert(connection, before, step.alert)
            if change.to in {AlertState.CLOSED, AlertState.OPEN}:
                post_turn(connection, step.alert, names, step.alert.changed_ms)

        return Done(step.alert, step.payload, settle=settle)

    request = Request("watch.alert.state", "finding:act", workspace_ref(workspace), payload, None, openings)
    return workspace.door.act(request, run)


def suppress_alerts(workspace: Workspace, quiet: Quiet) -> Suppression:
    """Keep alarms quiet for a while; whoever acts answers for it, and the log holds a commitment to the reason.

    Raises:
        InvalidInput: It would last longer than 90 days, has no reason, or hides what nothing may hide.
    """
    about = workspace.people.find(quiet.principal) if quiet.principal is not None else None
    made = check_suppression(Suppression(
        id=f"s_{random_bytes(8).hex()}", detector=quiet.detector, principal=about, model=quiet.model,
        owner=workspace.people.session.principal, reason=check_reason(quiet.reason), created_ms=_now(workspace),
        expires_ms=quiet.until_ms,
    ))  # fmt: skip

    def run(_ref: EntryRef) -> Done[Suppression]:
        return _keep(made)

    payload: dict[str, JsonValue] = {
        "suppression": made.id, "detector": made.detector, "principal": about, "model": made.model,
        "until_ms": made.expires_ms,
    }  # fmt: skip
    openings = (Opening.make(QUIET, made.reason),)
    request = Request("watch.alert.suppress", "finding:act", workspace_ref(workspace), payload, None, openings)
    return workspace.door.act(request, run)


def deliver_alerts(workspace: Workspace) -> tuple[int, Pass]:
    """Hand on what waited too long and deliver what is due; return how many were handed on, and what became of them."""
    sinks = sinks_of(workspace)

    def run(_ref: EntryRef) -> Done[tuple[int, Pass]]:
        with workspace.tables.write() as connection:
            escalated = escalate_due(connection, sinks, _now(workspace))
        done = deliver_due(workspace.tables, sinks, _now(workspace))
        payload: dict[str, JsonValue] = {
            "escalated": escalated, "sent": done.sent, "retried": done.retried, "dead": len(done.dead)
        }  # fmt: skip
        return Done((escalated, done), payload)

    return workspace.door.act(Request("watch.deliver", "serve:run", workspace_ref(workspace)), run)


def keep_simulation(workspace: Workspace, result: Mapping[str, JsonValue]) -> None:
    """Keep what a simulation of a detector found, beside what it promises; the log is where it is kept.

    Its figures are one text of canonical JSON there: entries hold no floats.
    """

    def run(_ref: EntryRef) -> Done[None]:
        return _told(result)

    workspace.door.act(Request("watch.simulate", "finding:act", workspace_ref(workspace)), run)


def _told(result: Mapping[str, JsonValue]) -> Done[None]:
    return Done(None, {"detector": result["detector"], "result": canonical_json({**result}).decode()})


def _raising(settle: Callable[[list[Alert], Connection], None]) -> Done[list[Alert]]:
    """Return an act whose outcome, alerts and deliveries are one transaction; its value is known after it."""
    raised: list[Alert] = []
    return Done(raised, settle=lambda connection: settle(raised, connection))


def _step(before: Alert, change: Change, by: str, at_ms: int) -> Step:
    if change.to is AlertState.CLOSED:
        if change.conclusion is None:
            raise InvalidInput("an alert is closed as true, false or benign")
        return close_alert(before, change.conclusion, by=by, at_ms=at_ms)
    if change.to is AlertState.OPEN:
        return reopen_alert(before, change.reason, at_ms=at_ms)
    return advance(before, change.to, by=by, at_ms=at_ms)


def _keep(made: Suppression) -> Done[Suppression]:
    return Done(made, settle=lambda connection: add_suppression(connection, made))


def _checked(key: str) -> str:
    if not _ALERT.fullmatch(key):
        raise InvalidInput("alert: expected 32 hexadecimal digits", next_step="stanch watch alerts")
    return key


def _now(workspace: Workspace) -> int:
    return int(workspace.door.clock() * 1000)
