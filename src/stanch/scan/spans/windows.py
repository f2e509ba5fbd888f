"""The windows of many texts: which are indexed, and in how many texts each of them stands."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from stanch.scan.spans.bloom import Words, finalise
from stanch.scan.spans.rolling import Hashes, RollingKey, WindowHasher

_BATCH = 1 << 20

Numbers = npt.NDArray[np.int64]
Number = TypeVar("Number", np.int64, np.uint64)


class Windows:
    """All windows of folded texts, hashed in batches of about 1 MiB; short texts cost no more than long ones.

    A window is known by the two halves of its finalised hash, from which nobody without the key learns anything; two
    different windows share the first half with probability 2^-64.
    """

    def __init__(self, rolling: RollingKey, k: int, folded: Sequence[bytes]) -> None:
        self._finaliser = rolling.finaliser
        self._hasher = WindowHasher(rolling, k)
        self._folded = folded

    def sampled(self, stride: int) -> Words:
        """Return the distinct windows at 0, stride, 2·stride … and at the end of each text, by their first half."""
        kept = [np.empty(0, dtype=np.uint64)]
        for texts, hashes, _, places in self._batches():
            lasts = np.array([len(text) - self._hasher.k for text in texts], dtype=np.int64)
            lasts = np.repeat(lasts, np.maximum(lasts + 1, 0))
            kept.append(_distinct(hashes[(places % stride == 0) | (places == lasts)]))
        return distinct_windows(finalise(self._finaliser, _distinct(np.concatenate(kept))))

    def held(self, keys: Hashes) -> tuple[Numbers, Numbers]:
        """Return which of ``keys`` stand in the texts at any place, by number, and in how many texts each.

        Args:
            keys: First halves of windows, sorted, each once.
        """
        found = [np.empty(0, dtype=np.int64)]
        for texts, hashes, owners, _ in self._batches() if len(keys) else ():
            halves = finalise(self._finaliser, hashes)[:, 0]
            at = np.minimum(np.searchsorted(keys, halves), len(keys) - 1)
            present = keys[at] == halves
            # One number for key and text, so that one sort finds both.
            found.append(_distinct(at[present] * len(texts) + owners[present]) // len(texts))
        numbers = np.sort(np.concatenate(found))
        edges = np.flatnonzero(np.diff(numbers, prepend=-1))
        return numbers[edges], np.diff(edges, append=len(numbers))

    def _batches(self) -> Iterator[tuple[Sequence[bytes], Hashes, Numbers, Numbers]]:
        """Yield texts, the hashes of all their windows, and for each of these the text's number and the place in it."""
        start = 0
        while start < len(self._folded):
            end, size = start, 0
            while end < len(self._folded) and size < _BATCH:
                size += len(self._folded[end])
                end += 1
            texts = self._folded[start:end]
            counts = np.array([max(0, len(text) - self._hasher.k + 1) for text in texts], dtype=np.int64)
            owners = np.repeat(np.arange(len(texts), dtype=np.int64), counts)
            places = np.arange(len(owners), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
            offsets = np.cumsum([0, *(len(text) for text in texts[:-1])])
            yield texts, self._hasher.all(b"".join(texts))[offsets[owners] + places], owners, places
            start = end


def distinct_windows(windows: Words) -> Words:
    """Return windows sorted by their first half, each once."""
    windows = windows[np.argsort(windows[:, 0], kind="stable")]
    return windows[_is_new(windows[:, 0])]


def _distinct(values: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return the values sorted, each once. As :func:`numpy.unique`, which hashes and is many times slower here."""
    values = np.sort(values)
    return values[_is_new(values)]


def _is_new(values: npt.NDArray[Number]) -> npt.NDArray[np.bool_]:
    """Tell of sorted values which differ from the one before."""
    new = np.ones(len(values), dtype=np.bool_)
    new[1:] = values[1:] != values[:-1]
    return new
