"""A week as one principal has it: by how much its hours and days differ from the week of all, where the past shows it.

Not everybody works when most do. Each hour of the day, and then each day of the week, is compared with the week of all,
and the ratios are drawn to 1 by a random-effects estimate (DerSimonian and Laird 1986): where all of them may be chance
they are exactly 1, and where they are not they stand as they are, raised by one standard error.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Places: TypeAlias = npt.NDArray[np.intp]

DAY = 24
OWN = DAY + 7
"""Factors of a principal: of the hours of the day, then of the days of the week."""
LEAST_K, MOST_K = 0.5, 50.0
"""Bounds of the dispersion of a negative binomial; its variance is m + m²/k."""
_FURTHEST = 20.0
_DEVIATIONS = 2.0  # so far beyond its mean the ratios' spread is no chance


@dataclass(frozen=True, slots=True)
class OwnWeek:
    """How the weeks of some series differ from that of all.

    Attributes:
        factors: Of the hours of the day and the days of the week, (31, series), raised by one standard error.
        usual: The product for each hour that it was learnt from, (hours, series), not raised.
        most_k: The dispersion within hours of the day, (series,): the fit's may not be larger, or what one figure a day
            shows would be believed. :data:`MOST_K` where the week is that of all.
    """

    factors: Floats
    usual: Floats
    most_k: Floats


def own_week(x: Floats, s: Floats, places: Places) -> OwnWeek:
    """Learn how series differ from the week of all.

    Args:
        x: Counts of hours, (hours, series); NaN where an hour does not count.
        s: Factors of the week of all, of the same shape.
        places: The hour of the week of each.
    """
    hours, days = places % DAY, places // DAY
    daily, daily_error, k = _ratios(x, s, hours, DAY)
    weekly, weekly_error, _ = _ratios(x, s * daily[hours], days, OWN - DAY, k)
    is_odd = (daily != 1).any(axis=0) | (weekly != 1).any(axis=0)
    raised = np.concatenate([daily + daily_error, weekly + weekly_error])
    return OwnWeek(raised, daily[hours] * weekly[days], np.where(is_odd, k, MOST_K))


def _ratios(
    x: Floats, s: Floats, cells: Places, count: int, k: Floats | None = None
) -> tuple[Floats, Floats, Floats]:  # fmt: skip
    """Return the factor of each cell and its standard error, (count, series), and the dispersion within cells."""
    there = ~np.isnan(x)
    x, s = np.where(there, x, 0.0), np.where(there, s, 0.0)
    member = (np.arange(count)[:, None] == cells).astype(np.float64)
    mu = x.sum(axis=0) / np.maximum(s.sum(axis=0), 1e-9) * s
    expected = member @ mu
    known = expected > 0
    expected = np.where(known, expected, 1.0)
    ratio = np.where(known, member @ x / expected, 1.0)
    if k is None:
        # What is left of the variance of a figure once its own cell's ratio was taken from it and the others there.
        part, local = mu / expected[cells], mu * ratio[cells]
        left = 1 - 2 * part + (member @ (part * part))[cells]
        excess = ((x - local) ** 2).sum(axis=0) - (local * left).sum(axis=0)
        k = np.clip((local * local * left).sum(axis=0) / np.maximum(excess, 1e-9), LEAST_K, MOST_K)
    variance = np.where(known, (expected + member @ (mu * mu) / k) / expected**2, 1.0)
    weight = known / variance
    freedom = np.maximum(known.sum(axis=0) - 1, 1)
    beyond = (weight * (ratio - 1) ** 2).sum(axis=0) - freedom
    total = np.maximum(weight.sum(axis=0), 1e-300)
    scale = np.maximum(total - (weight**2).sum(axis=0) / total, 1e-300)
    between = np.where(beyond > _DEVIATIONS * np.sqrt(2.0 * freedom), beyond / scale, 0.0)
    share = known * between / (between + variance)
    factors = np.clip(1 + share * (ratio - 1), 1 / _FURTHEST, _FURTHEST)
    return factors, np.sqrt(share * variance), k
