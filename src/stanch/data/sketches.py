"""MinHash sketches of sets of shingles by one permutation, and the bands that propose which sets are similar.

One hash of an element chooses a bin and a value; a bin keeps its smallest value. An empty bin takes that of the first
filled bin in an order drawn for it, so that two sets agree in a bin with the probability of their Jaccard similarity.
Source: Li, Owen, Zhang, One Permutation Hashing (2012); Shrivastava, Optimal Densification (2017).
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stanch.data.shingles import Hashes, Numbers

ROWS_PER_BAND = 4
_SEED = 42
_EMPTY = np.uint32(2**32 - 1)
_LOW, _HIGH = np.uint64(2**32 - 1), np.uint64(2**64 - 2**32)
_FACTORS = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F], np.uint64)

Sketches = npt.NDArray[np.uint32]


class Sketcher:
    """Makes sketches of ``bins`` values."""

    def __init__(self, bins: int) -> None:
        self.bins = bins
        # Where an empty bin looks, first to last; the same for every set and every run.
        rng = np.random.Generator(np.random.PCG64(_SEED))
        self._order = rng.permuted(np.tile(np.arange(bins), (bins, 1)), axis=1)

    def sketch(self, hashes: Hashes, counts: Numbers) -> Sketches:
        """Return a sketch for each set; ``hashes`` holds the elements of all, one set after the other.

        Elements may be repeated. An empty set has a sketch of empty values.
        """
        sketches = np.full((counts.size, self.bins), _EMPTY)
        owners = np.repeat(np.arange(counts.size), counts)
        bins = ((hashes >> np.uint64(32)) * np.uint64(self.bins)) >> np.uint64(32)
        values = np.minimum(hashes & _LOW, _EMPTY - 1).astype(np.uint32)
        np.minimum.at(sketches.reshape(-1), owners * self.bins + bins.astype(np.int64), values)
        filled = sketches.copy()
        rows, places = np.nonzero(sketches[counts > 0] == _EMPTY)
        rows = np.flatnonzero(counts)[rows]
        for step in range(self.bins):
            if not rows.size:
                break
            found = filled[rows, self._order[places, step]]
            sketches[rows, places] = found
            still = found == _EMPTY
            rows, places = rows[still], places[still]
        return sketches


def candidates(sketches: Sketches, members: Numbers) -> Iterator[Numbers]:
    """Yield groups of two or more of the members, ascending, whose sketches agree in all values of a band of four.

    A group of two comes once, however many bands it shares.
    """
    pairs = [np.empty((0, 2), np.int64)]
    for start in range(0, sketches.shape[1], ROWS_PER_BAND):
        band = (sketches[:, start : start + ROWS_PER_BAND][members] * _FACTORS).sum(axis=1, dtype=np.uint64)
        # Sorting number and band hash as one integer is several times faster than sorting numbers by hash. Hashes of
        # 32 bits meet by chance: that only proposes a pair more.
        keys = np.sort((band * _FACTORS[0]) & _HIGH | members.astype(np.uint64))
        hashes = keys >> np.uint64(32)
        edges = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1], [True]]))
        sizes = np.diff(edges)
        numbers = (keys & _LOW).astype(np.int64)
        twos = edges[:-1][sizes == 2]
        pairs.append(np.stack([numbers[twos], numbers[twos + 1]], axis=1))
        for low, size in zip(edges[:-1][sizes > 2], sizes[sizes > 2], strict=True):
            yield numbers[low : low + size]
    yield from np.unique(np.concatenate(pairs), axis=0)
