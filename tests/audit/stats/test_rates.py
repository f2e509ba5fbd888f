import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from stanch.audit.rates import (
    Suppressed,
    auc,
    clopper_pearson,
    permutation_p_value,
    threshold_ranks,
    tnr_at_fnr,
    tpr_at_fpr,
)
from stanch.errors import InvalidInput


def joined(inside, outside):
    member = np.arange(len(inside) + len(outside)) < len(inside)
    return np.concatenate([inside, outside]).astype(float), member


def test_golden_delong(golden):
    case = golden["delong"]
    found = auc(*joined(case["members"], case["nonmembers"]), confidence=0.5)
    assert found.estimate == pytest.approx(case["auc"], abs=1e-12)
    assert (found.upper - found.lower) / 2 / ndtri(0.75) == pytest.approx(case["se"], abs=1e-6)


def test_golden_pairing_bound(golden):
    n = golden["pairing"]["n"]
    above = auc(*joined(np.ones(n), np.zeros(n)))
    assert (above.estimate, above.upper) == (1, 1)
    assert above.lower == pytest.approx(golden["pairing"]["lower"], abs=1e-6)
    below = auc(*joined(np.zeros(n), np.ones(n)))
    assert (below.estimate, below.lower) == (0, 0)
    assert below.upper == pytest.approx(1 - golden["pairing"]["lower"], abs=1e-6)


def test_scores_that_are_all_equal_bound_nothing():
    found = auc(*joined(np.ones(50), np.ones(50)))
    assert (found.estimate, found.lower, found.upper) == (0.5, 0, 1)


def test_golden_threshold_ranks(golden):
    for case in golden["threshold_ranks"]:
        assert threshold_ranks(case["n"], case["rate"], 0.0125) == tuple(case["ranks"])


def test_golden_suppression(golden):
    for case in golden["suppressed"]:
        scores, member = joined(np.arange(40), np.arange(case["needs"] - 1))
        found = tpr_at_fpr(scores, member, case["rate"])
        assert isinstance(found, Suppressed)
        assert (found.needs, found.found) == (case["needs"], case["needs"] - 1)
        scores, member = joined(np.arange(40), np.arange(case["needs"]))
        assert not isinstance(tpr_at_fpr(scores, member, case["rate"]), Suppressed)


def test_golden_clopper_pearson(golden):
    case = golden["clopper_pearson_upper"]
    found = clopper_pearson(case["k"], case["n"], side="upper")
    assert found.upper == pytest.approx(case["upper"], abs=5e-9)
    assert found.upper == pytest.approx(1 - 0.05 ** (1 / case["n"]), rel=1e-10)


@given(st.integers(1, 40), st.data())
def test_clopper_pearson_inverts_the_exact_binomial_tails(n, data):
    k = data.draw(st.integers(0, n))
    found = clopper_pearson(k, n, confidence=0.9)

    def tail(p, ks):
        return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in ks)

    if k > 0:
        assert tail(found.lower, range(k, n + 1)) == pytest.approx(0.05, rel=1e-8)
    if k < n:
        assert tail(found.upper, range(k + 1)) == pytest.approx(0.05, rel=1e-8)
    assert found.lower <= k / n <= found.upper


def test_clopper_pearson_edges():
    assert clopper_pearson(0, 0).lower == 0
    assert clopper_pearson(0, 0).upper == 1
    assert clopper_pearson(0, 10, side="lower").lower == 0
    assert clopper_pearson(10, 10, side="upper").upper == 1
    assert clopper_pearson(3, 10, side="lower").upper == 1
    for k, n in ((-1, 5), (6, 5)):
        with pytest.raises(InvalidInput):
            clopper_pearson(k, n)


