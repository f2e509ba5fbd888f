"""How much of a text's end must be held back because it may be the beginning of a finding.

Each rule names a prefix-closed set of byte strings, and the part to hold is the longest suffix in that set. Because the
set is prefix-closed, the start of that suffix never moves backwards while text arrives, and because a finding may only
begin inside the suffix that was held just before its anchor ended, no prefix of a finding can have been released.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput
from stanch.scan.anchor import parse_byte_set

_SWALLOW = re.compile(r"swallow:(\[\^?\]?(?:\\.|[^\]\\])*\]):(.*)", re.DOTALL)
_SET = r"(\[\^?\]?(?:\\.|[^\]\\])*\])"
_RUN = re.compile(rf"run:{_SET}:(\d{{1,3}})(?::{_SET})?", re.DOTALL)
_CAPITALS = re.compile(r"capitals:(\d{1,3})")
_SHORT_END, _REMEMBERED = 24, 1 << 15
_UPPER_CASE = bytes(range(256)).upper()
_UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTERS = frozenset(_UPPER + _UPPER.lower())
CAPITAL_ENDS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'.- " + bytes(range(0x80, 0x100))
_CAPITALS_ON = rb"[A-Za-z'.\x80-\xff\-]*+(?: [A-Z][A-Za-z'.\x80-\xff\-]*+){0,2}+ ?"
_CAPITALISED = re.compile(b"[A-Z]" + _CAPITALS_ON + rb"\Z")


@dataclass(frozen=True, slots=True)
class LiteralHold:
    """Hold a proper prefix of one of the anchor's literals; a finding begins at the literal or later."""


@dataclass(frozen=True, slots=True)
class RunHold:
    """Hold the trailing run of the byte set, at most ``longest`` bytes of it."""

    members: bytes
    longest: int

    @property
    def heads(self) -> bytes:
        """The bytes that what is held can begin with."""
        return self.members

    @property
    def rest(self) -> bytes:
        """An expression of what is held, without the first byte."""
        return byte_class(self.members) + b"{0,%d}+" % (self.longest - 1)

    def start(self, text: bytes | bytearray, low: int, position: int) -> int:
        """Return where the held run before ``position`` starts; ``low`` is where the text starts."""
        first = max(low, position - self.longest)
        return first + len(text[first:position].rstrip(self.members))

    def may_end_with(self, byte: int) -> bool:
        """Tell whether anything is held of a text that ends with this byte."""
        return byte in self.members


@dataclass(frozen=True, slots=True)
class HeadedHold:
    """As :class:`RunHold`, but only from the first byte of ``heads`` in the run on."""

    heads: bytes
    members: bytes
    longest: int
    _others: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_others", bytes(set(self.members) - set(self.heads)))

    @property
    def rest(self) -> bytes:
        """An expression of what is held, without the first byte."""
        return byte_class(self.members) + b"{0,%d}+" % (self.longest - 1)

    def start(self, text: bytes | bytearray, low: int, position: int) -> int:
        """Return where the held run before ``position`` starts."""
        reach = text[max(low, position - self.longest) : position]
        return position - len(reach[len(reach.rstrip(self.members)) :].lstrip(self._others))

    def may_end_with(self, byte: int) -> bool:
        """Tell whether anything is held of a text that ends with this byte."""
        return byte in self.members


@dataclass(frozen=True, slots=True)
class CapitalsHold:
    """Hold up to three trailing capitalised words, at most ``longest`` bytes of them."""

    longest: int

    @property
    def heads(self) -> bytes:
        """The bytes that what is held can begin with."""
        return _UPPER

    @property
    def rest(self) -> bytes:
        """An expression of what is held, without the first byte."""
        return b"(?!.{%d})" % self.longest + _CAPITALS_ON

    def start(self, text: bytes | bytearray, low: int, position: int) -> int:
        """Return where the held words before ``position`` start."""
        first = max(low, position - self.longest)
        tail = text[first:position]
        word = tail[tail.rfind(b" ", 0, -1) + 1 :]
        if word.islower() or word == word.lower():
            return position
        match = _CAPITALISED.search(tail)
        return position if match is None else first + match.start()

    def may_end_with(self, byte: int) -> bool:
        """Tell whether anything is held of a text that ends with this byte."""
        return byte in CAPITAL_ENDS


@dataclass(frozen=True, slots=True)
class SwallowHold:
    """As :class:`LiteralHold`; the finding goes on over the maximal run of ``members`` and ``close`` after it."""

    members: bytes
    close: bytes


TrailingHold: TypeAlias = RunHold | HeadedHold | CapitalsHold
Hold: TypeAlias = LiteralHold | TrailingHold | SwallowHold


