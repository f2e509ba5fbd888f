"""Reader of one JSON array of objects, element by element."""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from stanch.data import lines
from stanch.data.lines import Source, is_gzip, readable
from stanch.data.readers import json_row, part_size
from stanch.data.rows import BadRow, Range, Row
from stanch.errors import InvalidInput

_CHUNK = 1 << 20
_SPACE, _BETWEEN = " \t\r\n", " \t\r\n,"
# Bytes are read as Latin-1: a position in the text is one in the file, and all that matters here is ASCII.
_DECODER = json.JSONDecoder(strict=False)


class JsonArray:
    """The objects of an array; see :class:`stanch.data.rows.RowFile`. A row's number is its place from 1."""

    def __init__(self, path: Path) -> None:
        self.files: tuple[Path, ...] = (path,)
        self.format = "json.gz" if is_gzip(path) else "json"
        self._path, self._source = path, Source(path)

    def parts(self) -> Iterable[Range]:
        """Cut the file between elements."""
        size, start, first, end, number = part_size(self._path), 0, 0, 0, 0
        for number, (_, end) in enumerate(self._elements(0, None), 1):
            if end - start >= size:
                yield Range(start, end, first)
                start, first = end, number
        if start < end:
            yield Range(start, end, first)

    def read(self, part: Range | None = None) -> Iterator[Row | BadRow]:
        """Yield the rows of a part, or all."""
        start, stop, first = (part.start, part.stop, part.first) if part is not None else (0, None, 0)
        for number, (element, _) in enumerate(self._elements(start, stop), first + 1):
            row = json_row(number, element)
            if isinstance(row, Row) and b"\n" in element:
                row = Row(number, orjson.dumps(row.values), row.values)
            yield row

    def count(self) -> int:
        """Return the number of elements."""
        return sum(1 for _ in self._elements(0, None))

    def _elements(self, start: int, stop: int | None) -> Iterator[tuple[bytes, int]]:
        """Yield the bytes of each element from ``start`` to ``stop``, where one ends, and where it ends in the file.

        Raises:
            InvalidInput: It is no array, an element is longer than 64 MiB, or gzip expands more than 200-fold.
        """
        with self._source.open(start) as stream:
            base, held, place, begun = start, "", 0, start > 0
            while base + place != stop:
                found = _next(held, place, begun=begun, whole=base + len(held) == stop)
                if found is None:
                    base, held, place = base + place, held[place:], 0
                    size = max(_CHUNK, len(held))
                    more = stream.read(size if stop is None else min(size, stop - base - len(held)))
                    if not more or len(held) > lines.MAX_LINE:
                        raise self._broken(base)
                    held += more.decode("latin-1")
                    continue
                begun, (low, place) = True, found
                if low == place:
                    return
                yield held[low:place].encode("latin-1"), base + place

    def _broken(self, place: int) -> InvalidInput:
        return InvalidInput(
            f"{self._path.name}: expected an array of objects of at most 64 MiB",
            why=f"it is not JSON behind byte {place}",
            next_step="repair the file, or write one object a line into a .jsonl file",
        )


def holds_array(path: Path) -> bool:
    """Say whether the first sign in a file is that of an array; a file that is not there holds none."""
    if not path.is_file():
        return False
    with readable(path), gzip.open(path) if is_gzip(path) else path.open("rb") as stream:
        return stream.read(_CHUNK).lstrip().startswith(b"[")


def _next(held: str, place: int, *, begun: bool, whole: bool) -> tuple[int, int] | None:
    """Return where the next element stands; an empty one is the end of the array, None says that more must be read.

    ``whole`` says that an element ends with what is held.
    """
    size = len(held)
    if not begun:
        place = _after(held, place, _SPACE)
        if place == size or held[place] != "[":
            return None
        place += 1
    low = _after(held, place, _BETWEEN)
    if low < size and held[low] == "]":
        return low, low
    try:
        _, end = _DECODER.raw_decode(held, low)
    except (json.JSONDecodeError, RecursionError):
        return None
    # A number at the end may go on.
    return (low, end) if whole or _after(held, end, _SPACE) < size else None


def _after(held: str, place: int, signs: str) -> int:
    while place < len(held) and held[place] in signs:
        place += 1
    return place
