"""Compiles the steps of a walk where numba is installed (extra ``fast``); without it plain Python gives the same hits.

Compiled code lives in the process alone: numba's cache on a disk is pickled code, and whoever can write to it can run
what he likes as the next user. So each process compiles for itself, in a thread beside its work, and only once it has
walked over :data:`WORTH` bytes without: one that reads little never imports numba. AES stays with :mod:`stanch.crypto`.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from stanch.scan.glance import compile_glance
from stanch.scan.kernels import Array, linked, look, roll, step

WORTH = 1 << 22
"""Bytes walked over one by one after which compiling takes less time than it saves on as many more."""


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

    text, number, value = types.Bytes(types.uint8, 1, "C"), types.int64, types.uint64
    room, words = types.Array(value, 1, "C"), types.Array(value, 1, "C", readonly=True)
    compiled_step = njit(step)
    # What is called has just these types: another that fits takes numba as long to see as a window takes.
    return Steps(
        roll=njit(types.void(text, number, room))(linked(roll, step=compiled_step)),
        look=njit(number(text, words))(look),
        glance=compile_glance(njit, types, compiled_step),
    )
