"""Error bounds: how large a score must be before anybody is named.

For an innocent recipient, conditional on everything the suspect is, the score z is sub-Gaussian(1) over the secret key,
so ``P(z ≥ τ) ≤ exp(−τ²/2)``; the rest is a union bound over n recipients and T analyses fixed beforehand.
"""

import math

from stanch.errors import InvalidInput


def threshold(n: int, analyses: int, epsilon: float) -> float:
    """Return ``τ = √(2 ln(nT/ε))``.

    Guarantee: the probability, over the secret keys, that any of ``n`` innocent recipients reaches τ on any suspect in
    ``analyses`` analyses is at most ``epsilon``.

    Raises:
        InvalidInput: n or analyses below 1, or epsilon not strictly between 0 and 1.
    """
    if n < 1 or analyses < 1 or not 0 < epsilon < 1:
        raise InvalidInput(f"expected n ≥ 1, analyses ≥ 1, 0 < epsilon < 1; found {n}, {analyses}, {epsilon}")
    return math.sqrt(2 * (math.log(n) + math.log(analyses) - math.log(epsilon)))


def log10_bound(z: float, n: int, analyses: int) -> float:
    """Return an upper bound on log10 of the chance that any innocent of n reaches ``z`` in ``analyses`` analyses."""
    if z <= 0:
        return 0.0
    return min(0.0, math.log10(n) + math.log10(analyses) - z * z / (2 * math.log(10)))


def decided(z: float) -> float:
    """Return the score that decisions are made on: two digits, rounded down and one hundredth less.

    Sums of float32 products depend on the order by less than this, so every repetition comes to the same decision.
    """
    return math.floor(100 * z) / 100 - 0.01
