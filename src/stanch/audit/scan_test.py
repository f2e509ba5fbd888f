"""The exact scan test: a lower bound for epsilon from one tuning run with canaries put in by fair coins.

For an (epsilon, 0)-DP tuning under add/remove neighbours, given the model and so all scores, the correctness bits of
guesses made in an order that scores alone decide are jointly dominated by independent Bernoulli(q) bits, with
q = e^eps / (1 + e^eps): Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run" (2023), the argument
behind theorem 5.2. The test looks at many guess counts at once and pays for that with the exact law of its statistic
under independent bits, instead of a union bound.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy

from stanch.audit.params import MIN_COINS, ORDERS, Order, count_parts, count_sharers
from stanch.errors import InvalidInput

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

GRID_POINTS: Final = 40
SMALLEST_GUESS_COUNT: Final = 8
MAX_COINS: Final = 50_000
EPSILON_STEPS: Final = 2000
EPSILON_PER_STEP: Final = 100

_UNDERFLOW = 1e-290
_LEVEL_SLACK = 1 + 1e-12  # a tail that equals the level up to rounding counts as crossing: on the safe side


@dataclass(frozen=True, slots=True)
class OrderResult:
    """The scan test of one guess order.

    Attributes:
        order: The guess order.
        lower: Largest grid epsilon up to which every epsilon is rejected at the level of this test; 0 if none is.
        p_null: p-value against "no leakage" (epsilon = 0), not adjusted for other tests.
        right_guesses: Right guesses among the first r, for each r of the grid.
    """

    order: Order
    lower: float
    p_null: float
    right_guesses: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScanResult:
    """The scan test of one score.

    Attributes:
        lower: Lower bound of epsilon; holds with probability 1 - alpha over all tests together.
        p_null: p-value against "no leakage", adjusted for all tests.
        ceiling: Largest lower bound that any score could reach with that many coins.
        per_order: The tests of which ``lower`` is the largest.
        m: Number of coins.
    """

    lower: float
    p_null: float
    ceiling: float
    per_order: tuple[OrderResult, ...]
    m: int


def scan_epsilon(
    scores: npt.ArrayLike,
    member: npt.ArrayLike,
    *,
    alpha: float = 0.05,
    orders: tuple[Order, ...] = ORDERS,
    splits: int | None = None,
    tie_seed: int = 0,
) -> ScanResult:
    """Return the epsilon lower bound of one score, exact for every number of coins and every pattern of ties.

    Args:
        scores: One finite score per canary, higher = more member-like.
        member: The coins: whether each canary was put in. They must have been independent and fair.
        alpha: Total error probability, over all ``splits`` parts.
        orders: Guess orders to test.
        splits: Into how many parts ``alpha`` is divided (scores x :func:`count_parts` of the orders x tiers); those of
            this score if not given. A direct order is tested at one part, reversed orders share one.
        tie_seed: Seed of the order in which equal scores are looked at.

    Raises:
        InvalidInput: Fewer than 32 or more than 50,000 coins, one class only, a score that is not finite, or fewer
            splits than orders.
    """
    values, coins = checked_scores(scores, member)
    if not MIN_COINS <= values.size <= MAX_COINS:
        raise InvalidInput(
            f"scan test: expected {MIN_COINS} to {MAX_COINS:,} coins, found {values.size}",
            why="fewer coins reach no bound of use; the exact law of more takes minutes to compute",
            next_step="use 512 canaries (the default), or a random part of the records",
        )
    if splits is None:
        splits = count_parts(orders)
    if not 0 < alpha < 1 or not orders or splits < count_parts(orders):
        raise InvalidInput(
            f"scan test: expected 0 < alpha < 1 and at least one split per order, found alpha {alpha}, "
            f"{splits} splits, {len(orders)} orders"
        )
    grid = guess_grid(values.size)
    values, coins = shuffled(values, coins, tie_seed)
    parts = [splits * count_sharers(order, orders) for order in orders]
    results = tuple(
        _scan_order(values, coins, order, grid, alpha / part) for order, part in zip(orders, parts, strict=True)
    )
    return ScanResult(
        lower=max(result.lower for result in results),
        p_null=min(1.0, *(part * result.p_null for part, result in zip(parts, results, strict=True))),
        ceiling=epsilon_ceiling(values.size, alpha / splits),
        per_order=results,
        m=values.size,
    )


def checked_scores(scores: npt.ArrayLike, member: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Return scores and membership as arrays of one length.

    Raises:
        InvalidInput: Lengths differ, a score is not finite, or one of the two classes is empty.
    """
    values = np.asarray(scores, dtype=np.float64)
    coins = np.asarray(member)
    if values.ndim != 1 or coins.shape != values.shape or coins.dtype != np.bool_:
        raise InvalidInput("scores: expected one number and one boolean per record")
    if not np.isfinite(values).all():
        raise InvalidInput("scores: expected finite numbers", why="a score is infinite or not a number")
    if coins.all() or not coins.any():
        raise InvalidInput("scores: expected both members and non-members, found one class only")
    return values, coins


