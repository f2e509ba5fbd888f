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
"""Sums that the terms of a row are added to in turn, and which are then added in pairs: they fill vectors."""

_PIECE = 32  # values between two steps of a row: few, so that the processor looks up the next while it adds these

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Loops:
    """The compiled loops; each fills its last argument or returns a number.

    Attributes:
        look_up: ``(indexes uint16, table float32, values float32)``.
        sum_rows: ``(rows float32, squared, sums float64)``: see :mod:`stanch.mark.sums`.
        subtract: ``(suspect, original, largest, pruned, residual float32, kept bool)``,
        centre: ``(values float32, kept bool, counts int64, centred float32)``,
        standardise: ``(residual, deviations, gains float32)``, and
        compare: ``(suspect uint16, original uint16, largest, pruned, least, features float32)``: the variant plain, of
            rows in bfloat16; see :mod:`stanch.mark.features`.
        correlate: ``(features float32, indexes uint16, table float32) -> float64``: see :mod:`stanch.mark.scoring`.
        mark_rows: ``(rows uint16, alpha, own uint16, owner uint16, table float32) -> bool``: marks rows in bfloat16 in
            place; whether every row scale is finite.
    """

    look_up: Callable[..., None]
    sum_rows: Callable[..., None]
    subtract: Callable[..., None]
    centre: Callable[..., None]
    standardise: Callable[..., None]
    compare: Callable[..., None]
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


def compile_loops() -> Loops | None:
    """Compile for this process and processor; None where numba is missing."""
    try:
        from numba import njit, types  # noqa: PLC0415 - an extra, and half a second
    except ImportError:
        return None

    def array(name: str, dimensions: int = 1, *, written: bool = False) -> object:
        return types.Array(getattr(types, name), dimensions, "C", readonly=not written, aligned=False)

    def compiled(function: Callable[..., Any], result: Any, *arguments: object) -> Any:  # noqa: ANN401 - numba's types
        return njit(result(*arguments), nogil=True, error_model="numpy")(function)

    indexes, floats, matrix, kept = array("uint16"), array("float32"), array("float32", 2), array("boolean", 2)
    result, changed = array("float32", written=True), array("float32", 2, written=True)
    weights, marking, keeping = array("uint16", 2), array("uint16", 2, written=True), array("boolean", 2, written=True)
    number, flag, nothing, wide = types.float32, types.boolean, types.void, types.float64
    return Loops(
        look_up=compiled(_look_up, nothing, indexes, floats, result),
        sum_rows=compiled(_sum_rows, nothing, matrix, flag, array("float64", written=True)),
        subtract=compiled(_subtract, nothing, matrix, matrix, number, flag, changed, keeping),
        centre=compiled(_centre, nothing, matrix, kept, array("int64"), changed),
        standardise=compiled(_standardise, nothing, changed, floats, floats),
        compare=compiled(_compare, nothing, weights, weights, number, flag, wide, changed),
        correlate=compiled(_correlate, wide, floats, indexes, floats),
        mark_rows=compiled(_mark_rows, flag, marking, number, indexes, indexes, floats),
    )


def _look_up(indexes: Array, table: Array, values: Array) -> None:
    for place in range(values.size):
        values[place] = table[indexes[place]]


def _sum_rows(rows: Array, squared: np.bool_, sums: Array) -> None:
    lanes = np.empty(LANES)
    for row in range(sums.size):
        lanes[:] = 0
        for start in range(0, rows.shape[1], LANES):
            part = rows[row, start : start + LANES]
            for lane in range(part.size):
                term = np.float64(part[lane])
                lanes[lane] += term * term if squared else term
        half = LANES // 2
        while half:
            for lane in range(half):
                lanes[lane] += lanes[half + lane]
            half //= 2
        sums[row] = lanes[0]


def _subtract(
    suspect: Array, original: Array, largest: np.float32, pruned: np.bool_, residual: Array, kept: Array
) -> None:
    for row in range(kept.shape[0]):
        for column in range(kept.shape[1]):
            found, weight = suspect[row, column], original[row, column]
            takes_part = (np.abs(found) < largest) & (weight != 0) & ((not pruned) | (found != 0))
            kept[row, column] = takes_part
            residual[row, column] = found - weight if takes_part else np.float32(0)


