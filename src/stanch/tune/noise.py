"""Gaussian noise in integers on the grid, from AES-256-CTR and the operating system's entropy."""

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stanch.tune.grid import Integers
from stanch.tune.plan import NOISE_DRAWS
from stanch.tune.sampler import Words, stream_words

_BLOCK = 1 << 14
"""Values made at once: what is between words and normal values stays in the cache."""


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
        values = self.normals(step, parameter, count)
        values *= scale
        return np.rint(values, out=values).astype(np.int64)

    def normals(self, step: int, parameter: int, count: int) -> npt.NDArray[np.float64]:
        """Return ``count`` standard normal values: of each draw the cosines, then the sines."""
        half = math.ceil(count / 2)
        total = np.zeros(2 * half)
        for start in range(0, half, _BLOCK):
            size = min(_BLOCK, half - start)
            for draw in range(NOISE_DRAWS):
                first = 2 * half * draw + start
                words = [stream_words(self._key, step, parameter, size, start=n) for n in (first, first + half)]
                values = box_muller(np.concatenate(words))
                total[start : start + size] += values[:size]
                total[half + start : half + start + size] += values[size:]
        total /= math.sqrt(NOISE_DRAWS)
        return total[:count]


def box_muller(words: Words) -> npt.NDArray[np.float64]:
    """Turn 2h words into 2h standard normal values: r·cos θ, then r·sin θ.

    u = ((w >> 12) + 1/2)·2^-52 is exact in float64 and is never 0 or 1.
    """
    # numpy's functions of float64 take two to three times as long on processors without AVX-512.
    import torch  # noqa: PLC0415 - noise is drawn where a model is trained; the plan is read without torch

    half = len(words) // 2
    uniform = (words >> np.uint64(12)).astype(np.float64)
    uniform += 0.5
    uniform *= 2.0**-52
    radius, angle = (torch.from_numpy(part) for part in (uniform[:half], uniform[half:]))
    radius.log_().mul_(-2.0).sqrt_()
    angle.mul_(2.0 * math.pi)
    values = torch.empty(2 * half, dtype=torch.float64)
    torch.cos(angle, out=values[:half]).mul_(radius)
    torch.sin(angle, out=values[half:]).mul_(radius)
    return values.numpy()
