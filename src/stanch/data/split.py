"""The keyed split of a dataset into members, which are tuned on, and non-members, which are kept out."""

from dataclasses import dataclass
from pathlib import Path

from stanch.crypto import hkdf_sha256, hmac_sha256
from stanch.data.dataset import KEY_SIZE, Dataset
from stanch.data.neardup import DuplicateReport
from stanch.data.provenance import derive
from stanch.errors import InvalidInput

_FEW, _RATHER_FEW = 1_000, 10_000


@dataclass(frozen=True, slots=True)
class Split:
    """Record ids of both sides.

    Attributes:
        members: Tuned on.
        nonmembers: Kept out.
        holdout: The share that was asked for.
        warnings: What the sizes do not allow to measure.
    """

    members: frozenset[str]
    nonmembers: frozenset[str]
    holdout: float
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Split(members=<{len(self.members)}>, nonmembers=<{len(self.nonmembers)}>, holdout={self.holdout})"


def split_members(
    dataset: Dataset, *, holdout: float = 0.1, key: bytes, groups: DuplicateReport | None = None
) -> Split:
    """Split by a keyed coin per group, so that near-duplicates are never on both sides.

    A group is a cluster of ``groups``, named by its smallest record id, or a single record. It is a non-member iff
    LE64(HMAC-SHA256(K_split, group)[:8]) / 2^64 < holdout, with K_split = HKDF(dataset key, "stanch/split/v1").

    Raises:
        InvalidInput: ``holdout`` is not in (0, 1), the key is not 32 bytes, or a side stays empty.
    """
    if not 0 < holdout < 1 or len(key) != KEY_SIZE:
        raise InvalidInput(f"split: expected a holdout between 0 and 1 and a key of {KEY_SIZE} bytes")
    secret = hkdf_sha256(key, info=b"stanch/split/v1", length=32)
    group_of = {name: min(cluster) for cluster in (groups.clusters if groups is not None else ()) for name in cluster}
    sides: tuple[set[str], set[str]] = (set(), set())
    for record in dataset:
        group = group_of.get(record.id, record.id)
        draw = int.from_bytes(hmac_sha256(secret, group.encode())[:8], "little")
        sides[draw < holdout * 2**64].add(record.id)
    members, nonmembers = sides
    if not members or not nonmembers:
        raise InvalidInput(
            f"{dataset.uri}: a side of the split stays empty", next_step="use more records or another holdout"
        )
    return Split(frozenset(members), frozenset(nonmembers), holdout, _warnings(len(nonmembers)))


def write_split(dataset: Dataset, split: Split, *, members: Path, nonmembers: Path) -> tuple[Dataset, Dataset]:
    """Write both sides as datasets, in the order of the dataset.

    Raises:
        InvalidInput: The split is about another dataset, or a file cannot be written.
    """
    names = {record.id for record in dataset}
    if names != split.members | split.nonmembers:
        raise InvalidInput(
            f"{dataset.uri}: the split is about another dataset",
            next_step="split again, with the dataset opened in the same way",
        )
    return (
        _write_side(dataset, split.members, members, "members", split.holdout),
        _write_side(dataset, split.nonmembers, nonmembers, "nonmembers", split.holdout),
    )


def _write_side(dataset: Dataset, names: frozenset[str], out: Path, side: str, holdout: float) -> Dataset:
    lines = (record.raw for record in dataset if record.id in names)
    return derive(dataset, out, ("split", {"holdout": holdout, "side": side}), lines)


def _warnings(nonmembers: int) -> tuple[str, ...]:
    if nonmembers < _FEW:
        return (f"{nonmembers} non-members: too few to measure a true positive rate at 1 % false positives",)
    if nonmembers < _RATHER_FEW:
        return (f"{nonmembers} non-members: too few to measure a true positive rate at 0.1 % false positives",)
    return ()
