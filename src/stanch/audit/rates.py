"""Rates with honest intervals: Clopper-Pearson, AUC after DeLong, TPR at FPR with threshold noise, permutations."""

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy

from stanch.audit.scan_test import checked_scores
from stanch.errors import InvalidInput
from stanch.terms import Interval

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Side = Literal["two", "lower", "upper"]

PERMUTATIONS: Final = 10_000
_FEWEST_PERMUTATIONS = 199
_PERMUTATION_WORK = 500_000_000  # records x permutations; larger tables are permuted fewer times
_BLOCK = 1 << 15  # records x permutations drawn at once: they stay in the cache


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A rate that is not shown: ``needs`` records of the other class are required, ``found`` are there."""

    needs: int
    found: int
    why: str


def clopper_pearson(k: int, n: int, *, confidence: float = 0.95, side: Side = "two") -> Interval:
    """Return the exact interval of a binomial rate with ``k`` hits in ``n`` (Clopper and Pearson 1934).

    Args:
        k: Hits.
        n: Trials; 0 trials give [0, 1].
        confidence: Coverage probability, at least.
        side: ``two`` for both bounds, ``lower`` or ``upper`` for a one-sided bound (the other end is 0 or 1).

    Raises:
        InvalidInput: Not 0 <= k <= n, or no confidence between 0 and 1.
    """
    if not 0 <= k <= n or not 0 < confidence < 1:
        raise InvalidInput(f"Clopper-Pearson: expected 0 <= k <= n and a confidence in (0, 1), found {k} of {n}")
    tail = (1 - confidence) / (2 if side == "two" else 1)
    lower = float(scipy.special.betaincinv(k, n - k + 1, tail)) if k > 0 and side != "upper" else 0.0
    upper = float(scipy.special.betainccinv(k + 1, n - k, tail)) if k < n and side != "lower" else 1.0
    return Interval(k / n if n else 0.0, lower, upper, confidence, f"clopper-pearson/{side}")


def auc(scores: npt.ArrayLike, member: npt.ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Return the area under the ROC curve with DeLong's interval (DeLong, DeLong, Clarke-Pearson 1988), by sorting.

    Where the variance estimate is 0 (all members above all non-members, or below), the interval is the exact one of
    ``min(n1, n0)`` independent pairs.
    """
    values, is_member = checked_scores(scores, member)
    inside, outside = values[is_member], values[~is_member]
    v10 = _share_below(outside, inside)
    v01 = _share_below(inside, outside)  # one minus it, of which the variance is the same
    estimate = float(v10.mean())
    # One value alone has no variance estimate: take the largest variance that numbers in [0, 1] can have.
    variance = sum(float(v.var(ddof=1)) / v.size if v.size > 1 else 0.25 for v in (v10, v01))
    if variance == 0:
        pairs = min(inside.size, outside.size)
        return _pairing_interval(estimate, pairs, confidence)
    half = float(scipy.special.ndtri((1 + confidence) / 2)) * math.sqrt(variance)
    return Interval(estimate, max(0.0, estimate - half), min(1.0, estimate + half), confidence, "delong")


def either_way(found: Interval) -> Interval:
    """Return an AUC in the direction that tells more: a difference counts whichever way it points."""
    if found.estimate >= 0.5:
        return found
    return Interval(1 - found.estimate, 1 - found.upper, 1 - found.lower, found.confidence, found.method)


def _share_below(reference: FloatArray, values: FloatArray) -> FloatArray:
    """Return for each value the share of the reference below it, ties counted half."""
    ordered = np.sort(reference)
    left = np.searchsorted(ordered, values, side="left")
    right = np.searchsorted(ordered, values, side="right")
    return np.asarray((left + right) / (2 * ordered.size), dtype=np.float64)


def _pairing_interval(estimate: float, pairs: int, confidence: float) -> Interval:
    edge = ((1 - confidence) / 2) ** (1 / pairs)
    if estimate == 1:
        return Interval(1.0, edge, 1.0, confidence, "pairing")
    if estimate == 0:
        return Interval(0.0, 0.0, 1 - edge, confidence, "pairing")
    # All scores equal: nothing was measured but ties, which bound nothing.
    return Interval(estimate, 0.0, 1.0, confidence, "pairing")


