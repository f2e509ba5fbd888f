"""A text word by word: which terms of a dictionary end with a word, and from which word on one may still come."""

import re
from typing import NamedTuple, Protocol, TypeAlias

from stanch.scan.fold import GAP, SEPARATOR, Folder
from stanch.scan.stems import Stems

_PARTS = re.compile(rb"[^ \x1e]+|[ \x1e]")
_WORD = re.compile(r"[0-9A-Za-z]+")
_BETWEEN, _CUT = frozenset([b" ", bytes([SEPARATOR])]), bytes([SEPARATOR])
_BASE64 = "".join(map(chr, [*range(48, 58), *range(65, 91), *range(97, 123)])) + "+/_-"
_SHORT, _REMEMBERED, _SLACK = 24, 1 << 15, 4096


_Begun: TypeAlias = tuple[int, bytes, int]
"""Words that a term may begin with: the code point at which they start, their bytes, and how many they are."""


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


class Terms(Protocol):
    """What is asked of a dictionary (:class:`stanch.scan.Dictionary`)."""

    @property
    def words(self) -> frozenset[int]:
        """Of how many words a term can consist."""
        ...

    @property
    def lengths(self) -> frozenset[int]:
        """How many bytes a term can have in the ``squeezed`` view."""
        ...

    @property
    def most(self) -> int:
        """Words that a term has at most."""
        ...

    @property
    def longest(self) -> int:
        """Bytes that a term has at most in the ``squeezed`` view."""
        ...

    @property
    def begun(self) -> Stems:
        """The filter of what terms begin with."""
        ...

    def has(self, squeezed: bytes) -> bool:
        """Tell whether a text in the view ``squeezed`` is a term, or one written backwards."""
        ...


class Rows(dict[str, Row | None]):
    """Of one dictionary: the rows of short ASCII texts that end with a separator and hold no term; else None."""

    def __init__(self, dictionary: Terms) -> None:
        super().__init__()
        self._dictionary = dictionary
        self._plain: dict[str, bool] = {}  # of words that are no terms, whether a longer one may begin with them

    def read(self, text: str) -> Row | None:
        """Return the row of a longer text, which is not remembered; None also of one that is longer than ``GAP``."""
        return self._row(text) if len(text) <= GAP else None

    def __missing__(self, text: str) -> Row | None:
        if len(self) >= _REMEMBERED:
            self.clear()
        row = self[text] = self._row(text)
        return row

    def _judge(self, word: str) -> bool | None:
        """Tell whether a longer term may begin with a word; None of what is a term, or longer than any."""
        dictionary, squeezed = self._dictionary, word.encode()
        if len(word) > dictionary.longest or (len(word) in dictionary.lengths and dictionary.has(squeezed)):
            return None
        begins = dictionary.most > 1 and dictionary.begun.may_begin(squeezed)
        if len(word) <= _SHORT:
            if len(self._plain) >= _REMEMBERED:
                self._plain.clear()
            self._plain[word] = begins
        return begins

    def _row(self, text: str) -> Row | None:
        if not text.isascii() or not text or text[-1].isalnum():
            return None
        words = []
        for match in _WORD.finditer(text):
            word = match[0].lower()
            # Asked for once: another thread may forget all words at any time.
            if (begins := self._plain.get(word)) is None and (begins := self._judge(word)) is None:
                return None
            words.append((word.encode(), match.start(), match.end(), begins))
        after, size = len(text) - (words[-1][2] if words else 0), len(text)
        head, tail = size - len(text.lstrip(_BASE64)), size - len(text.rstrip(_BASE64))
        return None if head == size else Row(tuple(words), any(word[3] for word in words), after, head, tail)


class WordMatcher:
    """Splits one text that arrives in pieces into words, and finds the terms that end with each."""

    def __init__(self, dictionary: Terms) -> None:
        self._dictionary = dictionary
        self._folder = Folder("index", gap=GAP)
        self._begun: list[_Begun] = []  # by start
        self._current = b""
        self._start: int | None = None
        self._end = 0
        self._full = _SLACK  # folded bytes at which the way back is shortened

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
        if not begins and not self._begun:
            return []
        base, found = self._folder.code_points - size, list[tuple[int, int]]()
        for word, start, end, may_begin in words:
            if self._begun:
                found += self._grow(word, base + end)
            if may_begin:
                self._begun.append((base + start, word, 1))
        return found

    def finish(self) -> list[tuple[int, int]]:
        """Say that the text ends here."""
        return self._complete()

    def floor(self) -> int:
        """Return the code point before which no term still to come can start."""
        if self._start is None:
            return self._begun[0][0] if self._begun else self._folder.code_points
        room = self._dictionary.longest - len(self._current)
        if room < 0:
            return self._folder.code_points
        fitting = (start for start, text, _ in self._begun if len(text) <= room)
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
            self._begun.append((start, word, 1))
        return found

    def _grow(self, word: bytes, end: int) -> list[tuple[int, int]]:
        """Add a word to those that a term may begin with, and return the spans of the terms that it ends."""
        dictionary, still, found = self._dictionary, list[_Begun](), list[tuple[int, int]]()
        longest, begins = dictionary.longest, dictionary.begun.may_begin
        for start, text, before in self._begun:
            joined, count = text + word, before + 1
            if len(joined) > longest:
                continue
            if len(joined) in dictionary.lengths and count in dictionary.words and dictionary.has(joined):
                found.append((start, end))
            if count < dictionary.most and begins(joined):
                still.append((start, joined, count))
        self._begun = still
        return found