def parse_hold(text: str) -> Hold:
    """Read how much a rule holds back.

    That is ``literal``, ``run:<byte set>:<max>``, ``run:<byte set>:<max>:<byte set of the first>``, ``capitals:<max>``
    or ``swallow:<byte set>:<close literal>``.

    Raises:
        InvalidInput: Another form, a maximum of 0, or a first byte that is none of the run.
    """
    if text == "literal":
        return LiteralHold()
    if match := _RUN.fullmatch(text):
        members, longest = parse_byte_set(match[1]), int(match[2])
        heads = parse_byte_set(match[3]) if match[3] else None
        rule: TrailingHold = RunHold(members, longest) if heads is None else HeadedHold(heads, members, longest)
        if not set(heads or b"") <= set(members):
            raise InvalidInput(f"hold rule {text!r}: a run cannot begin with a byte that is not in it")
    elif match := _CAPITALS.fullmatch(text):
        rule = CapitalsHold(int(match[1]))
    elif match := _SWALLOW.fullmatch(text):
        return SwallowHold(parse_byte_set(match[1]), match[2].encode())
    else:
        raise InvalidInput(f"unknown hold rule {text!r}", next_step="use literal, run:, capitals: or swallow:")
    if rule.longest == 0:
        raise InvalidInput(f"hold rule {text!r}: the maximum must be positive")
    return rule


class HoldsAfter:
    """What several rules hold of a text that ends with a certain byte: as much as the one that holds most.

    Most runs are of two sorts: without the space, or of spaces, digits and signs. Those of one sort count as one run,
    of all their bytes and as long as the longest: a little more than needed is held, never less. The other rules are
    one expression, and what they hold begins with one of few bytes.

    Attributes:
        joint: Of each sort, the bytes and the greatest length.
        others: The other rules.
    """

    def __init__(self, holds: Iterable[TrailingHold], byte: int) -> None:
        able = [hold for hold in dict.fromkeys(holds) if hold.may_end_with(byte)]
        runs = [hold for hold in able if isinstance(hold, RunHold)]
        words = [run for run in runs if b" " not in run.members]
        numbers = [run for run in runs if b" " in run.members and not _LETTERS & set(run.members)]
        self.joint = tuple(_joint(sort) for sort in (words, numbers) if sort)
        self.others = tuple(hold for hold in able if hold not in (*words, *numbers))
        self._reach = max((hold.longest for hold in able), default=0)

    def start(self, text: bytes | bytearray, low: int) -> int:
        """Return where the held part of ``text`` starts; ``low`` is where it started in less of the text, or 0."""
        start = size = len(text)
        low = max(low, size - self._reach)
        for members, longest in self.joint:
            first = max(low, size - longest)
            start = min(start, first + len(text[first:].rstrip(members)))
        if self.others and (match := self._search(text, low)) is not None:
            return min(start, match.start())
        return start

    @cached_property
    def _search(self) -> Callable[[bytes | bytearray, int], "re.Match[bytes] | None"]:
        return _begun(self.others)


def _joint(runs: Sequence[RunHold]) -> tuple[bytes, int]:
    """Return the bytes that any of the runs may have, and the greatest length."""
    return bytes({member for run in runs for member in run.members}), max(run.longest for run in runs)


@cache
def _begun(holds: tuple[TrailingHold, ...]) -> Callable[[bytes | bytearray, int], "re.Match[bytes] | None"]:
    """Return the search for the longest end of a text that one of the rules holds."""
    heads = byte_class(b"".join(hold.heads for hold in holds))
    parts = (b"(?<=" + byte_class(hold.heads) + b")" + hold.rest for hold in holds)
    return re.compile(heads + b"(?:" + b"|".join(parts) + rb")\Z", re.DOTALL).search


