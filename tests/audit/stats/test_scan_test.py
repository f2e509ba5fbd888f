import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.audit.params import DIRECT_ORDERS, ORDERS, REVERSED_ORDERS
from stanch.audit.scan_test import (
    ScanLaw,
    epsilon_ceiling,
    guess_correctness,
    guess_grid,
    invert,
    scan_epsilon,
    shuffled,
)
from stanch.errors import InvalidInput


def lower_bound(right, m, level):
    law = ScanLaw.of(tuple(guess_grid(m).tolist()))
    return invert(lambda eps: law.statistic(right, eps), law.crossing_probability, law.size, level)


def test_golden_bounds_and_p_values(golden, dataset):
    for case in golden["scan"]:
        scores, coins = dataset(case["data"], case["m"])
        if case["data"] == "perfect":
            found = lower_bound(guess_grid(case["m"]), case["m"], 0.05 / case["splits"])
        else:
            result = scan_epsilon(scores, coins, orders=(case["order"],), splits=case["splits"])
            found = result.lower
            if "p_null" in case:
                assert result.p_null == pytest.approx(case["p_null"], rel=1e-4)
        assert found == pytest.approx(case["lower"], abs=1e-12), case


@pytest.mark.parametrize("data", ["d1", "d2"])
def test_a_leak_in_the_other_direction_has_the_same_bound(dataset, data):
    """What unlearning leaves: members score lower than all others."""
    scores, coins = dataset(data, 512)
    direct = scan_epsilon(scores, coins, orders=DIRECT_ORDERS, splits=12)
    reversed_ = scan_epsilon(-scores, coins, orders=REVERSED_ORDERS, splits=4)  # three orders share a part: 12 in all
    for order, other in zip(direct.per_order, reversed_.per_order, strict=True):
        assert other == replace(order, order=f"reversed_{order.order}")
    assert scan_epsilon(-scores, coins, orders=DIRECT_ORDERS).lower == 0
    found = scan_epsilon(-scores, coins)
    assert found.lower > 1
    assert found.p_null < 1e-15


def test_golden_statistic_and_crossing_probability(golden, dataset):
    case = golden["scan_curve"]
    scores, coins = dataset(case["data"], case["m"])
    grid = guess_grid(case["m"]).tolist()
    result = scan_epsilon(scores, coins, orders=(case["order"],), splits=1)
    right = np.array(result.per_order[0].right_guesses)
    assert (right[grid.index(8)], right[grid.index(32)]) == (case["W_8"], case["W_32"])
    law = ScanLaw.of(tuple(grid))
    statistic = law.statistic(right, case["epsilon"])
    assert statistic == pytest.approx(case["T"], rel=1e-6)
    assert law.crossing_probability(statistic, case["epsilon"]) == pytest.approx(case["p"], rel=1e-6)


def test_golden_grid(golden):
    assert guess_grid(512).tolist() == golden["grid"]["512"]
    assert guess_grid(100).size == golden["grid"]["points_at_100"]


def test_golden_crossing_by_hand(golden):
    case = golden["crossing"]
    assert ScanLaw(tuple(case["grid"])).crossing_probability(case["level"], 0.0) == pytest.approx(case["p"], rel=1e-14)


def test_golden_ceilings(golden):
    for case in golden["ceiling"]:
        for parts, value in zip((1, 3, 9), case["values"], strict=True):
            assert epsilon_ceiling(case["m"], 0.05 / parts) == pytest.approx(value, abs=5e-4)


def binomial_tail(r, w, q):
    return sum(math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(w, r + 1))


@pytest.mark.parametrize("q", [Fraction(1, 2), Fraction(3, 5), Fraction(9, 10)])
@pytest.mark.parametrize("grid", [(3,), (2, 4), (1, 2, 3, 5, 8), (2, 3, 6, 12), (4, 7, 9, 11)])
def test_crossing_probability_equals_enumeration_of_all_outcomes(grid, q):
    """Exact rationals over all 2^m outcomes of up to 12 guesses, at every level that the statistic can take."""
    m = grid[-1]
    law_of_statistic = {}
    tails = {r: [binomial_tail(r, w, q) for w in range(r + 1)] for r in grid}
    for outcome in itertools.product((0, 1), repeat=m):
        right = list(itertools.accumulate(outcome))
        statistic = min(tails[r][right[r - 1]] for r in grid)
        hits = right[-1]
        law_of_statistic[statistic] = law_of_statistic.get(statistic, 0) + q**hits * (1 - q) ** (m - hits)
    epsilon = math.log(q / (1 - q))
    law = ScanLaw(grid)
    total = Fraction(0)
    for statistic in sorted(law_of_statistic):
        total += law_of_statistic[statistic]
        assert law.crossing_probability(float(statistic), epsilon) == pytest.approx(float(total), rel=1e-11)
    assert total == 1


