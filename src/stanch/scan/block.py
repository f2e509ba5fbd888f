"""Texts for one call of an engine: folded and joined, so that a call costs little for each of them."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

from stanch.scan.engine import Hit
from stanch.scan.fold import GAP, SEPARATOR, CodePoints, Folder, fold_text, may_have_gap
from stanch.scan.offsets import OffsetMap

_SEPARATOR = bytes([SEPARATOR])


class TextBlock:
    """Texts, joined by the separator that no anchor matches.

    Attributes:
        folded: All of them, folded for detection.
    """

    def __init__(self, given: Sequence[str | bytes]) -> None:
        """Fold and join texts; bytes are read as UTF-8, and a byte that is none counts as one code point."""
        self._given = given
        self._texts: dict[int, str] = {}  # of those that are not strings of ASCII
        parts = [
            text.encode() if isinstance(text, str) and text.isascii() else self._fold(number, text)
            for number, text in enumerate(given)
        ]
        self.folded = _SEPARATOR.join(parts)
        if self.folded.count(SEPARATOR) >= len(parts):
            parts = [part.replace(_SEPARATOR, b" ") for part in parts]
            self.folded = _SEPARATOR.join(parts)
        self._ends = list(accumulate(map(len, parts), lambda end, size: end + 1 + size))

    def __len__(self) -> int:
        return len(self._given)

    def text(self, number: int) -> str:
        """Return one text in code points."""
        text = self._texts.get(number, self._given[number])
        return text if isinstance(text, str) else text.decode("ascii")

    def size(self, number: int) -> int:
        """Return how many bytes a text has in UTF-8."""
        text = self._given[number]
        if isinstance(text, bytes) or text.isascii():
            return len(text)
        return len(self.text(number).encode("utf-8", "surrogatepass"))

    def bounds(self, number: int) -> tuple[int, int]:
        """Return where a text stands in the folded bytes."""
        return (self._ends[number - 1] + 1 if number else 0), self._ends[number]

    def offsets(self, number: int) -> OffsetMap | None:
        """Return the way from a text's folded bytes to its code points; None where they are the same."""
        if number not in self._texts:
            return None
        folder = Folder("detect", gap=GAP)
        folder.push(self._texts[number])
        return folder.offsets

    def split(self, hits: Sequence[Hit]) -> Iterator[tuple[int, list[Hit]]]:
        """Yield the number of each text that has hits, and its hits."""
        for number, group in groupby(hits, lambda hit: bisect_left(self._ends, hit[0])):
            yield number, list(group)

    def _fold(self, number: int, given: str | bytes) -> bytes:
        if isinstance(given, bytes):
            if given.isascii():
                return given
            text = given.decode("utf-8", "surrogateescape")
        else:
            points = CodePoints()
            text = points.push(given) + points.finish()
        self._texts[number] = text
        return Folder("detect", gap=GAP).push(text) if may_have_gap(text) else fold_text(text)
