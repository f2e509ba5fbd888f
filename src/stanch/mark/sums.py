"""Sums over rows, in one order whether compiled or in numpy, so that both give the same bits.

A row's terms are added to :data:`stanch.mark.kernels.LANES` float64 sums in turn, and these in pairs.
"""

import numpy as np
import numpy.typing as npt

from stanch.mark.buffers import Buffers
from stanch.mark.kernels import COMPILER, LANES

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_TERMS = 1 << 15
_buffers = Buffers()


def sum_rows(rows: Floats, *, squared: bool = False) -> Doubles:
    """Return the sum of each row of a matrix, or of its squares."""
    sums, loops = np.empty(len(rows)), COMPILER.loops(rows.size)
    if loops is not None:
        loops.sum_rows(np.ascontiguousarray(rows), squared, sums)
        return sums
    columns = rows.shape[1]
    whole, step = columns - columns % LANES, max(1, _TERMS // columns)
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        terms = _buffers.get("terms", np.float64, part.size).reshape(part.shape)
        terms[...] = part
        if squared:
            terms *= terms
        lanes = terms[:, :whole].reshape(len(part), -1, LANES).sum(axis=1)
        lanes[:, : columns - whole] += terms[:, whole:]
        sums[first : first + step] = add_in_pairs(lanes)
    return sums


def add_in_pairs(lanes: Doubles) -> Doubles:
    """Add up the last axis, of :data:`stanch.mark.kernels.LANES` sums."""
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]
