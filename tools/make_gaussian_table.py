"""Make ``src/stanch/mark/gaussian.bin``: the conditional means of 65,536 equally likely bins of N(0,1), upper half.

``T[k] = E[Z | bin k] = 65536 · (φ(q_k) − φ(q_{k+1}))`` with ``q_k = Φ⁻¹(k / 65536)``, computed with 50 digits and
rounded toward zero to float32, so that the values stay a mean-preserving contraction of N(0,1) (docs/spec/mark.md).

Usage: ``python tools/make_gaussian_table.py OUT``
"""

import hashlib
import sys
from itertools import pairwise
from pathlib import Path

import mpmath
import numpy as np

BINS = 65_536
DIGITS = 50


def density(quantile: mpmath.mpf) -> mpmath.mpf:
    """Return the standard normal density."""
    return mpmath.exp(-quantile * quantile / 2) / mpmath.sqrt(2 * mpmath.pi)


def quantile(upper_tail: mpmath.mpf) -> mpmath.mpf:
    """Return q with P(Z > q) = ``upper_tail`` (≤ 1/2): two or more Newton steps on erfc from a double start."""
    q = mpmath.mpf(float(-mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(float(upper_tail)) - 1)))
    for _ in range(4):
        error = mpmath.erfc(q / mpmath.sqrt(2)) / 2 - upper_tail
        q += error / density(q)
    return q


def toward_zero(value: mpmath.mpf) -> np.float32:
    """Round a non-negative number down to float32."""
    rounded = np.float32(float(value))
    return np.nextafter(rounded, np.float32(0)) if mpmath.mpf(float(rounded)) > value else rounded


def upper_half() -> np.ndarray:
    """Return entries 32768 … 65535."""
    mpmath.mp.dps = DIGITS
    densities = [density(quantile(mpmath.mpf(BINS - k) / BINS)) for k in range(BINS // 2, BINS)] + [mpmath.mpf(0)]
    means = (BINS * (low - high) for low, high in pairwise(densities))
    return np.array([toward_zero(mean) for mean in means], "<f4")


if __name__ == "__main__":
    table = upper_half().tobytes()
    Path(sys.argv[1]).write_bytes(table)
    sys.stdout.write(f"{hashlib.sha256(table).hexdigest()}\n")
