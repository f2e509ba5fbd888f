"""Groups of records that belong together: those of one person, joined with their near-duplicates."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

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
    dataset: Dataset, name: Callable[[Record, Mapping[str, Any]], str], clusters: Iterable[Sequence[str]]
) -> list[Group]:
    """Join records of one name, and those of one cluster, transitively (union-find).

    Args:
        dataset: The records.
        name: Names a record, given its row; records of one name belong together.
        clusters: Ids of records that belong together as well.

    Returns:
        Each group: the smallest name in it, and the ids of its records in the order of the dataset.

    Raises:
        InvalidInput: A cluster names a record that the dataset does not hold.
    """
    groups = _Sets()
    names: dict[str, str] = {}
    first: dict[str, str] = {}
    for record, _, row in dataset.entries():
        names[record.id] = called = name(record, row)
        groups.add(record.id)
        groups.join(first.setdefault(called, record.id), record.id)
    for cluster in clusters:
        _join(groups, cluster)
    members: dict[str, list[str]] = {}
    for record_id in names:
        members.setdefault(groups.find(record_id), []).append(record_id)
    return [(min(names[record_id] for record_id in ids), tuple(ids)) for ids in members.values()]


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


def _join(groups: "_Sets", cluster: Sequence[str]) -> None:
    for record_id in cluster:
        if record_id not in groups:
            raise InvalidInput(
                "the duplicate report names a record that the dataset does not hold",
                why="it was made for another dataset, or for the same one opened with another key",
                next_step="look for duplicates again",
            )
        groups.join(cluster[0], record_id)


class _Sets:
    """Disjoint sets (union-find with path halving)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def __contains__(self, item: str) -> bool:
        return item in self._parent

    def add(self, item: str) -> None:
        self._parent[item] = item

    def find(self, item: str) -> str:
        while (parent := self._parent[item]) != item:
            self._parent[item] = self._parent[parent]
            item = self._parent[item]
        return item

    def join(self, one: str, other: str) -> None:
        self._parent[self.find(other)] = self.find(one)
