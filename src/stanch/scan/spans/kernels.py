"""The steps of a walk over a few new bytes, compiled where numba is installed (extra ``fast``): the same hits.

Compiled code lives in the process alone: numba's cache on a disk is pickled code, and whoever can write to it can run
what he likes as the next user. So each process compiles for itself, in a thread beside its work, and only once it has
walked over :data:`WORTH` bytes without: one that reads little never imports numba. AES stays with :mod:`stanch.crypto`.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt

WORTH = 1 << 22
"""Bytes walked over one by one after which compiling takes less time than it saves on as many more."""

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


@dataclass(frozen=True, slots=True)
class Steps:
    """The compiled steps.

    Attributes:
        roll: ``(text, size, room uint64)``: roll the hash in the room over the last ``size`` bytes of the text, while
            the first ones leave, and write each hash into the blocks of the room.
        look: ``(finalised, words uint64 read-only) -> int``: how many of the finalised blocks the filter holds.
        glance: :func:`stanch.scan.glance.glance`.
    """

    roll: Callable[[bytes, int, Array], None]
    look: Callable[[bytes, Array], int]
    glance: Callable[[bytes, int, Array, Array], int]


class Compiler:
    """Counts the bytes walked over without compiled steps, and compiles them when that is worth it.

    Attributes:
        steps: The compiled steps; None as long as there are none.
    """

    def __init__(self, worth: int) -> None:
        self.steps: Steps | None = None
        self._left = worth
        self._first = threading.Lock()

    def count(self, size: int) -> None:
        """Say that so many bytes were walked over; a thread compiles, once, and nobody waits for it."""
        self._left -= size
        if self._left < 0 and self._first.acquire(blocking=False):
            with contextlib.suppress(RuntimeError):  # no thread can be had: it goes without
                threading.Thread(target=self.compile, name="stanch-compile").start()

    def compile(self) -> None:
        """Compile now."""
        self.steps = compile_steps()


COMPILER = Compiler(WORTH)


def compile_steps() -> Steps | None:
    """Compile for this process and processor; None where numba is missing."""
    try:
        from numba import njit, types  # noqa: PLC0415 - an extra, and half a second
    except ImportError:
        return None
    from stanch.scan.glance import compile_glance  # noqa: PLC0415 - it reads this module's layout

    text, number, value = types.Bytes(types.uint8, 1, "C"), types.int64, types.uint64
    room, words = types.Array(value, 1, "C"), types.Array(value, 1, "C", readonly=True)
    compiled_step = njit(step)
    # What is called has just these types: another that fits takes numba as long to see as a window takes.
    return Steps(
        roll=njit(types.void(text, number, room))(linked(_roll, step=compiled_step)),
        look=njit(number(text, words))(_look),
        glance=compile_glance(njit, types, compiled_step),
    )


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


def _roll(text: bytes, size: int, room: Array) -> None:
    low_base, high_base, value = room[LIMBS], room[LIMBS + 1], room[HASH]
    new = len(text) - size
    for at in range(size):
        value = step(value, low_base, high_base, room[IN + text[new + at]] + room[OUT + text[at]])
        room[BLOCKS + 2 * at] = value
    room[HASH] = value


def _look(finalised: bytes, words: Array) -> int:
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