def test_statistic_equals_exact_binomial_tails():
    grid = guess_grid(64)
    law = ScanLaw.of(tuple(grid.tolist()))
    right = (grid * 3) // 4
    exact = min(binomial_tail(r, w, Fraction(1, 2)) for r, w in zip(grid.tolist(), right.tolist(), strict=True))
    assert law.statistic(right, 0.0) == pytest.approx(float(exact), rel=1e-12)


def test_far_tail_uses_the_union_bound():
    law = ScanLaw.of(tuple(guess_grid(2000).tolist()))
    right = guess_grid(2000)
    assert law.statistic(right, 0.0) < 1e-290
    assert law.crossing_probability(law.statistic(right, 0.0), 0.0) / 1e-290 == pytest.approx(law.size)


def test_inversion_stops_at_the_first_grid_point_that_is_not_rejected():
    """p may fall again after it passed the level: everything behind the first failure is ignored."""

    def crossing(_statistic, epsilon):
        return 0.04 if epsilon < 0.495 or epsilon > 0.505 else 0.06

    assert invert(lambda _epsilon: 0.04, crossing, 40, 0.05) == pytest.approx(0.49)


def test_inversion_gives_zero_when_epsilon_zero_is_not_rejected():
    assert invert(lambda _epsilon: 0.5, lambda _t, _epsilon: 0.9, 40, 0.05) == 0


@given(st.integers(0, 2**64 - 1), st.sampled_from([32, 47, 100]), st.sampled_from([0.0, 1.0, 3.0]))
@settings(max_examples=25, deadline=None)
def test_bound_is_below_its_ceiling_and_agrees_with_the_p_value(seed, m, shift):
    rng = np.random.default_rng(seed)
    coins = rng.random(m) < 0.5
    coins[:2] = True, False
    result = scan_epsilon(rng.normal(size=m) + shift * coins, coins)
    assert 0 <= result.lower <= result.ceiling
    if result.lower > 0:
        assert result.p_null <= 0.05
    if result.p_null > 0.05:
        assert result.lower == 0


