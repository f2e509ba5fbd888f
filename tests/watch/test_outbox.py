"""The outbox: nothing lost and nothing doubled by key, whatever a sink does; and when it gives up, others are told."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watching import count_outbox

from stanch.errors import ExternalError
from stanch.store import open_tables
from stanch.watch import Alarm, Severity
from stanch.watch.alert import AlertState, Conclusion, advance, close_alert, reopen_alert
from stanch.watch.book import add_suppression, list_alerts, save_alert
from stanch.watch.outbox import (
    GIVE_UP_MS,
    MOST_MS,
    Pass,
    deliver_due,
    delivery_key,
    escalate_due,
    post_turn,
    raise_alarm,
    retry_after,
)
from stanch.watch.suppress import DAY_MS, Suppression

ALARM = Alarm("D1", "canary", "p_a", "m", 0, 5, Severity.CRITICAL, 1.0, 1.0, (1,))
MINUTE = 60_000


@dataclass
class Memory:
    """A sink that remembers; ``fails`` says how the next deliveries end."""

    name: str = "main"
    tier: int = 1
    fails: list = field(default_factory=list)
    taken: list = field(default_factory=list)

    def deliver(self, notice):
        fate = self.fails.pop(0) if self.fails else None
        if fate != "lost":
            self.taken.append((notice.key, notice.facts))
        if fate is not None:
            raise ExternalError("sink main: no answer") if fate != "bug" else RuntimeError("hunter2")

    @property
    def keys(self):
        return [key for key, _ in self.taken]


@pytest.fixture(params=["sqlite", "postgresql"])
def tables(request, tmp_path):
    uri = "sqlite:a.db" if request.param == "sqlite" else request.getfixturevalue("postgresql").database()
    opened = open_tables(uri, base=tmp_path, create=True)
    yield opened
    opened.close()


def told(tables, alarm, sinks, at_ms=0):
    with tables.write() as connection:
        return raise_alarm(connection, alarm, sinks, at_ms)


def test_a_sink_that_is_down_and_comes_back_gets_everything_once(tables):
    sink = Memory(fails=["lost"] * 6 + ["bug", "lost"])
    alarms = [replace(ALARM, window_start=number) for number in range(4)]
    for alarm in [*alarms, *alarms]:
        told(tables, alarm, [sink])
    now, passes = 0, []
    while sum(one.sent for one in passes) < 4:
        passes.append(deliver_due(tables, [sink], now))
        now += 3 * 5000
    assert all(one.retried <= 1 for one in passes), "a sink that fails is asked once in a pass"
    assert sum(one.retried for one in passes) == 8
    assert deliver_due(tables, [sink], now + MOST_MS) == Pass(0, 0, ())
    assert len(set(sink.keys)) == 4
    with tables.read() as connection:
        assert count_outbox(connection) == {("main", "sent"): 4}
        assert [alert.count for alert in list_alerts(connection)] == [2] * 4


def test_an_answer_that_is_lost_repeats_under_the_same_key(tables):
    sink = Memory(fails=["answer"])
    alert = told(tables, ALARM, [sink])
    assert deliver_due(tables, [sink], 0) == Pass(0, 1, ())
    assert deliver_due(tables, [sink], 1000) == Pass(0, 0, ())
    assert deliver_due(tables, [sink], 6000) == Pass(1, 0, ())
    assert sink.keys == [delivery_key(alert.id, "raised", "main")] * 2


def test_after_a_day_it_is_dead_and_the_others_are_told(tables):
    sink, other = Memory(fails=["lost"] * 99), Memory("other")
    told(tables, ALARM, [sink])
    assert deliver_due(tables, [sink, other], GIVE_UP_MS - 1) == Pass(0, 1, ())
    done = deliver_due(tables, [sink, other], GIVE_UP_MS + MOST_MS)
    assert (len(done.dead), done.sent) == (1, 1)
    ((_, facts),) = other.taken
    assert (facts["detector"], facts["severity"], facts["signal"]) == ("delivery", "high", "main")
    with tables.read() as connection:
        assert count_outbox(connection)[("main", "dead")] == 1


@dataclass
class Hanging(Memory):
    """A sink that takes long and gives no answer; meanwhile something else may happen."""

    meanwhile: list = field(default_factory=list)
    asked: int = 0

    def deliver(self, notice):
        self.asked += bool(notice.key)
        while self.meanwhile:
            self.meanwhile.pop(0)()
        raise ExternalError("sink hangs: no answer")


def test_a_sink_that_hangs_delays_the_others_once_and_a_canary_goes_first(tables):
    pager, place = Memory("pager"), []
    meanwhile = [lambda: told(tables, ALARM, [hanging, pager]), lambda: place.append(len(pager.taken))]
    hanging = Hanging("hanging", meanwhile=meanwhile)
    for number in range(9):
        told(tables, replace(ALARM, detector="D2", severity=Severity.MEDIUM, window_start=number), [hanging, pager])
    assert deliver_due(tables, [hanging, pager], 0) == Pass(10, 1, ())
    assert hanging.asked == 1
    assert pager.taken[place[0]][1]["severity"] == "critical"
    assert deliver_due(tables, [hanging, pager], 1000) == Pass(0, 0, ()), "all that was due to it waits"
    told(tables, replace(ALARM, window_start=77), [hanging, pager], 7000)
    deliver_due(tables, [hanging, pager], 7000)
    assert (hanging.asked, pager.taken[-1][1]["window_start"]) == (2, 77), "to those that work first"
    done = deliver_due(tables, [hanging, pager], GIVE_UP_MS + MOST_MS)
    assert (len(done.dead), done.sent, hanging.asked) == (11, 1, 3), "and given up together"


def alert_of(tables, detector):
    with tables.read() as connection:
        return next(alert for alert in list_alerts(connection) if alert.detector == detector)


def test_a_sink_that_the_settings_no_longer_name_is_not_forgotten_silently(tables):
    told(tables, ALARM, [Memory("gone")])
    assert deliver_due(tables, [], 0) == Pass(0, 1, ())
    assert len(deliver_due(tables, [Memory()], GIVE_UP_MS).dead) == 1


def test_who_is_told_first_and_who_when_nobody_comes(tables):
    first, second = Memory("first"), Memory("second", tier=2)
    alert = told(tables, ALARM, [first, second])
    deliver_due(tables, [first, second], 0)
    assert (len(first.taken), len(second.taken)) == (1, 0)
    for minute, handed in ((14, 0), (15, 1), (16, 0), (75, 1)):
        with tables.write() as connection:
            assert escalate_due(connection, [first, second], minute * MINUTE) == handed
        deliver_due(tables, [first, second], minute * MINUTE)
    assert [facts["event"] for _, facts in second.taken] == ["escalated-1", "escalated-2"]
    with tables.write() as connection:
        now = alert_of(tables, "D1")
        save_alert(connection, now, advance(now, AlertState.ACKNOWLEDGED, by="p_x", at_ms=1).alert)
    with tables.write() as connection:
        assert escalate_due(connection, [first, second], 10**9) == 0
    assert (len(first.taken), alert.escalations) == (1, 0)


def test_what_is_kept_quiet_is_not_delivered(tables):
    quiet = Suppression(
        id="s", detector="D2", principal=None, model=None, owner="o", reason="r", created_ms=0, expires_ms=DAY_MS
    )
    with tables.write() as connection:
        add_suppression(connection, quiet)
    assert told(tables, replace(ALARM, detector="D2", severity=Severity.LOW), [Memory()]).state == "suppressed"
    with tables.read() as connection:
        assert count_outbox(connection) == {}


def test_a_canary_is_told_whatever_its_hour_held_before(tables):
    """Suppressed training text, a secret that was closed as false, half of a cap: none of them stands for the next."""
    quiet = Suppression(
        id="s", detector="D1", principal=None, model=None, owner="o", reason="r", created_ms=0, expires_ms=DAY_MS
    )
    with tables.write() as connection:
        add_suppression(connection, quiet)
    sink = Memory()
    assert told(tables, replace(ALARM, signal="training-text", severity=Severity.HIGH), [sink]).state == "suppressed"
    closed = told(tables, replace(ALARM, signal="secret", severity=Severity.HIGH, principal="p_b"), [sink], DAY_MS)
    with tables.write() as connection:
        save_alert(connection, closed, close_alert(closed, Conclusion.FALSE, by="p_x", at_ms=DAY_MS + 1).alert)
    canaries = [told(tables, ALARM, [sink], 5), told(tables, replace(ALARM, principal="p_b"), [sink], DAY_MS + 2)]
    for share in ("half of the leak cap", "leak cap"):
        cap = replace(ALARM, detector="D5-cap", signal=share, severity=Severity.HIGH)
        told(tables, cap, [sink], DAY_MS + 3)
    again = told(tables, replace(ALARM, signal="secret", severity=Severity.HIGH, principal="p_b"), [sink], DAY_MS + 4)
    deliver_due(tables, [sink], DAY_MS + 5)
    assert [one.state for one in (*canaries, again)] == ["open"] * 3
    heard = [(facts["signal"], facts["principal"], facts["event"]) for _, facts in sink.taken]
    assert sorted(heard) == sorted([
        ("secret", "p_b", "raised"), ("secret", "p_b", "raised-2"), ("canary", "p_a", "raised"),
        ("canary", "p_b", "raised"), ("half of the leak cap", "p_a", "raised"), ("leak cap", "p_a", "raised"),
    ])  # fmt: skip


def test_a_transaction_that_fails_leaves_neither_alert_nor_delivery(tables):
    def killed():
        with tables.write() as connection:
            raise_alarm(connection, ALARM, [Memory()], 0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        killed()
    with tables.read() as connection:
        assert (list_alerts(connection), count_outbox(connection)) == ((), {})


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.binary(min_size=8, max_size=8))
def test_the_wait_doubles_up_to_an_hour_give_or_take_a_fifth(attempts, random):
    wait = min(5000 * 2 ** min(attempts, 30), MOST_MS)
    assert 0.8 * wait <= retry_after(attempts, rng=lambda _: random) <= 1.2 * wait


def test_who_was_told_is_told_of_the_end_after_the_beginning(tables):
    first, second, gone = Memory("first", fails=["lost"] * 3), Memory("second", tier=2), Memory("gone")
    alert = told(tables, ALARM, [first, second, gone])
    deliver_due(tables, [first, second, gone], 0)
    closed = close_alert(alert, Conclusion.FALSE, by="p_x", at_ms=1000).alert
    again = reopen_alert(closed, "it was true", at_ms=2000).alert
    end = close_alert(again, Conclusion.TRUE, by="p_x", at_ms=3000).alert
    with tables.write() as connection:
        for after in (closed, again, end):
            post_turn(connection, after, ["first", "second"], after.changed_ms)
    for now in range(3000, 200_000, 5000):
        deliver_due(tables, [first, second, gone], now)
    events = [facts["event"] for _, facts in first.taken]
    assert events == ["raised", "closed-1000", "reopened-2000", "closed-3000"]
    assert [facts["state"] for _, facts in first.taken] == ["open", "closed", "open", "closed"]
    assert second.taken == [], "who was not told of it hears nothing of its end"
    assert len(gone.taken) == 1, "nor does who is no longer in the settings"
