"""Which lines of JSON need not be parsed to know that a scan of them finds nothing.

A string without escapes stands in its line as it is, so what an anchor matches in the string it matches in the line.
What is left are escapes, which are undone first, and numbers that are written in another way than they are read. Every
doubt makes a line suspect; what is in a suspect line is decided by a scan of its parsed strings.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from stanch.scan.context import WIDTH
from stanch.scan.engine import EngineMaker, Hit, Pattern
from stanch.scan.fold import SEPARATOR, fold_utf8, has_long_run
from stanch.scan.lead import end_lead
from stanch.scan.literals import LiteralSearch
from stanch.scan.raw_keys import AnnouncingKeys
from stanch.scan.recogniser import Recogniser
from stanch.scan.rules import RuleSearch

_ESCAPES = {rb"\"": b'"', rb"\/": b"/", rb"\b": b"\b", rb"\f": b"\f", rb"\n": b"\n", rb"\r": b"\r", rb"\t": b"\t"}
_ESCAPE = re.compile(rb"\\[\"/bfnrt]")
_POINTS = re.compile(rb"\\u[0-9A-Fa-f]{4}(?:\\u[0-9A-Fa-f]{4})*")
_SYNTAX = re.compile(r'[\x00-\x1f"\\\ud800-\udfff]')
# Numbers are read as 64-bit integers or doubles: longer ones, exponents and small fractions are written anew.
_DOUBTS = ("[0-9.]{17}", "[0-9][Ee][+-]?[0-9]", "0[.]0000")
_ASSERTION = re.compile(r"\\[Az]|\^|\$")
_REMEMBERED = 65_536
# Stands between lines while they are folded, which leaves it as it is.
_GAP = b"\x1d"
_SEPARATOR, _CONTROLS = re.compile(b"\x1e"), re.compile(b"[\x1d\x1e]")
_ENDS = frozenset(b'",:[]{} \t')
_STRUCTURE = re.compile(rb'[",:\[\]{}]')
_KEY_END = re.compile(rb'"[ \t]*:')
_WORD = frozenset(bytes([byte]) for byte in range(256) if chr(byte).isalnum() or byte in b"_" or byte >= 0x80)


class RawLines:
    """The rules of a policy, ready to look at lines of JSON; literals are those of the policy."""

    def __init__(self, search: RuleSearch, literals: LiteralSearch, make: EngineMaker) -> None:
        rules = [confirmer.recogniser for confirmer in search.confirmers]
        patterns = [_pattern(rule) for rule in rules]
        for number, doubt in enumerate(_DOUBTS):
            patterns.append(Pattern(f"doubt {number}", doubt.encode(), caseless=False))
        self._engine = make(patterns, cached=True)
        self._confirmers = search.confirmers
        self._keys = AnnouncingKeys(search)
        # A string ends where its text does; the line has a quotation mark there, which is no part of a word either.
        self._plain = tuple(_ASSERTION.search(rule.confirm.replace("[^", "[")) is None for rule in rules)
        self._literals = literals

    def suspects(self, lines: Sequence[bytes]) -> set[int]:
        """Return the numbers of the lines that must be parsed; a scan of the others finds nothing, no residual."""
        block, found = self._read(lines)
        if self._literals.present:
            found |= {number for number, line in enumerate(lines) if b"\\" in line}
            found |= self._literals.suspects([line.decode("utf-8", "replace") for line in lines])
        ends = [place.start() for place in _SEPARATOR.finditer(block)]
        ends.append(len(block))
        for end, index in self._engine.scan(block):
            number = bisect_left(ends, end)
            if number not in found:
                low = ends[number - 1] + 1 if number else 0
                bounds = low, ends[number]
                if self._may_match(index, block, bounds, end) or self._may_ask(
                    (end, index), block, bounds, lines[number]
                ):
                    found.add(number)
        return found

    def _read(self, lines: Sequence[bytes]) -> tuple[bytes, set[int]]:
        """Return the lines, folded, joined and without escapes, and those to be parsed in any case."""
        block = _GAP.join(lines)
        doubtful = set[int]()
        if block.count(_GAP) >= len(lines) or bytes([SEPARATOR]) in block:  # JSON has no such bytes
            doubtful |= {number for number, line in enumerate(lines) if _CONTROLS.search(line)}
            lines = [_CONTROLS.sub(b" ", line) for line in lines]
            block = _GAP.join(lines)
        doubtful |= self._keys.suspects(block, list(accumulate(map(len, lines), lambda end, size: end + 1 + size)))
        if b"\\" in block:
            # Behind an escaped backslash an escape may only seem to stand.
            doubtful |= _holding(block, b"\\\\")
            block = _ESCAPE.sub(lambda match: _ESCAPES[match[0]], block)
        if b"\\u" in block:
            block = _POINTS.sub(lambda match: _WRITTEN[match[0]], block)
            # A code point by number that JSON would have to escape, or half a pair, stays as it was written.
            doubtful |= _holding(block, b"\\u")
        if not _is_utf8(block):
            doubtful |= {number for number, line in enumerate(lines) if not _is_utf8(line)}
            block = block.decode("utf-8", "replace").encode()
        if has_long_run(block):
            doubtful |= {number for number, line in enumerate(block.split(_GAP)) if has_long_run(line)}
        return fold_utf8(block).replace(_GAP, bytes([SEPARATOR])), doubtful

    def _may_match(self, index: int, block: bytes, bounds: tuple[int, int], end: int) -> bool:
        """Tell whether an anchor that ends at ``end`` may stand for a value in a string of the line.

        The window in the string is part of the window in the line, so what matches there matches here. An escape in or
        next to it could make it wider, and something that ends a string or a number could make it narrower.
        """
        if index >= len(self._confirmers) or not self._plain[index]:
            return True
        confirmer, (low, high) = self._confirmers[index], bounds
        first, close = confirmer.first(block, low, end), confirmer.close(block, end, high)
        close = high if close is None else close
        if b"\\" in block[max(low, first - 2) : close + 1]:
            return True
        located = confirmer.locate(block, low, (first, close), end)
        if located is None:
            return False
        touching = block[located.start - 1 : located.start] if located.start > low else b""
        if touching in _WORD and touching[0] in confirmer.recogniser.left:
            return _STRUCTURE.search(block, first, close) is not None
        return True

    def _may_ask(self, hit: Hit, block: bytes, bounds: tuple[int, int], line: bytes) -> bool:
        """Tell whether an anchor may announce what the next turn begins with.

        It can if what it announces may lie beyond the end of its string, which a quotation mark that was an escape
        looks like as well. Keys are looked at elsewhere.
        """
        (end, index), (low, high) = hit, bounds
        if index >= len(self._confirmers):
            return False
        quote = block.find(b'"', end, min(high, end + WIDTH + 1))
        if quote < 0 or (_KEY_END.match(block, quote) and b'\\"' not in line):
            return False
        return bool(end_lead(block, low, quote, [hit], self._confirmers).hits)


def _pattern(rule: Recogniser) -> Pattern:
    """Return what a rule looks for in a line, where a string or a number ends at a byte of JSON's own."""
    lead, trail = (b"" if set(edge) & _ENDS else edge for edge in (rule.lead, rule.trail))
    return Pattern(rule.id, rule.anchor.encode(), rule.caseless, lead, trail)


def _holding(block: bytes, part: bytes) -> set[int]:
    """Return the numbers of the lines that hold a part."""
    numbers, number, last = set[int](), 0, 0
    place = block.find(part)
    while place >= 0:
        number += block.count(_GAP, last, place)
        numbers.add(number)
        last, place = place, block.find(part, place + 1)
    return numbers


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Written(dict[bytes, bytes]):
    """What code points by number stand for, in UTF-8."""

    def __missing__(self, written: bytes) -> bytes:
        made: str = json.loads(b'"%b"' % written)
        result = written if _SYNTAX.search(made) else made.encode()
        if len(self) < _REMEMBERED:
            self[written] = result
        return result


_WRITTEN = _Written()
