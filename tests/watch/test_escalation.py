"""Escalation: when an alert is handed on, and to whom."""

from dataclasses import replace

import pytest

from stanch.watch import Alarm, Severity
from stanch.watch.alert import AlertState, advance, raise_alert
from stanch.watch.escalation import escalate, escalation_due, tier_of

MINUTE = 60_000


def alert(severity):
    return raise_alert(Alarm("D1", "canary", "p_a", "m", 0, 0, severity, 1.0, 1.0, (1,)), at_ms=1000)


@pytest.mark.parametrize(
    ("severity", "minutes"),
    [(Severity.CRITICAL, 15), (Severity.HIGH, 60), (Severity.MEDIUM, None), (Severity.LOW, None)],
)
def test_the_first_wait_depends_on_the_severity(severity, minutes):
    due = escalation_due(alert(severity))
    assert due == (None if minutes is None else 1000 + minutes * MINUTE)
    if due is not None:
        assert escalate(alert(severity), due - 1) is None
        once = escalate(alert(severity), due)
        assert once.escalations == 1
        assert escalation_due(once) == due + 60 * MINUTE


@pytest.mark.parametrize("state", [AlertState.ACKNOWLEDGED, AlertState.INVESTIGATING, AlertState.CONTAINED])
def test_whoever_takes_it_on_ends_it(state):
    taken = advance(alert(Severity.CRITICAL), state, by="p_x", at_ms=2000).alert
    assert escalation_due(taken) is None
    assert escalate(taken, 10**15) is None


def test_what_is_suppressed_is_not_handed_on():
    assert escalation_due(replace(alert(Severity.HIGH), state=AlertState.SUPPRESSED)) is None


def test_hours_without_a_watch_count_as_one():
    late = escalate(alert(Severity.CRITICAL), 1000 + (15 + 600) * MINUTE)
    assert late.escalations == 11
    assert escalation_due(late) == 1000 + (15 + 660) * MINUTE


@pytest.mark.parametrize(
    ("escalations", "tiers", "told"),
    [(0, [1, 2, 5], 1), (1, [5, 2, 1], 2), (2, [1, 2, 5], 5), (9, [1, 2], 2), (3, [], 1)],
)
def test_the_last_tier_is_told_again_and_again(escalations, tiers, told):
    assert tier_of(escalations, tiers) == told
