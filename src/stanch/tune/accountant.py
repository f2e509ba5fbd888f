"""Epsilon of a run, the noise for a target epsilon, and what the guarantee means for an attacker.

The mechanism is ``steps`` Gaussian sums over Poisson samples. Privacy loss distributions (Koskela et al. 2020,
arXiv 1906.03049; Doroshenko et al. 2022, arXiv 2207.04380) with pessimistic discretisation never state too small an
epsilon; Rényi accounting (Mironov et al. 2019, arXiv 1908.10530) is the independent, looser check.
"""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from types import ModuleType
from typing import Any

from stanch.errors import MissingExtraError
from stanch.tune.refusals import AccountantDisagrees, PlanInfeasible

ACCOUNTANT = "pld/dp-accounting"
DISCRETIZATION = 1e-4
COARSE = 1e-3
"""Discretisation for the search and for progress lines: also an upper bound, only looser."""

_SEARCH_TOLERANCE = 1e-3

_FARTHEST = 100.0
"""A larger epsilon by Rényi accounting says nothing, and takes much memory to compute more tightly."""
_LEAST_NOISE = 0.01

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
    return float(_pld(mechanisms, discretization).get_epsilon(delta))


@lru_cache(maxsize=256)
def rdp_epsilon(mechanism: Mechanism, delta: float) -> float:
    """Return epsilon at ``delta`` by Rényi accounting (looser than :func:`spent_epsilon`)."""
    if mechanism.steps == 0:
        return 0.0
    dp = _dp()
    with _quiet():
        accountant = dp.rdp.RdpAccountant(None, dp.NeighboringRelation.ADD_OR_REMOVE_ONE)
        accountant.compose(_event(mechanism))
        return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=64)
def calibrate(rate: float, steps: int, delta: float, epsilon: float) -> float:
    """Return a noise multiplier, rounded up to 4 decimals, whose epsilon is at most the target and little below it.

    The cheap Rényi search brackets the search by privacy loss distributions, which would be slow on a wide bracket.

    Raises:
        PlanInfeasible: No noise multiplier in reach meets the target.
        AccountantDisagrees: Rényi accounting gives a smaller epsilon than privacy loss distributions.
    """
    dp = _dp()
    lower, upper = _bracket(Mechanism(rate, _rdp_bracket(rate, steps, delta, epsilon), steps), delta, epsilon)
    with _quiet():
        sigma = dp.calibrate_dp_mechanism(
            lambda: dp.pld.PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, COARSE),
            lambda sigma: _event(Mechanism(rate, sigma, steps)),
            epsilon,
            delta,
            dp.ExplicitBracketInterval(lower, upper),
            tol=_SEARCH_TOLERANCE,
        )
    sigma = math.ceil(sigma * 10_000) / 10_000
    while spent_epsilon(Mechanism(rate, sigma, steps), delta) > epsilon:
        sigma = round(sigma + 1e-4, 4)
    check_accountants(Mechanism(rate, sigma, steps), delta)
    return float(sigma)


def _bracket(loose: Mechanism, delta: float, epsilon: float) -> tuple[float, float]:
    """Return noise multipliers on either side of the target by privacy loss distributions, near the loose one."""

    def spent(sigma: float) -> float:
        return spent_epsilon(replace(loose, noise_multiplier=sigma), delta, COARSE)

    upper = loose.noise_multiplier
    while spent(upper) > epsilon:
        upper *= 1.05
    lower = 0.85 * upper
    while spent(lower) <= epsilon:
        lower, upper = 0.85 * lower, lower
    return lower, upper


def _rdp_bracket(rate: float, steps: int, delta: float, epsilon: float) -> float:
    """Return the noise multiplier that Rényi accounting asks for: an upper end for the tight search."""
    for lower, guess in ((0.3, 1.0), (0.05, 0.3)):
        with _quiet(), suppress(ValueError):
            return _rdp_noise(Mechanism(rate, lower, steps), guess, delta, epsilon)
    raise PlanInfeasible(
        f"no noise multiplier gives epsilon {epsilon:g} at delta {delta:g} in {steps} steps of rate {rate:.4g}",
        next_step="choose another epsilon or delta, or fewer epochs",
    )


def _rdp_noise(lowest: Mechanism, guess: float, delta: float, epsilon: float) -> float:
    """Return the noise multiplier for ``epsilon``; ValueError where no multiple of ``guess`` brackets the target."""
    dp = _dp()
    unbracketed = dp.mechanism_calibration.NoBracketIntervalFoundError
    try:
        sigma = dp.calibrate_dp_mechanism(
            lambda: dp.rdp.RdpAccountant(None, dp.NeighboringRelation.ADD_OR_REMOVE_ONE),
            lambda sigma: _event(replace(lowest, noise_multiplier=sigma)),
            epsilon,
            delta,
            dp.LowerEndpointAndGuess(lowest.noise_multiplier, guess),
            tol=_SEARCH_TOLERANCE,
        )
    except unbracketed as error:
        raise ValueError(str(error)) from error
    return float(sigma)


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
    deltas = [float(delta) for delta in _pld(mechanisms, DISCRETIZATION).get_delta(epsilons)]
    profile = list(zip(epsilons, deltas, strict=True))
    return tuple(
        AttackBound(fpr, min(1.0, *(math.exp(eps) * fpr + delta for eps, delta in profile))) for fpr in ATTACK_FPRS
    )


def _dp() -> ModuleType:
    try:
        import dp_accounting  # noqa: PLC0415 - optional part, and slow to import
        import dp_accounting.mechanism_calibration  # noqa: PLC0415 - same
        import dp_accounting.pld  # noqa: PLC0415 - same
        import dp_accounting.rdp  # noqa: PLC0415 - same
    except ImportError as error:
        raise MissingExtraError("dp") from error
    module: ModuleType = dp_accounting
    return module


def _event(mechanism: Mechanism) -> Any:  # noqa: ANN401 - dp-accounting ships no types
    dp = _dp()
    sample = dp.PoissonSampledDpEvent(mechanism.rate, dp.GaussianDpEvent(mechanism.noise_multiplier))
    return dp.SelfComposedDpEvent(sample, mechanism.steps)


@lru_cache(maxsize=8)
def _pld(mechanisms: tuple[Mechanism, ...], discretization: float) -> Any:  # noqa: ANN401 - same
    dp = _dp()
    accountant = dp.pld.PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, discretization)
    with _quiet():
        for mechanism in mechanisms:
            if mechanism.steps:
                accountant.compose(_event(mechanism))
    return accountant


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
