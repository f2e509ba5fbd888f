"""Seeded simulations of the intervals of rates: how often they hold the true rate, or claim too much."""

import math

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from stanch.audit.rates import auc, clopper_pearson, tnr_at_fnr, tpr_at_fpr


def joined(inside, outside):
    member = np.arange(len(inside) + len(outside)) < len(inside)
    return np.concatenate([inside, outside]).astype(float), member


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
