"""Union of records into clusters, smaller into larger, so that every label is one array look-up."""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


class Clusters:
    """Clusters of the integers below ``count``; each starts alone. Memory: eight bytes each, more for who joined."""

    def __init__(self, count: int) -> None:
        self._label = np.arange(count)
        self._members: dict[int, list[int]] = {}
        self._lowest: dict[int, float] = {}

    def labels(self, indexes: Numbers | np.int64) -> Numbers:
        """Return the label of the cluster of each index; equal labels, same cluster."""
        return self._label[indexes]

    def join(self, left: int, right: int, similarity: float) -> None:
        """Make one cluster of those of ``left`` and ``right``."""
        keep, drop = int(self._label[left]), int(self._label[right])
        if keep == drop:
            return
        kept, moved = self._members.pop(keep, [keep]), self._members.pop(drop, [drop])
        lowest = min(self._lowest.pop(keep, 1.0), self._lowest.pop(drop, 1.0), similarity)
        if len(kept) < len(moved):
            keep, kept, moved = drop, moved, kept
        self._label[moved] = keep
        kept += moved
        self._members[keep], self._lowest[keep] = kept, lowest

    def found(self) -> list[tuple[list[int], float]]:
        """Return each cluster of two or more, ascending, with the lowest similarity by which two parts were joined."""
        clusters = [(sorted(members), self._lowest[name]) for name, members in self._members.items()]
        return sorted(clusters, key=lambda cluster: cluster[0][0])
