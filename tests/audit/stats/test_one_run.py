import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.audit.one_run import dp_claim_p_value, least_claim_p_value, one_run_p_value
from stanch.audit.rates import clopper_pearson
from stanch.errors import InvalidInput
from stanch.terms import NeighboringRelation, PrivacyBudget


def claim(epsilon, delta=0.0, relation=NeighboringRelation.ADD_OR_REMOVE_ONE):
    return PrivacyBudget(epsilon, delta, "record", relation)


def test_golden_p_values(golden):
    for case in golden["one_run"]:
        found = one_run_p_value(case["m"], case["r"], case["v"], case["epsilon"], case["delta"])
        assert found == pytest.approx(case["p"], rel=2e-6)


def test_golden_epsilons_by_inversion(golden):
    for case in golden["one_run_inverted"]:
        low, high = 0.0, 20.0
        for _ in range(60):
            middle = (low + high) / 2
            is_rejected = one_run_p_value(1000, case["r"], case["v"], middle, 0.0) <= 0.05
            low, high = (middle, high) if is_rejected else (low, middle)
        assert low == pytest.approx(case["epsilon"], abs=case["digits"])


def test_formula_against_a_direct_sum():
    m, r, v, epsilon, delta = 300, 20, 17, 0.7, 1e-4
    q = math.exp(epsilon) / (1 + math.exp(epsilon))

    def tail(w):
        return sum(math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(max(w, 0), r + 1))

    expected = tail(v) + 2 * m * delta * max((tail(v - i) - tail(v)) / i for i in range(1, v + 1))
    assert one_run_p_value(m, r, v, epsilon, delta) == pytest.approx(expected, rel=1e-10)


@given(st.integers(1, 60), st.data(), st.floats(0, 5), st.floats(0, 0.01))
def test_p_value_is_monotone(r, data, epsilon, delta):
    v = data.draw(st.integers(0, r))
    p = one_run_p_value(100, r, v, epsilon, delta)
    assert 0 <= p <= 1
    assert one_run_p_value(100, r, v, epsilon + 0.5, delta) >= p - 1e-12
    assert one_run_p_value(100, r, v, epsilon, min(1.0, 2 * delta)) >= p - 1e-12
    if v < r:
        assert one_run_p_value(100, r, v + 1, epsilon, delta) <= p + 1e-12


@pytest.mark.parametrize(
    "arguments",
    [
        (10, 11, 3, 0, 0), (10, 5, 6, 0, 0), (10, 5, -1, 0, 0), (10, 5, 3, -0.001, 0), (10, 5, 3, 0, 1.001),
        (10, 5, 3, 0, -0.001), (10, 5, 3, math.inf, 0), (10, 5, 3, math.nan, 0), (10, 5, 3, 0, math.nan),
    ],
)  # fmt: skip
def test_unusable_counts_and_budgets_are_refused(arguments):
    with pytest.raises(InvalidInput):
        one_run_p_value(*arguments)


def test_counts_and_budgets_at_their_ends():
    assert one_run_p_value(10, 10, 10, 0, 0) == pytest.approx(2**-10)
    assert one_run_p_value(10, 5, 0, 0, 0) == 1
    assert one_run_p_value(10, 5, 0, 0, 1) == 1
    assert one_run_p_value(10, 5, 5, 0, 1) == 1
    assert one_run_p_value(0, 0, 0, 0, 0) == 1


def right_guesses(scores, coins, order):
    """Say by hand which guesses are right, for scores without ties."""
    ranked = sorted(zip(scores, coins, strict=True), reverse=True)
    if order.startswith("reversed_"):
        return right_guesses([-score for score in scores], coins, order.removeprefix("reversed_"))
    if order == "in":
        return [coin for _, coin in ranked]
    middle = np.median(scores)
    return [(score > middle) == coin for score, coin in sorted(ranked, key=lambda pair: -abs(pair[0] - middle))]


@pytest.mark.parametrize("m", [32, 100, 511])
def test_a_claim_is_tested_in_four_orders_at_four_counts_and_the_reversed_share_a_part(m):
    rng = np.random.default_rng(m)
    coins = rng.random(m) < 0.5
    scores = np.stack([rng.normal(size=m) + shift * coins for shift in (0.3, 0.6)])
    counts = [math.ceil(m / 16), math.ceil(m / 8), math.ceil(m / 4), math.ceil(m / 2)]
    parts = {"in": 24, "two_sided": 24, "reversed_in": 48, "reversed_two_sided": 48}
    for direction in (1, -1):
        adjusted = [
            parts[order] * one_run_p_value(m, r, sum(right_guesses(direction * row, coins, order)[:r]), 0.3, 1e-4)
            for row, order, r in itertools.product(scores, parts, counts)
        ]
        assert dp_claim_p_value(direction * scores, coins, claim(0.3, 1e-4)) == pytest.approx(min(1, *adjusted))


