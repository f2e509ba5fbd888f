"""Epsilon, calibration and what an attacker can reach: golden values, and relations that must always hold."""

import json
import math
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.tune import accountant
from stanch.tune.accountant import COARSE, Mechanism
from stanch.tune.refusals import AccountantDisagrees, PlanInfeasible

GOLDEN = json.loads((Path(__file__).parents[1] / "vectors/tune/accountant.json").read_text())
RATE, STEPS, DELTA = GOLDEN["rate"], GOLDEN["steps"], GOLDEN["delta"]


@pytest.mark.parametrize(("target", "sigma", "epsilon"), GOLDEN["calibrated"])
def test_calibrated_noise_is_the_published_one(target, sigma, epsilon):
    assert accountant.calibrate(RATE, STEPS, DELTA, float(target)) == sigma
    assert accountant.spent_epsilon(Mechanism(RATE, sigma, STEPS), DELTA) == pytest.approx(epsilon, abs=1e-5)


@pytest.mark.parametrize(("sigma", "pld", "rdp"), GOLDEN["epsilon"])
def test_epsilon_is_the_published_one(sigma, pld, rdp):
    mechanism = Mechanism(RATE, sigma, STEPS)
    assert accountant.spent_epsilon(mechanism, DELTA) == pytest.approx(pld, abs=1e-5)
    assert accountant.rdp_epsilon(mechanism, DELTA) == pytest.approx(rdp, abs=1e-3)


@pytest.mark.parametrize("sigma", [1.3823, 0.8367])
def test_a_third_accountant_agrees(sigma):
    """Opacus's accountant by privacy random variables (Gopi et al. 2021), independent of dp-accounting."""
    opacus = pytest.importorskip("opacus.accountants", reason="opacus is not installed")
    prv = opacus.PRVAccountant()
    prv.history = [(sigma, RATE, STEPS)]
    # Its answer is an upper bound that may be larger than the truth by its own tolerance.
    error = 1e-3
    found = prv.get_epsilon(DELTA, eps_error=error / 2, delta_error=DELTA / 1000)
    assert accountant.spent_epsilon(Mechanism(RATE, sigma, STEPS), DELTA) == pytest.approx(found, abs=error)


@pytest.mark.parametrize(("sigma", "charged", "epsilon"), GOLDEN["charges"])
def test_epsilon_of_fewer_and_more_charges(sigma, charged, epsilon):
    assert accountant.spent_epsilon(Mechanism(RATE, sigma, charged), DELTA) == pytest.approx(epsilon, abs=1e-4)


def test_two_runs_compose():
    sigmas, epsilon = GOLDEN["composed"]
    runs = tuple(Mechanism(RATE, sigma, STEPS) for sigma in sigmas)
    assert accountant.compose_epsilon(runs, DELTA) == pytest.approx(epsilon, abs=1e-4)


@pytest.mark.parametrize(("sigma", "at_a_thousandth", "at_a_hundredth"), GOLDEN["attack_bound"])
def test_attack_bound_is_the_published_one(sigma, at_a_thousandth, at_a_hundredth):
    low, middle, high = accountant.attack_bounds((Mechanism(RATE, sigma, STEPS),))
    assert low.tpr_max == pytest.approx(at_a_thousandth, rel=5e-3)
    assert middle.tpr_max == pytest.approx(at_a_hundredth, rel=5e-3)
    assert middle.tpr_max < high.tpr_max < 1


def test_the_attack_bound_of_two_runs_is_that_of_both_and_no_less():
    one, other = (Mechanism(RATE, sigma, STEPS) for sigma in GOLDEN["composed"][0])
    alone, both = accountant.attack_bounds((one,)), accountant.attack_bounds((one, other))
    assert all(first.tpr_max < second.tpr_max for first, second in zip(alone, both, strict=True))
    assert accountant.attack_bounds((one, replace(other, steps=0))) == alone


def test_nothing_spent_means_that_no_attack_beats_guessing():
    mechanism = Mechanism(RATE, 1.0, 0)
    assert accountant.spent_epsilon(mechanism, DELTA) == 0 == accountant.rdp_epsilon(mechanism, DELTA)
    assert all(bound.tpr_max == bound.fpr for bound in accountant.attack_bounds((mechanism,)))


