"""The steps of a walk over a few new bytes, as compiled code can run them: loops over arrays of machine words.

What they compute is what :mod:`stanch.scan.spans` computes without them. :mod:`stanch.scan.compiler` compiles them.
"""

from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt

MOST = 256
"""Windows that are walked over at once."""

IN, OUT, LIMBS, HASH, BLOCKS = 0, 256, 512, 514, 516
"""Where in a walk's room things lie: the byte values; the same times ``b^k``, taken from the prime, for the bytes that
leave a window; the lower 31 bits of the base and the upper ones; the hash of the last window; the blocks that are to be
finalised."""

ROOM = BLOCKS + 2 * MOST
"""The numbers of a room."""

_PRIME, _LOW, _MIDDLE = np.uint64(2**61 - 1), np.uint64(2**31 - 1), np.uint64(2**30 - 1)
_1, _6, _8, _30, _31, _32, _61, _63 = (np.uint64(number) for number in (1, 6, 8, 30, 31, 32, 61, 63))

Array = npt.NDArray[Any]


def linked(function: Any, **parts: object) -> FunctionType:  # noqa: ANN401 - any plain function
    """Return a function that calls others by these names: compiled code can call only what is compiled."""
    return FunctionType(function.__code__, function.__globals__ | parts, function.__name__)


def step(value: Any, low_base: Any, high_base: Any, added: Any) -> Any:  # noqa: ANN401 - unsigned numbers
    """Return ``value · base + added`` modulo the prime, as of :mod:`stanch.scan.spans.rolling`."""
    low, high = value & _LOW, value >> _31
    cross = low * high_base + high * low_base
    total = ((high * high_base) << _1) + (cross >> _30) + ((cross & _MIDDLE) << _31) + low * low_base
    total = (total & _PRIME) + (total >> _61) + added
    total = (total & _PRIME) + (total >> _61)
    return total - _PRIME if total >= _PRIME else total


def roll(text: bytes, size: int, room: Array) -> None:
    """Roll the hash in ``room`` over the last ``size`` bytes, while the first ones leave: ``Steps.roll``."""
    low_base, high_base, value = room[LIMBS], room[LIMBS + 1], room[HASH]
    new = len(text) - size
    for at in range(size):
        value = step(value, low_base, high_base, room[IN + text[new + at]] + room[OUT + text[at]])
        room[BLOCKS + 2 * at] = value
    room[HASH] = value


def look(finalised: bytes, words: Array) -> int:
    """Return how many finalised blocks the filter of an index holds: ``Steps.look``."""
    held, blocks = 0, np.uint64(words.size) >> np.uint64(3)
    for start in range(0, len(finalised), 16):
        high, bits = np.uint64(0), np.uint64(0)
        for at in range(4):
            high |= np.uint64(finalised[start + 4 + at]) << np.uint64(8 * at)
        for at in range(8):
            bits |= np.uint64(finalised[start + 8 + at]) << np.uint64(8 * at)
        word = ((high * blocks) >> _32) * _8
        end = word + _8
        while word < end and words[word] >> (bits & _63) & _1:
            bits >>= _6
            word += _1
        held += word == end
    return held
