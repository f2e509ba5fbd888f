"""Normalisation of text before anything is searched: ``stanch-fold/2`` (``docs/spec/span-index.md``, section 1).

Folding works on one code point at a time, so it does not depend on how a text is cut into chunks. Three views:
``detect`` keeps case and layout, ``index`` keeps caseless letters and digits with single spaces between words, and
``squeezed`` is ``index`` without the spaces. All views are UTF-8 bytes.
"""

import json
import re
from functools import cache
from importlib import resources
from typing import Literal, TypeAlias

import numpy as np

from stanch.scan.offsets import OffsetMap

View: TypeAlias = Literal["detect", "index", "squeezed"]

FOLD = "stanch-fold/2"
SEPARATOR = 0x1E
"""Byte between texts that are searched together; no folded text holds it, except where a gap is cut."""

GAP = 256
"""Code points in a row that may fold to nothing before a search cuts the text: a stream then holds a bounded amount."""

_DETECT_RUNS = re.compile(r"[\x00-\x1d\x1f-\x7f]+|[\x1e\x80-\U0010ffff]")
_BETWEEN = r"[\x00-/:-@\[-`{-\x7f]"
_WORD_RUNS = re.compile(rf"[0-9A-Za-z]+|{_BETWEEN}+|[\x80-\U0010ffff]")
_PHRASES = re.compile(rf"[0-9A-Za-z]++(?:{_BETWEEN}[0-9A-Za-z]++)*+|{_BETWEEN}+|[\x80-\U0010ffff]")
_ROW = re.compile(rf"({_BETWEEN}*+)([0-9A-Za-z]++(?:{_BETWEEN}[0-9A-Za-z]++)*+)({_BETWEEN}*+)")
_WORD = re.compile(rf"({_BETWEEN}*+)([0-9A-Za-z]++)({_BETWEEN}*+)")
_SHORT, _REMEMBERED = 24, 1 << 15
ASCII_TO_INDEX = bytes(
    byte
    if byte >= 0x80 or (chr(byte).isalnum() and not chr(byte).isupper())
    else ord(chr(byte).lower())
    if chr(byte).isalpha()
    else 0x20
    for byte in range(256)
)


class _Table(dict[int, str]):
    """What one view makes of each non-ASCII code point; filled on first use of a code point."""

    def __init__(self, view: Literal["detect", "index"]) -> None:
        super().__init__({SEPARATOR: " "})
        raw = json.loads(resources.files("stanch.scan").joinpath("tables/fold.json").read_bytes())
        for name in ("detect",) if view == "detect" else ("detect", "index"):
            self.update((int(point, 16), result) for point, result in raw[name].items())
        self._separators = raw["separators"] if view == "index" else []

    def __missing__(self, point: int) -> str:
        if 0xAC00 <= point <= 0xD7A3:
            result = _jamo(point - 0xAC00)
        elif 0xD800 <= point <= 0xDFFF:
            result = " " if self._separators else "\ufffd"
        elif any(first <= point <= last for first, last in self._separators):
            result = " "
        else:
            result = chr(point)
        self[point] = result
        return result


def _jamo(syllable: int) -> str:
    """Decompose a Hangul syllable (The Unicode Standard, section 3.12)."""
    lead, vowel, tail = syllable // 588, syllable % 588 // 28, syllable % 28
    return chr(0x1100 + lead) + chr(0x1161 + vowel) + (chr(0x11A7 + tail) if tail else "")


@cache
def _table(view: Literal["detect", "index"]) -> _Table:
    return _Table(view)


class _Encoded(dict[bytes, bytes]):
    """The same for code points and results in UTF-8."""

    def __init__(self, view: Literal["detect", "index"]) -> None:
        super().__init__()
        self._table = _table(view)

    def __missing__(self, character: bytes) -> bytes:
        result = self[character] = self._table[ord(character.decode("utf-8", "surrogatepass"))].encode()
        return result


@cache
def _encoded(view: Literal["detect", "index"]) -> _Encoded:
    return _Encoded(view)


def fold_utf8(data: bytes, view: Literal["detect", "index"] = "detect") -> bytes:
    """Return text in UTF-8 with each code point outside ASCII as a view has it; ASCII stays as it is."""
    if data.isascii():
        return data
    table, done = _encoded(view), 0
    parts: list[bytes] = []
    for start in np.flatnonzero(np.frombuffer(data, np.uint8) >= 0xC0).tolist():
        end = start + (2 if data[start] < 0xE0 else 3 if data[start] < 0xF0 else 4)
        parts += (data[done:start], table[data[start:end]])
        done = end
    return b"".join([*parts, data[done:]])