@pytest.mark.parametrize(
    "mechanism",
    [Mechanism(0.5, 0.7, 3), Mechanism(RATE, 0.58, STEPS), Mechanism(1.0, 5.0, 9), Mechanism(1e-4, 1.2, 80)],
)
def test_renyi_accounting_takes_the_best_of_all_orders(mechanism):
    """The last one by the bound for mechanisms from which nothing is learned, and by the least order alone."""
    import dp_accounting  # noqa: PLC0415 - slow to import

    every = dp_accounting.rdp.RdpAccountant()
    step = dp_accounting.GaussianDpEvent(mechanism.noise_multiplier)
    every.compose(dp_accounting.PoissonSampledDpEvent(mechanism.rate, step), mechanism.steps)
    for delta in (1e-3, 1e-9):
        assert accountant.rdp_epsilon(mechanism, delta) == every.get_epsilon(delta)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.001, 0.5), st.floats(0.8, 4), st.integers(1, 100))
def test_the_looser_accountant_never_states_less(rate, sigma, steps):
    mechanism = Mechanism(rate, sigma, steps)
    assert accountant.spent_epsilon(mechanism, 1e-5, COARSE) <= accountant.rdp_epsilon(mechanism, 1e-5) + 0.01


def test_a_coarse_discretisation_only_states_more():
    mechanism = Mechanism(RATE, 3.0, 10)
    fine, middle, coarse = (accountant.spent_epsilon(mechanism, DELTA, step) for step in (1e-5, 1e-4, 1e-3))
    assert fine <= middle <= coarse


def test_epsilon_grows_with_every_charge():
    spent = [accountant.spent_epsilon(Mechanism(RATE, 0.9, charged), DELTA, COARSE) for charged in range(0, 60, 6)]
    assert all(earlier < later for earlier, later in pairwise(spent))


@pytest.mark.parametrize(("delta", "epsilon"), [(1e-5, 1e6), (1e-300, 0.1)])
def test_an_unreachable_target_is_refused(delta, epsilon, monkeypatch):
    monkeypatch.setattr(accountant, "_MOST_NOISE", 4.0)  # the search up to a million takes seconds
    with pytest.raises(PlanInfeasible, match="no noise multiplier"):
        accountant.calibrate(0.5, 3, delta, epsilon)


def test_calibration_is_quick_and_done_once():
    accountant.calibrate.cache_clear()
    began = time.process_time()
    for _ in range(2):
        accountant.calibrate(0.0256, 117, 1e-5, 2.0)
    assert time.process_time() - began < 5
    assert accountant.calibrate.cache_info()[:2] == (1, 1)


@pytest.mark.parametrize("mechanism", [Mechanism(0.5, 0.01, 10), Mechanism(1.0, 0.3, 10**6), Mechanism(0.5, 1e-300, 1)])
def test_what_protects_nobody_is_refused_before_it_is_computed(mechanism):
    with pytest.raises(PlanInfeasible, match="above 100"):
        accountant.check_reach(mechanism, 1e-5)


def test_what_protects_is_in_reach():
    accountant.check_reach(Mechanism(RATE, 0.58, STEPS), DELTA)


def test_disagreeing_accountants_state_no_epsilon(monkeypatch):
    monkeypatch.setattr(accountant, "rdp_epsilon", lambda *_: 0.1)
    with pytest.raises(AccountantDisagrees):
        accountant.check_accountants(Mechanism(RATE, GOLDEN["epsilon"][0][0], STEPS), DELTA)


def test_the_attack_bound_is_a_bound_of_the_gaussian_mechanism():
    """One full-batch Gaussian step: the exact best attack is known (Dong, Roth, Su 2022, corollary 1)."""
    from scipy.stats import norm  # noqa: PLC0415 - used here alone

    sigma = 1.0
    for bound in accountant.attack_bounds((Mechanism(1.0, sigma, 1),)):
        exact = norm.cdf(norm.ppf(bound.fpr) + 1 / sigma)
        assert exact <= bound.tpr_max <= exact * 1.2
        assert math.isfinite(bound.tpr_max)
