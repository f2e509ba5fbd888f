"""Decoded views: what runs of base64, hexadecimal digits, percent and JSON escapes say, decoded once.

A run is a maximal stretch of the ASCII characters that an encoding uses. Whole texts decode each run of 24 and more
characters and search it with everything. A stream holds a run for up to 1,024 characters and searches what it says for
literals and dictionary terms only; of a longer run it searches the first 1,024 and then lets the rest pass.

Not claimed: an encoding in an encoding, a value that a line break cuts, base64 with other characters glued before it.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from stanch.scan.dictionary import Dictionary, decode_run
from stanch.scan.found import Found
from stanch.scan.literals import LiteralSearch

SHORTEST_RUN, LONGEST_HELD = 24, 1024
_PERCENT = re.compile("(?:%[0-9A-Fa-f]{2})+")
_JSON = re.compile(r'(?:\\u[0-9A-Fa-f]{4})+|\\["\\/bfnrt]')
_SHORT_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True)
class Encoding:
    """An encoding: the characters of its runs, and its escapes; without escapes a run is encoded as a whole."""

    name: str
    members: str
    mark: str = ""
    escape: re.Pattern[str] | None = None
    run: re.Pattern[str] = field(init=False)
    long_run: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "run", re.compile(f"[{self.members}]+"))
        object.__setattr__(self, "long_run", re.compile(f"[{self.members}]{{{SHORTEST_RUN},}}"))


ENCODINGS = (
    Encoding("base64", r"A-Za-z0-9+/_\-"),
    Encoding("hexadecimal", "0-9A-Fa-f"),
    Encoding("percent", r"A-Za-z0-9%._~:/?#\[\]@!$&'()*+,;=\-", "%", _PERCENT),
    Encoding("json", "!-~", "\\", _JSON),
)


class Stretch(NamedTuple):
    """A stretch of decoded text, and the span of the original text that encodes it."""

    low: int
    high: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class View:
    """What a run says; outside the stretches, its text and the original text advance together."""

    text: str = field(repr=False)
    stretches: tuple[Stretch, ...]

    def encloses(self, found: Found) -> Found | None:
        """Return what was found in the view, with the original span; None if it stands there unencoded as well."""
        first = bisect_right(self.stretches, found.start, key=lambda stretch: stretch.high)
        last = bisect_left(self.stretches, found.end, key=lambda stretch: stretch.low) - 1
        if first > last:
            return None
        low, high = self.stretches[first], self.stretches[last]
        start = low.start - max(low.low - found.start, 0)
        end = high.end + max(found.end - high.high, 0)
        return replace(found, start=start, end=end, swallows=False, open=False, decoded=True)


def decoded_views(text: str) -> Iterator[View]:
    """Yield what the runs of a whole text say."""
    for encoding in ENCODINGS:
        if encoding.mark in text:
            for match in encoding.long_run.finditer(text):
                yield from view_of(encoding, match[0], match.start())


def view_of(encoding: Encoding, run: str, start: int) -> Iterator[View]:
    """Yield what one run says, unless it is too short or holds no escape."""
    if len(run) < SHORTEST_RUN:
        return
    if encoding.escape is None:
        text = decode_run(run) if encoding.name == "base64" else _bytes_text(run)
        yield View(text, (Stretch(0, len(text), start, start + len(run)),))
        return
    parts, stretches, done, size = [], [], 0, 0
    for match in encoding.escape.finditer(run):
        decoded = _bytes_text(match[0].replace("%", "")) if encoding.mark == "%" else _json_text(match[0])
        parts += [run[done : match.start()], decoded]
        size += match.start() - done
        stretches.append(Stretch(size, size + len(decoded), start + match.start(), start + match.end()))
        size, done = size + len(decoded), match.end()
    if stretches:
        yield View("".join([*parts, run[done:]]), tuple(stretches))


def _bytes_text(digits: str) -> str:
    """Return the UTF-8 text of hexadecimal digits; an odd last one is left out, what is no UTF-8 becomes U+FFFD."""
    return bytes.fromhex(digits[: len(digits) // 2 * 2]).decode("utf-8", "replace")


def _json_text(escapes: str) -> str:
    """Return the text of one short escape, or of a row of four-digit ones; half a surrogate pair becomes U+FFFD."""
    if escapes[1] != "u":
        return _SHORT_ESCAPES.get(escapes[1], escapes[1])
    return bytes.fromhex(escapes.replace("\\u", "")).decode("utf-16-be", "replace")


class _Run:
    """The run of one encoding at the end of a stream."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._text = ""
        self._start = 0
        self._dead = False

    def feed(self, text: str, position: int) -> Iterator[View]:
        """Take the next piece of the stream, which starts at ``position``, and yield what the runs in it say."""
        place = 0
        for match in self._encoding.run.finditer(text):
            if match.start() > place:
                yield from self.close()
            if not self._text:
                self._start = position + match.start()
            if not self._dead:
                self._text = (self._text + match[0])[:LONGEST_HELD]
                if len(self._text) == LONGEST_HELD:
                    yield from self.close()
                    self._dead = True
            place = match.end()
        if place < len(text):
            yield from self.close()

    def close(self) -> Iterator[View]:
        """Yield what the run says that ends here."""
        run, self._text, self._dead = self._text, "", False
        yield from view_of(self._encoding, run, self._start)

    def floor(self, position: int) -> int:
        """Return where the held run starts, or ``position``."""
        return self._start if self._text else position


class DecodedLane:
    """The encoded runs' part of a stream."""

    def __init__(self, literals: LiteralSearch, dictionaries: Sequence[Dictionary]) -> None:
        self._literals = literals
        self._dictionaries = tuple(dictionaries)
        self._runs = tuple(_Run(encoding) for encoding in ENCODINGS)
        self._position = 0

    def feed(self, text: str) -> list[Found]:
        """Take the next piece of text and return what the runs that ended in it hide."""
        found = [entry for run in self._runs for view in run.feed(text, self._position) for entry in self._search(view)]
        self._position += len(text)
        return found

    def finish(self) -> list[Found]:
        """Say that the text ends here and return what the last runs hide."""
        return [entry for run in self._runs for view in run.close() for entry in self._search(view)]

    def floor(self) -> int:
        """Return the code point before which nothing still to come can start."""
        return min(run.floor(self._position) for run in self._runs)

    def _search(self, view: View) -> list[Found]:
        found = self._literals.find(view.text) if self._literals.present else []
        for dictionary in self._dictionaries:
            found += dictionary.find(view.text)
        return [entry for entry in map(view.encloses, found) if entry is not None]
