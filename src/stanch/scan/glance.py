"""One look at what has just arrived, for all searches of a stream at once; compiled with the steps of the index.

A glance reads *quiet* text: ASCII without escapes or borders, in short runs, in which no literal of the policy ends. It
steps the automata, folds, rolls the hash over the index's windows, and says from where on text must be held, just as
the searches would. Anything else is *loud*: nothing is done, and the searches themselves must take over. A glance may
call loud what is quiet, never the reverse.

A run at the end is not looked at yet, but for its length: it waits until it ends, as of :mod:`stanch.guard.decode`.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from stanch.scan.fold import GAP
from stanch.scan.kernels import BLOCKS, IN, LIMBS, OUT, ROOM, linked, step
from stanch.scan.sheet import (
    FLAGS,
    HOLDS,
    IS_CAPITAL,
    IS_LETTER,
    IS_LOUD,
    IS_MEMBER,
    IS_NAME,
    LIMIT,
    LITERALS,
    LOWER,
    RULES,
    Array,
)

LONGEST = 240
"""Bytes that are looked at together, with those that are held of before; more are loud."""

LOUD = -1

RUN, RULE, HELD, LITERAL, SILENT, SPACE, PLACE, HASH = range(ROOM, ROOM + 8)
"""Where in a room a stream's state lies: length of the run at the end; row of the anchors' literals, and bytes that the
rules hold; row of the policy's literals; separators at the end, and whether there are any; how many bytes were folded,
and the hash of their last window."""

SAVED, SIZE, RING = ROOM + 8, ROOM + 16, ROOM + 17
"""Where the state before the last glance lies, the size of a window (0 without an index), and the last folded bytes."""

Number: TypeAlias = Any
"""An integer of Python or of numpy: compiled, both are machine words."""

_int: Any = np.int64
_AROUND = 1 << 11  # of the ring: more than the longest window and a glance together


def empty_room() -> Array:
    """Return a room for the state of a stream."""
    return np.zeros(RING + _AROUND, dtype=np.uint64)


def glance(data: bytes, size: Number, room: Array, sheet: Array) -> Number:
    """Look at the last ``size`` bytes; those before are held, and their run at the end was not seen.

    Returns:
        ``floor | end << 8 | windows << 16``: how much at the beginning need not be held any more, up to where the
        searches have seen all, and how many hashes stand in the room's blocks. Or ``LOUD``.
    """
    if len(data) > LONGEST or len(data) < size + _int(room[RUN]):  # what is compiled checks no bounds
        return LOUD
    for at in range(8):
        room[SAVED + at] = room[RUN + at]
    done = len(data) - size - _int(room[RUN])
    end = run_ends(data, size, room, sheet)
    if end <= 0:
        return LOUD if end else done << 8
    windows = scan(data, done, end, room, sheet)
    if windows < 0:
        for at in range(8):
            room[RUN + at] = room[SAVED + at]
        return LOUD
    floor = hold(data, max(done - _int(room[HELD]), 0), end, sheet[_int(room[RULE])], sheet)
    room[HELD] = end - floor
    letters, at = _int(sheet[_int(room[LITERAL])]), _int(end)
    while letters and at:
        at -= 1
        letters -= (sheet[FLAGS + data[at]] & IS_LETTER) != 0
    return min(floor, at) | end << 8 | windows << 16


def run_ends(data: bytes, size: Number, room: Array, sheet: Array) -> Number:
    """Return where the last character ends that is in no run, 0 if none is new, or ``LOUD``."""
    run, end = _int(room[RUN]), _int(0)
    for at in range(len(data) - size, len(data)):
        flags = sheet[FLAGS + data[at]]
        run += 1
        if not flags & IS_MEMBER:
            run, end = _int(0), _int(at + 1)
        if flags & IS_LOUD or run >= sheet[LIMIT]:
            return LOUD
    room[RUN] = run
    return end


def scan(data: bytes, start: Number, end: Number, room: Array, sheet: Array) -> Number:
    """Step over the bytes from ``start`` to ``end``.

    Returns:
        How many windows have ended, or ``LOUD``: a literal has, or the searches would see a gap.
    """
    rule, literal, silent = _int(room[RULE]), _int(room[LITERAL]), _int(room[SILENT])
    space, windows = _int(room[SPACE]), _int(0)
    for at in range(start, end):
        byte = data[at]
        rule = _int(sheet[rule + sheet[RULES + byte]])
        if not sheet[FLAGS + byte] & IS_LETTER:
            space, silent = _int(1), silent + 1
            if silent >= GAP:
                return LOUD
            continue
        literal = _int(sheet[literal + sheet[LITERALS + byte]])
        if sheet[literal + 1]:
            return LOUD
        if room[SIZE]:
            if space:
                roll(0x20, windows, room)
            roll(sheet[LOWER + byte], windows + space, room)
            windows += 1 + space
        space = silent = _int(0)
    room[RULE], room[LITERAL], room[SILENT], room[SPACE] = rule, literal, silent, space
    return windows


def roll(byte: Number, window: Number, room: Array) -> None:
    """Take a folded byte, and write the hash of the window that ends with it into a block of the room."""
    place = _int(room[PLACE])
    gone = _int(room[RING + ((place - _int(room[SIZE])) & (_AROUND - 1))])
    room[RING + (place & (_AROUND - 1))] = byte
    room[PLACE] = place + 1
    value = step(room[HASH], room[LIMBS], room[LIMBS + 1], room[IN + byte] + room[OUT + gone])
    room[HASH] = room[BLOCKS + 2 * window] = value


def hold(data: bytes, low: Number, end: Number, literal: Number, sheet: Array) -> Number:
    """Return from where on the rules hold what ends at ``end``, as :class:`stanch.scan.hold.HeldEnds` does.

    Args:
        data: The text.
        low: From where on they held it before.
        end: Where it ends, after ``low``.
        literal: How many bytes of it a literal may begin with.
        sheet: The sheet.
    """
    start = _int(end - literal)
    rules = _int(sheet[HOLDS + data[end - 1]])
    last = rules + 1 + 3 * sheet[rules]
    for run in range(rules + 1, last, 3):
        at, first = _int(end), max(low, end - sheet[run])
        while at > first and sheet[sheet[run + 2] + data[at - 1]]:
            at -= 1
            if sheet[sheet[run + 1] + data[at]] and at < start:
                start = at
    return max(low, min(start, names(data, max(low, end - sheet[last]), end, sheet)))


def names(data: bytes, first: Number, end: Number, sheet: Array) -> Number:
    """Return where up to three capitalised words at the end begin, as :class:`stanch.scan.hold.CapitalsHold` does."""
    start = at = _int(end)
    if at > first and data[at - 1] == 0x20:
        at -= 1
    for _ in range(3):
        word = at
        while word > first and sheet[FLAGS + data[word - 1]] & IS_NAME:
            word -= 1
            if sheet[FLAGS + data[word]] & IS_CAPITAL:
                start = word
        # Only a word that begins with a capital goes on from another, over one space.
        if start != word or word == at or word <= first or data[word - 1] != 0x20:
            break
        at = word - 1
    return start


def compile_glance(njit: Callable[..., Any], types: Any, compiled_step: object) -> Callable[..., int]:  # noqa: ANN401 - numba has no types
    """Compile :func:`glance` and what it calls."""
    number = types.int64
    room, sheet = types.Array(types.uint64, 1, "C"), types.Array(types.int32, 1, "C")
    rolls = njit(linked(roll, step=compiled_step))
    parts = {
        "run_ends": njit(run_ends),
        "scan": njit(linked(scan, roll=rolls)),
        "hold": njit(linked(hold, names=njit(names))),
    }
    signature = number(types.Bytes(types.uint8, 1, "C"), number, room, sheet)
    compiled: Callable[..., int] = njit(signature)(linked(glance, **parts))
    return compiled
