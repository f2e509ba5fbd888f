"""A text word by word: which terms of a dictionary end with a word, and from which word on one may still come."""

import re
from typing import NamedTuple, Protocol, TypeAlias

from stanch.scan.fold import GAP, SEPARATOR, Folder
from stanch.scan.stems import Stems

_PARTS = re.compile(rb"[^ \x1e]+|[ \x1e]")
_WORD = re.compile(r"[0-9A-Za-z]+")
_SEPARATORS = "".join(chr(code) for code in range(128) if not chr(code).isalnum())
_BETWEEN, _CUT = frozenset([b" ", bytes([SEPARATOR])]), bytes([SEPARATOR])
_BASE64 = "".join(map(chr, [*range(48, 58), *range(65, 91), *range(97, 123)])) + "+/_-"
_SHORT, _REMEMBERED, _SLACK = 24, 1 << 15, 4096


Begun: TypeAlias = tuple[int, bytes, int]
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
    def known(self) -> "Known":
        """What is known of words."""
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

    def may_be(self, squeezed: bytes) -> bool:
        """Tell whether a term, or one written backwards, is this text or begins with it; no false negatives."""
        ...

    def has(self, squeezed: bytes) -> bool:
        """Tell whether a text in the view ``squeezed`` is a term, or one written backwards."""
        ...


class Known(dict[bytes, bool | None]):
    """Of one dictionary: whether a longer term may begin with a word; None of a word that is a term.

    Short words are remembered, in memory only.
    """

    def __init__(self, dictionary: Terms) -> None:
        super().__init__()
        self._dictionary = dictionary

    def __missing__(self, word: bytes) -> bool | None:
        dictionary, size = self._dictionary, len(word)
        begins: bool | None = False
        if size <= dictionary.longest and dictionary.may_be(word):
            is_term = size in dictionary.lengths and dictionary.has(word)
            begins = None if is_term else dictionary.most > 1 and dictionary.begun.may_begin(word)
        if size <= _SHORT:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[word] = begins
        return begins


class Rows(dict[str, Row | None]):
    """Of one dictionary: the rows of short ASCII texts that end with a separator and hold no term; else None."""

    def __init__(self, known: Known) -> None:
        super().__init__()
        self._known = known

    def read(self, text: str) -> Row | None:
        """Return the row of a longer text, which is not remembered; None also of one that is longer than ``GAP``."""
        return self._row(text) if len(text) <= GAP else None

    def __missing__(self, text: str) -> Row | None:
        if len(self) >= _REMEMBERED:
            self.clear()
        row = self[text] = self._row(text)
        return row

    def _row(self, text: str) -> Row | None:
        if not text.isascii() or not text or text[-1].isalnum():
            return None
        words = []
        for match in _WORD.finditer(text):
            word = match[0].lower().encode()
            if (begins := self._known[word]) is None:
                return None
            words.append((word, match.start(), match.end(), begins))
        after, size = len(text) - (words[-1][2] if words else 0), len(text)
        head, tail = size - len(text.lstrip(_BASE64)), size - len(text.rstrip(_BASE64))
        return None if head == size else Row(tuple(words), any(word[3] for word in words), after, head, tail)


class WordMatcher:
    """Splits one text that arrives in pieces into words, and finds the terms that end with each.

    Attributes:
        begun: The words that a term may begin with, by start.
    """

    def __init__(self, dictionary: Terms) -> None:
        self._dictionary, self._known = dictionary, dictionary.known
        self._folder = Folder("index", gap=GAP)
        self.begun: list[Begun] = []
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
                    self.begun.clear()
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
        if not begins and not self.begun:
            return []
        base, found = self._folder.code_points - size, list[tuple[int, int]]()
        for word, start, end, may_begin in words:
            if self.begun:
                found += self._grow(word, base + end)
            if may_begin:
                self.begun.append((base + start, word, 1))
        return found

    @property
    def silent(self) -> int | None:
        """Code points since the last letter or digit; None before there is one, and inside a word."""
        return self._folder.silent if self._folder.folded and self._start is None else None

    def follow(self, folded: bytes, start: int) -> list[Begun] | None:
        """Look at the words of ASCII text that begins and ends between words, and change nothing.

        Args:
            folded: The text, as the view ``index`` has each of its bytes.
            start: Its first code point.

        Returns:
            The words that a term may begin with after it; None if a term may end in it.
        """
        words, known, begun = folded.split(), self._known, self.begun
        if not begun:
            for word in words:
                if known[word] is not False:
                    break
            else:
                return begun
        at, most = 0, self._dictionary.most
        for word in words:
            at, still = folded.index(word, at), []
            for first, text, count in begun:
                joined = text + word
                if (begins := known[joined]) is None:
                    return None
                if begins and count + 1 < most:
                    still.append((first, joined, count + 1))
            if (begins := known[word]) is None:
                return None
            if begins:
                still.append((start + at, word, 1))
            at += len(word)
            begun = still
        return begun

    def skip(self, text: str) -> None:
        """Take ASCII text without gaps that begins and ends between words, and was followed."""
        if text:
            self._folder.jump(len(text), len(text) - len(text.rstrip(_SEPARATORS)))

    def finish(self) -> list[tuple[int, int]]:
        """Say that the text ends here."""
        return self._complete()

    def floor(self) -> int:
        """Return the code point before which no term still to come can start."""
        if self._start is None:
            return self.begun[0][0] if self.begun else self._folder.code_points
        room = self._dictionary.longest - len(self._current)
        if room < 0:
            return self._folder.code_points
        fitting = (start for start, text, _ in self.begun if len(text) <= room)
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
            self.begun.clear()
            return []
        found = [(start, end)] if len(word) in dictionary.lengths and dictionary.has(word) else []
        found += self._grow(word, end)
        if dictionary.most > 1 and dictionary.begun.may_begin(word):
            self.begun.append((start, word, 1))
        return found

    def _grow(self, word: bytes, end: int) -> list[tuple[int, int]]:
        """Add a word to those that a term may begin with, and return the spans of the terms that it ends."""
        dictionary, still, found = self._dictionary, list[Begun](), list[tuple[int, int]]()
        longest, begins = dictionary.longest, dictionary.begun.may_begin
        for start, text, before in self.begun:
            joined, count = text + word, before + 1
            if len(joined) > longest:
                continue
            if len(joined) in dictionary.lengths and count in dictionary.words and dictionary.has(joined):
                found.append((start, end))
            if count < dictionary.most and begins(joined):
                still.append((start, joined, count))
        self.begun = still
        return found