def shuffled(values: FloatArray, coins: BoolArray, tie_seed: int) -> tuple[FloatArray, BoolArray]:
    """Reorder both arrays by seeded random keys, so that later stable sorts break ties without looking at coins.

    Raw generator output is used because it never changes between versions of numpy.
    """
    order = np.argsort(np.random.PCG64(tie_seed).random_raw(values.size), kind="stable")
    return values[order], coins[order]


def guess_correctness(values: FloatArray, coins: BoolArray, order: Order) -> BoolArray:
    """Return whether each guess is right, in the order in which the guesses are made.

    ``in`` guesses IN from the highest score down; ``out`` guesses OUT from the lowest up; ``two_sided`` guesses from
    the most extreme distance to the median, IN above it and OUT below: membership often shows as the absence of
    outliers, which one tail alone misses. A reversed order makes these guesses from the negated scores.
    """
    if order.startswith("reversed_"):
        values = -values
    if order in ("in", "reversed_in"):
        return coins[np.argsort(-values, kind="stable")]
    if order in ("out", "reversed_out"):
        return ~coins[np.argsort(values, kind="stable")]
    centred = values - np.median(values)
    sequence = np.argsort(-np.abs(centred), kind="stable")
    return np.equal(centred[sequence] > 0, coins[sequence])


def guess_grid(m: int) -> IntArray:
    """Return the guess counts that are looked at: at most 40 from 8 to m, evenly spaced in their logarithm."""
    steps = np.arange(GRID_POINTS) / (GRID_POINTS - 1)
    return np.unique(np.floor(SMALLEST_GUESS_COUNT * (m / SMALLEST_GUESS_COUNT) ** steps + 0.5).astype(np.int64))


def epsilon_ceiling(m: int, level: float) -> float:
    """Return the largest epsilon that m right guesses of m reject at ``level``: q = level^(1/m), ln(q / (1 - q))."""
    log_q = math.log(level) / m
    return log_q - math.log(-math.expm1(log_q))


def _scan_order(values: FloatArray, coins: BoolArray, order: Order, grid: IntArray, level: float) -> OrderResult:
    right = np.cumsum(guess_correctness(values, coins, order))[grid - 1].astype(np.int64)
    law = ScanLaw.of(tuple(grid.tolist()))
    return OrderResult(
        order=order,
        lower=invert(lambda epsilon: law.statistic(right, epsilon), law.crossing_probability, law.size, level),
        p_null=law.crossing_probability(law.statistic(right, 0.0), 0.0),
        right_guesses=tuple(right.tolist()),
    )


def invert(
    statistic: Callable[[float], float],
    crossing_probability: Callable[[float, float], float],
    size: int,
    level: float,
) -> float:
    """Return the largest grid epsilon e such that every grid epsilon up to e has a p-value of at most ``level``.

    p(eps) is not monotone, so a bisection of p would not be rigorous. If the result exceeds the true epsilon, then the
    least grid point at or above the true epsilon was rejected although it is true: probability at most ``level``.
    What is bisected is the statistic T, which is monotone: where T <= level / size, p <= size * T passes for sure.

    Args:
        statistic: T(eps), non-decreasing.
        crossing_probability: p as a function of T and eps; between T and ``size * T``.
        size: Number of guess counts.
        level: Level of this one test.
    """
    low, high = -1, EPSILON_STEPS
    while low < high:
        middle = (low + high + 1) // 2
        if statistic(middle / EPSILON_PER_STEP) <= level / size:
            low = middle
        else:
            high = middle - 1
    last = low
    for step in range(low + 1, EPSILON_STEPS + 1):
        epsilon = step / EPSILON_PER_STEP
        if crossing_probability(statistic(epsilon), epsilon) > level:
            break
        last = step
    return max(last, 0) / EPSILON_PER_STEP


