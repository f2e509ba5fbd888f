"""Tests of a differential-privacy claim with delta > 0, at guess counts that are fixed beforehand.

Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run" (2023), theorem 5.2: if the tuning is
(epsilon, delta)-DP under add/remove of one record and each record is put in by a fair coin, the chance of ``v`` or more
right among ``r`` guesses is bounded.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy

from stanch.audit.params import MIN_COINS, Order, count_parts, count_sharers
from stanch.audit.scan_test import checked_scores, guess_correctness, shuffled
from stanch.errors import InvalidInput
from stanch.terms import NeighboringRelation, PrivacyBudget

CLAIM_ORDERS: Final[tuple[Order, ...]] = ("in", "two_sided", "reversed_in", "reversed_two_sided")
CLAIM_FRACTIONS: Final = (16, 8, 4, 2)
"""Guesses are counted after one 16th, 8th, quarter and half of the coins."""


def one_run_p_value(m: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return an upper bound of P[at least ``correct`` of ``guesses`` are right] under any (epsilon, delta)-DP tuning.

    ``min(1, beta + 2 m delta max_{1<=i<=v} (P[Bin(r, q) >= v - i] - beta) / i)`` with ``beta = P[Bin(r, q) >= v]`` and
    ``q = e^eps / (1 + e^eps)`` (theorem 5.2 of the source).

    Args:
        m: Number of coins.
        guesses: Number r of guesses made, fixed before the coins are looked at; the other coins are passed over.
        correct: Number v of right guesses.
        epsilon: Claimed epsilon.
        delta: Claimed delta.

    Raises:
        InvalidInput: Not 0 <= correct <= guesses <= m, or a budget that is no privacy budget.
    """
    if not 0 <= correct <= guesses <= m:
        raise InvalidInput(f"one-run test: expected 0 <= correct <= guesses <= coins, found {correct}, {guesses}, {m}")
    if not (0 <= epsilon < math.inf and 0 <= delta <= 1):
        raise InvalidInput(f"one-run test: expected epsilon >= 0 and 0 <= delta <= 1, found {epsilon}, {delta}")
    q = 1 / (1 + math.exp(-epsilon))
    beta = float(scipy.stats.binom.sf(correct - 1, guesses, q))
    if delta == 0 or correct == 0:
        return beta
    steps = np.arange(1, correct + 1)
    gain = float(((scipy.stats.binom.sf(correct - steps - 1, guesses, q) - beta) / steps).max())
    return min(1.0, beta + 2 * m * delta * gain)


def dp_claim_p_value(scores: npt.ArrayLike, member: npt.ArrayLike, claim: PrivacyBudget, *, tie_seed: int = 0) -> float:
    """Return a p-value of the claim that the tuning is (epsilon, delta)-DP per record.

    Four guess orders at four fixed guess counts for each score, joined by Bonferroni; the two reversed orders share one
    part, as in the scan test. One canary must be one unit of the claim, and stand in the data once.

    Args:
        scores: One score per canary, or several such rows of scores, shape (scores, m).
        member: The coins.
        claim: The claimed budget, under add/remove neighbours.
        tie_seed: Seed of the order in which equal scores are looked at.

    Raises:
        InvalidInput: Another neighbouring relation than add/remove, too few coins, or unusable scores.
    """
    if claim.relation is not NeighboringRelation.ADD_OR_REMOVE_ONE:
        raise InvalidInput(
            f"privacy claim: expected neighbours that add or remove one record, found {claim.relation}",
            why="the test is proven for add/remove neighbours alone",
            next_step="state the claim for add/remove neighbours",
        )
    rows = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    p_values = []
    for row in rows:
        values, coins = checked_scores(row, member)
        if values.size < MIN_COINS:
            raise InvalidInput(f"privacy claim: expected at least {MIN_COINS} coins, found {values.size}")
        values, coins = shuffled(values, coins, tie_seed)
        p_values += [
            count_sharers(order, CLAIM_ORDERS) * _claim_p(values.size, guess_correctness(values, coins, order), claim)
            for order in CLAIM_ORDERS
        ]
    return min(1.0, _parts(len(rows)) * min(p_values))


def least_claim_p_value(m: int, scores: int, claim: PrivacyBudget) -> float:
    """Return the least p-value that :func:`dp_claim_p_value` can give ``m`` coins: that of guesses that are all right.

    Theorem 5.2 charges 2 m delta, so that a large delta with few coins leaves no leak that could falsify the claim.

    Args:
        m: Number of coins.
        scores: How many scores are tested.
        claim: The claimed budget.
    """
    least = _claim_p(m, np.ones(m, dtype=np.bool_), claim)
    return min(1.0, _parts(scores) * least)


def _parts(scores: int) -> int:
    return scores * count_parts(CLAIM_ORDERS) * len(CLAIM_FRACTIONS)


def _claim_p(m: int, right: npt.NDArray[np.bool_], claim: PrivacyBudget) -> float:
    """Return the least p-value over the fixed guess counts of one order, not adjusted."""
    counts = [math.ceil(m / fraction) for fraction in CLAIM_FRACTIONS]
    return min(one_run_p_value(m, r, int(right[:r].sum()), claim.epsilon, claim.delta) for r in counts)
