"""A suspect's weight: a matrix whose rows are made float32 when they are read, however they are stored."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from stanch.weights import Tensor

Floats = npt.NDArray[np.float32]
Rows = slice | npt.NDArray[np.int64]
"""Row numbers, as numpy indexes with them."""


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A tensor of a suspect.

    Attributes:
        shape: Its shape; read, it has the form ``[shape[0], rest]``.
        read: Returns the given rows, or None where they are of a kind that is not understood.
        stored: The tensor that holds just these values, where one does (F32, F16, BF16).
    """

    shape: tuple[int, ...]
    read: Callable[[Rows], Floats | None]
    stored: Tensor | None = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def whole(self) -> Floats | None:
        """Return all rows."""
        return self.read(slice(None))

    def ordered(self, order: npt.NDArray[np.int64]) -> "Weight":
        """Return the weight whose row i is this one's row ``order[i]``."""
        return Weight(self.shape, lambda rows: self.read(order[rows]))

    def viewed(self, shape: tuple[int, ...], view: Callable[[Floats], Floats]) -> "Weight":
        """Return the weight of the given shape that is a view of this matrix."""

        def read(rows: Rows) -> Floats | None:
            whole = _whole(self)
            return None if whole is None else np.ascontiguousarray(view(whole)[rows])

        return Weight(shape, read)

    def transposed(self) -> "Weight":
        """Return the transpose of a matrix."""
        return self.viewed(self.shape[::-1], lambda whole: whole.T)

    @classmethod
    def of(cls, values: Floats) -> "Weight":
        """Return a weight that is at hand as float32."""
        return cls(values.shape, lambda rows: values.reshape(len(values), -1)[rows])


@lru_cache(maxsize=4)
def _whole(weight: Weight) -> Floats | None:
    # Rows of a view are asked for block by block; each block would else read the whole matrix again.
    return weight.whole()
