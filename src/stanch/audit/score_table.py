"""Score tables: one row per record, one column per score, with strict CSV in two layouts.

*Wide* is what an audit writes beside its report: ``id,kind,tier,member,copies`` and one column per score, with 17
significant digits. *Long* is what ``stanch audit scores`` reads from any tool: required ``score`` and ``member``,
optional ``id``, ``tier`` and ``name`` (of the score). A header with the column ``score`` is long.
"""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TextIO, TypeAlias

import numpy as np
import numpy.typing as npt

from stanch.audit.params import MIN_COINS, ROWS_TIER
from stanch.errors import InvalidInput
from stanch.terms import Digest

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]

MAX_ROWS: Final = 5_000_000
WIDE_COLUMNS: Final = ("id", "kind", "tier", "member", "copies")
LONG_COLUMNS: Final = ("score", "member", "id", "tier", "name")

_MAX_LINE = 65_536
_MAX_COPIES = 1_000_000
_MAX_SCORES = 64
_BOOLEANS = {"0": False, "1": True, "false": False, "true": True}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SCORE_NAME = re.compile(r"[A-Za-z0-9_./+-]{1,64}")


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """Scores of records, higher = more member-like.

    Attributes:
        ids: Ids of the records; each occurs once.
        kinds: Kind of each record; scores are compared within one kind only.
        tiers: Tier of each record: :data:`~stanch.audit.params.ROWS_TIER`, or the name of a tier of canaries.
        member: Whether each record was tuned on.
        copies: How often each record stands in the data if it is a member.
        scores: One finite array per score name.
    """

    ids: tuple[str, ...]
    kinds: tuple[str, ...]
    tiers: tuple[str, ...]
    member: BoolArray
    copies: IntArray
    scores: Mapping[str, FloatArray]

    def __post_init__(self) -> None:
        count = len(self.ids)
        lengths = {len(self.kinds), len(self.tiers), self.member.size, self.copies.size}
        if lengths | {values.size for values in self.scores.values()} != {count}:
            raise InvalidInput("score table: expected columns of one length")
        if not self.scores or len(set(self.ids)) != count:
            raise InvalidInput("score table: expected at least one score, and each id once")
        if not all(_SCORE_NAME.fullmatch(name) for name in self.scores):
            raise InvalidInput("score table: expected names of scores of letters, digits and _./+-")
        for name, values in self.scores.items():
            bad = np.flatnonzero(~np.isfinite(values))
            if bad.size:
                raise InvalidInput(f"score table: {name} of record {self.ids[bad[0]]} is not a finite number")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"ScoreTable(rows={len(self)}, scores={tuple(self.scores)})"

    def select(self, mask: BoolArray) -> "ScoreTable":
        """Return the table of the records where ``mask`` holds."""
        rows = np.flatnonzero(mask).tolist()
        return ScoreTable(
            ids=tuple(self.ids[row] for row in rows),
            kinds=tuple(self.kinds[row] for row in rows),
            tiers=tuple(self.tiers[row] for row in rows),
            member=self.member[mask],
            copies=self.copies[mask],
            scores={name: values[mask] for name, values in self.scores.items()},
        )

    def rows(self) -> "ScoreTable":
        """Return the table of the ordinary records, without canaries."""
        return self.select(np.asarray([tier == ROWS_TIER for tier in self.tiers], dtype=np.bool_))

    def formal_tiers(self, names: tuple[str, ...]) -> dict[str, "ScoreTable"]:
        """Return the canaries that are tested formally, by tier; ``("all",)`` pools all canaries with one copy."""
        if names == ("all",):
            pooled = [
                tier != ROWS_TIER and copies == 1 for tier, copies in zip(self.tiers, self.copies.tolist(), strict=True)
            ]
            return {"all": self.select(np.asarray(pooled, dtype=np.bool_))}
        return {name: self.select(np.asarray([tier == name for tier in self.tiers], dtype=np.bool_)) for name in names}

    def negated(self) -> "ScoreTable":
        """Return the table of a tool whose scores are *lower* for members, turned round."""
        turned = {name: -values for name, values in self.scores.items()}
        return ScoreTable(self.ids, self.kinds, self.tiers, self.member, self.copies, turned)

    def to_csv(self) -> bytes:
        """Return the wide layout."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*WIDE_COLUMNS, *self.scores])
        columns = [[f"{value:.17g}" for value in values.tolist()] for values in self.scores.values()]
        member = ["1" if value else "0" for value in self.member.tolist()]
        writer.writerows(zip(self.ids, self.kinds, self.tiers, member, self.copies.tolist(), *columns, strict=True))
        return text.getvalue().encode()

    @property
    def digest(self) -> Digest:
        """SHA-256 of the wide layout."""
        return Digest.sha256(self.to_csv())


def read_table(path: Path) -> ScoreTable:
    """Read a score table from a CSV file, in either layout.

    Raises:
        InvalidInput: With the line: a number that is not finite, another boolean than 0, 1, true and false, a row
            that stands twice, an unknown column, fewer than 32 or more than 5,000,000 rows, one class only.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return parse_table(stream, what=path.name)
    except OSError as error:
        raise InvalidInput(f"{path.name}: cannot be read", why=error.strerror or "") from error


