"""What every file format of a dataset is read as: numbered rows, in parts that can be read on their own."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PART_SIZE = 4 << 20


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a file: from ``start`` to ``stop`` in the format's own unit, after ``first`` lines or rows."""

    start: int
    stop: int
    first: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its number from 1 (the line it starts in, or its position in a table), and what it holds.

    ``raw`` is the row as JSON; from a JSONL file, as it stands there.
    """

    number: int
    raw: bytes
    values: dict[str, Any]

    def __repr__(self) -> str:
        return f"Row(number={self.number}, raw=<{len(self.raw)} bytes>)"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read: what was expected there, and why it is not that. Never its content."""

    number: int
    expected: str
    why: str = ""


class RowFile(Protocol):
    """The files of a dataset in one format. Reading raises ``InvalidInput`` where the whole file is unusable.

    Attributes:
        format: Name of the format, for example ``jsonl.gz``.
        files: The files that hold the rows, in order.
    """

    format: str
    files: tuple[Path, ...]

    def parts(self) -> Iterable[Range]:
        """Cut the rows into parts of about 4 MiB, in order."""
        ...

    def read(self, part: Range | None = None) -> Iterator[Row | BadRow]:
        """Yield the rows of a part, or all."""
        ...

    def count(self) -> int:
        """Return the number of rows, unreadable ones included, without parsing them."""
        ...
