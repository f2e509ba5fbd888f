"""The quick look at rows before any is taken apart: where no anchor of a rule occurs, nothing is found.

A row is screened as the line of JSON that it is. What stands in its strings, key names and integers stands in the line
as well, letter by letter, if the line is ASCII without other escapes than those undone here and without an exponent;
every other row is not clean and goes the long way.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise

from stanch.data.chat import MAX_DEPTH
from stanch.data.rows import Row
from stanch.scan import Scanner
from stanch.scan.policy_bytes import special_fields

_BLOCK = 1 << 20
_SEPARATOR = b"\x1e"  # no anchor holds it
_ESCAPES = ((b"\\n", b"\n"), (b'\\"', b'"'), (b"\\t", b"\t"), (b"\\r", b"\r"))
# A float is scanned in Python's spelling, which may differ from that in the line.
_FLOAT = re.compile(rb"[:,[][ \t]*-?[0-9]+[.eE]")


class Screen:
    """Tells which rows of a part hold nothing that a policy looks for."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        # What a policy may look for without an anchor is not known here: it turns the quick look off.
        self._usable = not special_fields(scanner.policy) and scanner.anchors(b"") is not None

    def clean(self, rows: Sequence[Row]) -> frozenset[int]:
        """Return the numbers of the rows that hold nothing and are not nested too deeply."""
        if not self._usable:
            return frozenset()
        return frozenset(number for block in _blocks(rows) for number in self._clean(block))

    def _clean(self, block: list[tuple[int, bytes]]) -> Iterator[int]:
        ends = self._scanner.anchors(_SEPARATOR.join(line for _, line in block)) or []
        borders = [0]
        for _, line in block:
            borders.append(borders[-1] + len(line) + 1)
        for (number, _), (low, high) in zip(block, pairwise(borders), strict=True):
            first = bisect_left(ends, low + 1)
            if first == len(ends) or ends[first] >= high:
                yield number


def _blocks(rows: Sequence[Row]) -> Iterator[list[tuple[int, bytes]]]:
    block: list[tuple[int, bytes]] = []
    size = 0
    for row in rows:
        line = _plain(row.raw)
        if line is not None:
            block.append((row.number, line))
            size += len(line)
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _plain(line: bytes) -> bytes | None:
    """Return a line in which all that is scanned of a row stands letter by letter, or None if it cannot be told."""
    if not line.isascii() or _SEPARATOR in line or line.count(b"[") + line.count(b"{") > MAX_DEPTH:
        return None
    if b"\\" in line:
        for escaped, meant in _ESCAPES:
            line = line.replace(escaped, meant)
        if b"\\" in line:
            return None
    return None if _FLOAT.search(line) else line
