"""The windows of many texts: which are indexed, and in how many texts each of them stands."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from stanch.scan.spans.rolling import Hashes, WindowHasher

_BATCH = 1 << 20

Numbers = npt.NDArray[np.int64]


class Windows:
    """All windows of folded texts, hashed in batches of about 1 MiB; short texts cost no more than long ones."""

    def __init__(self, hasher: WindowHasher, folded: Sequence[bytes]) -> None:
        self._hasher = hasher
        self._folded = folded

    def sampled(self, stride: int) -> Hashes:
        """Return the sorted distinct hashes of the windows at 0, stride, 2·stride … and at the end of each text."""
        kept = [np.empty(0, dtype=np.uint64)]
        for texts, hashes, _, places in self._batches():
            lasts = np.array([len(text) - self._hasher.k for text in texts], dtype=np.int64)
            lasts = np.repeat(lasts, np.maximum(lasts + 1, 0))
            kept.append(np.unique(hashes[(places % stride == 0) | (places == lasts)]))
        return np.unique(np.concatenate(kept))

    def texts_holding(self, keys: Hashes) -> Numbers:
        """Count for each of the sorted keys the texts in which its window stands at any place."""
        counts = np.zeros(len(keys), dtype=np.int64)
        if not len(keys):
            return counts
        for _, hashes, owners, _ in self._batches():
            found = np.minimum(np.searchsorted(keys, hashes), len(keys) - 1)
            present = keys[found] == hashes
            once = np.unique(owners[present] * len(keys) + found[present])
            counts += np.bincount(once % len(keys), minlength=len(keys))
        return counts

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
