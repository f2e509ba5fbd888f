"""Exact and near duplicates of records: MinHash sketches propose pairs, the true Jaccard similarity decides.

An edge between two records depends on those two alone, with no bucket cap and no sampling, so that removing a whole
cluster changes no other cluster: what ``tune`` needs for its units of privacy.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from stanch.crypto import canonical_json
from stanch.data.clusters import Clusters
from stanch.data.copies import find_copies
from stanch.data.dataset import Dataset
from stanch.data.engines import LOCAL, Engine, in_order
from stanch.data.part_sketch import DIGEST, PartSketches, SketchJob, sketch_batch
from stanch.data.provenance import derive, read_steps
from stanch.data.record_names import LINE_SIZE, NAME_SIZE, shown_names
from stanch.data.shingles import MOST_PAIRS, Hashes, Numbers, jaccard_of_pairs
from stanch.data.sketches import ROWS_PER_BAND, Sketcher, Sketches, candidates
from stanch.data.spill import Spill
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

_BATCH = 1024
_SIGMAS = 4
_LARGE, _PIVOTS = 32, 4
Columns = tuple[bytes, bytes, bytes, bytes]


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """Which records say the same. No text.

    Attributes:
        clusters: Ids of the records of each cluster of two or more, in the order of the dataset.
        similarities: For each cluster, the lowest Jaccard similarity by which a record joined it; 1: all equal once
            folded.
        records: Number of records compared.
        exact: Number of records whose texts stand earlier in the dataset, letter for letter.
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


def find_near_duplicates(
    dataset: Dataset, *, threshold: float = 0.8, num_perm: int = 128, engine: Engine = LOCAL
) -> DuplicateReport:
    """Cluster the records that say the same: turns and tool calls count, system turns and other columns do not.

    Records are compared by the words of their folded texts; where these are equal the similarity is 1. A text without
    any letter or digit is compared as it stands. Others are compared by their sets of 5-word shingles (below 5 words:
    not at all). Candidates come from locality-sensitive hashing with bands of 4 rows: a pair at
    similarity s is proposed with probability 1 − (1 − s^4)^(num_perm / 4), for 128 values and s = 0.8 all but 5e-8.
    Source: Broder (1997); Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4.

    Memory grows by about 100 bytes a record; ids, hashes and sketches lie in files without a name. The engine reads the
    dataset and makes the sketches, part by part; this process compares them.

    Raises:
        InvalidInput: The threshold is not in [0.5, 1], or ``num_perm`` no multiple of 4 in [16, 1024].
    """
    if not 0.5 <= threshold <= 1 or num_perm % ROWS_PER_BAND or not 16 <= num_perm <= 1024:
        raise InvalidInput("near-duplicates: expected a threshold from 0.5 to 1 and 16 to 1024 permutations, in fours")
    texts = bytearray()
    with Spill(np.uint8, NAME_SIZE if dataset.key is not None else LINE_SIZE) as spill:

        def columns() -> Iterator[Columns]:
            parts = tuple(enumerate(dataset.file.parts()))
            for body in in_order(engine.run(SketchJob(dataset, num_perm), parts), parts):
                part = msgspec.msgpack.decode(body, type=PartSketches)
                spill.append(np.frombuffer(part.names, np.uint8))
                texts.extend(part.texts)
                yield part.digests, part.counts, part.hashes, part.sketches

        read = _read(columns(), num_perm)
        names = spill.mapped()
    report = _cluster(read, threshold, num_perm, lambda wanted: shown_names(names, wanted))
    return replace(report, exact=report.records - np.unique(_digests(texts)).size)


def cluster_texts(texts: Iterable[tuple[str, bytes]], threshold: float, num_perm: int) -> DuplicateReport:
    """Cluster folded texts, given with their ids, as :func:`find_near_duplicates`; ``exact``: equal once folded."""
    ids: list[str] = []
    sketcher = Sketcher(num_perm)

    def columns() -> Iterator[Columns]:
        rest = iter(texts)
        while batch := list(islice(rest, _BATCH)):
            ids.extend(name for name, _ in batch)
            yield sketch_batch(sketcher, [view for _, view in batch])

    read = _read(columns(), num_perm)
    return _cluster(read, threshold, num_perm, lambda wanted: {index: ids[index] for index in wanted})


