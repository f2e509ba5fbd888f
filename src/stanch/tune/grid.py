"""The grid on which sum and noise meet, so that low-order bits of floats carry nothing (Mironov, CCS 2012).

The released value is (q + z)·γ/L with integers q and z: a rounded ideal Gaussian mechanism. Rounding the sum adds at
most γ√P/2 ≤ 2^-13·C to its sensitivity; the slack of 2^-10 on the noise covers it and float32 rounding inside a chunk.

Integers are held as float64, which is exact below 2^53 and quicker than to convert; a sum of a million units of a
billion coordinates, or a noise of 10^9 standard deviations of 1, stays far below.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stanch.tune.plan import PrivacyPlan

Whole = npt.NDArray[np.float64]
"""Integers as floats."""
Released = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

_BLOCK = 1 << 14


def grid_exponent(max_grad_norm: float, coordinates: int) -> int:
    """Return e with γ = 2^e = 2^⌊log2(C·2^-12/√P)⌋."""
    return math.floor(math.log2(max_grad_norm * 2.0**-12 / math.sqrt(coordinates)))


def noise_scale(plan: PrivacyPlan) -> float:
    """Return the standard deviation of the noise in grid steps: σ·C·(1 + slack)/γ."""
    gamma = 2.0 ** grid_exponent(plan.max_grad_norm, plan.coordinates)
    return plan.noise_multiplier * plan.max_grad_norm * (1 + plan.slack) / gamma


def quantise(values: Floats, exponent: int) -> Whole:
    """Return rint(values/γ); scaling by a power of two is exact."""
    scaled: Whole = np.multiply(values, 2.0**-exponent, dtype=np.float64)
    return np.rint(scaled, out=scaled)


def release_into(out: Released, whole: Whole, exponent: int, denominator: int) -> None:
    """Put integers·γ/L into ``out`` as float32: the noisy mean gradient."""
    # One rounding to float64, as of (integers·γ)/L: what a power of two scales is exact.
    np.divide(whole, denominator * 2.0**-exponent, out=out, casting="same_kind")


def blocks(count: int) -> Iterator[slice]:
    """Yield slices of what stays in the cache."""
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))
