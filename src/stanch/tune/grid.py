"""The grid on which sum and noise meet, so that low-order bits of floats carry nothing (Mironov, CCS 2012).

The released value is (q + z)·γ/L with integers q and z: a rounded ideal Gaussian mechanism. Rounding the sum adds at
most γ√P/2 ≤ 2^-13·C to its sensitivity; the slack of 2^-10 on the noise covers it and float32 rounding inside a chunk.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stanch.tune.plan import PrivacyPlan

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

_BLOCK = 1 << 14


def grid_exponent(max_grad_norm: float, coordinates: int) -> int:
    """Return e with γ = 2^e = 2^⌊log2(C·2^-12/√P)⌋."""
    return math.floor(math.log2(max_grad_norm * 2.0**-12 / math.sqrt(coordinates)))


def noise_scale(plan: PrivacyPlan) -> float:
    """Return the standard deviation of the noise in grid steps: σ·C·(1 + slack)/γ."""
    gamma = 2.0 ** grid_exponent(plan.max_grad_norm, plan.coordinates)
    return plan.noise_multiplier * plan.max_grad_norm * (1 + plan.slack) / gamma


def quantise(values: Floats, exponent: int) -> Integers:
    """Return rint(values/γ); scaling by a power of two is exact."""
    scaled = values * 2.0**-exponent
    return np.rint(scaled, out=scaled).astype(np.int64)


def add_quantised(integers: Integers, values: Floats, exponent: int) -> None:
    """Add rint(values/γ) to ``integers``, both with one axis, without a second array of that size."""
    for part in _blocks(len(integers)):
        integers[part] += quantise(values[part], exponent)


def release(integers: Integers, exponent: int, denominator: int) -> npt.NDArray[np.float32]:
    """Return integers·γ/L as float32, of one axis: the noisy mean gradient."""
    released = np.empty(len(integers), dtype=np.float32)
    for part in _blocks(len(integers)):
        released[part] = integers[part] * 2.0**exponent / denominator
    return released


def _blocks(count: int) -> Iterator[slice]:
    """Yield slices of what stays in the cache."""
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))
