"""Suppressions: what they cover, what they never cover, and how long they last."""

from dataclasses import replace

import pytest

from stanch.errors import InvalidInput
from stanch.watch import Alarm, Severity
from stanch.watch.suppress import DAY_MS, DELIVERY, Suppression, check_suppression

ALARM = Alarm("D2", "requests", "p_a", "m", 0, 0, Severity.MEDIUM, 2.0, 1.0, (1,))
QUIET = Suppression(
    id="s", detector="D2", principal="p_a", model=None, owner="p_o", reason="a load test", created_ms=1000,
    expires_ms=1000 + 90 * DAY_MS,
)  # fmt: skip


@pytest.mark.parametrize(
    ("quiet", "alarm", "covered"),
    [
        ({}, {}, True),
        ({"principal": None}, {"principal": None}, True),
        ({"principal": None}, {}, True),
        ({"model": "m"}, {}, True),
        ({"model": "other"}, {}, False),
        ({"principal": "p_b"}, {}, False),
        ({}, {"principal": None}, False),
        ({"detector": "D3"}, {}, False),
        ({}, {"severity": Severity.CRITICAL}, False),
        ({"detector": "D1", "principal": None}, {"detector": "D1", "signal": "canary", "severity": "critical"}, False),
        ({"detector": DELIVERY}, {"detector": DELIVERY}, False),
    ],
)
def test_what_is_kept_quiet(quiet, alarm, covered):
    changed = {**alarm, "severity": Severity(alarm["severity"])} if "severity" in alarm else alarm
    assert replace(QUIET, **quiet).covers(replace(ALARM, **changed), 1000) is covered


@pytest.mark.parametrize(("at_ms", "covered"), [(999, False), (1000, True), (QUIET.expires_ms - 1, True),
                                                (QUIET.expires_ms, False)])  # fmt: skip
def test_it_holds_from_its_beginning_to_just_before_its_end(at_ms, covered):
    assert QUIET.covers(ALARM, at_ms) is covered


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"expires_ms": 1001 + 90 * DAY_MS}, "90 days"),
        ({"expires_ms": 1000}, "90 days"),
        ({"expires_ms": 5}, "90 days"),
        ({"owner": ""}, "owner"),
        ({"detector": ""}, "detector"),
        ({"reason": " "}, "reason"),
        ({"detector": DELIVERY}, "failed delivery"),
    ],
)
def test_what_may_not_be_made(change, says):
    assert check_suppression(QUIET) is QUIET
    with pytest.raises(InvalidInput, match=says):
        check_suppression(replace(QUIET, **change))
