"""Privacy units: which records belong together and are protected as one.

Records that share a column value, or that lie in one cluster of near-duplicates, are joined by union-find; a component
is a unit. Otherwise k copies of a text in k units would multiply the privacy loss (group privacy). A component is not
changed by removing another whole component, since an edge depends on its two records alone. Removing a part of one,
such as what one person gave to it, changes its clipped gradient by up to 2 C; a part without which the rest falls apart
into m units, by up to (m + 1) C.
"""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from stanch.crypto import frame, hkdf_sha256, hmac_sha256, parse_json, sha256
from stanch.data import Dataset, DuplicateReport, Record, build_manifest
from stanch.errors import InvalidInput, UnitNotChosen
from stanch.terms import Digest
from stanch.tune.refusals import UnitColumnMissing

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
_MAX_ROW = 64 << 20
JOINED = "joined with their near-duplicates"
"""How the rule of units ends where some of them were joined: a person's part of such a unit is protected less."""


@dataclass(frozen=True, slots=True)
class RecordUnit:
    """Each record is a unit of its own."""

    name: str = "record"


@dataclass(frozen=True, slots=True)
class ColumnUnit:
    """Records with the same value in a top-level column are one unit."""

    column: str

    @property
    def name(self) -> str:
        """``column:NAME``."""
        return f"column:{self.column}"


UnitPolicy: TypeAlias = RecordUnit | ColumnUnit


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit and its records, in the order of the dataset."""

    id: str
    record_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnitTable:
    """All units in the order of their ids; a unit's index is its position here.

    Attributes:
        policy: ``record`` or ``column:NAME``.
        rule: How units were formed, in words.
        dataset_root: Root of the dataset's manifest, in hexadecimal.
        units: The units.
        joined: How many clusters of near-duplicates were joined.
    """

    policy: str
    rule: str
    dataset_root: str
    units: tuple[Unit, ...]
    joined: int = 0

    def __repr__(self) -> str:
        return f"UnitTable(policy={self.policy!r}, units=<{len(self.units)}>, joined={self.joined})"

    @property
    def digest(self) -> Digest:
        """SHA-256 over the framed list of every unit's id, record count (u32, big-endian) and record ids."""
        parts = [b"stanch/tune/v1/units"]
        for unit in self.units:
            parts += [unit.id.encode(), len(unit.record_ids).to_bytes(4, "big"), *(r.encode() for r in unit.record_ids)]
        return Digest.sha256(frame(*parts))


def parse_unit(text: str) -> UnitPolicy:
    """Read ``record`` or ``column:NAME``."""
    if text == "record":
        return RecordUnit()
    kind, _, column = text.partition(":")
    if kind != "column" or not column:
        raise InvalidInput(f"unit: expected record or column:NAME, found {text[:80]!r}")
    return ColumnUnit(column)


def form_units(ds: Dataset, *, unit: UnitPolicy | None, duplicates: DuplicateReport | None) -> UnitTable:
    """Group the records of ``ds`` into privacy units.

    Args:
        ds: The dataset; opened with its key, ids of units are keyed too.
        unit: What a unit is; None means one record, and is refused where the rows name persons.
        duplicates: Clusters of near-duplicates to join; None joins nothing.

    Raises:
        UnitNotChosen: No unit was chosen, and a column is named like a person's or customer's key.
        UnitColumnMissing: A record lacks the chosen column.
    """
    groups, order = _Groups(), []
    names: dict[str, str] = {}
    key = hkdf_sha256(ds.key or b"", info=b"stanch/tune/v1/unit", length=32)
    first: dict[str, str] = {}
    for record in ds:
        order.append(record.id)
        groups.add(record.id)
        if unit is None:
            _check_persons(record)
        names[record.id] = record.id
        if isinstance(unit, ColumnUnit):
            names[record.id] = name = _column_id(record, unit.column, key)
            groups.join(first.setdefault(name, record.id), record.id)
    clusters = duplicates.clusters if duplicates is not None else ()
    for cluster in clusters:
        _join_cluster(groups, cluster)
    members: dict[str, list[str]] = {}
    for record_id in order:
        members.setdefault(groups.find(record_id), []).append(record_id)
    units = [Unit(min(names[record_id] for record_id in ids), tuple(ids)) for ids in members.values()]
    policy = unit or RecordUnit()
    return UnitTable(
        policy=policy.name,
        rule=_rule(policy, duplicates),
        dataset_root=_root(ds),
        units=tuple(sorted(units, key=lambda one: one.id.encode())),
        joined=len(clusters),
    )


def _join_cluster(groups: "_Groups", cluster: Sequence[str]) -> None:
    for record_id in cluster:
        if record_id not in groups:
            raise InvalidInput(
                "the duplicate report names a record that the dataset does not hold",
                why="it was made for another dataset, or for the same one opened with another key",
                next_step="look for duplicates again",
            )
        groups.join(cluster[0], record_id)


def _rule(policy: UnitPolicy, duplicates: DuplicateReport | None) -> str:
    formed = "each record" if isinstance(policy, RecordUnit) else f"records with the same value of {policy.column}"
    if duplicates is None:
        return f"{formed}; near-duplicates not joined"
    return f"{formed}; {JOINED if duplicates.clusters else 'no near-duplicates found'}"


def _root(ds: Dataset) -> str:
    """Return the manifest's root; without a dataset key, a digest of all rows (no row can be tested against it)."""
    if ds.key is not None:
        return build_manifest(ds, key=ds.key).root
    return sha256(frame(b"stanch/tune/v1/rows", *(record.raw for record in ds))).hex()


def _row(record: Record) -> dict[str, object]:
    row = parse_json(record.raw, what=f"{record.source}: record {record.index}", max_bytes=_MAX_ROW)
    return dict(row) if isinstance(row, dict) else {}


def _check_persons(record: Record) -> None:
    persons = sorted(name for name in _row(record) if name.lower() in _PERSON_COLUMNS)
    if persons:
        raise UnitNotChosen(
            f"{record.source}: column {persons[0]!r} looks like the key of a person, but no privacy unit was chosen",
            why="per-record privacy does not protect a person with several records",
            next_step=f"choose unit 'column:{persons[0]}' (protects the person) or 'record'",
        )


def _column_id(record: Record, column: str, key: bytes) -> str:
    value = _row(record).get(column)
    # A table writes what is missing as an empty text; all such records would be one unit.
    if value is None or isinstance(value, (dict, list)) or not str(value).strip():
        raise UnitColumnMissing(
            f"{record.source}: record {record.index} has no single value in column {column!r}",
            why="every record must belong to a unit",
            next_step="fill or remove such records, or choose another unit; plant canaries with this column's name",
        )
    return base64.b32encode(hmac_sha256(key, str(value).encode())[:20]).decode()


class _Groups:
    """Disjoint sets (union-find with path halving)."""

    def __init__(self, items: Iterable[str] = ()) -> None:
        self._parent = {item: item for item in items}

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