def tpr_at_fpr(
    scores: npt.ArrayLike, member: npt.ArrayLike, fpr: float, *, confidence: float = 0.95
) -> Interval | Suppressed:
    """Return the share of members found where the share of false alarms among *all possible* non-members is ``fpr``.

    The threshold is a quantile of the non-members' scores and so uncertain itself: the interval spends half of its
    error probability on the threshold (order statistics) and half on the rate (Clopper-Pearson). It is conservative.

    Returns:
        The interval, or :class:`Suppressed` where there are too few non-members to bound the threshold.
    """
    values, is_member = checked_scores(scores, member)
    if not 0 < fpr < 1 or not 0 < confidence < 1:
        raise InvalidInput(f"TPR at FPR: expected rates between 0 and 1, found {fpr} at confidence {confidence}")
    inside, outside = values[is_member], np.sort(values[~is_member])[::-1]
    quarter = (1 - confidence) / 4
    ranks = threshold_ranks(outside.size, fpr, quarter)
    if ranks is None:
        needs = math.ceil(math.log(quarter) / math.log1p(-fpr))
        return Suppressed(needs, outside.size, f"needs at least {needs:,} non-members")
    strict, loose = ranks
    n = inside.size
    above = int((inside > outside[strict - 1]).sum())
    at_least = int((inside >= outside[loose - 1]).sum()) if loose <= outside.size else n
    middle = math.floor(fpr * outside.size + 1e-9)
    one_sided = 1 - quarter
    return Interval(
        estimate=int((inside > outside[middle]).sum()) / n,
        lower=clopper_pearson(above, n, confidence=one_sided, side="lower").lower,
        upper=clopper_pearson(at_least, n, confidence=one_sided, side="upper").upper,
        confidence=confidence,
        method="order-statistic",
    )


def threshold_ranks(n: int, rate: float, tail: float) -> tuple[int, int] | None:
    """Return ranks (from the top) of the scores that bound the threshold of false-alarm rate ``rate``, or None.

    With probability 1 - ``tail`` each, the first lies at or above the true threshold and the second at or below it.
    """
    counts = np.arange(1, min(n, int(scipy.stats.binom.isf(tail / 2, n, rate))) + 2)
    at_least = scipy.stats.binom.sf(counts - 1, n, rate) >= 1 - tail
    if not at_least[0]:
        return None
    strict = int(counts[at_least][-1])
    loose = int(counts[scipy.stats.binom.cdf(counts - 1, n, rate) >= 1 - tail][0])
    return strict, loose


def tnr_at_fnr(
    scores: npt.ArrayLike, member: npt.ArrayLike, fnr: float, *, confidence: float = 0.95
) -> Interval | Suppressed:
    """Return the share of non-members ruled out where a share ``fnr`` of all possible members is ruled out falsely."""
    values, is_member = checked_scores(scores, member)
    result = tpr_at_fpr(-values, ~is_member, fnr, confidence=confidence)
    if isinstance(result, Suppressed):
        return Suppressed(result.needs, result.found, f"needs at least {result.needs:,} members")
    return result


def permutation_p_value(scores: npt.ArrayLike, member: npt.ArrayLike, *, seed: int = 0) -> float:
    """Return ``(1 + #{permuted >= observed}) / (1 + N)`` for |AUC - 1/2| over N = 10,000 seeded permutations.

    Two-sided: members that score lower than others are told apart as well. Valid where members and non-members are
    exchangeable but for the tuning. Tables above 50,000 records are permuted fewer times, at least 199: the p-value
    stays valid and gets coarser.
    """
    values, is_member = checked_scores(scores, member)
    # Twice the midrank is an integer, so sums are exact and equal statistics compare equal.
    doubled = (2 * scipy.stats.rankdata(values)).astype(np.int64)
    inside = int(is_member.sum())
    middle = inside * (values.size + 1)
    observed = abs(int(doubled[is_member].sum()) - middle)
    count = max(_FEWEST_PERMUTATIONS, min(PERMUTATIONS, _PERMUTATION_WORK // values.size))
    generator = np.random.PCG64(seed)

    def reach(permutations: int) -> int:
        drawn = generator.random_raw((permutations, values.size))
        chosen = np.argpartition(drawn, inside - 1, axis=1)[:, :inside]
        return int((abs(doubled[chosen].sum(axis=1) - middle) >= observed).sum())

    block = max(1, _BLOCK // values.size)
    reached = sum(reach(min(block, count - start)) for start in range(0, count, block))
    return (1 + reached) / (1 + count)
