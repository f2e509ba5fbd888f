"""An alert: an alarm with a life of its own, from open to closed. Its steps are pure; whoever takes one records it.

States go forward, and steps may be skipped; only reopening goes back, and says why.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from stanch.crypto import canonical_json, sha256
from stanch.errors import InvalidInput
from stanch.terms import JsonValue
from stanch.watch.alarm import Alarm, Containment, Severity

MAX_ENTRIES = 256
"""How many entries of evidence an alert names; the ledger holds the rest."""
MAX_REASON = 2000
ERASED = "(erased)"
"""What stands where a person's words were erased."""


class AlertState(StrEnum):
    """Where an alert stands."""

    OPEN = "open"
    SUPPRESSED = "suppressed"
    ACKNOWLEDGED = "acknowledged"
    INVESTIGATING = "investigating"
    CONTAINED = "contained"
    CLOSED = "closed"


class Conclusion(StrEnum):
    """What a closed alert was: a leak or an attack, a false alarm, or something real that is allowed."""

    TRUE = "true"
    FALSE = "false"
    BENIGN = "benign"


_SEVERITIES = list(Severity)
_RANKS = {
    AlertState.OPEN: 0,
    AlertState.SUPPRESSED: 0,
    AlertState.ACKNOWLEDGED: 1,
    AlertState.INVESTIGATING: 2,
    AlertState.CONTAINED: 3,
    AlertState.CLOSED: 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert as it is now. It holds ids, kinds and counts; never text of a prompt or an answer.

    Attributes:
        id: Which alarms are this alert, in hex; see :func:`alert_id`.
        detector: Which detector gave it.
        signal: What it measures.
        principal: Whom it is about, if one.
        model: Digest of the model that it is about, if one.
        window_start: Unix seconds: when the window began in which it was measured.
        severity: How fast to look.
        statistic: The largest value that was measured.
        threshold: What it crossed.
        entries: Indexes of entries in the ledger, at most 256: the evidence.
        containment: What the detector proposes.
        count: How often it was raised.
        first_at: Unix seconds of the first alarm, by the entries' clock.
        last_at: Of the last.
        raised_ms: When it was raised, or reopened, by the watch's own clock; escalation counts from here.
        state: Where it stands.
        conclusion: What it was, once closed.
        owner: Who took it on; empty: nobody.
        changed_ms: When its state last changed.
        escalations: How often it was handed on because nobody took it.
    """

    id: str
    detector: str
    signal: str
    principal: str | None
    model: str | None
    window_start: int
    severity: Severity
    statistic: float
    threshold: float
    entries: tuple[int, ...]
    containment: Containment | None
    count: int
    first_at: int
    last_at: int
    raised_ms: int
    state: AlertState = AlertState.OPEN
    conclusion: Conclusion | None = None
    owner: str = ""
    changed_ms: int = 0
    escalations: int = 0

    @property
    def waiting(self) -> bool:
        """Whether nobody took it on yet."""
        return self.state is AlertState.OPEN


@dataclass(frozen=True, slots=True)
class Step:
    """A step of an alert: what it then is, and what the entry says of the step.

    Attributes:
        alert: The alert after the step.
        payload: The payload of the entry that records the step.
        reason: Why, in a person's own words: personal, so the entry holds a commitment to it only.
    """

    alert: Alert
    payload: dict[str, JsonValue]
    reason: str = ""


def alert_id(alarm: Alarm) -> str:
    """Return the key by which repeated alarms are one alert.

    The first 16 bytes of SHA-256 over canonical JSON of ``[detector, signal, principal, model, window_start]``, in hex.
    """
    about: JsonValue = [alarm.detector, alarm.signal, alarm.principal, alarm.model, alarm.window_start]
    return sha256(canonical_json(about))[:16].hex()


def raise_alert(alarm: Alarm, *, at_ms: int, suppressed: bool = False) -> Alert:
    """Return the new alert of an alarm."""
    return Alert(
        id=alert_id(alarm), detector=alarm.detector, signal=alarm.signal, principal=alarm.principal, model=alarm.model,
        window_start=alarm.window_start, severity=alarm.severity, statistic=alarm.statistic, threshold=alarm.threshold,
        entries=alarm.entries[:MAX_ENTRIES], containment=alarm.containment, count=1, first_at=alarm.at,
        last_at=alarm.at, raised_ms=at_ms, changed_ms=at_ms,
        state=AlertState.SUPPRESSED if suppressed else AlertState.OPEN,
    )  # fmt: skip


def repeat_alert(alert: Alert, alarm: Alarm) -> Alert:
    """Return the alert after one more alarm of the same key: a higher count, never a second alert.

    The worst is kept: the larger statistic, the higher severity.

    Raises:
        InvalidInput: The alarm belongs to another alert.
    """
    if alert_id(alarm) != alert.id:
        raise InvalidInput(f"alert {alert.id}: the alarm belongs to another alert")
    return replace(
        alert,
        count=alert.count + 1,
        first_at=min(alert.first_at, alarm.at),
        last_at=max(alert.last_at, alarm.at),
        statistic=max(alert.statistic, alarm.statistic),
        severity=max(alert.severity, alarm.severity, key=_SEVERITIES.index),
        entries=tuple(dict.fromkeys((*alert.entries, *alarm.entries)))[:MAX_ENTRIES],
    )


def is_news(alert: Alert, alarm: Alarm) -> bool:
    """Say whether one more alarm is more than whoever has the alert knows: it was closed or quiet, or it gets worse."""
    is_done = alert.state in {AlertState.CLOSED, AlertState.SUPPRESSED}
    return is_done or _SEVERITIES.index(alarm.severity) > _SEVERITIES.index(alert.severity)


def awaken(alert: Alert, *, at_ms: int) -> Alert:
    """Return the alert open again, whatever it was. Nobody owns it then, and escalation begins anew."""
    return replace(
        alert, state=AlertState.OPEN, conclusion=None, owner="", changed_ms=at_ms, raised_ms=at_ms, escalations=0
    )


def advance(alert: Alert, state: AlertState, *, by: str, at_ms: int) -> Step:
    """Take a step forward, to ``acknowledged``, ``investigating`` or ``contained``.

    Raises:
        InvalidInput: It would not go forward, or the state is reached otherwise.
    """
    if state in {AlertState.OPEN, AlertState.SUPPRESSED, AlertState.CLOSED}:
        raise InvalidInput(f"alert {alert.id}: {state} is no step forward", next_step="close it, or reopen it")
    _check_forward(alert, state)
    return _step(alert, replace(alert, state=state, owner=alert.owner or by, changed_ms=at_ms))


def close_alert(alert: Alert, conclusion: Conclusion, *, by: str, at_ms: int) -> Step:
    """Close an alert and say what it was.

    Raises:
        InvalidInput: It is closed already.
    """
    _check_forward(alert, AlertState.CLOSED)
    closed = replace(
        alert, state=AlertState.CLOSED, conclusion=conclusion, owner=alert.owner or by, changed_ms=at_ms
    )  # fmt: skip
    return _step(alert, closed)


def reopen_alert(alert: Alert, reason: str, *, at_ms: int) -> Step:
    """Open an alert again that was closed or suppressed; see :func:`awaken`.

    Raises:
        InvalidInput: It is neither, or no reason is given.
    """
    why = check_reason(reason)
    if alert.state not in {AlertState.CLOSED, AlertState.SUPPRESSED}:
        raise InvalidInput(f"alert {alert.id}: is {alert.state}, so it cannot be reopened")
    return _step(alert, awaken(alert, at_ms=at_ms), why)


def check_reason(text: str) -> str:
    """Return a reason without the space around it.

    Raises:
        InvalidInput: It is empty or too long.
    """
    found = text.strip()
    if not 1 <= len(found) <= MAX_REASON:
        raise InvalidInput(f"expected a reason of 1 to {MAX_REASON} characters, found {len(found)}")
    return found


def _check_forward(alert: Alert, state: AlertState) -> None:
    if _RANKS[state] <= _RANKS[alert.state]:
        raise InvalidInput(
            f"alert {alert.id}: is {alert.state} and cannot become {state}",
            why="states go forward only",
            next_step="reopen it with a reason" if alert.state is AlertState.CLOSED else "",
        )


def _step(before: Alert, after: Alert, reason: str = "") -> Step:
    payload: dict[str, JsonValue] = {"alert": after.id, "from": before.state.value, "to": after.state.value}
    if after.conclusion is not None:
        payload |= {
            "as": after.conclusion.value, "principal": after.principal, "since": after.window_start,
            "until": after.last_at,
        }  # fmt: skip
    return Step(after, payload, reason)
