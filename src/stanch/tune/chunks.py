"""How a step's units are cut into chunks that go through the model at once. The cut does not change the result."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from stanch.data import TokenRecord


@dataclass(frozen=True, slots=True)
class Row:
    """A record and the weight of each of its labelled tokens: 1/(labelled tokens · records of its unit)."""

    record: TokenRecord
    weight: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """Units whose gradients are collected together.

    Attributes:
        units: Number of units.
        passes: What goes through the model at once: rows unit after unit, the same number for each. A unit that is
            too large for one pass is a chunk of its own with several.
    """

    units: int
    passes: tuple[tuple[Row, ...], ...]


def cut_chunks(units: Sequence[Sequence[TokenRecord]], budget: int) -> Iterator[Chunk]:
    """Cut ``units`` (the records of each) into chunks of at most ``budget`` tokens, rows times longest row.

    Units with the same number of records are taken by length, so that little is padding; units without records give
    nothing.
    """
    rows = [_rows(records) for records in units if records]
    pending: list[list[Row]] = []
    for unit in sorted(rows, key=lambda unit: (len(unit), _longest(unit))):
        if pending and (len(unit) != len(pending[0]) or (len(pending) + 1) * len(unit) * _longest(unit) > budget):
            yield _join(pending)
            pending = []
        if len(unit) * _longest(unit) > budget:
            yield Chunk(1, tuple(_slices(unit, max(1, budget // _longest(unit)))))
        else:
            pending.append(unit)
    if pending:
        yield _join(pending)


def _rows(records: Sequence[TokenRecord]) -> list[Row]:
    return [Row(r, 1.0 / (max(1, len(r.labelled)) * len(records))) for r in records]


def _longest(unit: Sequence[Row]) -> int:
    return max(len(row.record.ids) for row in unit)


def _join(units: list[list[Row]]) -> Chunk:
    return Chunk(len(units), (tuple(row for unit in units for row in unit),))


def _slices(rows: list[Row], size: int) -> Iterator[tuple[Row, ...]]:
    stream = iter(rows)
    while part := tuple(islice(stream, size)):
        yield part
