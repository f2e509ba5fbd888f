"""Privacy units: which records belong together and are protected as one.

Records that share a column value, or that lie in one cluster of near-duplicates, are joined by union-find; a component
is a unit. Otherwise k copies of a text in k units would multiply the privacy loss (group privacy). A component is not
changed by removing another whole component, since an edge depends on its two records alone. Removing a part of one,
such as what one person gave to it, changes its clipped gradient by up to 2 C; a part without which the rest falls apart
into m units, by up to (m + 1) C.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from stanch.crypto import frame, hkdf_sha256, hmac_sha256, sha256
from stanch.data import Dataset, DuplicateReport, Record, build_manifest
from stanch.data.groups import group_records, person_columns, unit_value
from stanch.errors import InvalidInput, UnitNotChosen
from stanch.terms import Digest

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
        is_keyed: Whether ids and root are keyed. If not, they tell who is among the units, and no private plan is made.
    """

    policy: str
    rule: str
    dataset_root: str
    units: tuple[Unit, ...]
    joined: int = 0
    is_keyed: bool = True

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
    key = hkdf_sha256(ds.key or b"", info=b"stanch/tune/v1/unit", length=32)

    def name(record: Record, row: Mapping[str, Any]) -> str | None:
        if isinstance(unit, ColumnUnit):
            value = unit_value(record, row, unit.column)
            return base64.b32encode(hmac_sha256(key, value.encode())[:20]).decode()
        if unit is None:
            _check_persons(record, row)
        return None

    clusters = duplicates.clusters if duplicates is not None else ()
    units = [Unit(*group) for group in group_records(ds, name, clusters)]
    policy = unit or RecordUnit()
    return UnitTable(
        policy=policy.name,
        rule=_rule(policy, duplicates),
        dataset_root=_root(ds),
        units=tuple(sorted(units, key=lambda one: one.id.encode())),
        joined=len(clusters),
        is_keyed=ds.key is not None,
    )


def _rule(policy: UnitPolicy, duplicates: DuplicateReport | None) -> str:
    formed = "each record" if isinstance(policy, RecordUnit) else f"records with the same value of {policy.column}"
    if duplicates is None:
        return f"{formed}; near-duplicates not joined"
    return f"{formed}; {JOINED if duplicates.clusters else 'no near-duplicates found'}"


def _root(ds: Dataset) -> str:
    """Return the manifest's root; without a dataset key, a digest of all rows, for any of which it is a test."""
    if ds.key is not None:
        return build_manifest(ds, key=ds.key).root
    return sha256(frame(b"stanch/tune/v1/rows", *(record.raw for record in ds))).hex()


def _check_persons(record: Record, row: Mapping[str, Any]) -> None:
    persons = person_columns(row)
    if persons:
        raise UnitNotChosen(
            f"{record.source}: column {persons[0]!r} looks like the key of a person, but no privacy unit was chosen",
            why="per-record privacy does not protect a person with several records",
            next_step=f"choose unit 'column:{persons[0]}' (protects the person) or 'record'",
        )
