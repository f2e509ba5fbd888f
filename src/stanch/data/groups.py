"""Groups of records that belong together: those of one person, joined with their near-duplicates."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from stanch.data.dataset import Dataset
from stanch.data.record import Record
from stanch.errors import InvalidInput, UnitColumnMissing

_PERSON_COLUMNS = frozenset(
    [
        "account",
        "account_id",
        "client",
        "client_id",
        "contact_id",
        "customer",
        "customer_id",
        "customerid",
        "email",
        "email_address",
        "employee_id",
        "member_id",
        "mrn",
        "patient",
        "patient_id",
        "patientid",
        "person_id",
        "ssn",
        "student_id",
        "subscriber_id",
        "user",
        "user_id",
        "userid",
        "username",
    ]
)
Group = tuple[str, tuple[str, ...]]


def group_records(
    dataset: Dataset, name: Callable[[Record, Mapping[str, Any]], str | None], clusters: Iterable[Sequence[str]]
) -> Iterator[Group]:
    """Join records of one name, and those of one cluster, transitively (union-find).

    Args:
        dataset: The records.
        name: Names a record, given its row; records of one name belong together. None: by its id, alone.
        clusters: Ids of records that belong together as well.

    Yields:
        Each group: the smallest name in it, and the ids of its records in the order of the dataset. Memory grows by
        about 120 bytes a record, and 200 a name.

    Raises:
        InvalidInput: A cluster names a record that the dataset does not hold.
    """
    ids: list[str] = []
    names: list[str] = []
    groups = _Sets()
    first: dict[str, int] = {}
    for place, (record, _, row) in enumerate(dataset.entries()):
        called = name(record, row)
        ids.append(record.id)
        names.append(record.id if called is None else called)
        groups.add()
        if called is not None:
            groups.join(first.setdefault(called, place), place)
    _join(groups, ids, clusters)
    roots = np.array([groups.find(place) for place in range(len(ids))], np.int64)
    order = np.argsort(roots, kind="stable")
    starts = np.flatnonzero(np.diff(roots[order], prepend=-1)).tolist()
    for low, high in pairwise([*starts, len(ids)]):
        places = order[low:high].tolist()
        yield min(names[place] for place in places), tuple(ids[place] for place in places)


def unit_value(record: Record, row: Mapping[str, Any], column: str) -> str:
    """Return the text of the column that says whose record it is.

    Raises:
        UnitColumnMissing: The record has no single value there.
    """
    value = row.get(column)
    # A table writes what is missing as an empty text; all such records would belong together.
    if value is None or isinstance(value, (dict, list)) or not str(value).strip():
        raise UnitColumnMissing(
            f"{record.source}: record {record.index} has no single value in column {column!r}",
            why="every record must belong to a unit",
            next_step="fill or remove such records, or choose another unit; plant canaries with this column's name",
        )
    return str(value)


def person_columns(row: Mapping[str, Any]) -> list[str]:
    """Return the columns that are named like the key of a person or customer."""
    return sorted(name for name in row if name.lower() in _PERSON_COLUMNS)


def _join(groups: "_Sets", ids: Sequence[str], clusters: Iterable[Sequence[str]]) -> None:
    clustered = [*clusters]
    wanted = {record_id for cluster in clustered for record_id in cluster}
    places = {record_id: place for place, record_id in enumerate(ids) if record_id in wanted}
    if len(places) != len(wanted):
        raise InvalidInput(
            "the duplicate report names a record that the dataset does not hold",
            why="it was made for another dataset, or for the same one opened with another key",
            next_step="look for duplicates again",
        )
    for cluster in clustered:
        for record_id in cluster:
            groups.join(places[cluster[0]], places[record_id])


class _Sets:
    """Disjoint sets of the numbers from 0 (union-find with path halving); the lowest of each names it."""

    def __init__(self) -> None:
        self._parent = array("q")

    def add(self) -> None:
        """Take the next number, alone."""
        self._parent.append(len(self._parent))

    def find(self, item: int) -> int:
        """Return the lowest number of the set that holds ``item``."""
        parents = self._parent
        while (parent := parents[item]) != item:
            parents[item] = parents[parent]
            item = parents[item]
        return item

    def join(self, one: int, other: int) -> None:
        """Make one set of those of two numbers."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low
