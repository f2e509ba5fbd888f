"""Gaussian noise in integers on the grid, from AES-256-CTR and the operating system's entropy."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stanch.crypto import aes_ctr_into
from stanch.tune.grid import Integers
from stanch.tune.plan import NOISE_DRAWS
from stanch.tune.sampler import Words

Normals = npt.NDArray[np.float64]

_LOW_BITS = np.uint64(12)
_ONE = np.float64(1.0).view(np.uint64)
_BLOCK = 1 << 15
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

    def _fill(self, step: int, parameter: int, out: Integers | Normals, finish: Callable[[Normals], Normals]) -> None:
        half = math.ceil(len(out) / 2)
        starts = range(0, half, _BLOCK)

        def fill(some: range) -> None:
            block = _Block(self._key, step, parameter, half)
            for start in some:
                size = min(_BLOCK, half - start)
                values = finish(block.normals(start, size))
                out[start : start + size] = values[:size]
                sines = out[half + start : half + start + size]
                sines[:] = values[size : size + len(sines)]

        workers = min(_threads(), len(starts))
        if workers < 2:
            fill(starts)
            return
        # Blocks are too small for the threads of torch's own functions.
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(fill, (starts[first::workers] for first in range(workers))))


class _Block:
    """Makes values in blocks, in the same memory again and again: new memory takes as long as the values."""

    def __init__(self, key: bytes, step: int, parameter: int, half: int) -> None:
        self._key = key
        self._counter = step.to_bytes(4, "big") + parameter.to_bytes(4, "big")
        self._half = half
        size = min(_BLOCK, half)
        # One word more on either side, as AES gives two at a time.
        self._words = np.empty(size + 2, dtype="<u8")
        self._total, self._values, self._uniform = (np.empty(2 * size) for _ in range(3))

    def normals(self, start: int, size: int) -> Normals:
        """Return ``size`` cosines from the one at ``start`` on, then their sines; the next call overwrites them."""
        total, values, uniform = (part[: 2 * size] for part in (self._total, self._values, self._uniform))
        total[:] = 0
        for draw in range(NOISE_DRAWS):
            first = 2 * self._half * draw + start
            self._draw(first, uniform[:size])
            self._draw(first + self._half, uniform[size:])
            _box_muller_into(uniform, values)
            total += values
        total /= math.sqrt(NOISE_DRAWS)
        return total

    def _draw(self, start: int, uniform: Normals) -> None:
        """Put the uniform values from word ``start`` on into ``uniform``."""
        block, skipped = divmod(start, 2)
        words = self._words[: skipped + len(uniform)]
        aes_ctr_into(self._key, self._counter + block.to_bytes(8, "big"), words.data)
        _uniform_into(words[skipped:], uniform)


def box_muller(words: Words) -> Normals:
    """Turn 2h words into 2h standard normal values: r·cos θ, then r·sin θ.

    u = ((w >> 12) + 1/2)·2^-52 is exact in float64 and is never 0 or 1.
    """
    uniform, values = np.empty(len(words)), np.empty(len(words))
    _uniform_into(words.copy(), uniform)
    _box_muller_into(uniform, values)
    return values


def _uniform_into(words: Words, uniform: Normals) -> None:
    """Put u into ``uniform``; ``words`` are overwritten.

    The upper 52 bits of a word are made the fraction of a float in [1, 2), which is quicker than to convert them.
    """
    np.right_shift(words, _LOW_BITS, out=words)
    np.bitwise_or(words, _ONE, out=words)
    np.subtract(words.view("<f8"), 1 - 2.0**-53, out=uniform)


def _box_muller_into(uniform: Normals, values: Normals) -> None:
    """Turn u into ``values``; ``uniform`` is overwritten."""
    # numpy's functions of float64 take two to three times as long on processors without AVX-512, its square root half.
    import torch  # noqa: PLC0415 - noise is drawn where a model is trained; the plan is read without torch

    half = len(uniform) // 2
    radius, angle = uniform[:half], uniform[half:]
    torch.from_numpy(radius).log_()
    radius *= -2.0
    np.sqrt(radius, out=radius)
    angle *= 2.0 * math.pi
    for function, part in ((torch.cos, values[:half]), (torch.sin, values[half:])):
        function(torch.from_numpy(angle), out=torch.from_numpy(part))
    values.reshape(2, half)[:] *= radius


def _threads() -> int:
    import torch  # noqa: PLC0415 - as above

    return torch.get_num_threads()
