"""A text word by word: which terms of a dictionary end with a word, and from which word on one may still come."""

import re
from typing import TYPE_CHECKING, NamedTuple

from stanch.scan.fold import GAP, SEPARATOR, Folder

if TYPE_CHECKING:
    from stanch.scan.dictionary import Dictionary

_PARTS = re.compile(rb"[^ \x1e]+|[ \x1e]")
_WORD = re.compile(r"[0-9A-Za-z]+")
_WORDS_ONLY = re.compile(r"[\x00-\x7f]{0,23}[\x00-/:-@\[-`{-\x7f]")
_BETWEEN, _CUT = frozenset([b" ", bytes([SEPARATOR])]), bytes([SEPARATOR])
_BASE64 = "".join(map(chr, [*range(48, 58), *range(65, 91), *range(97, 123)])) + "+/_-"
_REMEMBERED, _SLACK = 1 << 15, 4096


class _Begun(NamedTuple):
    """Words that a term may begin with: the code point at which they start, their bytes, and how many they are."""

    start: int
    text: bytes
    count: int


class Row(NamedTuple):
    """What a short text is made of.

    Attributes:
        words: Bytes and place of each word, and whether a longer term may begin with it; none is a term.
        begins: Whether any of them may.
        after: How many separators there are at its end.
        head: How many characters of base64 it begins with; not all are.
        tail: How many it ends with.
    """

    words: tuple[tuple[bytes, int, int, bool], ...]
    begins: bool
    after: int
    head: int
    tail: int


class Rows(dict[str, Row | None]):
    """Of one dictionary: the rows of short ASCII texts that end with a separator and hold no term; else None."""

    def __init__(self, dictionary: "Dictionary") -> None:
        super().__init__()
        self._dictionary = dictionary

    def __missing__(self, text: str) -> Row | None:
        if len(self) >= _REMEMBERED:
            self.clear()
        row = self[text] = self._row(text) if _WORDS_ONLY.fullmatch(text) else None
        return row

    def _row(self, text: str) -> Row | None:
        dictionary, words = self._dictionary, []
        for match in _WORD.finditer(text):
            word = match[0].lower().encode()
            if len(word) > dictionary.longest or (len(word) in dictionary.lengths and dictionary.has(word)):
                return None
            words.append((word, *match.span(), dictionary.most > 1 and dictionary.begun.may_begin(word)))
        after, size = len(text) - (words[-1][2] if words else 0), len(text)
        head, tail = size - len(text.lstrip(_BASE64)), size - len(text.rstrip(_BASE64))
        return None if head == size else Row(tuple(words), any(word[3] for word in words), after, head, tail)


class WordMatcher:
    """Splits one text that arrives in pieces into words, and finds the terms that end with each."""

    def __init__(self, dictionary: "Dictionary") -> None:
        self._dictionary = dictionary
        self._folder = Folder("index", gap=GAP)
        self._begun: list[_Begun] = []  # by start
        self._current = b""
        self._start: int | None = None
        self._end = 0
        self._full = _SLACK  # folded bytes at which the way back is shortened

    @property
    def position(self) -> int:
        """Code points that were given."""
        return self._folder.code_points

    def feed(self, text: str) -> list[tuple[int, int]]:
        """Take the next piece of text and return the spans of the terms that are now certain, in code points."""
        data = self._folder.push(text)
        place = self._folder.folded - len(data)
        found: list[tuple[int, int]] = []
        for part in _PARTS.findall(data):
            if part in _BETWEEN:
                found += self._complete()
                if part == _CUT:
                    self._begun.clear()
                place += 1
                continue
            if self._start is None:
                self._start = place
            place += len(part)
            # One byte more than any term has says as much as the whole word, and keeps memory bounded.
            self._current = (self._current + part)[: self._dictionary.longest + 1]
            self._end = place
        if self._start is not None and self._folder.between_words:
            found += self._complete()
        if self._folder.folded >= self._full:
            self._full = self._folder.folded + _SLACK
            self._folder.offsets.forget(self._folder.folded if self._start is None else self._start)
        return found

    def skim(self, row: Row, size: int) -> list[tuple[int, int]] | None:
        """Do as :meth:`feed` for the text of a row, between words, faster; None, and nothing is done, elsewhere."""
        words, begins, after, _, _ = row
        if self._start is not None or not self._folder.skip(size, after):
            return None
        found: list[tuple[int, int]] = []
        if begins or self._begun:
            base = self._folder.code_points - size
            for word, start, end, may_begin in words:
                if self._begun:
                    found += self._grow(word, base + end)
                if may_begin:
                    self._begun.append(_Begun(base + start, word, 1))
        return found

    def finish(self) -> list[tuple[int, int]]:
        """Say that the text ends here."""
        return self._complete()

    def floor(self) -> int:
        """Return the code point before which no term still to come can start."""
        if self._start is None:
            return self._begun[0].start if self._begun else self._folder.code_points
        room = self._dictionary.longest - len(self._current)
        if room < 0:
            return self._folder.code_points
        fitting = (begun.start for begun in self._begun if len(begun.text) <= room)
        return next(fitting, self._folder.offsets.start(self._start))

    def _complete(self) -> list[tuple[int, int]]:
        """Take the word that has ended, and return the spans of the terms that it ends."""
        if self._start is None:
            return []
        dictionary, word, (start, end) = (
            self._dictionary,
            self._current,
            self._folder.offsets.span(self._start, self._end),
        )
        self._current, self._start = b"", None
        if len(word) > dictionary.longest:  # no term reaches over it
            self._begun.clear()
            return []
        found = [(start, end)] if len(word) in dictionary.lengths and dictionary.has(word) else []
        found += self._grow(word, end)
        if dictionary.most > 1 and dictionary.begun.may_begin(word):
            self._begun.append(_Begun(start, word, 1))
        return found

    def _grow(self, word: bytes, end: int) -> list[tuple[int, int]]:
        """Add a word to those that a term may begin with, and return the spans of the terms that it ends."""
        dictionary, still, found = self._dictionary, list[_Begun](), list[tuple[int, int]]()
        longest, size = dictionary.longest, len(word)
        for start, text, before in self._begun:
            if len(text) + size > longest:
                continue
            joined, count = text + word, before + 1
            if count in dictionary.words and len(joined) in dictionary.lengths and dictionary.has(joined):
                found.append((start, end))
            if count < dictionary.most and dictionary.begun.may_begin(joined):
                still.append(_Begun(start, joined, count))
        self._begun = still
        return found
