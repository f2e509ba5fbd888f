"""Numbers that grow while a dataset is read and are looked up afterwards: on disk, in a file without a name."""

import tempfile
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

Scalar = TypeVar("Scalar", bound=np.generic)


class Spill(Generic[Scalar]):
    """An array that is appended to, then mapped. What was mapped stays after the file is closed.

    The file has no name and is readable by its owner only; nothing is left when the last map of it is gone.
    """

    def __init__(self, kind: type[Scalar] | np.dtype[Scalar], width: int = 0) -> None:
        self._kind, self._width = kind, width
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed on leaving

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, values: npt.NDArray[Scalar]) -> None:
        """Add values at the end."""
        self._file.write(np.ascontiguousarray(values).data)

    def mapped(self) -> npt.NDArray[Scalar]:
        """Return all of it; rows of ``width`` values if that was given."""
        self._file.flush()
        shape = (-1, self._width) if self._width else (-1,)
        if self._file.tell() == 0:
            return np.empty((0, self._width) if self._width else 0, self._kind)
        # A plain array over the map: slices of a memmap object cost ten times as much.
        return np.asarray(np.memmap(self._file, self._kind, mode="r").reshape(shape))
