"""Writing a mark: each row gets ``row scale × α × (recipient's values + 0.25 × ownership values)`` added to it.

Every rounding is fixed, so that a copy can be made again bit by bit from the original, the plan and the key:
float32 throughout, one rounding an operation, then to nearest even into the stored type. Zeros stay zero.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput
from stanch.mark.buffers import Buffers
from stanch.mark.keys import CopyKey
from stanch.mark.layout import LayoutEntry
from stanch.mark.signature import signature_values
from stanch.mark.strength import RELEASE_SHARE
from stanch.weights import Tensor, from_float32, to_float32

BLOCK = 1 << 17
"""Coordinates worked on at a time: more leave the processor's cache, fewer cost more calls than arithmetic."""

_SQUARED = 1 << 15
_buffers = Buffers()

Floats = npt.NDArray[np.float32]
Raw = npt.NDArray[np.generic]


def row_scales(weights: Floats) -> Floats:
    """Return each row's rms, summed in float64, rounded to float32 and then to bfloat16 (both to nearest even).

    The coarse grid makes the result independent of the order of summation.
    """
    rows, columns = weights.shape
    power, step = np.empty(rows), max(1, _SQUARED // columns)
    for first in range(0, rows, step):
        part = weights[first : first + step]
        wide = _buffers.get("wide", np.float64, part.size).reshape(part.shape)
        wide[...] = part
        np.vecdot(wide, wide, out=power[first : first + step])
    fine = np.sqrt(power / columns).astype(np.float32)
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

    def of(self, tensor: Tensor) -> Raw:
        """Return these rows of a tensor of the entry's shape, two-dimensional."""
        return tensor.raw.reshape(self.entry.rows, self.entry.columns)[self.first : self.first + self.count]


def row_blocks(entry: LayoutEntry) -> Iterator[RowBlock]:
    """Cut a tensor into blocks of whole rows of about :data:`BLOCK` elements."""
    step = max(1, BLOCK // entry.columns)
    for first in range(0, entry.rows, step):
        yield RowBlock(entry, first, min(step, entry.rows - first))


def mark_block(raw: Raw, block: RowBlock, alpha: float, key: CopyKey) -> Raw:
    """Return the marked rows of one block in the stored type.

    Args:
        raw: The original rows, as :meth:`RowBlock.of` gives them.
        block: Where they stand.
        alpha: The plan's strength.
        key: The copy's key.

    Raises:
        InvalidInput: A marked weight does not fit into float16.
    """
    count = raw.size
    weights = to_float32(raw, block.entry.dtype, _buffers.get("weights", np.float32, count).reshape(raw.shape))
    scales = row_scales(weights) * np.float32(alpha)
    values = signature_values(key.stream, block.start, count, _buffers.get("values", np.float32, count))
    # A product with a power of two is exact, so this is one rounding: of the sum.
    owner = signature_values(key.release_stream, block.start, count, _buffers.get("owner", np.float32, count))
    owner *= np.float32(RELEASE_SHARE)
    values += owner
    change = values.reshape(weights.shape)
    change *= scales[:, np.newaxis]
    change += weights
    marked = from_float32(change, block.entry.dtype, owner.view(np.uint32).reshape(raw.shape))
    if block.entry.dtype == "F16" and not np.isfinite(marked).all():
        raise InvalidInput(
            f"tensor {block.entry.name!r}: a marked weight does not fit into float16",
            next_step="store the model as bfloat16 or float32 before marking it",
        )
    zeros = weights == 0
    if zeros.any():
        marked[zeros] = raw[zeros]
    return marked
