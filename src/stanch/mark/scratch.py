"""Features in a file without a name, so that they need not fit into memory."""

import os
import tempfile
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Scratch:
    """Values by coordinate, float32, 0 where none are written. Threads may write at the same time.

    They are written, not stored through a mapping: of each page that is new in a mapping, the system takes longer to
    make it known than to copy it.
    """

    def __init__(self, extent: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="stanch-features-")  # noqa: SIM115 - closed on leaving
        self._extent = extent
        self._file.truncate(max(4, 4 * extent))

    def write(self, start: int, values: Floats) -> None:
        """Write values at the coordinates from ``start``.

        Raises:
            OSError: The disk is full.
        """
        rest = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8).data
        place = 4 * start
        while rest:
            count = os.pwrite(self._file.fileno(), rest, place)
            rest, place = rest[count:], place + count

    def values(self) -> Floats:
        """Return all values, mapped and writable; they outlive this."""
        return np.memmap(self._file, np.float32, "r+", shape=(self._extent,))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write nothing more."""
        self._file.close()
