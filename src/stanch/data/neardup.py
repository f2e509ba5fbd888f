"""Exact and near duplicates of records: MinHash sketches propose pairs, the true Jaccard similarity decides.

An edge between two records depends on those two alone, with no bucket cap and no sampling, so that removing a whole
cluster changes no other cluster: what ``tune`` needs for its units of privacy.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stanch.crypto import canonical_json
from stanch.data.clusters import Clusters
from stanch.data.dataset import Dataset
from stanch.data.provenance import derive, read_steps
from stanch.data.shingles import MOST_PAIRS, Hashes, Numbers, flat_shingles, folded_text, jaccard_of_pairs
from stanch.data.sketches import ROWS_PER_BAND, Sketcher, Sketches, candidates
from stanch.data.spill import Spill
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

_BATCH = 1024
_DIGEST = 16
_SIGMAS = 4


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """Which records say the same. No text.

    Attributes:
        clusters: Ids of the records of each cluster of two or more, in the order of the dataset.
        similarities: For each cluster, the lowest Jaccard similarity by which a record joined it; 1: all equal.
        records: Number of records compared.
        exact: Number of records whose folded text stands earlier in the dataset.
        threshold: Jaccard similarity from which two records are near-duplicates.
        num_perm: Number of MinHash permutations.
    """

    clusters: tuple[tuple[str, ...], ...]
    similarities: tuple[float, ...]
    records: int
    exact: int
    threshold: float
    num_perm: int

    def to_json(self) -> bytes:
        """Return ``stanch/duplicate-report/v1`` in canonical JSON."""
        clusters: list[JsonValue] = [
            {"ids": list(ids), "size": len(ids), "similarity": similarity}
            for ids, similarity in zip(self.clusters, self.similarities, strict=True)
        ]
        return canonical_json(
            {
                "schema": "stanch/duplicate-report/v1",
                "records": self.records,
                "exact": self.exact,
                "threshold": self.threshold,
                "num_perm": self.num_perm,
                "clusters": clusters,
            }
        )


def find_near_duplicates(dataset: Dataset, *, threshold: float = 0.8, num_perm: int = 128) -> DuplicateReport:
    """Cluster the records that say the same in what is spoken or written; system turns and other columns do not count.

    Equal folded texts are exact duplicates. Others are compared by their sets of 5-word shingles of the folded text
    (records below 5 words: exact only). Candidates come from locality-sensitive hashing with bands of 4 rows: a pair at
    similarity s is proposed with probability 1 − (1 − s^4)^(num_perm / 4), for 128 values and s = 0.8 all but 5e-8.
    Source: Broder (1997); Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4.

    Memory grows by about 150 bytes a record; hashes and sketches lie in files without a name.

    Raises:
        InvalidInput: The threshold is not in [0.5, 1], or ``num_perm`` no multiple of 4 in [16, 1024].
    """
    if not 0.5 <= threshold <= 1 or num_perm % ROWS_PER_BAND or not 16 <= num_perm <= 1024:
        raise InvalidInput("near-duplicates: expected a threshold from 0.5 to 1 and 16 to 1024 permutations, in fours")
    return cluster_texts(((record.id, folded_text(record)) for record in dataset), threshold, num_perm)


def cluster_texts(texts: Iterable[tuple[str, bytes]], threshold: float, num_perm: int) -> DuplicateReport:
    """Cluster folded texts, given with their ids, as :func:`find_near_duplicates` does."""
    read = _read(texts, num_perm)
    clusters = Clusters(len(read.ids))
    _, first, same = np.unique(read.digests, return_index=True, return_inverse=True)
    for index in np.flatnonzero(first[same] != np.arange(len(read.ids))):
        clusters.join(int(first[same[index]]), int(index), 1.0)
    # Of equal records the first stands for all; records below a shingle are compared exactly only.
    members = np.sort(first[read.sizes[first] > 0])
    _join_similar(clusters, members, read, threshold)
    found = clusters.found()
    return DuplicateReport(
        clusters=tuple(tuple(read.ids[index] for index in cluster) for cluster, _ in found),
        similarities=tuple(similarity for _, similarity in found),
        records=len(read.ids),
        exact=len(read.ids) - first.size,
        threshold=threshold,
        num_perm=num_perm,
    )


def drop_duplicates(dataset: Dataset, report: DuplicateReport, out: Path) -> Dataset:
    """Write the dataset with the first record of each cluster only; whole records are removed, never parts.

    Raises:
        InvalidInput: The dataset holds canaries, or the report is about another dataset.
        Tampered: The dataset is not the file that its provenance speaks of.
    """
    if any(step.operation == "inject" for step in read_steps(dataset)):
        raise InvalidInput(
            f"{dataset.uri}: holds canaries and is not de-duplicated",
            why="dropping copies of a canary would spoil the audit without a trace",
            next_step="de-duplicate first, then inject",
        )
    removed = {name for cluster in report.clusters for name in cluster[1:]}
    known = {name for cluster in report.clusters for name in cluster}
    names = {record.id for record in dataset}
    if len(names) != report.records or not known <= names:
        raise InvalidInput(
            f"{dataset.uri}: the duplicate report is about another dataset",
            next_step="make the report again, with the dataset opened in the same way",
        )
    parameters = {"keep": "first", "num_perm": report.num_perm, "removed": len(removed), "threshold": report.threshold}
    lines = (record.raw for record in dataset if record.id not in removed)
    return derive(dataset, out, ("deduplicate", parameters), lines)


@dataclass(frozen=True, slots=True)
class _Read:
    """What one pass over the dataset leaves: ids and digests in memory, hashes and sketches on disk."""

    ids: list[str]
    digests: npt.NDArray[np.void]
    sizes: Numbers
    offsets: Numbers
    hashes: Hashes
    sketches: Sketches


def _read(texts: Iterable[tuple[str, bytes]], num_perm: int) -> _Read:
    ids: list[str] = []
    digests = bytearray()
    counts = [np.zeros(1, np.int64)]
    sketcher = Sketcher(num_perm)
    with Spill(np.uint64) as hashes, Spill(np.uint32, num_perm) as sketches:
        for batch in _batches(texts):
            views = [view for _, view in batch]
            ids += [name for name, _ in batch]
            digests += b"".join(hashlib.blake2b(view, digest_size=_DIGEST).digest() for view in views)
            runs, sizes = flat_shingles(views)
            hashes.append(runs)
            sketches.append(sketcher.sketch(runs, sizes))
            counts.append(sizes)
        all_sizes = np.concatenate(counts)
        found = np.frombuffer(digests, f"V{_DIGEST}")
        return _Read(ids, found, all_sizes[1:], np.cumsum(all_sizes), hashes.mapped(), sketches.mapped())


def _batches(texts: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    rest = iter(texts)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _join_similar(clusters: Clusters, members: Numbers, read: _Read, threshold: float) -> None:
    for table in candidates(read.sketches, members):
        for place in range(table.shape[1] - 1):
            later = table[:, place + 1 :]
            _join_pairs(clusters, np.repeat(table[:, place], later.shape[1]), later.ravel(), read, threshold)


def _join_pairs(clusters: Clusters, firsts: Numbers, others: Numbers, read: _Read, threshold: float) -> None:
    for low in range(0, firsts.size, MOST_PAIRS):
        first, other = firsts[low : low + MOST_PAIRS], others[low : low + MOST_PAIRS]
        # Two records of one cluster need no further edge: the cluster stays the same.
        apart = clusters.labels(first) != clusters.labels(other)
        first, other = first[apart], other[apart]
        if not first.size:
            continue
        estimates = np.count_nonzero(read.sketches[first] == read.sketches[other], axis=1) / read.sketches.shape[1]
        smaller = np.minimum(read.sizes[first], read.sizes[other])
        likely = estimates >= threshold - _margin(smaller, threshold)
        first, other = first[likely], other[likely]
        similarities = jaccard_of_pairs(read.hashes, read.offsets, first, other)
        for pair in np.flatnonzero(similarities >= threshold):
            clusters.join(int(first[pair]), int(other[pair]), float(similarities[pair]))


def _margin(sizes: Numbers, threshold: float) -> npt.NDArray[np.float64]:
    """Return how far below the threshold an estimate may lie: four standard deviations, for sets of such sizes.

    At least half of min(elements, bins) bins count on their own; the bins that were empty repeat others.
    """
    return _SIGMAS * math.sqrt(threshold * (1 - threshold)) / np.sqrt(np.minimum(sizes, 128) / 2)
