"""Epsilon of a run, the noise for a target epsilon, and what the guarantee means for an attacker.

The mechanism is ``steps`` Gaussian sums over Poisson samples. Privacy loss distributions (Koskela et al. 2020,
arXiv 1906.03049; Doroshenko et al. 2022, arXiv 2207.04380) with pessimistic discretisation never state too small an
epsilon; Rényi accounting (Mironov et al. 2019, arXiv 1908.10530) is the independent, looser check.
"""

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from types import ModuleType
from typing import Any

import scipy

from stanch.errors import MissingExtraError
from stanch.tune.refusals import AccountantDisagrees, PlanInfeasible

ACCOUNTANT = "pld/dp-accounting"
DISCRETIZATION = 1e-4
COARSE = 1e-3
"""Discretisation for the search and for progress lines: also an upper bound, only looser."""

_SEARCH_TOLERANCE = 1e-3

_FARTHEST = 100.0
"""A larger epsilon by Rényi accounting says nothing, and takes much memory to compute more tightly."""
_LEAST_NOISE, _MOST_NOISE = 0.01, 1e6

ATTACK_FPRS = (0.001, 0.01, 0.1)


@dataclass(frozen=True, slots=True)
class Mechanism:
    """What is composed: ``steps`` times a Gaussian of ``noise_multiplier`` over a Poisson sample of rate ``rate``."""

    rate: float
    noise_multiplier: float
    steps: int


@dataclass(frozen=True, slots=True)
class AttackBound:
    """No attack with false-positive rate ``fpr`` recognises more than the share ``tpr_max`` of the units."""

    fpr: float
    tpr_max: float


def accountant_version() -> str:
    """Return the version of dp-accounting that computes epsilon here."""
    _dp()
    return version("dp-accounting")


def spent_epsilon(mechanism: Mechanism, delta: float, discretization: float = DISCRETIZATION) -> float:
    """Return an upper bound of epsilon at ``delta`` by privacy loss distributions; 0 before the first step."""
    return compose_epsilon((mechanism,), delta, discretization)


@lru_cache(maxsize=256)
def compose_epsilon(mechanisms: tuple[Mechanism, ...], delta: float, discretization: float = DISCRETIZATION) -> float:
    """Return an upper bound of epsilon of several runs on the same units, composed."""
    if not any(mechanism.steps for mechanism in mechanisms):
        return 0.0
    return float(_pld(mechanisms, discretization).get_epsilon_for_delta(delta))


@lru_cache(maxsize=256)
def rdp_epsilon(mechanism: Mechanism, delta: float) -> float:
    """Return epsilon at ``delta`` by Rényi accounting (looser than :func:`spent_epsilon`).

    The best of dp-accounting's orders. Whole ones are cheap: those between are tried around the best of them alone. Any
    order gives an upper bound, and the least of all, which is enough where nothing was learned, is always tried.
    """
    if mechanism.steps == 0:
        return 0.0
    orders: list[float] = _dp().rdp.rdp_privacy_accountant.DEFAULT_RDP_ORDERS
    found, best = _rdp_of_orders(mechanism, delta, [order for order in orders if order in {orders[0], int(order)}])
    nearer, _ = _rdp_of_orders(mechanism, delta, [order for order in orders if 0 < abs(order - best) < 1])
    return min(found, nearer)


def _rdp_of_orders(mechanism: Mechanism, delta: float, orders: list[float]) -> tuple[float, float]:
    """Return epsilon by the best of ``orders``, and that order; infinity without any."""
    if not orders:
        return math.inf, math.inf
    dp = _dp()
    sample = dp.PoissonSampledDpEvent(mechanism.rate, dp.GaussianDpEvent(mechanism.noise_multiplier))
    with _quiet():
        accountant = dp.rdp.RdpAccountant(orders, dp.NeighboringRelation.ADD_OR_REMOVE_ONE)
        accountant.compose(sample, mechanism.steps)
        epsilon, order = accountant.get_epsilon_and_optimal_order(delta)
    return float(epsilon), float(order)


@lru_cache(maxsize=64)
def calibrate(rate: float, steps: int, delta: float, epsilon: float) -> float:
    """Return a noise multiplier, rounded up to 4 decimals, whose epsilon is at most the target and little below it.

    The cheap Rényi search brackets the search by privacy loss distributions, which would be slow on a wide bracket.

    Raises:
        PlanInfeasible: No noise multiplier in reach meets the target.
        AccountantDisagrees: Rényi accounting gives a smaller epsilon than privacy loss distributions.
    """
    loose = Mechanism(rate, _rdp_noise(rate, steps, delta, epsilon), steps)

    def spent(sigma: float) -> float:
        return spent_epsilon(replace(loose, noise_multiplier=sigma), delta, COARSE)

    upper = loose.noise_multiplier
    while spent(upper) > epsilon:
        upper *= 1.05
    lower = 0.85 * upper
    while spent(lower) <= epsilon:
        lower, upper = 0.85 * lower, lower
    sigma = _solve(spent, lower, upper, epsilon)
    sigma = math.ceil(sigma * 10_000) / 10_000
    while spent_epsilon(Mechanism(rate, sigma, steps), delta) > epsilon:
        sigma = round(sigma + 1e-4, 4)
    check_accountants(Mechanism(rate, sigma, steps), delta)
    return float(sigma)


