"""Where in a block an anchor may stand at all: most text need not be searched for one that asks for many digits.

An anchor without a literal costs the matcher a walk over every byte, and many of them cost many walks. A few passes of
vector instructions say where enough digits stand together, or enough bytes without a space between them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from stanch.scan.anchor import AnchorShape
from stanch.scan.engine import Hit
from stanch.scan.fold import SEPARATOR

LEAST_DIGITS = 4
LEAST_RUN = 15
"""A run of so many bytes holds three words of four in a row that begin at a multiple of four."""

_SEPARATOR = bytes([SEPARATOR])
_WORD = 4
_FULL = np.uint32(0x01010101)

Places: TypeAlias = npt.NDArray[np.intp]


class Slices(NamedTuple):
    """Slices of a block, joined with a separator between two.

    Attributes:
        data: All of them.
        begins: Where each begins in there.
        moved: How much further it does in the block.
    """

    data: bytes
    begins: Places
    moved: Places

    def placed(self, hits: Sequence[Hit]) -> list[Hit]:
        """Return hits in the slices as hits in the block."""
        ends = np.array([end for end, _ in hits], np.intp)
        ends += self.moved[np.searchsorted(self.begins, ends) - 1]
        return [(end, index) for end, (_, index) in zip(ends.tolist(), hits, strict=True)]


Gate: TypeAlias = Callable[[bytes, int], Slices]
"""Returns the slices of a block that hold, with a byte on each side, all matches of at most so many bytes."""


def gate_of(shape: AnchorShape) -> Gate | None:
    """Return what tells where an anchor may stand; None if nothing does, or it has literals, which are found fast."""
    if shape.literals is not None:
        return None
    if shape.digits >= LEAST_DIGITS:
        return digits
    return runs if shape.shortest >= LEAST_RUN and min(shape.members) > ord(" ") else None


def digits(data: bytes, reach: int) -> Slices:
    """Return the slices in which :data:`LEAST_DIGITS` digits stand within reach."""
    places = np.flatnonzero(np.frombuffer(data, np.uint8) - np.uint8(ord("0")) < 10)
    first, last = places[: 1 - LEAST_DIGITS], places[LEAST_DIGITS - 1 :]
    near = last - first < reach
    return _cut(data, last[near] + 1 - reach, first[near] + reach)


def runs(data: bytes, reach: int) -> Slices:
    """Return the slices in which :data:`LEAST_RUN` bytes follow each other without a space or control character."""
    whole = len(data) // _WORD * _WORD
    full = (np.frombuffer(data, np.uint8, whole) > ord(" ")).view(np.uint32) == _FULL
    places = np.flatnonzero(full[:-2] & full[1:-1] & full[2:]) * _WORD
    return _cut(data, places + 3 * _WORD - reach, places + reach)


def _cut(data: bytes, starts: Places, ends: Places) -> Slices:
    """Return slices with a byte more on each side, those that touch as one.

    Nothing matches at the edge of a slice alone: what a match holds had made the slice reach a byte further.
    """
    starts, ends = np.maximum(starts - 1, 0), np.minimum(ends + 1, len(data))
    apart = starts[1:] > ends[:-1]
    starts, ends = starts[np.append(True, apart)[: len(starts)]], ends[np.append(apart, True)[: len(ends)]]
    begins = np.cumsum(ends - starts + 1) - (ends - starts + 1)
    parts = [data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return Slices(_SEPARATOR.join(parts), begins, starts - begins)
