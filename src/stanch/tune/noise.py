"""Gaussian noise in integers on the grid, from AES-256-CTR and the operating system's entropy."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stanch.tune.grid import Integers
from stanch.tune.plan import NOISE_DRAWS
from stanch.tune.sampler import Words, stream_words

Normals = npt.NDArray[np.float64]

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
        out = np.empty(count, dtype=np.int64)

        def finish(values: Normals) -> Normals:
            values *= scale
            return np.rint(values, out=values)

        self._fill(step, parameter, out, finish)
        return out

    def normals(self, step: int, parameter: int, count: int) -> Normals:
        """Return ``count`` standard normal values: of each draw the cosines, then the sines."""
        out = np.empty(count)
        self._fill(step, parameter, out, lambda values: values)
        return out

    def _fill(
        self, step: int, parameter: int, out: Integers | Normals, finish: Callable[[Normals], Normals]
    ) -> None:
        import torch  # noqa: PLC0415 - noise is drawn where a model is trained; the plan is read without torch

        half = math.ceil(len(out) / 2)

        def fill(start: int) -> None:
            size = min(_BLOCK, half - start)
            values = finish(self._normals(step, parameter, half, start, size))
            out[start : start + size] = values[:size]
            sines = out[half + start : half + start + size]
            sines[:] = values[size : size + len(sines)]

        starts = range(0, half, _BLOCK)
        workers = min(torch.get_num_threads(), len(starts))
        if workers < 2:
            for start in starts:
                fill(start)
            return
        # Blocks are too small for the threads of torch's own functions.
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(fill, starts))

    def _normals(self, step: int, parameter: int, half: int, start: int, size: int) -> Normals:
        """Return ``size`` cosines from the one at ``start`` on, then their sines."""
        total = np.zeros(2 * size)
        for draw in range(NOISE_DRAWS):
            first = 2 * half * draw + start
            words = [stream_words(self._key, step, parameter, size, start=n) for n in (first, first + half)]
            total += box_muller(np.concatenate(words))
        total /= math.sqrt(NOISE_DRAWS)
        return total


def box_muller(words: Words) -> Normals:
    """Turn 2h words into 2h standard normal values: r·cos θ, then r·sin θ.

    u = ((w >> 12) + 1/2)·2^-52 is exact in float64 and is never 0 or 1.
    """
    # numpy's functions of float64 take two to three times as long on processors without AVX-512, its square root half.
    import torch  # noqa: PLC0415 - noise is drawn where a model is trained; the plan is read without torch

    half = len(words) // 2
    uniform = (words >> np.uint64(12)).astype(np.float64)
    uniform += 0.5
    radius, angle = uniform[:half], uniform[half:]
    radius *= 2.0**-52
    torch.from_numpy(radius).log_()
    radius *= -2.0
    np.sqrt(radius, out=radius)
    angle *= 2.0 * math.pi * 2.0**-52
    values = np.empty(2 * half)
    for function, part in ((torch.cos, values[:half]), (torch.sin, values[half:])):
        function(torch.from_numpy(angle), out=torch.from_numpy(part))
        part *= radius
    return values
