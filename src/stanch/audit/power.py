"""Power: with which probability the scan test would have seen a leak of a given strength."""

import functools
import math

import numpy as np
import numpy.typing as npt
import scipy

from stanch.audit.params import DIRECT_ORDERS, MIN_COINS, ORDERS, Order, count_parts
from stanch.audit.rates import clopper_pearson
from stanch.audit.scan_test import ScanLaw, guess_correctness, guess_grid
from stanch.errors import InvalidInput
from stanch.terms import Interval

_BISECTIONS = 40


@functools.lru_cache(maxsize=8)
def scan_power(
    m: int,
    auc: float,
    *,
    alpha: float = 0.05,
    splits: int = 12,
    orders: tuple[Order, ...] = ORDERS,
    sims: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the probability that an attack of strength ``auc`` is called a leak, with its Clopper-Pearson interval.

    Simulated: fair coins, one score that is normal for both classes with the members' mean shifted by
    ``sqrt(2) Phi^-1(auc)``; the other scores tell nothing. A verdict uses the lower bound.

    Args:
        m: Number of coins.
        auc: Area under the ROC curve of the attack.
        alpha: Total error probability of the test.
        splits: Into how many parts it is divided.
        orders: Guess orders that are tested; such an attack is seen by the direct ones alone.
        sims: Number of simulated audits.
        seed: Seed of the simulation.

    Raises:
        InvalidInput: Too few coins, an AUC outside (0.5, 1), or no simulation.
    """
    if m < MIN_COINS or not 0.5 < auc < 1 or sims < 1 or splits < count_parts(orders):
        raise InvalidInput(f"power: expected at least {MIN_COINS} coins and an AUC in (0.5, 1), found {m} and {auc}")
    grid = guess_grid(m)
    law = ScanLaw.of(tuple(grid.tolist()))
    critical = critical_value(law, alpha / splits)
    shift = math.sqrt(2) * float(scipy.special.ndtri(auc))
    generator = np.random.PCG64(seed)
    direct = [order for order in orders if order in DIRECT_ORDERS]
    right = np.empty((sims, len(direct), law.size), dtype=np.int64)
    for row in right:
        coins = generator.random_raw(m) >> np.uint64(63) == 1
        scores = scipy.special.ndtri(_uniform(generator, m)) + shift * coins
        for column, order in enumerate(direct):
            row[column] = np.cumsum(guess_correctness(scores, coins, order))[grid - 1]
    seen = int((law.statistics(right, 0.0) <= critical).any(axis=1).sum())
    return clopper_pearson(seen, sims)


def critical_value(law: ScanLaw, level: float) -> float:
    """Return the largest value of the scan statistic at epsilon 0 whose p-value is at most ``level``."""
    low, high = math.log(level / law.size), math.log(level)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if law.crossing_probability(math.exp(middle), 0.0) <= level:
            low = middle
        else:
            high = middle
    return math.exp(low)


def _uniform(generator: np.random.PCG64, size: int) -> npt.NDArray[np.float64]:
    """Return uniform numbers in (0, 1) from raw generator output, which never changes between versions of numpy.

    With one more bit the largest would round to 1.
    """
    return ((generator.random_raw(size) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
