"""Promises against observation at a small size; the exact intervals; the scenario; the document's table."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stanch.cli.watch_plot import draw
from stanch.errors import InvalidInput
from stanch.watch import Measure, synth
from stanch.watch.detector import FalseAlarm
from stanch.watch.insider import TRACES, Scenario, Trace, play_insiders
from stanch.watch.simulate import SimulationSpec, judge, simulate, z_scores

ROOT = Path(__file__).parents[2]
RATE = FalseAlarm(Measure.RATE, 0.01, "window", "")
RUN = FalseAlarm(Measure.RUN_LENGTH, 100, "hours", "")


@pytest.mark.parametrize(("alarms", "exposure"), [(0, 1000), (3, 1000), (30, 1000), (1000, 1000)])
def test_the_intervals_are_exact(alarms, exposure):
    run, rate = judge("D", RUN, alarms, exposure), judge("D", RATE, alarms, exposure)
    assert run.upper == pytest.approx(stats.chi2.ppf(0.975, 2 * alarms + 2) / 2 / exposure)
    assert run.lower == pytest.approx(stats.chi2.ppf(0.025, 2 * alarms) / 2 / exposure if alarms else 0)
    exact = stats.binomtest(alarms, exposure).proportion_ci(0.95, "exact")
    assert (rate.lower, rate.upper) == (pytest.approx(exact.low), pytest.approx(exact.high))


@pytest.mark.parametrize(
    ("alarms", "exposure", "verdict"),
    [(0, 300, "too small"), (0, 400, "holds"), (10, 400, "broken"), (8, 100, "broken")],
)
def test_the_verdict(alarms, exposure, verdict):
    assert judge("D", RUN, alarms, exposure).verdict == verdict


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("D1", SimulationSpec(1500, 720)),
        ("D2", SimulationSpec(60, 600, threshold=1e3)),
        ("D2", SimulationSpec(150, 1000, threshold=1e4, seasonal=True)),
        ("D5", SimulationSpec(60, 500, threshold=1e3)),
        ("D6", SimulationSpec(60, 500, threshold=1e3)),
        ("D7", SimulationSpec(60, 1000, threshold=1e3)),
        ("D4", SimulationSpec(300, 720)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.principals}x{value.hours}",
)
def test_the_promise_holds_on_quiet_traffic(name, spec):
    found = simulate(name, spec, seed=3)
    assert found.verdict == "holds"
    assert found.power is None or found.power.found > 0.3


def test_a_detector_that_breaks_its_promise_is_told_from_one_that_keeps_it(monkeypatch):
    def too_low(history, _profile):
        mean = np.full(history.shape[1:], 12.0)
        return mean, mean + 38, mean + 156

    monkeypatch.setattr("stanch.watch.esr.fit", too_low)
    assert simulate("D2", SimulationSpec(50, 500, threshold=1e3), seed=3).verdict == "broken"


def test_days_are_too_few_for_false_discoveries():
    assert simulate("D3", SimulationSpec(20, 720), seed=3).verdict == "too small"


def test_the_same_seed_gives_the_same_result():
    spec = SimulationSpec(60, 300, threshold=1e3)
    assert simulate("D5", spec, seed=5) == simulate("D5", spec, seed=5)
    assert simulate("D5", spec, seed=5) != simulate("D5", spec, seed=6)


@pytest.mark.parametrize("spec", [(0, 10, 2.0), (10, 0, 2.0), (10, 10, 1.0), (100_000, 100_000, 2.0)])
def test_impossible_sizes_are_refused(spec):
    with pytest.raises(InvalidInput):
        SimulationSpec(*spec)


def test_detectors_without_chance_and_unknown_ones_are_refused():
    for name in ("D5-cap", "D8"):
        with pytest.raises(InvalidInput, match="expected one of"):
            simulate(name, SimulationSpec(10, 10), seed=1)


def test_z_scores_have_the_baseline_of_the_rate_detector():
    counts = synth.hourly_counts(np.random.default_rng(1), 3, 300)
    past = counts[192 - 24 - 168 : 192 - 24]
    wanted = (counts[200] - past.mean(axis=0)) / np.sqrt(past.var(axis=0) + 0.1)
    assert z_scores(counts)[200] == pytest.approx(wanted)
    assert np.isnan(z_scores(counts)[:192]).all()


def test_every_insider_is_found():
    found = play_insiders(50, seed=2)
    assert [trace.name for trace in found.traces] == list(TRACES)
    seen = {trace.name: trace for trace in found.traces}
    assert seen["bulk copy"].detector == "D2"
    assert seen["bulk copy"].hours <= 3
    assert seen["off-hours from a new host"].detector == "D3"
    assert seen["prefix probing"].hours <= 12
    assert seen["budget draining"].hours <= 12
    assert all(trace.is_found for trace in found.traces)
    assert sum(found.false_a_day.values()) < 2
    with pytest.raises(InvalidInput):
        play_insiders(10, seed=1)


def test_the_published_run_keeps_every_promise_and_finds_twice_as_many():
    figures = json.loads((ROOT / "benchmarks" / "results" / "watch.json").read_text())
    assert all(row["verdict"] != "broken" for row in figures["detectors"])
    # Each promise is seen to hold among 1,000 principals for 90 days or longer.
    shown = {row["detector"] for row in figures["detectors"] if row["verdict"] == "holds" and row["principals"] >= 1000}
    assert shown == {f"D{number}" for number in range(1, 8)}
    at_two = next(row for row in figures["detectors"] if row["detector"] == "D2" and row["shift"] == 2.0)
    assert at_two["power"]["found"] >= 2 * at_two["z_power"]["found"]


def test_the_picture_of_the_insiders_is_of_the_published_run():
    played = json.loads((ROOT / "benchmarks" / "results" / "watch.json").read_text())["insider30d"]
    traces = tuple(Trace(one["trace"], one["detector"], one["hours"], tuple(one["others"])) for one in played["traces"])
    found = Scenario(played["principals"], played["days"], traces, played["false_alarms_a_day"])
    assert all(trace.is_found for trace in traces)
    assert (ROOT / "docs" / "pictures" / "insiders.svg").read_text() == draw(found)
