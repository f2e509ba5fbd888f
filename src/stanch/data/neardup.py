"""Exact and near duplicates of records: MinHash sketches propose pairs, the true Jaccard similarity decides.

An edge between two records depends on those two alone, with no bucket cap and no sampling, so that removing a whole
cluster changes no other cluster: what ``tune`` needs for its units of privacy.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stanch.crypto import canonical_json
from stanch.data.clusters import Clusters
from stanch.data.dataset import Dataset
from stanch.data.provenance import derive, read_steps
from stanch.data.record import Record
from stanch.errors import InvalidInput
from stanch.scan import fold_text
from stanch.terms import JsonValue

SHINGLE_WORDS = 5
_SEED = 42
_ROWS_PER_BAND = 4
_ESTIMATE_MARGIN = 0.1
_BATCH = 1024
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_UNCOMPARED_ROLES = frozenset({"", "system", "developer", "tool_call"})

Hashes = npt.NDArray[np.uint64]
Sketches = npt.NDArray[np.uint32]


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
    similarity s is proposed with probability 1 − (1 − s^4)^(num_perm / 4), for 128 permutations and s = 0.8 all but
    5e-8. Source: Broder (1997); Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4.

    Raises:
        InvalidInput: The threshold is not in [0.5, 1], or ``num_perm`` no multiple of 4 in [16, 1024].
    """
    if not 0.5 <= threshold <= 1 or num_perm % _ROWS_PER_BAND or not 16 <= num_perm <= 1024:
        raise InvalidInput("near-duplicates: expected a threshold from 0.5 to 1 and 16 to 1024 permutations, in fours")
    ids: list[str] = []
    members: list[int] = []
    hashes: list[Hashes] = []
    first_of: dict[bytes, int] = {}
    clusters = Clusters()
    for index, record in enumerate(dataset):
        ids.append(record.id)
        clusters.add()
        view = folded_text(record)
        first = first_of.setdefault(hashlib.sha256(view).digest(), index)
        if first != index:
            clusters.join(first, index, 1.0)
        elif (shingled := shingles(view)).size:
            members.append(index)
            hashes.append(shingled)
    sketches = np.concatenate([np.empty((0, num_perm), np.uint32), *_sketches(hashes, num_perm)])
    exact = len(ids) - len(first_of)
    _join_similar(clusters, np.array(members), hashes, sketches, threshold)
    found = clusters.found()
    return DuplicateReport(
        clusters=tuple(tuple(ids[index] for index in cluster) for cluster, _ in found),
        similarities=tuple(similarity for _, similarity in found),
        records=len(ids),
        exact=exact,
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


def folded_text(record: Record) -> bytes:
    """Return what is compared of a record: the folded text (``index`` view) of its turns but the system's."""
    return fold_texts(field.text for field in record.fields if field.role not in _UNCOMPARED_ROLES)


def fold_texts(texts: Iterable[str]) -> bytes:
    """Return the ``index`` view of the texts, one after the other."""
    return fold_text("\n".join(texts), "index")


def shingles(view: bytes) -> Hashes:
    """Return the sorted 64-bit hashes of all runs of 5 words of a folded text; empty below 5 words.

    A run's hash is a polynomial in the hashes of its words, modulo 2^64: two different runs collide with probability
    about 2^-64 each, far below anything that moves a similarity.
    """
    hashed = b"".join([hashlib.blake2b(word, digest_size=8).digest() for word in view.split(b" ")])
    words = np.frombuffer(hashed, "<u8")
    count = max(words.size - SHINGLE_WORDS + 1, 0)
    runs = np.zeros(count, np.uint64)
    for place in range(SHINGLE_WORDS):
        runs = runs * _MULTIPLIER + words[place : place + count]
    return np.unique(runs)


def jaccard(left: Hashes, right: Hashes) -> float:
    """Return the Jaccard similarity of two sets of shingles."""
    common = np.intersect1d(left, right, assume_unique=True).size
    return float(common / max(left.size + right.size - common, 1))


def _sketches(hashes: list[Hashes], num_perm: int) -> Iterator[Sketches]:
    from rensa import RMinHash  # noqa: PLC0415 - a compiled part that only this pass needs

    for start in range(0, len(hashes), _BATCH):
        batch = hashes[start : start + _BATCH]
        offsets = np.cumsum([0, *(item.size for item in batch)], dtype=np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(batch), offsets, num_perm, _SEED)
        yield np.array(matrix.to_rows(), np.uint32)


def _join_similar(
    clusters: Clusters, members: npt.NDArray[np.int64], hashes: list[Hashes], sketches: Sketches, threshold: float
) -> None:
    for first, others in _candidates(sketches):
        # Two records of one cluster need no further edge: the cluster stays the same.
        apart = others[clusters.labels(members[others]) != clusters.labels(members[first : first + 1])]
        estimates = (sketches[apart] == sketches[first]).mean(axis=1)
        for other in apart[estimates >= threshold - _ESTIMATE_MARGIN]:
            similarity = jaccard(hashes[first], hashes[other])
            if similarity >= threshold:
                clusters.join(int(members[first]), int(members[other]), similarity)


def _candidates(sketches: Sketches) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield each row with the later rows that share one of its bands."""
    for start in range(0, sketches.shape[1], _ROWS_PER_BAND):
        band = np.ascontiguousarray(sketches[:, start : start + _ROWS_PER_BAND]).view(np.dtype((np.void, 16))).ravel()
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.concatenate([[True], band[order][1:] != band[order][:-1]]))
        sizes = np.diff(starts, append=order.size)
        for low, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
            bucket = order[low : low + size]
            for position in range(bucket.size - 1):
                yield int(bucket[position]), bucket[position + 1 :]
