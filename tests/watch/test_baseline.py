"""The baseline that pages show is the fit that D2 judges by."""

import math

import numpy as np
import pytest
from sqlalchemy import insert
from watching import request

from stanch.store import open_tables
from stanch.store.schema.watch import watch_state
from stanch.watch.baseline import Baseline, load_baseline
from stanch.watch.counts import HOUR
from stanch.watch.esr import rate_detector

DAYS, ORIGIN = 10, "example.com/log"


def busy_by_day(hours, principal, seed):
    """Return requests of somebody who asks 12 times an hour by day and twice by night, from hour 0 on."""
    generator, events = np.random.default_rng(seed), []
    for hour in hours:
        for _ in range(generator.poisson(12 if 8 <= hour % 24 < 20 else 2)):
            events += request(0, hour * HOUR, principal)
    return events


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A database in which D2 has read ten days of ann and bea, and the last of cid."""
    events = [event for at, name in enumerate(("ann", "bea")) for event in busy_by_day(range(24 * DAYS), name, at)]
    events += [event for hour in range(24 * DAYS - 24, 24 * DAYS + 1) for event in request(0, hour * HOUR, "cid")]
    state, _ = rate_detector().step(b"", sorted(events, key=lambda event: event.time))
    opened = open_tables("sqlite:stanch.db", base=tmp_path_factory.mktemp("baseline"), create=True)
    with opened.write() as connection:
        connection.execute(insert(watch_state).values(origin=ORIGIN, detector="D2", next_idx=1, state=state))
    yield opened
    opened.close()


def test_the_baseline_follows_the_hours_of_the_day(tables):
    found = load_baseline(tables, ORIGIN, "ann")
    by_day, by_night = (found.usual(24 * DAYS + hour)[1] for hour in (14, 2))
    assert 8 < by_day < 18
    assert 1 < by_night < 6
    least, mean, most = found.usual(14)
    assert least == max(0, mean - (most - mean))
    assert most - mean == pytest.approx(3 * math.sqrt(mean + mean**2 / found.dispersion))
    assert most < 60


def test_who_is_young_or_unknown_has_none(tables):
    assert load_baseline(tables, ORIGIN, "cid") is None
    assert load_baseline(tables, ORIGIN, "nobody") is None
    assert load_baseline(tables, "example.com/other", "ann") is None


def test_nothing_less_than_nothing_is_usual():
    assert Baseline(0.1, 0.5, (1.0,) * 168).usual(5)[0] == 0
