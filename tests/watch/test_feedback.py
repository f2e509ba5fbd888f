"""D2 learns from a person's word that an alarm was benign, and no more than a bounded part of it."""

import numpy as np
import pytest

from stanch.watch.alert import alert_id
from stanch.watch.counts import HOUR
from stanch.watch.esr import LEARN_FACTOR, WINDOW, RateBank, rate_detector
from stanch.watch.events import Closing, Event, Intent

QUIET = 24 * 14


def hours(start, counts, who="p_a"):
    """Return one entry for each request, and an entry at the end that closes the last hour."""
    index, found = 10**6 * start, []
    for hour, count in enumerate(counts, start):
        for _ in range(count):
            found.append(Event(index=index, time=hour * HOUR, kind="gateway.infer", phase="intent", principal=who,
                               detail=Intent()))  # fmt: skip
            index += 1
    end = start + len(counts)
    return [*found, Event(index=index, time=end * HOUR, kind="other", phase="outcome", principal="p_z")]


def closing(alarm, hour, conclusion="benign"):
    detail = Closing(alert=alert_id(alarm), to="closed", conclusion=conclusion)
    return Event(index=10**6 * hour - 1, time=hour * HOUR, kind="watch.alert.state", phase="outcome", principal="p_l",
                 detail=detail)  # fmt: skip


def usual(count, seed=3):
    return [int(x) for x in np.random.default_rng(seed).poisson(10, count)]


@pytest.fixture(scope="module")
def alarmed():
    """D2 after two quiet weeks and a burst of six hours, and its alarm."""
    detector = rate_detector()
    state, alarms = detector.step(b"", hours(0, usual(QUIET)))
    assert alarms == []
    state, alarms = detector.step(state, hours(QUIET, [60] * 6))
    return detector, state, alarms[0]


def statistic_after(detector, state, start):
    """Run quiet days until the burst is past the lag, then the same burst; return how often it alarms."""
    state, _ = detector.step(state, hours(start, usual(72, seed=5)))
    return state


def mean_of(state):
    from stanch.watch.counts import _DECODER  # noqa: PLC0415 - the state's own form

    saved = _DECODER.decode(state)
    return float(saved.arrays["m"].load()[saved.keys.index("p_a"), 0])


@pytest.mark.nightly
def test_a_benign_burst_is_learnt_and_one_that_is_not_is_left_out(alarmed):
    detector, state, alarm = alarmed
    start = QUIET + 7
    means = {}
    for conclusion in ("benign", "false", "true"):
        told, _ = detector.step(state, [closing(alarm, start, conclusion)])
        means[conclusion] = mean_of(statistic_after(detector, told, start))
    assert means["false"] == means["true"] < means["benign"]


@pytest.mark.nightly
def test_what_is_learnt_is_bounded_whatever_the_burst(alarmed):
    detector, state, alarm = alarmed
    start = QUIET + 7
    told, _ = detector.step(state, [closing(alarm, start)])
    before, after = (mean_of(statistic_after(detector, one, start)) for one in (state, told))
    assert before < after < LEARN_FACTOR * before


@pytest.mark.nightly
def test_the_same_word_twice_counts_once_and_strange_alerts_not_at_all(alarmed):
    detector, state, alarm = alarmed
    start = QUIET + 7
    once, _ = detector.step(state, [closing(alarm, start)])
    twice, _ = detector.step(once, [closing(alarm, start)])
    assert twice == once
    from dataclasses import replace  # noqa: PLC0415 - used here alone

    other, _ = detector.step(state, [closing(replace(alarm, principal="p_q"), start)])
    assert mean_of(other) == mean_of(state)


def test_a_signal_learns_once_a_week():
    bank = RateBank(1)
    bank.grow(1)
    from stanch.watch.counts import Crossing  # noqa: PLC0415 - used here alone

    bank.learn(Crossing(0, 0, 0.0, 100, (7.0, 7.0)), 101, 110)
    assert np.nansum(bank.arrays["history"]) == 14
    bank.learn(Crossing(0, 0, 0.0, 105, (7.0, 7.0)), 106, 110 + WINDOW - 1)
    assert np.nansum(bank.arrays["history"]) == 14
    bank.learn(Crossing(0, 0, 0.0, 150, (7.0,)), 150, 110 + WINDOW)
    assert np.nansum(bank.arrays["history"]) == 21
    bank.learn(Crossing(0, 0, 0.0, 1, (7.0, 7.0)), 2, 10_000)  # so old that its places hold other hours
    assert np.nansum(bank.arrays["history"]) == 21