def _cluster(
    read: "_Read", threshold: float, num_perm: int, names: Callable[[Collection[int]], dict[int, str]]
) -> DuplicateReport:
    clusters = Clusters(len(read.digests))
    _, first, same = np.unique(read.digests, return_index=True, return_inverse=True)
    for index in np.flatnonzero(first[same] != np.arange(len(read.digests))):
        clusters.join(int(first[same[index]]), int(index), 1.0)
    # Of equal records the first stands for all; records below a shingle are compared exactly only.
    members = np.sort(first[read.sizes[first] > 0])
    _join_similar(clusters, members, read, threshold)
    found = clusters.found()
    ids = names({index for cluster, _ in found for index in cluster})
    return DuplicateReport(
        clusters=tuple(tuple(ids[index] for index in cluster) for cluster, _ in found),
        similarities=tuple(similarity for _, similarity in found),
        records=len(read.digests),
        exact=len(read.digests) - first.size,
        threshold=threshold,
        num_perm=num_perm,
    )


def drop_duplicates(dataset: Dataset, report: DuplicateReport, out: Path, *, ignore_columns: bool = False) -> Dataset:
    """Write the dataset without the copies in each cluster; whole records are removed, never parts.

    A copy holds nothing that the record which stays does not: see :func:`stanch.data.copies.find_copies`. With
    ``ignore_columns`` other columns, such as labels and numbers of rows, may differ.

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
    missing, records = {name for cluster in report.clusters for name in cluster}, 0
    for record in dataset:
        records += 1
        missing.discard(record.id)
    if missing or records != report.records:
        raise InvalidInput(
            f"{dataset.uri}: the duplicate report is about another dataset",
            next_step="make the report again, with the dataset opened in the same way",
        )
    removed = find_copies(dataset, report.clusters, ignore_columns=ignore_columns)
    parameters: dict[str, JsonValue] = {
        "ignore_columns": ignore_columns, "keep": "first", "num_perm": report.num_perm, "removed": len(removed),
        "threshold": report.threshold,
    }  # fmt: skip
    lines = (record.raw for record in dataset if record.id not in removed)
    return derive(dataset, out, ("deduplicate", parameters), lines)


@dataclass(frozen=True, slots=True)
class _Read:
    """What one pass over the dataset leaves: digests in memory, hashes and sketches on disk."""

    digests: npt.NDArray[np.void]
    sizes: Numbers
    offsets: Numbers
    hashes: Hashes
    sketches: Sketches


def _read(columns: Iterable[Columns], num_perm: int) -> _Read:
    kept = bytearray()
    sizes = [np.zeros(1, np.int64)]
    with Spill(np.uint64) as spilled, Spill(np.uint32, num_perm) as sketched:
        for digests, counts, hashes, sketches in columns:
            kept += digests
            sizes.append(np.frombuffer(counts, np.int64))
            spilled.append(np.frombuffer(hashes, np.uint64))
            sketched.append(np.frombuffer(sketches, np.uint32))
        counted = np.concatenate(sizes)
        return _Read(_digests(kept), counted[1:], np.cumsum(counted), spilled.mapped(), sketched.mapped())


def _digests(joined: bytearray) -> npt.NDArray[np.void]:
    return np.frombuffer(joined, f"V{DIGEST}")


def _join_similar(clusters: Clusters, members: Numbers, read: _Read, threshold: float) -> None:
    for table in candidates(read.sketches, members):
        if table.shape[1] <= _LARGE:
            _join_all(clusters, table, read, threshold)
            continue
        for group in table:
            _join_group(clusters, group, read, threshold)


def _join_all(clusters: Clusters, table: Numbers, read: _Read, threshold: float) -> None:
    """Compare every pair of each row."""
    for place in range(table.shape[1] - 1):
        later = table[:, place + 1 :]
        _join_pairs(clusters, np.repeat(table[:, place], later.shape[1]), later.ravel(), read, threshold)


def _join_group(clusters: Clusters, group: Numbers, read: _Read, threshold: float) -> None:
    """Compare the pairs of a large group that are not of one cluster by then, without listing the others.

    Most often the group is one template, and one of its records is like all others: then it takes no more pairs than
    records.
    """
    for pivot in group[:_PIVOTS]:
        apart = group[clusters.labels(group) != clusters.labels(pivot)]
        if not apart.size:
            return
        _join_pairs(clusters, np.full(apart.size, pivot), apart, read, threshold)
    labels = clusters.labels(group)
    names, sizes = np.unique(labels, return_counts=True)
    if 2 * sizes.max() < group.size:
        _join_all(clusters, group[None], read, threshold)
        return
    main, odd = group[labels == names[sizes.argmax()]], group[labels != names[sizes.argmax()]]
    for other in odd:
        for low in range(0, main.size, MOST_PAIRS):
            if clusters.labels(other) == clusters.labels(main[0]):
                break
            part = main[low : low + MOST_PAIRS]
            _join_pairs(clusters, part, np.full(part.size, other), read, threshold)
    if odd.size > 1:
        _join_group(clusters, odd, read, threshold)


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
