"""Gaussian noise in integers on the grid, from AES-256-CTR and the operating system's entropy."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from stanch.crypto import KeyStream
from stanch.tune.boxmuller import add_normals
from stanch.tune.grid import Whole
from stanch.tune.plan import NOISE_DRAWS
from stanch.tune.sampler import Words

Take = Callable[[slice, Whole], None]
"""Takes the noise of the coordinates of a slice; it may be changed there, and is overwritten afterwards."""

_BLOCK = 1 << 14
"""Pairs of values made at once: they, and what they are made of, stay in the cache."""


class NoiseSource(Protocol):
    """Where noise comes from; a seam for correlated noise."""

    def draw(self, step: int, parameter: int, count: int, scale: float, take: Take) -> None:
        """Hand ``count`` Gaussian integers of standard deviation ``scale`` over, for one parameter in one step.

        They come in parts, each coordinate once, perhaps from several threads.
        """
        ...


class AesGaussian:
    """Noise ``aes256ctr-boxmuller-grid/v1``: independent over steps, parameters and coordinates.

    Two draws are averaged, z = (z₁ + z₂)/√2, which closes the gaps that one draw of floats leaves
    (Holohan, Braghin 2021, arXiv 2107.10138). Of each draw the first half of the coordinates has the cosines, the
    second the sines.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def draw(self, step: int, parameter: int, count: int, scale: float, take: Take) -> None:
        """Hand over ``rint(z·scale)`` with z standard normal, from S(key, step, parameter)."""
        half = math.ceil(count / 2)

        def fill(pairs: range) -> None:
            made = _Pairs(self._key, step, parameter, half, pairs.start, scale)
            for start in range(pairs.start, pairs.stop, _BLOCK):
                size = min(_BLOCK, pairs.stop - start)
                cosines, sines = made.integers(size)
                take(slice(start, start + size), cosines)
                last = min(half + start + size, count)
                take(slice(half + start, last), sines[: last - half - start])

        # Blocks are too small for the threads of torch's own functions.
        workers = max(1, min(_threads(), half // _BLOCK))
        share = max(1, math.ceil(half / workers))
        parts = [range(start, min(start + share, half)) for start in range(0, half, share)]
        if workers == 1:
            for part in parts:
                fill(part)
            return
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(fill, parts))


class _Pairs:
    """Makes pairs of integers, one block after the other, in the same memory: new memory takes as long as they do."""

    def __init__(self, key: bytes, step: int, parameter: int, half: int, first: int, scale: float) -> None:
        counter = step.to_bytes(4, "big") + parameter.to_bytes(4, "big")
        # Each draw takes a word for the radius of each pair, and then one for each angle.
        self._streams = [_words_from(key, counter, half * part + first) for part in range(2 * NOISE_DRAWS)]
        size = min(_BLOCK, half)
        self._words: Words = np.empty(2 * size, dtype="<u8")
        self._total, self._values = np.empty(2 * size), np.empty(2 * size)
        self._square = scale * scale / NOISE_DRAWS

    def integers(self, size: int) -> tuple[Whole, Whole]:
        """Return the next ``size`` cosines and sines; the next call overwrites them."""
        words, total, values = self._words[: 2 * size], self._total[: 2 * size], self._values[: 2 * size]
        total[:] = 0
        for draw in range(NOISE_DRAWS):
            for part, stream in zip((words[:size], words[size:]), self._streams[2 * draw :], strict=False):
                stream.fill(part.data)
            add_normals(words, total, self._square, values)
        np.rint(total, out=total)
        return total[:size], total[size:]


def _words_from(key: bytes, counter: bytes, start: int) -> KeyStream:
    """Return the stream of words from word ``start`` on."""
    block, skipped = divmod(start, 2)
    stream = KeyStream(key, counter + block.to_bytes(8, "big"))
    stream.fill(bytearray(8 * skipped))
    return stream


def _threads() -> int:
    import torch  # noqa: PLC0415 - noise is drawn where a model is trained; the plan is read without torch

    return torch.get_num_threads()