def _centre(values: Array, kept: Array, counts: Array, centred: Array) -> None:
    lanes, columns = np.empty(LANES), kept.shape[1]
    for row in range(kept.shape[0]):
        for column in range(columns):
            centred[row, column] = values[row, column] if kept[row, column] else np.float32(0)
        lanes[:] = 0
        for start in range(0, columns, LANES):
            part = centred[row, start : start + LANES]
            for lane in range(part.size):
                lanes[lane] += np.float64(part[lane])
        half = LANES // 2
        while half:
            for lane in range(half):
                lanes[lane] += lanes[half + lane]
            half //= 2
        mean = np.float32(lanes[0] / counts[row])
        for column in range(columns):
            centred[row, column] = centred[row, column] - mean if kept[row, column] else np.float32(0)


def _standardise(residual: Array, deviations: Array, gains: Array) -> None:
    for row in range(residual.shape[0]):
        deviation, gain = deviations[row], gains[row]
        for column in range(residual.shape[1]):
            scaled = residual[row, column] / deviation
            scaled = np.float32(-4) if scaled < -4 else scaled
            residual[row, column] = (np.float32(4) if scaled > 4 else scaled) * gain


def _compare(
    suspect: Array, original: Array, largest: np.float32, pruned: np.bool_, least: np.float64, features: Array
) -> None:
    one, high, bias = np.uint32(1), np.uint32(16), np.uint32(0x7FFF)  # of rounding to bfloat16
    columns, lanes = original.shape[1], np.empty((2, LANES))
    powers, noises = lanes
    for row in range(original.shape[0]):
        count, lanes[:] = 0, 0
        for start in range(0, columns, LANES):
            found, known = suspect[row, start : start + LANES], original[row, start : start + LANES]
            shown = features[row, start : start + LANES]
            for lane in range(known.size):
                weight = np.uint32(np.uint32(known[lane]) << high).view(np.float32)
                value = np.uint32(np.uint32(found[lane]) << high).view(np.float32)
                takes_part = (np.abs(value) < largest) & (weight != 0) & ((not pruned) | (value != 0))
                shown[lane] = value - weight if takes_part else np.float32(0)
                count += takes_part
                powers[lane] += np.float64(weight) * np.float64(weight)
            for lane in range(known.size):
                noises[lane] += np.float64(shown[lane]) * np.float64(shown[lane])
        half = LANES // 2
        while half:
            for lane in range(half):
                powers[lane] += powers[half + lane]
                noises[lane] += noises[half + lane]
            half //= 2
        bits = np.float32(np.sqrt(powers[0] / columns)).view(np.uint32)
        scale = np.uint32(np.uint32(bits + bias + ((bits >> high) & one)) >> high << high).view(np.float32)
        noise, floor = np.sqrt(noises[0] / max(count, 1)), least * np.float64(scale)
        noise = max(floor, noise)
        deviation = np.float32(noise) if noise > 0 else np.float32(1)
        gain = np.float32(scale / deviation)
        for column in range(columns):
            scaled = features[row, column] / deviation
            scaled = np.float32(-4) if scaled < -4 else scaled
            features[row, column] = (np.float32(4) if scaled > 4 else scaled) * gain


def _correlate(features: Array, indexes: Array, table: Array) -> np.float64:
    lanes = np.zeros(LANES, np.float32)
    for start in range(0, features.size, LANES):
        shown, drawn = features[start : start + LANES], indexes[start : start + LANES]
        for lane in range(shown.size):
            lanes[lane] += np.float32(shown[lane] * table[drawn[lane]])
    sums = lanes.astype(np.float64)
    half = LANES // 2
    while half:
        for lane in range(half):
            sums[lane] += sums[half + lane]
        half //= 2
    total: np.float64 = sums[0]
    return total


def _mark_rows(rows: Array, alpha: np.float32, own: Array, owner: Array, table: Array) -> bool:
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
            part = rows[row, start : start + _PIECE]
            first, second = own[place : place + part.size], owner[place : place + part.size]
            place += part.size
            for number in range(part.size):
                values[number] = table[first[number]] + np.float32(0.25) * table[second[number]]
            for number in range(part.size):
                weight = part[number]
                bits = np.uint32(weight) << high
                change = np.float32(strength * values[number])
                bits = np.float32(np.uint32(bits).view(np.float32) + change).view(np.uint32)
                bits = np.uint32(bits + bias + ((bits >> high) & one)) >> high
                part[number] = bits if weight & np.uint16(0x7FFF) else weight
    return finite
