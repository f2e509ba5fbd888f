"""Texts for one call of an engine: folded and joined, so that a call costs little for each of them."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, groupby

from stanch.scan.engine import Hit
from stanch.scan.fold import GAP, SEPARATOR, CodePoints, Folder, fold_text, fold_utf8, has_long_run, may_have_gap
from stanch.scan.offsets import OffsetMap

_SEPARATOR = bytes([SEPARATOR])


class FoldedBlock:
    """Texts that are folded and joined already.

    Attributes:
        folded: All of them, folded for detection, with the separator that no anchor matches between two.
        ends: Where each of them ends in there.
    """

    def __init__(self, folded: bytes, ends: Sequence[int], text: Callable[[int], str]) -> None:
        """Take the texts; ``text`` returns one in code points by its number."""
        self.folded, self.ends, self.text = folded, ends, text

    def __len__(self) -> int:
        return len(self.ends)

    def size(self, number: int) -> int:
        """Return how many bytes a text has in UTF-8."""
        return len(self.text(number).encode("utf-8", "surrogatepass"))

    def bounds(self, number: int) -> tuple[int, int]:
        """Return where a text stands in the folded bytes."""
        return (self.ends[number - 1] + 1 if number else 0), self.ends[number]

    def offsets(self, number: int) -> OffsetMap | None:
        """Return the way from a text's folded bytes to its code points; None where they are the same."""
        text = self.text(number)
        if text.isascii():
            return None
        folder = Folder("detect", gap=GAP)
        folder.push(text)
        return folder.offsets

    def split(self, hits: Iterable[Hit]) -> Iterator[tuple[int, list[Hit]]]:
        """Yield the number of each text that has hits, and its hits."""
        for number, group in groupby(hits, lambda hit: bisect_left(self.ends, hit[0])):
            yield number, list(group)


class TextBlock(FoldedBlock):
    """Texts as they are given, folded and joined here."""

    def __init__(self, given: Sequence[str | bytes]) -> None:
        """Fold and join texts; bytes are read as UTF-8, and a byte that is none counts as one code point."""
        self._given = given
        self._texts: dict[int, str] = {}  # where they are not the given strings
        folded, ends = _fold_together(given) or self._fold_each()
        super().__init__(folded, ends, self._text)

    def size(self, number: int) -> int:
        """Return how many bytes a text has in UTF-8; of bytes, how many were given."""
        text = self._given[number]
        return len(text) if isinstance(text, bytes) or text.isascii() else super().size(number)

    def _text(self, number: int) -> str:
        text = self._texts.get(number, self._given[number])
        return text if isinstance(text, str) else text.decode("ascii")

    def _fold_each(self) -> tuple[bytes, list[int]]:
        return _joined([self._fold(number, text) for number, text in enumerate(self._given)])

    def _fold(self, number: int, given: str | bytes) -> bytes:
        if isinstance(given, bytes):
            if given.isascii():
                return given.replace(_SEPARATOR, b" ")
            text = given.decode("utf-8", "surrogateescape")
        else:
            points = CodePoints()
            text = points.push(given) + points.finish()
        self._texts[number] = text
        return Folder("detect", gap=GAP).push(text) if may_have_gap(text) else fold_text(text)


def _fold_together(given: Sequence[str | bytes]) -> tuple[bytes, list[int]] | None:
    """Return texts folded and joined, and where each ends, if all are strings that need no look of their own."""
    texts = [text for text in given if isinstance(text, str)]
    others = [text for text in texts if not text.isascii()]
    try:
        data = "\x1e".join(others).encode()
    except UnicodeEncodeError:
        return None
    folded = fold_utf8(data).split(_SEPARATOR)
    if len(texts) < len(given) or len(folded) != max(1, len(others)) or has_long_run(data):
        return None
    rest = iter(folded)
    block, ends = _joined([text.encode() if text.isascii() else next(rest) for text in texts])
    return (block, ends) if block.count(_SEPARATOR) == max(1, len(texts)) - 1 else None


def _joined(parts: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """Return folded texts with a separator between two, and where each ends."""
    ends = accumulate(map(len, parts), lambda end, size: end + 1 + size)
    return _SEPARATOR.join(parts), list(ends)
