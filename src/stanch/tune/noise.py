"""Gaussian noise in integers on the grid, from AES-256-CTR and the operating system's entropy."""

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stanch.tune.grid import Integers
from stanch.tune.plan import NOISE_DRAWS
from stanch.tune.sampler import Words, stream_words


class NoiseSource(Protocol):
    """Where noise comes from; a seam for correlated noise."""

    def integers(self, step: int, parameter: int, count: int, scale: float) -> Integers:
        """Return ``count`` Gaussian integers of standard deviation ``scale`` for one parameter in one step."""
        ...


class AesGaussian:
    """Noise ``aes256ctr-boxmuller-grid/v1``: independent over steps, parameters and coordinates.

    Two draws are averaged, z = (z₁ + z₂)/√2, which closes the gaps that one draw of floats leaves
    (Holohan, Braghin 2021, arXiv 2107.10138).
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def integers(self, step: int, parameter: int, count: int, scale: float) -> Integers:
        """Return ``rint(z·scale)`` with z standard normal, from S(key, step, parameter)."""
        return np.rint(self.normals(step, parameter, count) * scale).astype(np.int64)

    def normals(self, step: int, parameter: int, count: int) -> npt.NDArray[np.float64]:
        """Return ``count`` standard normal values."""
        half = math.ceil(count / 2)
        words = stream_words(self._key, step, parameter, NOISE_DRAWS * 2 * half)
        draws = [box_muller(part)[:count] for part in np.split(words, NOISE_DRAWS)]
        total: npt.NDArray[np.float64] = np.sum(draws, axis=0) / math.sqrt(NOISE_DRAWS)
        return total


def box_muller(words: Words) -> npt.NDArray[np.float64]:
    """Turn 2h words into 2h standard normal values: r·cos θ, then r·sin θ.

    u = ((w >> 12) + 1/2)·2^-52 is exact in float64 and is never 0 or 1.
    """
    uniform = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    radius, angle = np.split(uniform, 2)
    radius = np.sqrt(-2.0 * np.log(radius))
    angle = angle * (2.0 * math.pi)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
