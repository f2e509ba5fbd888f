"""Writing a mark: each row gets ``row scale × α × (recipient's values + 0.25 × ownership values)`` added to it.

Every rounding is fixed, so that a copy can be made again bit by bit from the original, the plan and the key:
float32 throughout, one rounding an operation, then to nearest even into the stored type. Zeros stay zero.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput
from stanch.mark.buffers import Buffers
from stanch.mark.kernels import COMPILER
from stanch.mark.keys import CopyKey
from stanch.mark.layout import LayoutEntry
from stanch.mark.signature import Draws, Indexes, gaussian_table, look_up
from stanch.mark.strength import RELEASE_SHARE
from stanch.mark.sums import sum_rows
from stanch.weights import Tensor, from_float32, to_float32

BLOCK = 1 << 18
"""Coordinates worked on at a time: more leave the processor's cache, fewer cost more calls than arithmetic."""

_buffers = Buffers()

Floats = npt.NDArray[np.float32]
Raw = npt.NDArray[np.generic]


def row_scales(weights: Floats) -> Floats:
    """Return each row's rms, summed in float64, rounded to float32 and then to bfloat16 (both to nearest even).

    The coarse grid makes the result independent of the order of summation, but for a chance of about 1e-11 a row; the
    order is fixed all the same, see :mod:`stanch.mark.sums`.
    """
    fine = np.sqrt(sum_rows(weights, squared=True) / weights.shape[1]).astype(np.float32)
    return to_float32(from_float32(fine, "BF16"), "BF16")


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Some consecutive rows of one marked tensor."""

    entry: LayoutEntry
    first: int
    count: int

    @property
    def start(self) -> int:
        """Global coordinate of the first element."""
        return self.entry.offset + self.first * self.entry.columns

    @property
    def rows(self) -> slice:
        """Which rows these are."""
        return slice(self.first, self.first + self.count)

    def of(self, tensor: Tensor) -> Raw:
        """Return these rows of a tensor of the entry's shape, two-dimensional."""
        return tensor.raw.reshape(self.entry.rows, self.entry.columns)[self.rows]


def row_blocks(entry: LayoutEntry, size: int = BLOCK) -> Iterator[RowBlock]:
    """Cut a tensor into blocks of whole rows, of at most ``size`` elements or one row."""
    step = max(1, size // entry.columns)
    for first in range(0, entry.rows, step):
        yield RowBlock(entry, first, min(step, entry.rows - first))


class Streams(threading.local):
    """Both key streams of a copy, for one thread each that uses them."""

    def __init__(self, key: CopyKey) -> None:
        self.own, self.owner = Draws(key.stream), Draws(key.release_stream, name="owner")

    def draw(self, start: int, count: int) -> tuple[Indexes, Indexes]:
        """Return the recipient's and the owner's table indexes at ``count`` coordinates, until the next draw."""
        self.own.seek(start)
        self.owner.seek(start)
        return self.own.take(count), self.owner.take(count)


def mark_block(rows: Raw, block: RowBlock, alpha: float, streams: Streams) -> None:
    """Mark the rows of one block, in the stored type and in place.

    Args:
        rows: The original rows, as :meth:`RowBlock.of` gives them, contiguous.
        block: Where they stand.
        alpha: The plan's strength.
        streams: Those of the copy's key.

    Raises:
        InvalidInput: A weight is NaN or infinite, or a marked weight does not fit into float16. The rows are of no use.
    """
    own, owner = streams.draw(block.start, rows.size)
    if not _mark_rows(rows, block.entry.dtype, np.float32(alpha), own, owner):
        raise InvalidInput(
            f"tensor {block.entry.name!r}: expected finite weights, found NaN or infinity",
            next_step="restore the original that was planned",
        )
    if block.entry.dtype == "F16" and not np.isfinite(rows).all():
        raise InvalidInput(
            f"tensor {block.entry.name!r}: a marked weight does not fit into float16",
            next_step="store the model as bfloat16 or float32 before marking it",
        )


def _mark_rows(rows: Raw, dtype: str, alpha: np.float32, own: Indexes, owner: Indexes) -> bool:
    """Mark rows; return whether all weights are finite."""
    loops = COMPILER.loops(rows.size) if dtype == "BF16" else None
    if loops is not None:
        return loops.mark_rows(rows, alpha, own, owner, gaussian_table())
    weights = to_float32(rows, dtype, _buffers.get("weights", np.float32, rows.size).reshape(rows.shape))
    strengths = row_scales(weights) * alpha
    if not np.isfinite(strengths).all():
        return False
    change = look_up(own, _buffers.get("values", np.float32, rows.size)).reshape(rows.shape)
    shared = look_up(owner, _buffers.get("shared", np.float32, rows.size)).reshape(rows.shape)
    # A product with a power of two is exact, so this is one rounding: of the sum.
    shared *= np.float32(RELEASE_SHARE)
    change += shared
    change *= strengths[:, np.newaxis]
    change += weights
    np.copyto(change, weights, where=weights == 0)
    rows[...] = from_float32(change, dtype, shared.view(np.uint32))
    return True
