"""Inner loops of marks, compiled where numba is installed (extra ``fast``): the bits of the numpy way, in fewer passes.

Every operation is rounded once and every sum has one order, so both ways give the same bits: nothing is fused or
reordered. Compiled code lives in the process alone. numba's cache on a disk is pickled code, and whoever can write to
it can run what he likes as the next user; so each process compiles for itself, which takes seconds of processor time,
and only once it has worked on :data:`WORTH` values in numpy: one that marks little never imports numba.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

WORTH = 1 << 28
"""Values worked on in numpy after which compiling takes less time than it saves on as many more."""

LANES = 64
"""Sums that the squares of a row are added to in turn; these are then added in pairs. So a processor's vector is full."""

_PIECE = 256  # values between two steps of a row: they stay in the first cache beside some of the table

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Loops:
    """The compiled loops; each fills its last argument or returns a number.

    Attributes:
        look_up: ``(indexes uint16, table float32, values float32)``.
        add_squares: ``(rows float32, sums float64)``: the sum of each row's squares, in :data:`LANES`.
        correlate: ``(features float32, indexes uint16, table float32) -> float64``: see :mod:`stanch.mark.scoring`.
        mark_rows: ``(rows uint16, alpha, own uint16, owner uint16, table float32, marked uint16) -> bool``: of rows in
            bfloat16; whether every row scale is finite.
    """

    look_up: Callable[..., None]
    add_squares: Callable[..., None]
    correlate: Callable[..., float]
    mark_rows: Callable[..., bool]


class Compiler:
    """Counts the values worked on, and compiles the loops when that is worth it."""

    def __init__(self, worth: int) -> None:
        self._left = worth
        self._first = threading.Lock()
        self._loops: Loops | None = None

    def loops(self, count: int) -> Loops | None:
        """Return the loops for ``count`` values more; None where numpy is to do it: few so far, or no numba.

        One thread compiles, once; others go on in numpy meanwhile.
        """
        self._left -= count
        if self._loops is None and self._left < 0 and self._first.acquire(blocking=False):
            self._loops = compile_loops()
        return self._loops


COMPILER = Compiler(WORTH)


def add_in_pairs(lanes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Add up the last axis, of :data:`LANES` sums, as the compiled loops do."""
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def compile_loops() -> Loops | None:
    """Compile for this process and processor; None where numba is missing."""
    try:
        from numba import njit, types  # noqa: PLC0415 - an extra, and half a second
    except ImportError:
        return None

    def array(name: str, dimensions: int = 1, *, written: bool = False) -> object:
        return types.Array(getattr(types, name), dimensions, "C", readonly=not written, aligned=written)

    def compiled(function: Callable[..., Any], result: object, *arguments: object) -> Callable[..., Any]:
        made: Callable[..., Any] = njit(result(*arguments), nogil=True, error_model="numpy")(function)
        return made

    indexes, floats = array("uint16"), array("float32")
    return Loops(
        compiled(_look_up, types.void, indexes, floats, array("float32", written=True)),
        compiled(_add_squares, types.void, array("float32", 2), array("float64", written=True)),
        compiled(_correlate, types.float64, floats, indexes, floats),
        compiled(
            _mark_rows,
            types.boolean,
            array("uint16", 2),
            types.float32,
            indexes,
            indexes,
            floats,
            array("uint16", 2, written=True),
        ),
    )


def _look_up(indexes: Array, table: Array, values: Array) -> None:
    for place in range(values.size):
        values[place] = table[indexes[place]]


def _add_squares(rows: Array, sums: Array) -> None:
    lanes = np.empty(LANES)
    for row in range(sums.size):
        lanes[:] = 0
        for start in range(0, rows.shape[1], LANES):
            part = rows[row, start : start + LANES]
            for lane in range(part.size):
                weight = np.float64(part[lane])
                lanes[lane] += weight * weight
        half = LANES // 2
        while half:
            for lane in range(half):
                lanes[lane] += lanes[half + lane]
            half //= 2
        sums[row] = lanes[0]


def _correlate(features: Array, indexes: Array, table: Array) -> float:
    lanes, values = np.zeros(LANES, np.float32), np.empty(_PIECE, np.float32)
    for start in range(0, features.size, _PIECE):
        part, drawn = features[start : start + _PIECE], indexes[start : start + _PIECE]
        for number in range(part.size):
            values[number] = table[drawn[number]]
        for first in range(0, part.size, LANES):
            shown, taken = part[first : first + LANES], values[first : first + LANES]
            for lane in range(shown.size):
                lanes[lane] += np.float32(shown[lane] * taken[lane])
    sums = lanes.astype(np.float64)
    half = LANES // 2
    while half:
        for lane in range(half):
            sums[lane] += sums[half + lane]
        half //= 2
    return sums[0]


def _mark_rows(rows: Array, alpha: np.float32, own: Array, owner: Array, table: Array, marked: Array) -> bool:
    one, high, bias = np.uint32(1), np.uint32(16), np.uint32(0x7FFF)  # of rounding to bfloat16
    columns, finite, place = rows.shape[1], True, 0
    lanes, values = np.empty(LANES), np.empty(_PIECE, np.float32)
    for row in range(rows.shape[0]):
        lanes[:] = 0
        for start in range(0, columns, LANES):
            part = rows[row, start : start + LANES]
            for lane in range(part.size):
                weight = np.float64(np.uint32(np.uint32(part[lane]) << high).view(np.float32))
                lanes[lane] += weight * weight
        half = LANES // 2
        while half:
            for lane in range(half):
                lanes[lane] += lanes[half + lane]
            half //= 2
        bits = np.float32(np.sqrt(lanes[0] / columns)).view(np.uint32)
        bits = np.uint32(bits + bias + ((bits >> high) & one)) >> high
        strength = np.float32(alpha * np.uint32(bits << high).view(np.float32))
        finite &= np.isfinite(strength)
        for start in range(0, columns, _PIECE):
            part, out = rows[row, start : start + _PIECE], marked[row, start : start + _PIECE]
            first, second = own[place : place + part.size], owner[place : place + part.size]
            place += part.size
            for number in range(part.size):
                values[number] = table[first[number]] + np.float32(0.25) * table[second[number]]
            for number in range(part.size):
                bits = np.uint32(part[number]) << high
                change = np.float32(strength * values[number])
                bits = np.float32(np.uint32(bits).view(np.float32) + change).view(np.uint32)
                bits = np.uint32(bits + bias + ((bits >> high) & one)) >> high
                out[number] = bits if part[number] & np.uint16(0x7FFF) else part[number]
    return finite
