"""How strongly hits speak against chance: the tail of a binomial distribution, in logarithms."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an index says about a suspect text.

    It bounds chance alone, not that the text was published elsewhere too. Boilerplate was left out of the index and
    gives no hits.

    Attributes:
        windows: Number of distinct windows in the text.
        hits: How many of them the index holds.
        log10_p: log10 of P[Bin(windows, fill_fp) ≥ hits]: how likely as many hits are in a text that has nothing to do
            with the index.
    """

    windows: int
    hits: int
    log10_p: float


def log10_tail(count: int, chance: float, hits: int) -> float:
    """Return log10 of P[Bin(count, chance) ≥ hits], also where the probability is far below the smallest float.

    The terms are summed from ``hits`` on until what follows, bounded by a geometric series, is below 1e-15 of the sum;
    the bound is added, so that the result never claims too much.

    Args:
        count: Number of trials.
        chance: Probability of each, in [0, 1].
        hits: Successes seen.
    """
    if hits <= 0 or chance >= 1:
        return 0.0
    if hits > count or chance <= 0:
        return -math.inf
    first = math.lgamma(count + 1) - math.lgamma(hits + 1) - math.lgamma(count - hits + 1)
    first += hits * math.log(chance) + (count - hits) * math.log1p(-chance)
    mean = count * chance
    # From ten standard deviations above the mean on the terms fall fast; a hundred more leave nothing that counts.
    last = min(count, int(max(hits, mean + 10 * math.sqrt(mean)) + 100))
    places = np.arange(hits, last, dtype=np.float64)
    ratios = np.log((count - places) / (places + 1)) + math.log(chance) - math.log1p(-chance)
    terms = np.concatenate([[0.0], np.cumsum(ratios)])
    top = float(terms.max())
    total = float(np.exp(terms - top).sum())
    ratio = (count - last) / (last + 1) * chance / (1 - chance)
    total += math.exp(float(terms[-1]) - top) * ratio / (1 - ratio)
    return min(0.0, (first + top + math.log(total)) / math.log(10))
