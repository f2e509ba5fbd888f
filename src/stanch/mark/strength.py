"""How strong a mark must be: its relative size α, the expected scores, and how many colluders are still found.

Noise model: a treatment adds white noise of relative rms ν to each row, k copies are averaged, and a fraction ρ of the
D coordinates is kept. Then ``E z = √(ρD) · (α/k) / √(α²/k + ν²)``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from stanch.errors import InvalidInput
from stanch.mark.bounds import threshold
from stanch.terms import JsonValue

TESTED_ALPHA = (1e-4, 3e-2)
"""Range of α in which the cost in quality and the strength were measured."""

RELEASE_SHARE = 0.25
"""Amplitude of the ownership mark beside a recipient's."""

TREATMENTS: Mapping[str, float] = MappingProxyType({"bf16": 0.002, "int8": 0.008, "nf4": 0.0913})
"""Noise ν relative to the rms of a row that common treatments add (bf16 rounding, int8 per channel, NF4 block 64)."""

_MARGIN = 4.0  # standard deviations above τ: a colluder at τ + 4 is missed with chance about 3e-5


@dataclass(frozen=True, slots=True)
class MarkParams:
    """Parameters of a mark.

    Attributes:
        colluders: How many averaged copies the strength is dimensioned for.
        noise: Noise ν the strength is dimensioned for; 0.10 is about 4 bits.
        floor: Smallest α of a full model.
        ceiling: Largest α of a full model.
        adapter_alpha: α of adapter factors.
        n: Recipients the threshold allows for.
        analyses: Analyses the threshold allows for.
        epsilon: Chance of ever naming an innocent.
        alpha_outside_tested_range: Accept α outside :data:`TESTED_ALPHA`.
    """

    colluders: int = 32
    noise: float = 0.10
    floor: float = 1e-3
    ceiling: float = 1e-2
    adapter_alpha: float = 2e-2
    n: int = 10_000
    analyses: int = 16
    epsilon: float = 1e-9
    alpha_outside_tested_range: bool = False

    @classmethod
    def fixed(cls, alpha: float) -> Self:
        """Return parameters that mark with this very α, whatever is marked."""
        return cls(floor=alpha, ceiling=alpha, adapter_alpha=alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """How strong a mark is, and what it costs.

    Attributes:
        alpha: Size of a recipient's mark relative to the rms of each row.
        distortion: Size of all that is added, recipient's and ownership mark, relative to the same, before the sum is
            rounded to the stored type.
        colluders: For each of :data:`TREATMENTS` ``(k_max, k_even)``, see :func:`colluder_table`.
    """

    alpha: float
    distortion: float
    colluders: Mapping[str, tuple[int, int]]

    def to_json(self) -> dict[str, JsonValue]:
        """Return it for people and programs."""
        return {
            "alpha": self.alpha,
            "distortion": self.distortion,
            "colluders": {name: {"k_max": most, "k_even": even} for name, (most, even) in self.colluders.items()},
        }

    def to_payload(self) -> dict[str, JsonValue]:
        """Return it for the log, which takes no fractions as numbers."""
        return self.to_json() | {"alpha": repr(self.alpha), "distortion": repr(self.distortion)}


def measure_distortion(alpha: float) -> float:
    """Return the rms of what a mark adds to a row, relative to the row's own: ``α·√(1 + 0.25²)``.

    Recipient's and ownership values are independent and of variance 1.
    """
    return alpha * math.hypot(1, RELEASE_SHARE)


def solve_alpha(coordinates: int, params: MarkParams) -> float:
    """Return ``α = clip(c·ν·(τ + 4)/√D, floor, ceiling)`` for a full model with D ``coordinates``."""
    tau = threshold(params.n, params.analyses, params.epsilon)
    wanted = params.colluders * params.noise * (tau + _MARGIN) / math.sqrt(coordinates)
    return min(max(wanted, params.floor), params.ceiling)


def check_alpha(alpha: float, params: MarkParams) -> float:
    """Return ``alpha`` if it may be used.

    Raises:
        InvalidInput: It is not positive and finite, or outside the tested range without the caller saying so.
    """
    low, high = TESTED_ALPHA
    if not (math.isfinite(alpha) and alpha > 0):
        raise InvalidInput(f"mark strength: expected a positive number, found {alpha}")
    if not low <= alpha <= high and not params.alpha_outside_tested_range:
        raise InvalidInput(
            f"mark strength: expected α within [{low}, {high}], found {alpha}",
            why="outside, neither the cost in quality nor the strength was measured",
            next_step="choose another α, or set alpha_outside_tested_range=True and measure both",
        )
    return alpha


def expected_score(coordinates: int, alpha: float, noise: float, *, copies: int = 1, kept: float = 1.0) -> float:
    """Return E z of each of ``copies`` colluders, without the ownership mark."""
    return math.sqrt(kept * coordinates) * (alpha / copies) / math.sqrt(alpha * alpha / copies + noise * noise)


def colluders(coordinates: int, alpha: float, noise: float, z: float, kept: float = 1.0) -> float:
    """Return how many averaged copies still give each colluder the score ``z``: the inverse of :func:`expected_score`.

    ``k = [−z²α² + √(z⁴α⁴ + 4z²ν²ρDα²)] / (2z²ν²)``, and ``ρD/z²`` without noise.
    """
    if noise == 0:
        return kept * coordinates / (z * z)
    signal = z * z * alpha * alpha
    root = math.sqrt(signal * signal + 4 * signal * noise * noise * kept * coordinates)
    return (root - signal) / (2 * z * z * noise * noise)


def colluder_table(coordinates: int, alpha: float, params: MarkParams) -> dict[str, tuple[int, int]]:
    """Return ``(k_max, k_even)`` for each of :data:`TREATMENTS`.

    Up to ``k_max`` colluders, each is missed with chance about 3e-5; at ``k_even`` the chance is one half.
    """
    tau = threshold(params.n, params.analyses, params.epsilon)
    return {
        name: (int(colluders(coordinates, alpha, nu, tau + _MARGIN)), int(colluders(coordinates, alpha, nu, tau)))
        for name, nu in TREATMENTS.items()
    }