def _rdp_noise(rate: float, steps: int, delta: float, epsilon: float) -> float:
    """Return the noise multiplier that Rényi accounting asks for: an upper end for the tight search."""

    def spent(sigma: float) -> float:
        return rdp_epsilon(Mechanism(rate, sigma, steps), delta)

    lower, upper = (0.3, 1.0) if spent(0.3) > epsilon else (0.05, 0.3)
    gap = upper - lower
    while upper < _MOST_NOISE and spent(upper) > epsilon:
        gap *= 2
        lower, upper = upper, upper + gap
    if upper >= _MOST_NOISE or spent(lower) <= epsilon:
        raise PlanInfeasible(
            f"no noise multiplier gives epsilon {epsilon:g} at delta {delta:g} in {steps} steps of rate {rate:.4g}",
            next_step="choose another epsilon or delta, or fewer epochs",
        )
    return _solve(spent, lower, upper, epsilon)


def _solve(spent: Callable[[float], float], lower: float, upper: float, epsilon: float) -> float:
    """Return the noise multiplier between two that spends ``epsilon``, or a little less.

    What ``spent`` remembers is not computed again: one evaluation takes a tenth of a second and more.
    """
    sigma = float(scipy.optimize.brentq(lambda sigma: spent(sigma) - epsilon, lower, upper, xtol=_SEARCH_TOLERANCE))
    return sigma if spent(sigma) <= epsilon else sigma + _SEARCH_TOLERANCE


def check_accountants(mechanism: Mechanism, delta: float) -> None:
    """Raise :class:`AccountantDisagrees` where the looser accountant states the smaller epsilon."""
    tight, loose = spent_epsilon(mechanism, delta), rdp_epsilon(mechanism, delta)
    if loose < tight:
        raise AccountantDisagrees(
            f"epsilon {tight:.6g} by privacy loss distributions, but {loose:.6g} by Rényi accounting",
            why="the looser accountant must never state the smaller epsilon",
            next_step="reinstall dp-accounting; if it stays, report it with these numbers",
        )


def check_reach(mechanism: Mechanism, delta: float) -> None:
    """Refuse what somebody else's files ask to compute where that would take forever and state nothing.

    Raises:
        PlanInfeasible: Epsilon is far beyond any that says something.
    """
    # The negation also refuses what is not a number; the smallest noise would overflow the accountant.
    if not (mechanism.noise_multiplier > _LEAST_NOISE and rdp_epsilon(mechanism, delta) <= _FARTHEST):
        raise PlanInfeasible(
            f"epsilon is above {_FARTHEST:g}: noise multiplier {mechanism.noise_multiplier:g}, {mechanism.steps} steps",
            why="such a plan protects nobody",
            next_step="treat the model as one that was tuned without privacy",
        )


@lru_cache(maxsize=64)
def attack_bounds(mechanisms: tuple[Mechanism, ...]) -> tuple[AttackBound, ...]:
    """Return, for each rate of :data:`ATTACK_FPRS`, the largest true-positive rate of any attack on all these runs.

    TPR ≤ min over ε' of e^ε'·FPR + δ(ε') (Dong, Roth, Su 2022, arXiv 1905.02383, proposition 6), ε' in 0, 0.05 … 8,
    with the whole privacy profile δ(·): much tighter than the single pair (ε, δ).
    """
    if not any(mechanism.steps for mechanism in mechanisms):
        return tuple(AttackBound(fpr, fpr) for fpr in ATTACK_FPRS)
    epsilons = [0.05 * index for index in range(161)]
    deltas = [float(delta) for delta in _pld(mechanisms, DISCRETIZATION).get_delta_for_epsilon(epsilons)]
    profile = list(zip(epsilons, deltas, strict=True))
    return tuple(
        AttackBound(fpr, min(1.0, *(math.exp(eps) * fpr + delta for eps, delta in profile))) for fpr in ATTACK_FPRS
    )


def _dp() -> ModuleType:
    try:
        import dp_accounting  # noqa: PLC0415 - optional part, and slow to import
        import dp_accounting.pld  # noqa: PLC0415 - same
        import dp_accounting.rdp  # noqa: PLC0415 - same
    except ImportError as error:
        raise MissingExtraError("dp") from error
    module: ModuleType = dp_accounting
    return module


@lru_cache(maxsize=8)
def _pld(mechanisms: tuple[Mechanism, ...], discretization: float) -> Any:  # noqa: ANN401 - dp-accounting ships no types
    """Return the privacy loss distribution of all steps, composed as dp-accounting's own accountant composes them."""
    total = _dp().pld.privacy_loss_distribution.identity(discretization)
    for mechanism in mechanisms:
        if mechanism.steps:
            step = _step_pld(mechanism.rate, mechanism.noise_multiplier, discretization)
            total = total.compose(step.self_compose(mechanism.steps))
    return total


@lru_cache(maxsize=16)
def _step_pld(rate: float, noise_multiplier: float, discretization: float) -> Any:  # noqa: ANN401 - same
    """Return that of one step; forming it takes longer than composing it with itself however often."""
    dp = _dp()
    with _quiet():
        return dp.pld.privacy_loss_distribution.from_gaussian_mechanism(
            noise_multiplier,
            value_discretization_interval=discretization,
            sampling_prob=rate,
            neighboring_relation=dp.NeighboringRelation.ADD_OR_REMOVE_ONE,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the expected warnings about small Rényi orders."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