@given(st.integers(0, 2**32), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_rising_maps_change_no_one_sided_order(seed, scale):
    rng = np.random.default_rng(seed)
    coins = rng.random(60) < 0.5
    scores = rng.integers(-10, 10, size=60).astype(float)
    for order in ("in", "out"):
        mapped = guess_correctness(np.exp(scores / 7) + scale, coins, order)
        assert np.array_equal(mapped, guess_correctness(scores, coins, order))


@given(st.permutations(range(40)))
@settings(max_examples=8, deadline=None)
def test_row_order_changes_nothing_without_ties(order):
    rng = np.random.default_rng(5)
    coins = rng.random(40) < 0.5
    scores = rng.normal(size=40) + 2 * coins
    whole = scan_epsilon(scores, coins)
    assert scan_epsilon(scores[list(order)], coins[list(order)]) == whole


def test_guess_directions():
    scores = np.array([3.0, 1.0, 0.0, -4.0])
    coins = np.array([True, False, True, False])
    assert guess_correctness(scores, coins, "in").tolist() == [True, False, True, False]
    assert guess_correctness(scores, coins, "out").tolist() == [True, False, True, False]
    # median 0.5: distances 2.5, 0.5, 0.5, 4.5; guesses OUT IN IN OUT from the farthest
    assert guess_correctness(scores, coins, "two_sided").tolist() == [True, True, False, False]
    assert guess_correctness(scores, coins, "reversed_in").tolist() == [False, True, False, True]
    assert guess_correctness(scores, coins, "reversed_out").tolist() == [False, True, False, True]
    assert guess_correctness(scores, coins, "reversed_two_sided").tolist() == [False, False, True, True]


def test_a_score_at_the_median_is_guessed_out_and_last():
    scores, coins = np.array([1.0, 2.0, 3.0]), np.array([False, False, True])
    assert guess_correctness(scores, coins, "two_sided").tolist() == [True, True, True]
    assert guess_correctness(scores, ~coins, "two_sided").tolist() == [False, False, False]


def test_inversion_looks_at_every_epsilon_from_zero_on():
    asked = []

    def crossing(_statistic, epsilon):
        asked.append(epsilon)
        return 0.06 if epsilon == 0 else 0.04

    assert invert(lambda _epsilon: 0.04, crossing, 40, 0.05) == 0
    assert asked == [0]


def test_a_chance_is_never_above_one():
    assert ScanLaw.of(tuple(guess_grid(64).tolist())).crossing_probability(1.0, 0.0) == 1


def test_inversion_ends_at_epsilon_twenty():
    assert invert(lambda _epsilon: 0.0, lambda _t, _epsilon: 0.0, 40, 0.05) == 20
    assert invert(lambda _epsilon: 0.05, lambda _t, _epsilon: 0.05, 40, 0.05) == 20


def test_a_result_is_that_of_its_best_order_and_pays_for_every_test():
    rng = np.random.default_rng(9)
    coins = rng.random(64) < 0.5
    scores = rng.normal(size=64) + 1.5 * coins
    found = scan_epsilon(scores, coins, splits=9)
    assert [order.order for order in found.per_order] == list(ORDERS)
    assert found.lower == max(order.lower for order in found.per_order)
    assert found.p_null == min((9, 9, 9, 27, 27, 27)[i] * order.p_null for i, order in enumerate(found.per_order))
    assert (found.m, found.ceiling) == (64, epsilon_ceiling(64, 0.05 / 9))
    assert scan_epsilon(scores, coins, alpha=0.2, splits=9).ceiling == epsilon_ceiling(64, 0.2 / 9)
    noise = scan_epsilon(rng.normal(size=64), coins, splits=900)
    assert (noise.lower, noise.p_null) == (0, 1)


def test_equal_scores_are_looked_at_in_the_order_of_the_seed():
    coins = np.arange(64) < 32
    found = {scan_epsilon(np.zeros(64), coins, tie_seed=seed).per_order[0].right_guesses for seed in range(5)}
    assert len(found) == 5
    assert scan_epsilon(np.zeros(64), coins) == scan_epsilon(np.zeros(64), coins, tie_seed=0)


def test_ties_are_broken_by_the_seed_and_not_by_the_file():
    coins = np.arange(200) < 100  # members first
    values, mixed = shuffled(np.zeros(200), coins, 0)
    assert 30 < mixed[:100].sum() < 70
    assert np.array_equal(shuffled(np.zeros(200), coins, 0)[1], mixed)
    assert not np.array_equal(shuffled(np.zeros(200), coins, 1)[1], mixed)
    assert scan_epsilon(values, coins).lower == 0


def test_raw_bits_of_the_tie_breaker_are_pinned():
    assert np.random.PCG64(0).random_raw(2).tolist() == [11749869230777074271, 4976686463289251617]


@pytest.mark.parametrize(
    ("scores", "coins", "options"),
    [
        (np.zeros(31), np.arange(31) < 10, {}),
        (np.zeros(50_001), np.arange(50_001) < 10, {}),
        (np.full(40, np.nan), np.arange(40) < 10, {}),
        (np.full(40, np.inf), np.arange(40) < 10, {}),
        (np.zeros(40), np.ones(40, dtype=bool), {}),
        (np.zeros(40), np.zeros(40, dtype=bool), {}),
        (np.zeros(40), np.arange(39) < 10, {}),
        (np.zeros(40), np.arange(40), {}),
        (np.zeros(40), np.arange(40) < 10, {"splits": 3}),
        (np.zeros((40, 1)), np.arange(40)[:, None] < 10, {}),
        (np.zeros(40), np.arange(40) < 10, {"alpha": 0.0}),
        (np.zeros(40), np.arange(40) < 10, {"alpha": 1.0}),
        (np.zeros(40), np.arange(40) < 10, {"orders": ()}),
    ],
)
def test_unusable_input_is_refused(scores, coins, options):
    with pytest.raises(InvalidInput):
        scan_epsilon(scores, coins, **options)


def test_as_many_coins_as_are_allowed_are_looked_at(monkeypatch):
    monkeypatch.setattr("stanch.audit.scan_test.MAX_COINS", 40)
    assert scan_epsilon(np.zeros(40), np.arange(40) < 10).m == 40
    with pytest.raises(InvalidInput, match="expected 32 to 40 coins, found 41"):
        scan_epsilon(np.zeros(41), np.arange(41) < 10)


def test_default_split_covers_all_orders():
    rng = np.random.default_rng(3)
    coins = rng.random(100) < 0.5
    scores = rng.normal(size=100) + coins
    assert scan_epsilon(scores, coins) == scan_epsilon(scores, coins, splits=4)
