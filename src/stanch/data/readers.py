"""Readers of text formats: JSONL, CSV and TSV, paragraphs of plain text."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from stanch.data import lines
from stanch.data.faithful import lost_in
from stanch.data.lines import Source, cut_lines, is_gzip, raw_lines, read_lines
from stanch.data.records import QuoteState, read_records
from stanch.data.rows import PART_SIZE, BadRow, Range, Row
from stanch.errors import InvalidInput

_BOM = "\ufeff"
_MAX_COLUMNS = 10_000
_SHORT_LINES = "a line of at most 64 MiB"


class JsonLines:
    """One JSON object a line; see :class:`stanch.data.rows.RowFile`."""

    def __init__(self, path: Path) -> None:
        self.files: tuple[Path, ...] = (path,)
        self.format = "jsonl.gz" if is_gzip(path) else "jsonl"
        self._path, self._source = path, Source(path)

    def parts(self) -> Iterable[Range]:
        """Cut the file at line ends."""
        return cut_lines(self._source, part_size(self._path))

    def read(self, part: Range | None = None) -> Iterator[Row | BadRow]:
        """Yield the rows of a part, or all."""
        for number, line in read_lines(self._source, part):
            yield BadRow(number, _SHORT_LINES) if line is None else json_row(number, line)

    def count(self) -> int:
        """Return the number of non-blank lines."""
        return sum(1 for _ in read_lines(self._source))


class Csv:
    """A table as in RFC 4180: a head line with the names, then one record a row, strings only.

    A quote may only stand where RFC 4180 allows it; lines end in LF or CR LF.
    """

    def __init__(self, path: Path, *, separator: str) -> None:
        self.files: tuple[Path, ...] = (path,)
        self.separator = separator
        self.format = ("csv" if separator == "," else "tsv") + (".gz" if is_gzip(path) else "")
        self._path, self._source = path, Source(path)
        quoted, bare = r'"((?:[^"]|"")*+)"', f'([^"{separator}]*+)'
        self._field = re.compile(f"(?:{quoted}|{bare})({separator}|\\Z)")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names in the head line.

        Raises:
            InvalidInput: There is no usable head line.
        """
        for number, record in self._records(None):
            names = self._fields(record) if isinstance(record, str) else ("",)
            if "" in names or len(set(names)) < len(names) or len(names) > _MAX_COLUMNS:
                raise InvalidInput(
                    f"{self._path.name}:{number}: expected the names of the columns, each once",
                    next_step="give the table a head line",
                )
            return names
        raise InvalidInput(f"{self._path}: the dataset is empty", next_step="give a table with a head line")

    def parts(self) -> Iterable[Range]:
        """Cut the file at the ends of records."""
        return cut_lines(self._source, part_size(self._path), ends=QuoteState(self.separator).ends)

    def read(self, part: Range | None = None) -> Iterator[Row | BadRow]:
        """Yield the rows of a part, or all."""
        names = self.names
        for position, (number, record) in enumerate(self._records(part)):
            if position == 0 and (part is None or part.first == 0):
                continue
            if isinstance(record, BadRow):
                yield record
            elif len(fields := self._fields(record)) != len(names):
                yield BadRow(number, f"{len(names)} fields", f"there are {len(fields)}")
            else:
                values = dict(zip(names, fields, strict=True))
                yield Row(number, orjson.dumps(values), values)

    def count(self) -> int:
        """Return the number of records after the head line."""
        return sum(1 for _ in self._records(None)) - 1

    def _fields(self, record: str) -> tuple[str, ...]:
        """Return the fields of a record."""
        if '"' not in record:
            return tuple(record.split(self.separator))
        fields: list[str] = []
        position, more = 0, True
        while more and (match := self._field.match(record, position)) is not None:
            quoted, bare, more = match.group(1), match.group(2), match.group(3) != ""
            fields.append(bare if quoted is None else quoted.replace('""', '"'))
            position = match.end()
        return tuple(fields)

    def _records(self, part: Range | None) -> Iterator[tuple[int, str | BadRow]]:
        """Yield the line a record starts in, and its text without the line end."""
        for number, record in read_records(raw_lines(self._source, part), self.separator):
            yield number, record if isinstance(record, BadRow) else _text(number, record)


class Paragraphs:
    """Plain text; a row is a run of lines without a blank one between them, under the name ``text``."""

    def __init__(self, path: Path) -> None:
        self.files: tuple[Path, ...] = (path,)
        self.format = "text.gz" if is_gzip(path) else "text"
        self._path, self._source = path, Source(path)

    def parts(self) -> Iterable[Range]:
        """Cut the file at blank lines."""
        return cut_lines(self._source, part_size(self._path), ends=lambda line: line.isspace())

    def read(self, part: Range | None = None) -> Iterator[Row | BadRow]:
        """Yield the rows of a part, or all."""
        numbered = raw_lines(self._source, part)
        for blank, run in groupby(numbered, lambda entry: entry[1] is not None and not entry[1].strip()):
            if not blank:
                yield _paragraph(run)

    def count(self) -> int:
        """Return the number of paragraphs."""
        return sum(1 for _ in self.read())


def part_size(path: Path) -> int:
    """Return how many bytes a part of a text file has."""
    # Each process expands a gzip file up to its parts: few and large ones.
    return PART_SIZE * (8 if is_gzip(path) else 1)


def json_row(number: int, line: bytes) -> Row | BadRow:
    """Return the row that a line of JSON holds."""
    # orjson's error object holds the whole line: it must not become part of ours.
    try:
        values: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return BadRow(number, "one JSON object", f"it is not JSON at column {error.colno}")
    if not isinstance(values, dict):
        return BadRow(number, "one JSON object", "it is JSON of another type")
    if lost := lost_in(line, values):
        return BadRow(number, "one JSON object", lost)
    return Row(number, line, values)


def _paragraph(run: Iterable[tuple[int, bytes | None]]) -> Row | BadRow:
    kept: list[bytes] = []
    first = size = 0
    for number, line in run:
        first, size = first or number, size + (lines.MAX_LINE + 1 if line is None else len(line))
        if line is not None and size <= lines.MAX_LINE:
            kept.append(line.removesuffix(b"\n").removesuffix(b"\r"))
    if size > lines.MAX_LINE:
        return BadRow(first, _SHORT_LINES.replace("line", "paragraph"))
    text = _text(first, b"\n".join(kept))
    if isinstance(text, BadRow):
        return text
    values = {"text": text}
    return Row(first, orjson.dumps(values), values)


def _text(number: int, data: bytes) -> str | BadRow:
    """Return text without the line end of its last line and, in line 1, without a byte order mark."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return BadRow(number, "text in UTF-8")
    text = text.removesuffix("\n").removesuffix("\r")
    return text.removeprefix(_BOM) if number == 1 else text