def fold_text(text: str, view: View = "detect") -> bytes:
    """Return a view of a whole text, without the way back; equal to what a :class:`Folder` gives for it."""
    if view == "detect":
        return fold_utf8(text.replace("\x1e", " ").encode("utf-8", "surrogatepass"))
    words = fold_utf8(text.encode("utf-8", "surrogatepass"), "index").translate(ASCII_TO_INDEX).split()
    return (b" " if view == "index" else b"").join(words)


def may_have_gap(text: str) -> bool:
    """Tell whether a :class:`Folder` might cut this text: it has more than ``GAP`` bytes in a row outside ASCII."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) - len(text) <= GAP:  # at least one more byte for each code point outside
        return False
    return has_long_run(data)


def has_long_run(data: bytes) -> bool:
    """Tell whether more than ``GAP`` bytes in a row are outside ASCII."""
    places = np.flatnonzero(np.frombuffer(data, np.uint8) >= 0x80)
    return bool((places[GAP:] - places[:-GAP] == GAP).any())


class _Rows(dict[str, tuple[bytes, int, int] | None]):
    """What short ASCII chunks are folded to, and how many separators stand before and after the words; else None.

    In ``index`` a chunk may hold a row of words with one character between two, in ``squeezed`` only one word. Tokens
    come again and again: they are remembered, in memory only.
    """

    def __init__(self, row: re.Pattern[str]) -> None:
        super().__init__()
        self._row = row

    def __missing__(self, chunk: str) -> tuple[bytes, int, int] | None:
        match = self._row.fullmatch(chunk)
        row = None if match is None else (match[2].encode().translate(ASCII_TO_INDEX), len(match[1]), len(match[3]))
        if len(self) >= _REMEMBERED:
            self.clear()
        self[chunk] = row
        return row


_ROWS, _SINGLE_WORDS = _Rows(_ROW), _Rows(_WORD)


class CodePoints:
    """Joins surrogate pairs that a chunked UTF-16 source has cut in two."""

    def __init__(self) -> None:
        self._pending = ""

    @property
    def waits(self) -> bool:
        """Whether half a pair waits for the rest."""
        return bool(self._pending)

    def push(self, chunk: str) -> str:
        """Return the chunk with pairs joined; a high surrogate at its end waits for the next chunk."""
        if not self._pending and (chunk.isascii() or not re.search(r"[\ud800-\udfff]", chunk)):
            return chunk
        text, self._pending = self._pending + chunk, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._pending = text[:-1], text[-1]
        return re.sub(r"[\ud800-\udbff][\udc00-\udfff]", _join_pair, text)

    def finish(self) -> str:
        """Return the lone surrogate that still waited, or nothing."""
        text, self._pending = self._pending, ""
        return text


def _join_pair(match: re.Match[str]) -> str:
    return match[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


class Folder:
    """Incremental folding of one text, with the way back to its code points.

    ``push`` takes any pieces of the text and returns the folded bytes they add; :attr:`offsets` maps absolute positions
    in the folded bytes to absolute code point positions in the text. The concatenated result equals
    ``fold_text(whole, view)`` for every way of cutting, as long as no run of code points that fold to nothing is longer
    than ``gap``. Such a run adds the byte ``SEPARATOR``, so that whoever holds text back holds a bounded amount.
    """

    def __init__(self, view: View = "detect", *, gap: int | None = None) -> None:
        self.offsets = OffsetMap()
        self.code_points = 0
        self.folded = 0
        self._view = view
        self._table = _table("detect" if view == "detect" else "index")
        # In ``index`` a character between two words becomes one space, so that words go on as one linear piece.
        self._runs = _PHRASES if view == "index" else _WORD_RUNS
        self._rows = _ROWS if view == "index" else _SINGLE_WORDS
        self._gap = gap
        self._room = GAP if gap is None else gap
        self._silent = 0
        self._linear = False
        self._space_at: int | None = None

    @property
    def silent(self) -> int:
        """Code points since the last one that folded to something."""
        return self._silent

    @property
    def between_words(self) -> bool:
        """Whether a separator has followed the last word; never in the view ``detect``."""
        return self._space_at is not None

    def push(self, chunk: str) -> bytes:
        """Fold the next piece of the text."""
        if self._view == "detect":
            if chunk.isascii() and "\x1e" not in chunk:
                if not self._linear:
                    return self._ascii(chunk) if chunk else b""
                size = len(chunk)
                self.code_points += size
                self.folded += size
                return chunk.encode()
            pieces = [
                self._ascii(run) if run.isascii() and run != "\x1e" else self._point(self._table[ord(run)])
                for run in _DETECT_RUNS.findall(chunk)
            ]
        else:
            size = len(chunk)
            if size <= _SHORT and self.folded and (row := self._rows[chunk]) and self._silent + size <= self._room:
                return self._words(row, size)
            pieces = [self._word_run(run) for run in self._runs.findall(chunk)]
        return b"".join(pieces)

    def skip(self, size: int, after: int) -> bool:
        """Take ASCII text as if it held no words; False, and nothing is done, if it must be pushed.

        Nobody may ask for the folded bytes of its words, nor for their place. In the view ``index`` it must begin and
        end between words.

        Args:
            size: Its length.
            after: How many separators it ends with.
        """
        if not self.folded or self._silent + size > self._room:
            return False
        self.jump(size, after)
        return True

    def jump(self, size: int, after: int, folded: int = 0) -> None:
        """Do as :meth:`skip` for text that follows words and is known to hold no gap.

        Args:
            size: Its length.
            after: How many separators it ends with.
            folded: How many folded bytes it adds; nobody may ask for the place of any of them.
        """
        self.folded += folded
        if after < size:
            self._silent, self._space_at = after, self.code_points + size - after
        else:
            self._silent += size
            if self._space_at is None:
                self._space_at = self.code_points
        self._linear = False
        self.code_points += size

    def _words(self, row: tuple[bytes, int, int], size: int) -> bytes:
        """Take ASCII words after other text, with the separators around them: as :meth:`_word_run` for each run."""
        words, before, after = row
        at, first = self._space_at, self.code_points + before
        if before and at is None:
            at = self.code_points
        if at is not None and self._view == "index":
            # One separator after what is linear, and the word after it, go on where that ended.
            if not self._linear or before != 1:
                self.offsets.add(self.folded, at, linear=True)
                if at + 1 != first:
                    self.offsets.add(self.folded + 1, first, linear=True)
            words = b" " + words
        elif before or not self._linear:
            self.offsets.add(self.folded, first, linear=True)
        self.folded += len(words)
        self.code_points += size
        self._silent, self._linear = after, not after
        self._space_at = self.code_points - after if after else None
        return words

    def _ascii(self, run: str) -> bytes:
        if not self._linear:  # else it goes on where the last run ended
            self.offsets.add(self.folded, self.code_points, linear=True)
            self._linear = True
        size = len(run)
        self.code_points += size
        self.folded += size
        self._silent = 0
        return run.encode()

    def _point(self, result: str) -> bytes:
        """Take one code point that folds to ``result``."""
        if not result:
            return self._nothing(1)
        data = result.encode()
        self._linear = False
        self.offsets.add(self.folded, self.code_points, linear=len(data) == 1)
        self.code_points += 1
        self.folded += len(data)
        self._silent = 0
        return data

    def _nothing(self, count: int) -> bytes:
        """Take ``count`` code points that fold to nothing; cut the text where the run becomes longer than the gap."""
        self._linear = False
        before, self._silent = self._silent, self._silent + count
        cut = b""
        if self._gap is not None and before <= self._gap < self._silent:
            self.offsets.add(self.folded, self.code_points + self._gap - before, linear=False)
            self.folded += 1
            cut = bytes([SEPARATOR])
        self.code_points += count
        return cut

    def _word_run(self, run: str) -> bytes:
        if not run.isascii():
            result = self._table[ord(run)]
            if result and " " not in result:
                return self._space() + self._point(result)
            return self._mixed_point(result) if result.strip() else self._between(1, space=bool(result))
        if not run[0].isalnum():
            return self._between(len(run), space=True)
        lead = self._space() if self._space_at is not None else b""
        return lead + self._ascii(run).translate(ASCII_TO_INDEX)

    def _mixed_point(self, result: str) -> bytes:
        """Take one code point that folds to words and separators, such as a parenthesised letter."""
        if result[0] == " " and self._space_at is None:
            self._space_at = self.code_points
        lead = self._space()
        words = (b" " if self._view == "index" else b"").join(word.encode() for word in result.split())
        self._linear = False
        self.offsets.add(self.folded, self.code_points, linear=False)
        self.folded += len(words)
        self.code_points += 1
        self._silent = 0
        if result[-1] == " ":
            self._space_at = self.code_points - 1
        return lead + words

    def _between(self, count: int, *, space: bool) -> bytes:
        if space and self._space_at is None:
            self._space_at = self.code_points
        return self._nothing(count)

    def _space(self) -> bytes:
        """Emit the one space that stands for the separators before a word; none before the first word."""
        at, self._space_at = self._space_at, None
        if at is None or self._view == "squeezed" or not self.folded:
            return b""
        self.offsets.add(self.folded, at, linear=True)
        self._linear = at + 1 == self.code_points
        self.folded += 1
        return b" "