@pytest.mark.parametrize(("m", "right"), [(128, 8), (128, 16), (128, 32), (128, 64), (288, 18)])
def test_each_count_of_guesses_decides_where_all_are_right_so_far_and_no_more(m, right):
    """Of the coins those of the ``right`` highest scores say in, of the others every other one."""
    coins = np.array([True] * right + [False, True] * ((m - right) // 2))
    found = dp_claim_p_value(-np.arange(float(m)), coins, claim(0.1))
    assert found == pytest.approx(12 * one_run_p_value(m, right, right, 0.1, 0))


def test_equal_scores_are_looked_at_in_the_order_of_the_seed():
    coins = np.arange(64) < 32
    found = {dp_claim_p_value(np.zeros(64), coins, claim(0.1), tie_seed=seed) for seed in range(20)}
    assert len(found) > 1
    assert dp_claim_p_value(np.zeros(64), coins, claim(0.1)) == dp_claim_p_value(
        np.zeros(64), coins, claim(0.1), tie_seed=0
    )


def test_the_least_p_value_is_that_of_guesses_all_right():
    all_right = min(one_run_p_value(100, math.ceil(100 / f), math.ceil(100 / f), 0.5, 1e-5) for f in (16, 8, 4, 2))
    assert least_claim_p_value(100, 3, claim(0.5, 1e-5)) == pytest.approx(36 * all_right)
    assert least_claim_p_value(32, 3, claim(5.0)) == 1


def leaky(rng, m, epsilon, delta):
    """An (epsilon, delta)-DP answer per coin: with probability delta the coin itself, else randomised response."""
    coins = rng.random(m) < 0.5
    answers = coins ^ (rng.random(m) >= 1 / (1 + math.exp(-epsilon)))
    shown = rng.random(m) < delta
    scores = np.where(shown, np.where(coins, 2.0, -1.0), answers.astype(float))
    return scores, coins


def test_true_claim_with_delta_is_rejected_at_5_percent():
    """Fails only if the 99.9 % lower bound of the rate exceeds 5 %, at the mechanism that reaches (1, 0.001)."""
    rng = np.random.default_rng(11)
    runs = 400
    rejected = sum(
        dp_claim_p_value(*leaky(rng, 500, 1.0, 1e-3), claim(1.0, 1e-3), tie_seed=run) <= 0.05 for run in range(runs)
    )
    assert clopper_pearson(rejected, runs, confidence=0.999, side="lower").lower <= 0.05


def test_false_claim_is_rejected():
    rng = np.random.default_rng(12)
    scores, coins = leaky(rng, 512, 4.0, 0.0)
    assert dp_claim_p_value(scores, coins, claim(0.5, 1e-5)) <= 0.01
    assert dp_claim_p_value(-scores, coins, claim(0.5, 1e-5)) <= 0.01
    assert dp_claim_p_value(scores, coins, claim(8.0, 1e-5)) > 0.01


@pytest.mark.parametrize(
    ("m", "epsilon", "delta", "can_be_falsified"),
    [(128, 1, 1e-6, True), (128, 1, 3e-4, False), (128, 8, 1e-6, False), (4096, 1, 1e-7, True), (32, 1, 0, False)],
)
def test_no_scores_go_below_the_least_p_value(m, epsilon, delta, can_be_falsified):
    coins = np.random.default_rng(3).random(m) < 0.5
    perfect = np.stack([coins + 0.1 * np.linspace(0, 1, m)] * 2)
    least = least_claim_p_value(m, 2, claim(epsilon, delta))
    assert dp_claim_p_value(perfect, coins, claim(epsilon, delta)) >= least
    assert (least <= 0.01) == can_be_falsified


def test_three_scores_pay_three_times():
    rng = np.random.default_rng(13)
    scores, coins = leaky(rng, 200, 1.5, 0.0)
    alone = dp_claim_p_value(scores, coins, claim(0.2))
    assert 0 < alone < 1 / 3
    assert dp_claim_p_value(np.stack([scores] * 3), coins, claim(0.2)) == pytest.approx(3 * alone)


@pytest.mark.parametrize("relation", [NeighboringRelation.REPLACE_ONE, NeighboringRelation.REPLACE_SPECIAL])
def test_other_relations_are_not_compared(relation):
    with pytest.raises(InvalidInput, match="add or remove"):
        dp_claim_p_value(np.arange(64.0), np.arange(64) % 2 == 0, claim(1.0, 0.0, relation))


def test_too_few_coins_are_refused():
    with pytest.raises(InvalidInput, match="at least 32"):
        dp_claim_p_value(np.arange(31.0), np.arange(31) % 2 == 0, claim(1.0))
