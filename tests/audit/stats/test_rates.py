import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from stanch.audit.rates import (
    Suppressed,
    auc,
    clopper_pearson,
    either_way,
    permutation_p_value,
    threshold_ranks,
    tnr_at_fnr,
    tpr_at_fpr,
)
from stanch.errors import InvalidInput
from stanch.terms import Interval


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


def test_a_rank_with_just_the_probability_is_taken():
    assert threshold_ranks(2, 0.5, 0.25) == (1, 2)  # one of two, and two of two: each with 3/4


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
    assert clopper_pearson(3, 10, side="upper").lower == 0
    assert clopper_pearson(3, 10).estimate == 0.3
    for k, n, confidence in ((-1, 5, 0.95), (6, 5, 0.95), (1, 5, 0.0), (1, 5, 1.0)):
        with pytest.raises(InvalidInput):
            clopper_pearson(k, n, confidence=confidence)
    assert clopper_pearson(0, 0).estimate == 0
    assert clopper_pearson(2, 5) == clopper_pearson(2, 5, confidence=0.95, side="two")


def test_each_interval_says_how_it_was_made():
    rng = np.random.default_rng(1)
    mixed = joined(rng.normal(size=500), rng.normal(size=500))
    apart = joined(np.ones(9), np.zeros(9))
    found = [
        clopper_pearson(1, 5, side="lower"), auc(*mixed), auc(*apart), auc(apart[0], ~apart[1]),
        auc(*joined(np.ones(9), np.ones(9))), tpr_at_fpr(*mixed, 0.05), tnr_at_fnr(*mixed, 0.05),
    ]  # fmt: skip
    assert [interval.method for interval in found] == [
        "clopper-pearson/lower", "delong", "pairing", "pairing", "pairing", "order-statistic", "order-statistic",
    ]  # fmt: skip
    assert {interval.confidence for interval in found} == {0.95}
    others = [
        auc(*mixed, confidence=0.9),
        tpr_at_fpr(*mixed, 0.05, confidence=0.9),
        tnr_at_fnr(*mixed, 0.05, confidence=0.9),
    ]
    assert {interval.confidence for interval in others} == {0.9}


def test_pairs_of_classes_of_two_sizes_are_as_many_as_the_smaller():
    for sizes in ((5, 9), (9, 5)):
        above = auc(*joined(np.ones(sizes[0]), np.zeros(sizes[1])))
        assert (above.lower, above.upper) == (pytest.approx(0.025 ** (1 / 5)), 1)


def test_one_value_alone_has_the_largest_variance():
    found = auc(*joined([2.5], [1, 2, 3, 4]))
    placed = np.array([0, 0, 1, 1])  # whether the member is above each non-member... of 1, 2, 3, 4
    half = ndtri(0.975) * math.sqrt(0.25 + placed.var(ddof=1) / 4)
    assert (found.lower, found.upper) == (max(0, 0.5 - half), min(1, 0.5 + half))
    two = auc(*joined([2.5, 9], [1, 2, 3, 4]))  # of two there is an estimate: 0.5 and 1 are shares of 1/2 apart
    half = ndtri(0.975) * math.sqrt(0.125 / 2 + np.array([0, 0, 0.5, 0.5]).var(ddof=1) / 4)
    assert two.lower == pytest.approx(0.75 - half)
    wide = auc(*joined([2.5], [1, 2, 3, 4]), confidence=0.2)
    half = ndtri(0.6) * math.sqrt(0.25 + placed.var(ddof=1) / 4)
    assert (wide.lower, wide.upper) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


def test_a_rate_and_its_bounds_by_hand():
    # 200 non-members 1 to 200; members 191.5 and every fifth whole number: the threshold of 5 % lies below 191.
    outside, inside = np.arange(1, 201), np.array([191.5, *range(0, 250, 5)])
    found = tpr_at_fpr(*joined(inside, outside), 0.05)
    strict, loose = threshold_ranks(200, 0.05, 0.0125)
    above, at_least = (inside > 201 - strict).sum(), (inside >= 201 - loose).sum()
    assert found.estimate == (inside > 190).sum() / inside.size
    assert found.lower == clopper_pearson(int(above), inside.size, confidence=0.9875, side="lower").lower
    assert found.upper == clopper_pearson(int(at_least), inside.size, confidence=0.9875, side="upper").upper
    mirrored = tnr_at_fnr(-np.concatenate([inside, outside]), np.arange(251) >= 51, 0.05)
    assert mirrored == found
    # With 0.02 of 200 the loose rank lies among the scores; with few of them behind all, and then nothing is ruled out.
    few = tpr_at_fpr(*joined(inside, np.arange(1, 21)), 0.5)
    assert few.estimate == (inside > 10).sum() / inside.size


