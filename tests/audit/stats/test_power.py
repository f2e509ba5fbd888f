import math
import time

import numpy as np
import pytest
from scipy.special import ndtri

from stanch.audit import power
from stanch.audit.params import DIRECT_ORDERS, ORDERS, AuditParams
from stanch.audit.power import critical_value, scan_power
from stanch.audit.rates import clopper_pearson
from stanch.audit.scan_test import ScanLaw, guess_correctness, guess_grid, scan_epsilon
from stanch.errors import InvalidInput

# The note's prototype with 600 runs; two such rates differ by more than 0.08 with probability below 1 %.
# Its three tests are the direct orders of one score, its nine those of three.
PROTOTYPE = [
    (100, 0.60, 3, 0.38),
    (100, 0.60, 9, 0.21),
    (200, 0.60, 3, 0.66),
    (200, 0.60, 9, 0.46),
    (512, 0.60, 3, 0.94),
    (512, 0.60, 9, 0.87),
    (1024, 0.60, 9, 0.998),
    (512, 0.55, 3, 0.40),
    (512, 0.55, 9, 0.25),
    (100, 0.70, 3, 0.92),
    (100, 0.70, 9, 0.83),
    (200, 0.70, 3, 0.998),
    (200, 0.70, 9, 0.99),
]


@pytest.mark.parametrize(("m", "auc", "splits", "expected"), PROTOTYPE)
def test_power_agrees_with_the_prototype(m, auc, splits, expected):
    found = scan_power(m, auc, splits=splits, orders=DIRECT_ORDERS, sims=1000)
    assert found.estimate == pytest.approx(expected, abs=0.08)


def test_the_default_coins_have_the_power_that_the_gate_asks_for():
    assert scan_power(512, 0.60, splits=AuditParams().splits).lower >= 0.80


def test_reversed_orders_cost_a_part_and_see_nothing_of_such_an_attack():
    assert scan_power(64, 0.8, splits=4, sims=200) == scan_power(64, 0.8, splits=4, orders=DIRECT_ORDERS, sims=200)
    with pytest.raises(InvalidInput):
        scan_power(64, 0.8, splits=3)


def test_power_is_seeded_and_grows():
    assert scan_power(64, 0.7, sims=200) == scan_power(64, 0.7, sims=200, seed=0)
    weak, strong = scan_power(64, 0.6, sims=200), scan_power(64, 0.9, sims=200)
    assert weak.lower <= weak.estimate <= weak.upper
    assert weak.upper < strong.lower


def test_critical_value_is_the_last_level_that_passes():
    law = ScanLaw.of(tuple(guess_grid(100).tolist()))
    critical = critical_value(law, 0.05 / 9)
    assert law.crossing_probability(critical, 0.0) <= 0.05 / 9
    assert law.crossing_probability(critical * (1 + 1e-9), 0.0) > 0.05 / 9


@pytest.mark.parametrize("orders", [("in",), ("reversed_in", "two_sided", "out")])
def test_power_by_hand(orders):
    """The seeded audits are drawn once more, and each is judged by its p-value instead of a critical value."""
    generator, law, seen = np.random.PCG64(3), ScanLaw(tuple(guess_grid(40).tolist())), 0
    for _ in range(60):
        coins = np.array([bool(word >> 63) for word in generator.random_raw(40).tolist()])
        uniform = np.array([((word >> 12) + 0.5) / 2**52 for word in generator.random_raw(40).tolist()])
        scores = ndtri(uniform) + coins * math.sqrt(2) * ndtri(0.8)
        right = [np.cumsum(guess_correctness(scores, coins, order))[guess_grid(40) - 1]
                 for order in orders if order in DIRECT_ORDERS]  # fmt: skip
        best = min(law.statistic(row, 0.0) for row in right)
        seen += law.crossing_probability(best, 0.0) <= 0.2 / 5
    assert 0 < seen < 60
    assert scan_power(40, 0.8, alpha=0.2, splits=5, orders=orders, sims=60, seed=3) == clopper_pearson(seen, 60)


class Ends:
    """Draws the smallest and the largest word that there is."""

    @staticmethod
    def random_raw(size):
        return np.array([0, 2**64 - 1], dtype=np.uint64)[:size]


def test_a_uniform_number_is_never_0_or_1():
    assert power._uniform(Ends, 2).tolist() == [2.0**-53, 1 - 2.0**-53]


def test_what_is_simulated_by_default():
    assert scan_power(32, 0.7) == scan_power(32, 0.7, alpha=0.05, splits=12, orders=ORDERS, sims=1000, seed=0)
    assert scan_power(32, 0.7, sims=1).method == "clopper-pearson/two"


@pytest.mark.parametrize(
    ("m", "auc", "others"),
    [
        (31, 0.6, {}), (100, 0.5, {}), (100, 1.0, {}), (100, 0.6, {"sims": 0}), (100, 0.6, {"splits": 3}),
        (100, 0.6, {"splits": 0, "orders": ("in",)}),
    ],
)  # fmt: skip
def test_unusable_settings_are_refused(m, auc, others):
    with pytest.raises(InvalidInput):
        scan_power(m, auc, **others)


def test_nine_tests_of_512_coins_take_under_two_seconds():
    rng = np.random.default_rng(0)
    coins = rng.random(512) < 0.5
    scores = [rng.normal(size=512) + shift * coins for shift in (0.5, 1.0, 2.0)]
    start = time.process_time()
    for score in scores:
        scan_epsilon(score, coins, splits=9)
    assert time.process_time() - start < 2
