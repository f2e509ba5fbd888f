"""Many tests at once: conformal p-values, the Benjamini-Hochberg procedure, Holm's adjustment."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]


def conformal_p_values(member_scores: npt.ArrayLike, nonmember_scores: npt.ArrayLike) -> FloatArray:
    """Return for each member score ``(1 + #{non-member >= score}) / (1 + n_nonmembers)``.

    A record that was not tuned on gets p <= u with probability at most u. Shared calibration scores make the values
    positively dependent, which :func:`benjamini_hochberg` allows (Bates et al. 2021, "Testing for outliers with
    conformal p-values", theorem 2).

    Raises:
        InvalidInput: A score is not finite, or there is no non-member.
    """
    members = np.asarray(member_scores, dtype=np.float64)
    calibration = np.sort(np.asarray(nonmember_scores, dtype=np.float64))
    if calibration.size == 0 or not (np.isfinite(members).all() and np.isfinite(calibration).all()):
        raise InvalidInput("conformal p-values: expected finite scores and at least one non-member")
    at_least = calibration.size - np.searchsorted(calibration, members, side="left")
    return np.asarray((1 + at_least) / (1 + calibration.size), dtype=np.float64)


def benjamini_hochberg(p: npt.ArrayLike, q: float = 0.05) -> BoolArray:
    """Return which hypotheses are rejected with a false discovery rate of at most ``q`` (Benjamini, Hochberg 1995)."""
    values = _p_values(p)
    count = values.size
    rejected = np.zeros(count, dtype=np.bool_)
    order = np.argsort(values, kind="stable")
    below = np.flatnonzero(values[order] <= q * np.arange(1, count + 1) / max(count, 1))
    if below.size:
        rejected[order[: below[-1] + 1]] = True
    return rejected


def holm(p: npt.ArrayLike) -> FloatArray:
    """Return the p-values adjusted for the family-wise error rate under any dependence (Holm 1979)."""
    values = _p_values(p)
    count = values.size
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(count)
    adjusted[order] = np.maximum.accumulate(np.minimum(values[order] * np.arange(count, 0, -1), 1.0))
    return adjusted


def _p_values(p: npt.ArrayLike) -> FloatArray:
    values = np.asarray(p, dtype=np.float64).reshape(-1)
    if not ((values >= 0) & (values <= 1)).all():
        raise InvalidInput("p-values: expected numbers between 0 and 1")
    return values
