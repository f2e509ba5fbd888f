"""The keys of raw JSON lines that announce a value, and whether it is one; other keys cost next to nothing."""

import json
import re
from bisect import bisect_left
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stanch.scan.fold import fold_text
from stanch.scan.lead import Leads
from stanch.scan.rules import FoldedText, RuleSearch

_QUOTE, _COLON, _BACKSLASH = (ord(sign) for sign in '":\\')
_SHORT, _MOST_SILENT = 8, 64
_VALUE = re.compile(rb'"[ \t]*:[ \t]*(?:"([^"\\]*)"|([^\s",\[\]{}]+))')

Places = npt.NDArray[np.intp]
Words = npt.NDArray[np.uint64]


class AnnouncingKeys:
    """Looks at the keys of lines."""

    def __init__(self, rules: RuleSearch) -> None:
        self._rules = rules
        self._silent: Words = np.empty(0, np.uint64)

    def suspects(self, block: bytes, ends: list[int]) -> set[int]:
        """Return the numbers of the lines with a key that announces the string or number under it.

        Of a key that announces something and holds an object, a list or a string with escapes, nothing more is asked.

        Args:
            block: The lines, one after the other, with a byte between two.
            ends: Where each of them ends.
        """
        found = set[int]()
        for start, end in self._heard(block):
            number = bisect_left(ends, end)
            if number not in found:
                leads = self._leads(block, start, end)
                if leads and self._may_be(block, end, leads, block[start:end]):
                    found.add(number)
        return found

    def _heard(self, block: bytes) -> Iterator[tuple[int, int]]:
        """Yield where each key stands that is not known to announce nothing."""
        starts, ends = _keys(block)
        sizes = ends - starts
        short = (sizes > 0) & (sizes <= _SHORT) & (ends >= _SHORT)
        rest = ~short
        if short.any():
            words = _words(block, ends[short], sizes[short])
            rest[np.flatnonzero(short)[~np.isin(words, self._silent)]] = True
        new = {}
        for start, end in zip(starts[rest].tolist(), ends[rest].tolist(), strict=True):
            if end - start > _SHORT or self._leads(block, start, end):
                yield start, end
            elif end >= _SHORT:
                new[block[start:end]] = end
        if new and len(self._silent) < _MOST_SILENT:
            places = np.array(list(new.values()))
            learnt = _words(block, places, np.array([len(name) for name in new]))
            self._silent = np.union1d(self._silent, learnt[: _MOST_SILENT - len(self._silent)])

    def _leads(self, block: bytes, start: int, end: int) -> Leads:
        return self._rules.names[_read(block[start:end])]

    def _may_be(self, block: bytes, end: int, leads: Leads, name: bytes) -> bool:
        value = _VALUE.match(block, end)
        if value is None:
            return True
        text = fold_text((value[1] if value[1] is not None else value[2]).decode("utf-8", "replace"))
        place = FoldedText(_read(name), lambda: None, 0, 0, len(text))
        return any(self._rules.find_led(lead, text, place) for lead in leads)


def _read(name: bytes) -> str:
    """Return a key as it is read; of what is no JSON, anything."""
    if b"\\" not in name:
        return name.decode("utf-8", "replace")
    try:
        read: str = json.loads(b'"%b"' % name)
    except ValueError:
        return ""
    return read


def _keys(block: bytes) -> tuple[Places, Places]:
    """Return where keys start and end: strings before a colon. A quotation mark after a backslash is in a string."""
    codes = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(codes == _QUOTE)
    quotes = quotes[codes[quotes - 1] != _BACKSLASH]
    after = codes[np.minimum(quotes + 1, len(codes) - 1)]
    is_end = after == _COLON
    for place in np.flatnonzero((after == ord(" ")) | (after == ord("\t"))).tolist():
        is_end[place] = _VALUE.match(block, int(quotes[place])) is not None
    is_end[:1] = False
    found = np.flatnonzero(is_end)
    return quotes[found - 1] + 1, quotes[found]


def _words(block: bytes, ends: Places, sizes: Places) -> Words:
    """Return names of at most eight bytes, each as a number."""
    view = np.ndarray((len(block) - 7,), np.dtype("<u8"), block, strides=(1,))
    words: Words = view[ends - _SHORT] >> (np.uint64(8) * (np.uint64(_SHORT) - sizes.astype(np.uint64)))
    return words