class ScanLaw:
    """The law of the scan statistic T = min over r of P[Bin(r, q) >= W_r] for one grid of guess counts."""

    def __init__(self, grid: tuple[int, ...]) -> None:
        self._grid = grid
        self._tails = _BinomialRows(grid)
        self._increments = _BinomialRows(tuple(np.diff(grid, prepend=0).tolist()))
        self._last: tuple[float, FloatArray] | None = None

    @staticmethod
    @functools.lru_cache(maxsize=4)
    def of(grid: tuple[int, ...]) -> "ScanLaw":
        """Return the law for a grid; its tables are made once."""
        return ScanLaw(grid)

    @property
    def size(self) -> int:
        """Number of guess counts in the grid."""
        return len(self._grid)

    def statistics(self, right: IntArray, epsilon: float) -> FloatArray:
        """Return T for each row of right guesses at the grid, shape (..., size)."""
        tails = self._upper_tails(epsilon)[np.arange(self.size), right]
        return np.asarray(tails.min(axis=-1), dtype=np.float64)

    def statistic(self, right: IntArray, epsilon: float) -> float:
        """Return T for the numbers of right guesses at the grid."""
        return float(self.statistics(right, epsilon))

    def crossing_probability(self, level: float, epsilon: float) -> float:
        """Return P[T <= level] when all guesses are right independently with probability q, exactly.

        The partial sum of right guesses walks through the grid and is absorbed where its tail is at most ``level``.
        Sums of positive terms only: tails keep their relative precision, which a Fourier transform would lose.
        """
        if level < _UNDERFLOW:
            return self.size * _UNDERFLOW
        tails = self._upper_tails(epsilon)
        steps = self._increments.probabilities(epsilon)
        law = np.ones(1)
        crossed = 0.0
        for row in range(self.size):
            law = np.convolve(law, steps[row])
            # Column r + 1 holds 0, so "cannot cross" comes out as a barrier that the walk never reaches.
            barrier = int(np.argmax(tails[row] <= level * _LEVEL_SLACK))
            crossed += float(law[barrier:].sum())
            law = law[:barrier]
            if law.size == 0:
                break
        return min(crossed, 1.0)

    def _upper_tails(self, epsilon: float) -> FloatArray:
        """Return the tails, which are asked for twice in a row: for a statistic, and for its p-value."""
        last = self._last
        if last is None or last[0] != epsilon:
            last = self._last = epsilon, self._tails.upper_tails(epsilon)
        return last[1]


class _BinomialRows:
    """Binomial laws of several counts at once; their coefficients are computed once, for any success probability."""

    def __init__(self, counts: tuple[int, ...]) -> None:
        self._sizes = tuple(counts)
        size = np.asarray(counts, dtype=np.float64)[:, None]
        self._right = np.arange(max(counts) + 1, dtype=np.float64)[None, :]
        self._wrong = size - self._right
        possible = self._wrong >= 0
        wrong = np.where(possible, self._wrong, 0.0)
        log_choose = (
            scipy.special.gammaln(size + 1) - scipy.special.gammaln(self._right + 1) - scipy.special.gammaln(wrong + 1)
        )
        self._log_choose = np.where(possible, log_choose, -np.inf)

    def _table(self, epsilon: float) -> FloatArray:
        log_right = -math.log1p(math.exp(-epsilon))
        return np.exp(self._log_choose + self._right * log_right + self._wrong * (log_right - epsilon))

    def probabilities(self, epsilon: float) -> list[FloatArray]:
        """Return P[Bin(n, q) = w] for w in 0..n, one array for each count n."""
        return [row[: size + 1] for row, size in zip(self._table(epsilon), self._sizes, strict=True)]

    def upper_tails(self, epsilon: float) -> FloatArray:
        """Return P[Bin(n, q) >= w] in row n, column w; 0 for w = n + 1 and beyond, with one such column at least."""
        table = self._table(epsilon)
        tails = np.zeros((len(table), table.shape[1] + 1))
        tails[:, :-1] = np.cumsum(table[:, ::-1], axis=1)[:, ::-1]
        return tails
