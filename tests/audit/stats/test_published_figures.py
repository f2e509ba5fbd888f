"""The published error rates: the page shows the file, and the file keeps what is stated."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def load_bench():
    spec = importlib.util.spec_from_file_location("bench_audit_stats", ROOT / "benchmarks" / "bench_audit_stats.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BENCH = load_bench()
FIGURES = json.loads(BENCH.OUT.read_text())


def test_the_page_shows_what_the_file_says():
    shown = BENCH.PAGE.read_text().partition(BENCH.BEGIN)[2].partition(BENCH.END)[0]
    assert shown == "\n" + BENCH.tables(FIGURES)


def test_no_rate_of_false_claims_is_above_its_nominal_level():
    rates = [FIGURES["verdicts"], FIGURES["privacy_claims"]]
    for found in FIGURES["false_claims"].values():
        rates += [rate for name, rate in found.items() if name != "best_guess_count"]
    assert all(rate["rate"] <= 0.05 and rate["low"] <= 0.05 for rate in rates)
    assert min(found["one_score"]["runs"] for found in FIGURES["false_claims"].values()) >= 1500
    assert FIGURES["discoveries"]["false_share"] <= 0.05


def test_intervals_cover_at_least_their_nominal_rate_less_one_percent():
    assert all(rate["rate"] >= 0.94 for found in FIGURES["coverage"].values() for rate in found.values())


def test_mean_bounds_are_at_least_those_of_the_valid_estimators():
    """An estimator is valid if no simulated rate of its false claims is above 5 % for sure."""
    peer = FIGURES["peers"]["jax_privacy"]
    broken = {name for found in peer["false_claims"].values() for name, rate in found.items() if rate["low"] > 0.05}
    assert broken == {"bonferroni"}
    for setting, ours in FIGURES["mean_bound"].items():
        valid = [bound for name, bound in peer["mean_bound"][setting].items() if name not in broken]
        assert ours["three_scores"] >= max(valid)
        assert ours["one_score"] >= max(peer["mean_bound"][setting].values())


def test_the_other_tool_was_called_as_its_authors_call_it():
    own = FIGURES["peers"]["jax_privacy"]["own_test"]
    assert own == {"1": pytest.approx(1.13346, rel=1e-5), "2": pytest.approx(2.311945, rel=1e-5)}
