"""Records of a table as in RFC 4180 over lines: where they end, and what is lost where a quote stands wrong."""

import re
from collections.abc import Iterable, Iterator
from enum import Enum

from stanch.data import lines
from stanch.data.rows import BadRow

_BLANK = (b"\n", b"\r\n")
_MISPLACED = "a record as in RFC 4180", "a quote stands where none may"
_TOO_LONG = "a record of at most 64 MiB"

Numbered = tuple[int, bytes | None]


class Line(Enum):
    """What a line is to the record that it stands in: its end, a part of it, or wrong there."""

    ENDS = 0
    GOES_ON = 1
    WRONG = 2


class QuoteState:
    """Follows the quotes of a table from line to line; a line that is wrong leaves it between records."""

    def __init__(self, separator: str) -> None:
        quoted, bare = '"(?:[^"]|"")*+"', f'[^"{separator}]*+'
        rest = f'(?:(?:{quoted}|{bare}){separator})*+(?:(?:{quoted}|{bare})\\Z|(?P<open>"(?:[^"]|"")*+\\Z))'
        self._outside = re.compile(rest.encode())
        self._inside = re.compile(f'(?:[^"]|"")*+(?:(?P<still>\\Z)|"(?:\\Z|{separator}{rest}))'.encode())
        self.inside = False

    def take(self, line: bytes) -> Line:
        """Take the next line and say what it is."""
        if not self.inside and b'"' not in line:
            return Line.ENDS
        match = (self._inside if self.inside else self._outside).match(line.removesuffix(b"\n").removesuffix(b"\r"))
        if match is None:
            self.inside = False
            return Line.WRONG
        self.inside = any(value is not None for value in match.groupdict().values())
        return Line.GOES_ON if self.inside else Line.ENDS

    def ends(self, line: bytes) -> bool:
        """Take the next line and say whether a record ends with it; one that is wrong may begin the next record."""
        was_inside = self.inside
        taken = self.take(line)
        return (self.take(line) if taken is Line.WRONG and was_inside else taken) is not Line.GOES_ON


def read_records(numbered: Iterable[Numbered], separator: str) -> Iterator[tuple[int, bytes | BadRow]]:
    """Yield the line each record starts in, and its bytes.

    Where a quoted field does not come to an end, or comes to a wrong one, only the line that it starts in is lost: the
    others are read again, each as the beginning of a record.
    """
    state, held = QuoteState(separator), list[tuple[int, bytes]]()
    size = 0
    for number, line in numbered:
        again: list[Numbered] = [(number, line)]
        while again:
            number, line = again.pop()  # noqa: PLW2901 - lines that were held come once more
            if line is None or size + len(line) > lines.MAX_LINE:
                bad = BadRow(held[0][0] if held else number, _TOO_LONG)
            elif not held and line in _BLANK:
                continue
            else:
                held.append((number, line))
                size += len(line)
                taken = state.take(line)
                if taken is Line.GOES_ON:
                    continue
                if taken is Line.ENDS:
                    yield held[0][0], b"".join(part for _, part in held)
                    held, size = [], 0
                    continue
                bad = BadRow(held[0][0], *_MISPLACED)
            yield bad.number, bad
            rest: list[Numbered] = [*held[1:]]
            if held and held[-1][0] != number:
                rest.append((number, line))
            again += reversed(rest)
            held, size, state.inside = [], 0, False
    if held:
        (start, _), *left = held
        yield start, BadRow(start, "a closing quote", "the file ends inside a quoted field")
        yield from read_records(left, separator)
