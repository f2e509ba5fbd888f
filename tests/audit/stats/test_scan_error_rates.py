"""Seeded simulations of the scan test: no true statement is called false more often than 5 % of the time.

Each test fails only if the 99.9 % Clopper-Pearson lower bound of the rate of false claims exceeds 5 %, so a correct
procedure at exactly 5 % would fail one of the tests with probability 0.1 %.
"""

import numpy as np
import pytest

from stanch.audit.params import ORDERS, count_sharers
from stanch.audit.power import critical_value
from stanch.audit.rates import clopper_pearson
from stanch.audit.scan_test import ScanLaw, guess_correctness, guess_grid, scan_epsilon, shuffled


def is_credible(false_claims, runs):
    return clopper_pearson(false_claims, runs, confidence=0.999, side="lower").lower <= 0.05


def right_guesses(scores, coins, grid, seed=0):
    values, mixed = shuffled(scores, coins, seed)
    return np.array([np.cumsum(guess_correctness(values, mixed, order))[grid - 1] for order in ORDERS])


def critical_values(law, level):
    """The largest statistic that each order rejects at epsilon 0, where each direct order is tested at ``level``."""
    found = {sharers: critical_value(law, level / sharers) for sharers in (1, 3)}
    return np.array([found[count_sharers(order, ORDERS)] for order in ORDERS])


@pytest.mark.parametrize(("m", "runs"), [(32, 2000), (200, 2000), (512, 2000)])
def test_null_false_claims_of_eighteen_correlated_tests_at_5_percent(m, runs):
    rng = np.random.default_rng(m)
    grid = guess_grid(m)
    law = ScanLaw.of(tuple(grid.tolist()))
    critical = np.tile(critical_values(law, 0.05 / 12), 3)
    right = []
    for _ in range(runs):
        coins = rng.random(m) < 0.5
        common = rng.normal(size=m)
        right.append(np.concatenate([right_guesses(common + 0.5 * rng.normal(size=m), coins, grid) for _ in range(3)]))
    claims = int((law.statistics(np.array(right), 0.0) <= critical).any(axis=1).sum())
    assert is_credible(claims, runs)
    assert claims > 0  # the simulation can see a claim at all


def test_a_claim_in_the_simulation_is_a_positive_bound():
    """The simulations use the critical value; that is the same event as a positive lower bound."""
    rng = np.random.default_rng(8)
    grid = guess_grid(100)
    law = ScanLaw.of(tuple(grid.tolist()))
    critical = critical_values(law, 0.05 / 12)
    seen = set()
    for shift in np.linspace(-1.2, 1.2, 60):
        coins = rng.random(100) < 0.5
        scores = rng.normal(size=100) + shift * coins
        claimed = bool((law.statistics(right_guesses(scores, coins, grid), 0.0) <= critical).any())
        assert (scan_epsilon(scores, coins, splits=12).p_null <= 0.05) == claimed
        seen.add((claimed, shift > 0))
    assert len(seen) == 4


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_null_false_claims_with_ties_and_members_first_at_5_percent(levels):
    rng = np.random.default_rng(levels)
    m, runs = 128, 1500
    grid = guess_grid(m)
    law = ScanLaw.of(tuple(grid.tolist()))
    critical = critical_values(law, 0.05 / 4)
    right = []
    for run in range(runs):
        coins = np.sort(rng.random(m) < 0.5)[::-1]
        scores = rng.integers(0, levels, size=m).astype(float)
        right.append(right_guesses(scores, coins, grid, run))
    claims = int((law.statistics(np.array(right), 0.0) <= critical).any(axis=1).sum())
    assert is_credible(claims, runs)


@pytest.mark.parametrize(("epsilon", "direction"), [(1.0, 1), (3.0, 1), (1.0, -1)])
def test_randomised_response_bound_exceeds_the_true_epsilon_at_5_percent(epsilon, direction):
    """The worst mechanism for the bound: each coin is answered right with probability e^eps / (1 + e^eps)."""
    rng = np.random.default_rng(int(epsilon))
    m, runs = 500, 2000
    grid = guess_grid(m)
    law = ScanLaw.of(tuple(grid.tolist()))
    right = []
    for run in range(runs):
        coins = rng.random(m) < 0.5
        answers = coins ^ (rng.random(m) >= 1 / (1 + np.exp(-epsilon)))
        right.append(right_guesses(direction * answers, coins, grid, run))
    # Of the direct orders, and of the reversed ones.
    best = law.statistics(np.array(right), epsilon).reshape(runs, 2, 3).min(axis=2)
    found, places = np.unique(best, return_inverse=True)
    p_values = np.array([law.crossing_probability(float(one), epsilon) for one in found])[places.reshape(best.shape)]
    # A bound above epsilon needs this at the grid point epsilon.
    claims = int((p_values <= (0.05 / 4, 0.05 / 12)).any(axis=1).sum())
    assert is_credible(claims, runs)
    assert claims > 0
