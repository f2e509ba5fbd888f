"""Union of records into clusters, smaller into larger, so that every label is one array look-up."""

import numpy as np
import numpy.typing as npt


class Clusters:
    """Clusters of the integers from 0; each starts alone."""

    def __init__(self) -> None:
        self._label: list[int] = []
        self._members: dict[int, list[int]] = {}
        self._lowest: dict[int, float] = {}

    def add(self) -> None:
        """Add the next integer as a cluster of its own."""
        name = len(self._label)
        self._label.append(name)
        self._members[name] = [name]
        self._lowest[name] = 1.0

    def labels(self, indexes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the label of the cluster of each index; equal labels, same cluster."""
        return np.array([self._label[index] for index in indexes], np.int64)

    def join(self, left: int, right: int, similarity: float) -> None:
        """Make one cluster of those of ``left`` and ``right``."""
        keep, drop = self._label[left], self._label[right]
        if keep == drop:
            return
        if len(self._members[keep]) < len(self._members[drop]):
            keep, drop = drop, keep
        moved = self._members.pop(drop)
        for index in moved:
            self._label[index] = keep
        self._members[keep] += moved
        self._lowest[keep] = min(self._lowest[keep], self._lowest.pop(drop), similarity)

    def found(self) -> list[tuple[list[int], float]]:
        """Return each cluster of two or more, ascending, with the lowest similarity by which two parts were joined."""
        clusters = [(sorted(members), self._lowest[name]) for name, members in self._members.items()]
        return sorted((cluster for cluster in clusters if len(cluster[0]) > 1), key=lambda cluster: cluster[0][0])
