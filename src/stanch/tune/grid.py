"""The grid on which sum and noise meet, so that low-order bits of floats carry nothing (Mironov, CCS 2012).

The released value is (q + z)·γ/L with integers q and z: a rounded ideal Gaussian mechanism. Rounding the sum adds at
most γ√P/2 ≤ 2^-13·C to its sensitivity; the slack of 2^-10 on the noise covers it and float32 rounding inside a chunk.
"""

import math

import numpy as np
import numpy.typing as npt

from stanch.tune.plan import PrivacyPlan

Integers = npt.NDArray[np.int64]


def grid_exponent(max_grad_norm: float, coordinates: int) -> int:
    """Return e with γ = 2^e = 2^⌊log2(C·2^-12/√P)⌋."""
    return math.floor(math.log2(max_grad_norm * 2.0**-12 / math.sqrt(coordinates)))


def noise_scale(plan: PrivacyPlan) -> float:
    """Return the standard deviation of the noise in grid steps: σ·C·(1 + slack)/γ."""
    gamma = 2.0 ** grid_exponent(plan.max_grad_norm, plan.coordinates)
    return plan.noise_multiplier * plan.max_grad_norm * (1 + plan.slack) / gamma


def quantise(values: npt.NDArray[np.float64], exponent: int) -> Integers:
    """Return rint(values/γ); scaling by a power of two is exact."""
    scaled = values * 2.0**-exponent
    return np.rint(scaled, out=scaled).astype(np.int64)


def release(integers: Integers, exponent: int, denominator: int) -> npt.NDArray[np.float32]:
    """Return integers·γ/L as float32: the noisy mean gradient."""
    return (integers * 2.0**exponent / denominator).astype(np.float32)