def parse_table(stream: TextIO, *, what: str) -> ScoreTable:
    """Read a score table from a text stream; see :func:`read_table`."""
    reader = csv.reader(_bounded_lines(stream, what), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise InvalidInput(f"{what} line 1: expected each column once")
        wide = tuple(header[: len(WIDE_COLUMNS)]) == WIDE_COLUMNS or "score" not in header
        read = _read_wide if wide else _read_long
        table = read(_Rows(reader, tuple(header), what))
    except csv.Error as error:
        raise InvalidInput(f"{what} line {reader.line_num}: not valid CSV", why=str(error)) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what}: expected UTF-8", next_step="save the file as UTF-8") from error
    if len(table) < MIN_COINS:
        raise InvalidInput(f"{what}: expected at least {MIN_COINS} records, found {len(table)}")
    if table.member.all() or not table.member.any():
        raise InvalidInput(f"{what}: expected members and non-members, found one class only")
    return table


def _bounded_lines(stream: TextIO, what: str) -> Iterator[str]:
    """Yield lines, refusing one that is too long before it is in memory."""
    number = 0
    while line := stream.readline(_MAX_LINE):
        number += 1
        if len(line) == _MAX_LINE:
            raise InvalidInput(f"{what} line {number}: expected fewer than {_MAX_LINE} characters")
        yield line


class _LineReader(Protocol):
    """What is used of :func:`csv.reader`."""

    @property
    def line_num(self) -> int: ...

    def __iter__(self) -> Iterator[list[str]]: ...


class _Rows:
    """The records of a CSV file, with their line for error messages."""

    def __init__(self, reader: _LineReader, header: tuple[str, ...], what: str) -> None:
        self._reader = reader
        self.header = header
        self._what = what

    def __iter__(self) -> Iterator[dict[str, str]]:
        for count, row in enumerate(self._reader, start=1):
            if count > MAX_ROWS:
                raise self.wrong(f"expected at most {MAX_ROWS:,} rows")
            if len(row) != len(self.header):
                raise self.wrong(f"expected {len(self.header)} columns, found {len(row)}")
            yield dict(zip(self.header, row, strict=True))

    def wrong(self, problem: str) -> InvalidInput:
        return InvalidInput(f"{self._what} line {max(self._reader.line_num, 1)}: {problem}")

    def number(self, text: str, column: str) -> float:
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(value):
            raise self.wrong(f"expected a finite decimal number in the column {column}")
        return value

    def boolean(self, text: str) -> bool:
        if text not in _BOOLEANS:
            raise self.wrong("expected 0, 1, true or false in the column member")
        return _BOOLEANS[text]

    def copies(self, text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 7 or not 1 <= int(text) <= _MAX_COPIES:
            raise self.wrong(f"expected a whole number from 1 to {_MAX_COPIES:,} in the column copies")
        return int(text)


def _read_wide(rows: _Rows) -> ScoreTable:
    names = rows.header[len(WIDE_COLUMNS) :]
    if rows.header[: len(WIDE_COLUMNS)] != WIDE_COLUMNS or not 1 <= len(names) <= _MAX_SCORES:
        raise rows.wrong(
            f"expected the columns score and member, or {', '.join(WIDE_COLUMNS)} and then 1 to {_MAX_SCORES} scores"
        )
    records: dict[str, tuple[str, str, bool, int]] = {}
    scores: dict[str, list[float]] = {name: [] for name in names}
    for row in rows:
        if row["id"] in records:
            raise rows.wrong("this id stands twice")
        records[row["id"]] = (row["kind"], row["tier"], rows.boolean(row["member"]), rows.copies(row["copies"]))
        for name in names:
            scores[name].append(rows.number(row[name], name))
    return _table(records, scores)


def _read_long(rows: _Rows) -> ScoreTable:
    unknown = [name for name in rows.header if name not in LONG_COLUMNS]
    if "member" not in rows.header or unknown:
        raise rows.wrong(f"expected the columns score and member and at most id, tier and name; unknown: {unknown}")
    if "name" in rows.header and "id" not in rows.header:
        raise rows.wrong("the column name needs the column id, so that scores of one record find together")
    records: dict[str, tuple[str, str, bool, int]] = {}
    scores: dict[str, dict[str, float]] = {}
    for number, row in enumerate(rows):
        record, name = row.get("id", f"r{number}"), row.get("name", "score")
        facts = ("record", row.get("tier", ROWS_TIER), rows.boolean(row["member"]), 1)
        column = scores.setdefault(name, {})
        if record in column:
            raise rows.wrong("this id and name stand twice")
        if len(scores) > _MAX_SCORES or not _SCORE_NAME.fullmatch(name):
            raise rows.wrong(f"expected at most {_MAX_SCORES} names of letters, digits and _./+-")
        if records.setdefault(record, facts) != facts:
            raise rows.wrong("the same id has another member or tier above")
        column[record] = rows.number(row["score"], "score")
    for name, column in scores.items():
        if column.keys() != records.keys():
            raise rows.wrong(f"{len(records) - len(column)} records have no score of the name {name}")
    return _table(records, {name: [column[record] for record in records] for name, column in scores.items()})


def _table(records: dict[str, tuple[str, str, bool, int]], scores: Mapping[str, list[float]]) -> ScoreTable:
    facts = list(records.values())
    return ScoreTable(
        ids=tuple(records),
        kinds=tuple(kind for kind, _, _, _ in facts),
        tiers=tuple(tier for _, tier, _, _ in facts),
        member=np.asarray([member for _, _, member, _ in facts], dtype=np.bool_),
        copies=np.asarray([copies for _, _, _, copies in facts], dtype=np.int64),
        scores={name: np.asarray(values, dtype=np.float64) for name, values in scores.items()},
    )
