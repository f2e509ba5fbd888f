"""The keyed split of a dataset into members, which are tuned on, and non-members, which are kept out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stanch.crypto import hkdf_sha256, hmac_sha256
from stanch.data.dataset import KEY_SIZE, Dataset
from stanch.data.groups import group_records, person_columns, unit_value
from stanch.data.neardup import DuplicateReport
from stanch.data.provenance import derive
from stanch.data.record import Record
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

_FEW, _RATHER_FEW = 1_000, 10_000


@dataclass(frozen=True, slots=True)
class Split:
    """Record ids of both sides.

    Attributes:
        members: Tuned on.
        nonmembers: Kept out.
        holdout: The share that was asked for.
        warnings: What the sizes do not allow to measure, and whether a person's records may be on both sides.
        unit_column: The column whose records stayed together, if one was named.
    """

    members: frozenset[str]
    nonmembers: frozenset[str]
    holdout: float
    warnings: tuple[str, ...]
    unit_column: str | None = None

    def __repr__(self) -> str:
        return f"Split(members=<{len(self.members)}>, nonmembers=<{len(self.nonmembers)}>, holdout={self.holdout})"


def split_members(
    dataset: Dataset,
    *,
    holdout: float = 0.1,
    key: bytes,
    groups: DuplicateReport | None = None,
    unit_column: str | None = None,
) -> Split:
    """Split by a keyed coin per group, so that neither near-duplicates nor the records of a person are on both sides.

    Records of one cluster of ``groups``, and those with one value of ``unit_column``, are one group, transitively. Its
    name is the smallest such value in it; without a column, the smallest record id. It is a non-member iff
    LE64(HMAC-SHA256(K_split, name)[:8]) / 2^64 < holdout, with K_split = HKDF(dataset key, "stanch/split/v1").

    Raises:
        InvalidInput: ``holdout`` is not in (0, 1), the key is not 32 bytes, a side stays empty, or ``groups`` is about
            another dataset.
        UnitColumnMissing: A record has no single value in ``unit_column``.
    """
    if not 0 < holdout < 1 or len(key) != KEY_SIZE:
        raise InvalidInput(f"split: expected a holdout between 0 and 1 and a key of {KEY_SIZE} bytes")
    secret = hkdf_sha256(key, info=b"stanch/split/v1", length=32)
    persons: set[str] = set()

    def name(record: Record, row: Mapping[str, Any]) -> str | None:
        if unit_column is not None:
            return unit_value(record, row, unit_column)
        persons.update(person_columns(row))
        return None

    sides: tuple[set[str], set[str]] = (set(), set())
    for group, ids in group_records(dataset, name, groups.clusters if groups is not None else ()):
        draw = int.from_bytes(hmac_sha256(secret, group.encode())[:8], "little")
        sides[draw < holdout * 2**64].update(ids)
    members, nonmembers = sides
    if not members or not nonmembers:
        raise InvalidInput(
            f"{dataset.uri}: a side of the split stays empty", next_step="use more records or another holdout"
        )
    warnings = (*_straddling(persons), *_few(len(nonmembers)))
    return Split(frozenset(members), frozenset(nonmembers), holdout, warnings, unit_column)


def write_split(dataset: Dataset, split: Split, *, members: Path, nonmembers: Path) -> tuple[Dataset, Dataset]:
    """Write both sides as datasets, in the order of the dataset.

    Raises:
        InvalidInput: The split is about another dataset, or a file cannot be written.
    """
    named = (record.id in split.members or record.id in split.nonmembers for record in dataset)
    if (len(split.members) + len(split.nonmembers), 0) != _counted(named):
        raise InvalidInput(
            f"{dataset.uri}: the split is about another dataset",
            next_step="split again, with the dataset opened in the same way",
        )
    shared: dict[str, JsonValue] = {"holdout": split.holdout}
    if split.unit_column is not None:
        shared["unit_column"] = split.unit_column
    return (
        _write_side(dataset, split.members, members, shared | {"side": "members"}),
        _write_side(dataset, split.nonmembers, nonmembers, shared | {"side": "nonmembers"}),
    )


def _counted(flags: Iterable[bool]) -> tuple[int, int]:
    """Return how many flags there are, and how many of them are not set."""
    count = unset = 0
    for flag in flags:
        count, unset = count + 1, unset + (not flag)
    return count, unset


def _write_side(dataset: Dataset, names: frozenset[str], out: Path, parameters: dict[str, JsonValue]) -> Dataset:
    return derive(dataset, out, ("split", parameters), (record.raw for record in dataset if record.id in names))


def _straddling(persons: set[str]) -> tuple[str, ...]:
    if not persons:
        return ()
    looks = f"column {min(persons)!r} looks like the key of a person, whose records may now be on both sides"
    return (f"{looks}: --unit-column {min(persons)} keeps them together",)


def _few(nonmembers: int) -> tuple[str, ...]:
    if nonmembers < _FEW:
        return (f"{nonmembers} non-members: too few to measure a true positive rate at 1 % false positives",)
    if nonmembers < _RATHER_FEW:
        return (f"{nonmembers} non-members: too few to measure a true positive rate at 0.1 % false positives",)
    return ()