@pytest.mark.parametrize(("n", "rate"), [(200, 0.05), (100, 0.29), (20, 0.5), (24, 0.8), (25, 0.8), (400, 0.25)])
def test_a_rate_and_its_bounds_with_members_at_and_between_all_others(n, rate):
    outside, inside = np.arange(1, n + 1), np.arange(0, n + 2, 0.5)
    found = tpr_at_fpr(*joined(inside, outside), rate)
    strict, loose = threshold_ranks(n, rate, 0.0125)
    above = (inside > n + 1 - strict).sum()
    at_least = (inside >= n + 1 - loose).sum() if loose <= n else inside.size
    assert found.estimate == (inside > n - round(rate * n)).sum() / inside.size
    assert found.lower == clopper_pearson(int(above), inside.size, confidence=0.9875, side="lower").lower
    assert found.upper == clopper_pearson(int(at_least), inside.size, confidence=0.9875, side="upper").upper


def test_the_fewest_members_are_asked_for_by_the_other_rate(golden):
    case = golden["suppressed"][0]
    scores, member = joined(np.arange(case["needs"] - 1), np.arange(40))
    found = tnr_at_fnr(scores, member, case["rate"])
    assert isinstance(found, Suppressed)
    assert (found.needs, found.found) == (case["needs"], case["needs"] - 1)
    assert found.why.endswith(" members")
    assert "non-members" not in found.why


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
    """4 members above 4 others, or below: 2 of 70 splits reach the statistic; 10,000 permutations come near 1/35."""
    for inside, outside in (([5, 6, 7, 8], [1, 2, 3, 4]), ([1, 2, 3, 4], [5, 6, 7, 8])):
        p = permutation_p_value(*joined(inside, outside))
        assert p == pytest.approx(1 / 35, abs=5 * math.sqrt(1 / 35 / 10_000))


def test_permutation_p_of_exchangeable_sides_is_at_most_5_percent_at_rate_5_percent():
    rng = np.random.default_rng(21)
    small = sum(permutation_p_value(*joined(rng.integers(0, 9, 12), rng.integers(0, 9, 20))) <= 0.05 for _ in range(60))
    assert clopper_pearson(small, 60, confidence=0.999, side="lower").lower <= 0.05


def test_an_auc_counts_whichever_way_it_points():
    low = Interval(0.1, 0.05, 0.2, 0.95, "delong")
    assert either_way(low) == Interval(0.9, 0.8, 0.95, 0.95, "delong")
    assert either_way(either_way(low)) == either_way(low)
    assert either_way(replace(low, estimate=0.5, upper=0.7)).lower == 0.05


def test_permutation_p_counts_ties_against_the_attack():
    assert permutation_p_value(*joined(np.ones(20), np.ones(20))) == 1.0


def test_permutation_p_is_seeded():
    rng = np.random.default_rng(0)
    data = joined(rng.normal(size=30) + 0.4, rng.normal(size=30))
    assert permutation_p_value(*data) == permutation_p_value(*data)
    assert permutation_p_value(*data, seed=1) != permutation_p_value(*data, seed=2)


def test_permutations_by_hand(monkeypatch):
    """The seeded permutations are drawn once more, in another way; large tables get fewer, at least 199."""
    scores, member = joined([3, 4, 4, 9], [1, 2, 3, 4, 5])
    ranks = np.array([4.5 - 1, 6, 6, 9, 1, 2, 3.5, 6, 8])
    observed = abs(ranks[:4].sum() - 20)

    def expected(count):
        generator = np.random.PCG64(7)
        drawn = (np.argsort(generator.random_raw(9))[:4] for _ in range(count))
        return (1 + sum(abs(ranks[chosen].sum() - 20) >= observed for chosen in drawn)) / (1 + count)

    assert permutation_p_value(scores, member, seed=7) == expected(10_000)
    assert permutation_p_value(scores, member) == permutation_p_value(scores, member, seed=0)
    monkeypatch.setattr("stanch.audit.rates._PERMUTATION_WORK", 9 * 1000 + 8)
    assert permutation_p_value(scores, member, seed=7) == expected(1000)
    monkeypatch.setattr("stanch.audit.rates._PERMUTATION_WORK", 9 * 198)
    assert permutation_p_value(scores, member, seed=7) == expected(199)


def test_rates_outside_the_unit_interval_are_refused():
    data = joined(np.arange(40), np.arange(40))
    for confidence in (0.0, 1.0):
        with pytest.raises(InvalidInput):
            tpr_at_fpr(*data, 0.5, confidence=confidence)
    for rate in (0.0, 1.0, -0.1):
        with pytest.raises(InvalidInput):
            tpr_at_fpr(*data, rate)


@pytest.mark.parametrize("block", [1, 19, 20, 7 * 20 + 1])
def test_the_permutations_are_the_same_however_many_are_drawn_at_once(monkeypatch, block):
    scores, member = np.arange(20) % 7, np.arange(20) % 3 == 0
    whole = permutation_p_value(scores, member, seed=5)
    monkeypatch.setattr("stanch.audit.rates._BLOCK", block)
    assert permutation_p_value(scores, member, seed=5) == whole