@pytest.mark.parametrize(("n1", "n0", "shift"), [(60, 60, 0.0), (200, 100, 0.5), (100, 300, 1.5), (500, 500, 0.2)])
def test_auc_interval_covers_in_at_least_93_of_100_runs(n1, n0, shift):
    rng = np.random.default_rng(n1)
    truth = ndtr(shift / math.sqrt(2))
    runs = 1000
    covered = 0
    for _ in range(runs):
        found = auc(*joined(rng.normal(size=n1) + shift, rng.normal(size=n0)))
        covered += found.lower <= truth <= found.upper
    assert covered / runs >= 0.93


@pytest.mark.parametrize(("n", "rate", "shift"), [(500, 0.01, 0.0), (500, 0.05, 1.5), (1000, 0.01, 1.5)])
@pytest.mark.parametrize("side", ["tpr", "tnr"])
def test_low_error_rate_interval_covers_in_at_least_93_of_100_runs(n, rate, shift, side):
    rng = np.random.default_rng(n)
    truth = 1 - ndtr(ndtri(1 - rate) - shift)  # binormal and symmetric: the same for both
    measure = tpr_at_fpr if side == "tpr" else tnr_at_fnr
    runs = 500
    covered = 0
    for _ in range(runs):
        found = measure(*joined(rng.normal(size=n) + shift, rng.normal(size=n)), rate)
        covered += found.lower <= truth <= found.upper
    assert covered / runs >= 0.93


def test_null_false_alarms_of_the_tpr_lower_bound_at_2_5_percent():
    """P(lower bound of TPR at 1 % FPR > 1 %) on null scores; fails only if the 99.9 % lower bound exceeds 2.5 %."""
    rng = np.random.default_rng(4)
    runs, claims = 500, 0
    for _ in range(runs):
        found = tpr_at_fpr(*joined(rng.normal(size=500), rng.normal(size=1000)), 0.01)
        claims += found.lower > 0.01
    assert clopper_pearson(claims, runs, confidence=0.999, side="lower").lower <= 0.025


@given(st.integers(0, 2**32), st.integers(440, 900), st.integers(1, 400))
@settings(max_examples=30, deadline=None)
def test_rate_interval_holds_its_estimate(seed, n0, n1):
    rng = np.random.default_rng(seed)
    found = tpr_at_fpr(*joined(rng.integers(0, 30, n1), rng.integers(0, 30, n0)), 0.01)
    assert 0 <= found.lower <= found.estimate <= found.upper <= 1


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_auc_equals_the_count_over_all_pairs(seed, n1, n0):
    rng = np.random.default_rng(seed)
    inside, outside = rng.integers(0, 8, n1).astype(float), rng.integers(0, 8, n0).astype(float)
    pairs = np.mean((inside[:, None] > outside) + 0.5 * (inside[:, None] == outside))
    found = auc(*joined(inside, outside))
    assert found.estimate == pytest.approx(pairs, abs=1e-12)
    assert 0 <= found.lower <= found.estimate <= found.upper <= 1


def test_permutation_p_is_exact_on_a_small_case():
    """4 members above 4 others: 1 of 70 splits reaches the statistic; 10,000 permutations must come near 1/70."""
    p = permutation_p_value(*joined([5, 6, 7, 8], [1, 2, 3, 4]))
    assert p == pytest.approx(1 / 70, abs=5 * math.sqrt(1 / 70 / 10_000))


def test_permutation_p_counts_ties_against_the_attack():
    assert permutation_p_value(*joined(np.ones(20), np.ones(20))) == 1.0


def test_permutation_p_is_seeded():
    rng = np.random.default_rng(0)
    data = joined(rng.normal(size=30) + 0.4, rng.normal(size=30))
    assert permutation_p_value(*data) == permutation_p_value(*data)
    assert permutation_p_value(*data, seed=1) != permutation_p_value(*data, seed=2)


def test_rates_outside_the_unit_interval_are_refused():
    data = joined(np.arange(40), np.arange(40))
    for rate in (0.0, 1.0, -0.1):
        with pytest.raises(InvalidInput):
            tpr_at_fpr(*data, rate)
