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
_HALF = np.uint64(32)
_LOW, _HIGH = np.uint64(2**32 - 1), np.uint64(2**64 - 2**32)
_FACTORS = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F], np.uint64)

Sketches = npt.NDArray[np.uint32]


class Sketcher:
    """Makes sketches of ``bins`` values."""

    def __init__(self, bins: int) -> None:
        self.bins = bins
        # Where an empty bin looks, first to last; the same for every set and every run.
        rng = np.random.Generator(np.random.PCG64(_SEED))
        self._orders = rng.permuted(np.tile(np.arange(bins), (bins, 1)), axis=1).T.copy()

    def sketch(self, hashes: Hashes, counts: Numbers) -> Sketches:
        """Return a sketch for each set; ``hashes`` holds the elements of all, one set after the other.

        Elements may be repeated. An empty set has a sketch of empty values.
        """
        sketches = np.full((counts.size, self.bins), _EMPTY)
        owners = np.repeat(np.arange(counts.size), counts)
        bins = ((hashes >> np.uint64(32)) * np.uint64(self.bins)) >> np.uint64(32)
        values = np.minimum(hashes & _LOW, _EMPTY - 1).astype(np.uint32)
        flat = sketches.reshape(-1)
        np.minimum.at(flat, owners * self.bins + bins.astype(np.int64), values)
        filled = flat.copy()
        empty = (sketches == _EMPTY) & (counts > 0)[:, None]
        bases = np.repeat(np.arange(counts.size) * self.bins, np.count_nonzero(empty, axis=1))
        slots = np.flatnonzero(empty)
        places = slots - bases
        for order in self._orders:
            if not slots.size:
                break
            flat[slots] = found = filled.take(bases + order.take(places))
            still = np.flatnonzero(found == _EMPTY)
            slots, bases, places = slots.take(still), bases.take(still), places.take(still)
        return sketches


def candidates(sketches: Sketches, members: Numbers) -> Iterator[Numbers]:
    """Yield tables whose rows are groups of the members, ascending, whose sketches agree in all values of a band.

    A band has four values. A table's groups are of one size, two or more. A group of two comes once, however many bands
    it shares.
    """
    pairs = [np.empty(0, np.uint64)]
    for start in range(0, sketches.shape[1], ROWS_PER_BAND):
        band = (sketches[:, start : start + ROWS_PER_BAND][members] * _FACTORS).sum(axis=1, dtype=np.uint64)
        # Sorting number and band hash as one integer is several times faster than sorting numbers by hash. Hashes of
        # 32 bits meet by chance: that only proposes a pair more.
        keys = np.sort((band * _FACTORS[0]) & _HIGH | members.astype(np.uint64))
        hashes = keys >> _HALF
        edges = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1], [True]]))
        sizes = np.diff(edges)
        numbers = keys & _LOW
        twos = edges[:-1][sizes == 2]
        pairs.append(numbers[twos] << _HALF | numbers[twos + 1])
        for size in np.unique(sizes[sizes > 2]):
            yield numbers[edges[:-1][sizes == size, None] + np.arange(size)].astype(np.int64)
    once = np.unique(np.concatenate(pairs))
    yield np.stack([once >> _HALF, once & _LOW], axis=1).astype(np.int64)