class LiteralPrefixes:
    """Finds the longest suffix of a growing text that is a proper prefix of one of many literals, and their ends.

    The automaton of Aho and Corasick (Communications of the ACM 18, 1975), stepped byte by byte. Case is ignored: for
    literals whose case matters this holds a little more than needed, never less.
    """

    def __init__(self, literals: Iterable[bytes]) -> None:
        lowered = sorted({literal.lower() for literal in literals})
        self.longest = max((len(literal) for literal in lowered), default=1) - 1
        self._next: list[dict[int, int]] = [{}]
        whole = {self._insert(literal) for literal in lowered}
        self._fail = [0] * len(self._next)
        self._held = [0] * len(self._next)
        self._ended: list[tuple[int, ...]] = [()] * len(self._next)
        self._link(whole)
        self._walks: dict[tuple[int, bytes], tuple[int, tuple[tuple[int, int], ...]]] = {}
        self._rows: list[list[int]] = [[]] * len(self._next)  # filled on first use

    def forgetful(self) -> "LiteralPrefixes":
        """Return the same automaton, which remembers no word of what this one saw."""
        other = copy(self)
        other._walks = {}  # noqa: SLF001 - of this class
        return other

    def _insert(self, literal: bytes) -> int:
        state = 0
        for byte in literal:
            if byte not in self._next[state]:
                self._next[state][byte] = len(self._next)
                self._next.append({})
            state = self._next[state][byte]
        return state

    def _link(self, whole: set[int]) -> None:
        """Set each state's fall-back, what it holds and what ends there, nearest states to the root first."""
        depth, level = 0, [0]
        self._order = [0]  # each state after its fall-back
        while level:
            depth += 1
            above, level = level, []
            for parent in above:
                for byte, state in self._next[parent].items():
                    if parent:
                        self._fail[state] = self._follow(self._fail[parent], byte)
                    self._held[state] = depth if self._next[state] else self._held[self._fail[state]]
                    self._ended[state] = (depth,) * (state in whole) + self._ended[self._fail[state]]
                    level.append(state)
            self._order += level

    def step(self, state: int, data: bytes) -> int:
        """Return the state after further bytes; 0 is the start."""
        rows = self._rows
        for byte in data:
            try:
                state = rows[state][byte]
            except IndexError:
                state = self._row(state)[byte]
        return state

    def walk(self, state: int, data: bytes) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Do as :meth:`step`, and return where in ``data`` literals end, too: each end with the literal's length.

        The same words come again and again: short ones are remembered, in memory only.
        """
        if (known := self._walks.get((state, data))) is not None:
            return known
        rows, ended, before, ends = self._rows, self._ended, state, list[tuple[int, int]]()
        for at, byte in enumerate(data, start=1):
            try:
                state = rows[state][byte]
            except IndexError:
                state = self._row(state)[byte]
            if ended[state]:
                ends += [(at, length) for length in ended[state]]
        walked = state, tuple(ends)
        if len(data) <= _SHORT_END:
            if len(self._walks) >= _REMEMBERED:
                self._walks.clear()
            self._walks[before, data] = walked
        return walked

    def _row(self, state: int) -> list[int]:
        """Return the states that follow one."""
        row = self._rows[state]
        if not row:
            row = self._row(self._fail[state]).copy() if state else [0] * 256
            for byte, after in self._next[state].items():
                row[byte] = row[_UPPER_CASE[byte]] = after
            self._rows[state] = row  # whole, before another thread sees it
        return row

    def _follow(self, state: int, byte: int) -> int:
        while (after := self._next[state].get(byte)) is None and state:
            state = self._fail[state]
        return after or 0

    def held(self, state: int) -> int:
        """Return the length of the suffix to hold in a state."""
        return self._held[state]

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self._next)

    def table(self, place: int) -> tuple[list[int], npt.NDArray[np.int32]]:
        """Return the automaton as a table of numbers that is to stand at ``place``.

        Returns:
            The column of each byte, and a row for each state: the length to hold, whether a literal ends, and for each
            column from the third on the place of the state that follows.
        """
        members = sorted({byte for after in self._next for byte in after})
        columns, width = [2] * 256, len(members) + 3
        for column, byte in enumerate(members, start=3):
            columns[byte] = columns[_UPPER_CASE[byte]] = column
        rows = np.full((len(self._next), width), place, dtype=np.int32)
        for state in self._order:
            if state:
                rows[state] = rows[self._fail[state]]
            rows[state, :2] = self._held[state], bool(self._ended[state])
            for byte, after in self._next[state].items():
                rows[state, columns[byte]] = place + after * width
        return columns, rows


class HeldEnds(dict[bytes, int]):
    """How many bytes of a text's end are held, by its end: what was held before, and what has come since.

    Nothing else counts: a rule holds only bytes that it held before or that are new, and so it is with the beginning of
    a literal. The same words come again and again: short ends are remembered, in memory only.

    Attributes:
        prefixes: The automaton of the literals.
        after: The rules for an end with each byte.
    """

    def __init__(self, trailing: Sequence[TrailingHold], literals: Iterable[bytes]) -> None:
        super().__init__()
        self.prefixes = _prefixes(frozenset(literals)).forgetful()
        self.after = _holds_after(tuple(trailing))

    def __missing__(self, end: bytes) -> int:
        size, prefixes = len(end), self.prefixes
        literal = prefixes.held(prefixes.step(0, end[max(0, size - prefixes.longest) :]))
        held = max(literal, size - self.after[end[-1]].start(end, 0))
        if size <= _SHORT_END:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[end] = held
        return held


# What follows from the rules alone is made once for all scanners of a process.
@lru_cache(8)
def _prefixes(literals: frozenset[bytes]) -> LiteralPrefixes:
    return LiteralPrefixes(literals)


@lru_cache(64)
def _holds_after(trailing: tuple[TrailingHold, ...]) -> tuple[HoldsAfter, ...]:
    return tuple(HoldsAfter(trailing, byte) for byte in range(256))


def byte_class(members: bytes) -> bytes:
    """Return an expression that matches one of the bytes."""
    found = set(members)
    starts = [byte for byte in sorted(found) if byte - 1 not in found]
    ends = [byte for byte in sorted(found) if byte + 1 not in found]
    return b"[" + b"".join(b"\\x%02x-\\x%02x" % span for span in zip(starts, ends, strict=True)) + b"]"
