"""Keyed fingerprints of long runs of text, few and yet shared by all who share a run; and how often each was seen."""

import numpy as np
import numpy.typing as npt

from stanch.scan.spans.bloom import finalise
from stanch.scan.spans.rolling import Hashes, RollingKey, WindowHasher

_DEPTH, _WIDTH = 4, 1 << 22
_MASK = np.uint64(_WIDTH - 1)

Numbers = npt.NDArray[np.int64]


class Winnower:
    """Chooses windows of a text such that two texts which share ``guaranteed`` bytes share a chosen window.

    Of every run of windows, a quarter of ``guaranteed`` long, those with the smallest hash are chosen: a choice that
    depends on the run's bytes alone. Source: Schleimer, Wilkerson, Aiken, Winnowing (2003), section 2.
    """

    def __init__(self, key: bytes, guaranteed: int) -> None:
        self._run = guaranteed // 4 + 1
        self.window = guaranteed - self._run + 1
        self._key = RollingKey.derive(key, bytes(16))
        self._hasher = WindowHasher(self._key, self.window)

    def winnow(self, text: bytes) -> tuple[Hashes, Numbers]:
        """Return the fingerprints of the chosen windows and where they start; none if the text is too short.

        Of windows of one fingerprint that overlap, as in text with a short period, the first is returned.
        """
        hashes = self._hasher.all(text)
        if hashes.size < self._run:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        smallest = _slide(np.minimum, hashes, self._run)
        # A window is chosen if it is the smallest of a run that holds it: then it is the largest of those smallest.
        edge = np.zeros(self._run - 1, np.uint64)
        largest = _slide(np.maximum, np.concatenate([edge, smallest, edge]), self._run)
        starts = np.flatnonzero(hashes == largest)
        order = np.lexsort((starts, hashes[starts]))
        same = np.diff(hashes[starts][order], prepend=~hashes[starts][order][:1]) == 0
        near = np.diff(starts[order], prepend=0) < self.window
        starts = np.sort(starts[order][~(same & near)])
        return finalise(self._key.finaliser, hashes[starts])[:, 0], starts


def _slide(smaller: np.ufunc, values: Hashes, width: int) -> Hashes:
    """Return the minimum (or maximum) of every ``width`` values in a row, by doubling."""
    size = 1
    while size * 2 <= width:
        values = smaller(values[:-size], values[size:])
        size *= 2
    rest = width - size
    result: Hashes = smaller(values[: values.size - rest], values[rest:])
    return result


class CountMin:
    """Counts fingerprints in 64 MiB, never too low. Source: Cormode and Muthukrishnan, Count-Min Sketch (2005)."""

    def __init__(self) -> None:
        self._counts = np.zeros((_DEPTH, _WIDTH), np.uint32)

    def add(self, prints: Hashes) -> None:
        """Count each of a record's fingerprints once."""
        for row, slots in zip(self._counts, _slots(np.unique(prints)), strict=True):
            np.add.at(row, slots, 1)

    def in_several(self, prints: Hashes) -> npt.NDArray[np.bool_]:
        """Tell which of the fingerprints may have been counted twice; who was is never missed."""
        counts = [row[slots] for row, slots in zip(self._counts, _slots(prints), strict=True)]
        lowest: Numbers = np.minimum.reduce(counts)
        return lowest >= 2


def _slots(prints: Hashes) -> list[Numbers]:
    # A fingerprint is the output of a keyed permutation. Its bits do for three slots; a product gives the fourth.
    mixed = prints * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(42)
    return [((prints >> np.uint64(21 * row)) & _MASK).astype(np.int64) for row in range(_DEPTH - 1)] + [
        mixed.astype(np.int64)
    ]
