"""Escalation: an urgent alert that nobody takes on is handed to the next tier of sinks, then every hour."""

from collections.abc import Iterable
from dataclasses import replace

from stanch.watch.alarm import Severity
from stanch.watch.alert import Alert

MINUTE_MS = 60_000
EVERY_MS = 60 * MINUTE_MS
WAITS_MS = {Severity.CRITICAL: 15 * MINUTE_MS, Severity.HIGH: 60 * MINUTE_MS}
"""How long an alert may wait for somebody; others wait for the next look at the list."""


def escalation_due(alert: Alert) -> int | None:
    """Return when an alert is handed on next (milliseconds UTC); None: never, or somebody took it on."""
    wait = WAITS_MS.get(alert.severity)
    if wait is None or not alert.waiting:
        return None
    return alert.raised_ms + wait + alert.escalations * EVERY_MS


def escalate(alert: Alert, at_ms: int) -> Alert | None:
    """Return the alert after it was handed on once; None if that is not due.

    After a pause of the watch several hours may be due: they count as one, so that nobody is told ten times at once.
    """
    due = escalation_due(alert)
    if due is None or at_ms < due:
        return None
    return replace(alert, escalations=alert.escalations + 1 + (at_ms - due) // EVERY_MS)


def tier_of(escalations: int, tiers: Iterable[int]) -> int:
    """Return which tier is told: the first at once, the next at each escalation, and the last again and again."""
    ordered = sorted(set(tiers))
    return ordered[min(escalations, len(ordered) - 1)] if ordered else 1
