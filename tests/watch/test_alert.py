"""Alerts: one key for repeats, and a life that goes forward."""

import hashlib
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput
from stanch.watch import Alarm, Severity
from stanch.watch.alert import (
    MAX_ENTRIES,
    AlertState,
    Conclusion,
    advance,
    alert_id,
    close_alert,
    raise_alert,
    reopen_alert,
    repeat_alert,
)

FORWARD = [AlertState.ACKNOWLEDGED, AlertState.INVESTIGATING, AlertState.CONTAINED]


def alarm(**changes):
    values = {
        "detector": "D2", "signal": "requests", "principal": "p_a", "model": None, "window_start": 3600, "at": 3700,
        "severity": Severity.MEDIUM, "statistic": 2e5, "threshold": 1e5, "entries": (4, 5),
    }  # fmt: skip
    return Alarm(**(values | changes))


def test_the_key_is_what_the_specification_says():
    written = b'["D2","requests","p_a",null,3600]'
    assert alert_id(alarm()) == hashlib.sha256(written).hexdigest()[:32] == "0778b2c23cde4b1a15196e23c7430fe5"


@pytest.mark.parametrize("change", [
    {"detector": "D3"}, {"signal": "acts"}, {"principal": None}, {"model": "m"}, {"window_start": 3601},
])  # fmt: skip
def test_another_window_principal_model_signal_or_detector_is_another_alert(change):
    assert alert_id(alarm(**change)) != alert_id(alarm())
    with pytest.raises(InvalidInput, match="another alert"):
        repeat_alert(raise_alert(alarm(), at_ms=1), alarm(**change))


def test_a_repeat_counts_and_keeps_the_worst():
    alert = raise_alert(alarm(), at_ms=1)
    again = repeat_alert(alert, alarm(at=3900, statistic=9e5, severity=Severity.HIGH, entries=(5, 6)))
    assert (again.count, again.statistic, again.severity) == (2, 9e5, Severity.HIGH)
    assert (again.first_at, again.last_at, again.entries) == (3700, 3900, (4, 5, 6))
    calmer = repeat_alert(again, alarm(at=3600, statistic=1.0, severity=Severity.LOW, entries=tuple(range(999))))
    assert (calmer.statistic, calmer.severity, calmer.first_at) == (9e5, Severity.HIGH, 3600)
    assert len(calmer.entries) == MAX_ENTRIES
    assert calmer.entries[:3] == (4, 5, 6)


def test_a_repeat_changes_no_state():
    closed = close_alert(raise_alert(alarm(), at_ms=1), Conclusion.FALSE, by="p_x", at_ms=2).alert
    assert repeat_alert(closed, alarm()).state is AlertState.CLOSED


@pytest.mark.parametrize(("start", "end"), list(itertools.product(AlertState, AlertState)))
def test_every_step_is_either_forward_or_refused(start, end):
    order = [AlertState.OPEN, *FORWARD, AlertState.CLOSED]
    alert = at(start)
    forward = end in FORWARD and order.index(end) > order.index(AlertState.OPEN if start == "suppressed" else start)
    if forward:
        step = advance(alert, end, by="p_x", at_ms=9)
        assert (step.alert.state, step.alert.changed_ms) == (end, 9)
        assert step.payload == {"alert": alert.id, "from": start.value, "to": end.value}
    else:
        with pytest.raises(InvalidInput):
            advance(alert, end, by="p_x", at_ms=9)


def at(state):
    alert = raise_alert(alarm(), at_ms=1, suppressed=state is AlertState.SUPPRESSED)
    if state in FORWARD:
        return advance(alert, state, by="p_y", at_ms=2).alert
    return close_alert(alert, Conclusion.TRUE, by="p_y", at_ms=2).alert if state is AlertState.CLOSED else alert


@pytest.mark.parametrize("start", AlertState)
@pytest.mark.parametrize("conclusion", Conclusion)
def test_closing_says_what_it_was_and_happens_once(start, conclusion):
    if start is AlertState.CLOSED:
        with pytest.raises(InvalidInput) as caught:
            close_alert(at(start), conclusion, by="p_x", at_ms=9)
        assert "reopen" in caught.value.next_step
        return
    step = close_alert(at(start), conclusion, by="p_x", at_ms=9)
    assert step.payload == {
        "alert": step.alert.id, "from": start.value, "to": "closed", "as": conclusion.value,
        "principal": "p_a", "since": 3600, "until": 3700,
    }  # fmt: skip
    assert step.alert.owner == ("p_y" if start in FORWARD else "p_x")


def test_the_first_who_takes_it_on_owns_it():
    first = advance(at(AlertState.OPEN), AlertState.ACKNOWLEDGED, by="p_x", at_ms=3).alert
    assert advance(first, AlertState.CONTAINED, by="p_z", at_ms=4).alert.owner == "p_x"


@pytest.mark.parametrize("start", AlertState)
def test_reopening_needs_a_reason_and_starts_anew(start):
    if start not in {AlertState.CLOSED, AlertState.SUPPRESSED}:
        with pytest.raises(InvalidInput, match="cannot be reopened"):
            reopen_alert(at(start), "it came back", at_ms=9)
        return
    for none in ("", "  \n", "x" * 2001):
        with pytest.raises(InvalidInput, match="reason"):
            reopen_alert(at(start), none, at_ms=9)
    step = reopen_alert(at(start), " it came back ", at_ms=9)
    found = step.alert
    assert (found.state, found.conclusion, found.owner, found.raised_ms, found.escalations) == ("open", None, "", 9, 0)
    assert (step.payload, step.reason) == (
        {"alert": found.id, "from": start.value, "to": "open"}, "it came back",
    )  # fmt: skip
    assert "it came back" not in json.dumps(step.payload)


@settings(max_examples=50)
@given(st.lists(st.sampled_from([*FORWARD, "close", "reopen"]), max_size=12))
def test_no_walk_leaves_the_states(walk):
    """Whatever is tried, in whatever order: the rank grows but for reopening, and an owner never gets lost."""
    alert = raise_alert(alarm(), at_ms=0)
    for number, wish in enumerate(walk):
        before = alert
        try:
            if wish == "close":
                alert = close_alert(alert, Conclusion.BENIGN, by="p_x", at_ms=number).alert
            elif wish == "reopen":
                alert = reopen_alert(alert, "again", at_ms=number).alert
            else:
                alert = advance(alert, wish, by="p_x", at_ms=number).alert
        except InvalidInput:
            assert alert is before
        assert (alert.conclusion is not None) == (alert.state is AlertState.CLOSED)
        assert bool(alert.owner) == (alert.state is not AlertState.OPEN)
