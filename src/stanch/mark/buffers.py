"""Arrays that a thread fills again for each block: of a new array, the system has to clear every page anew."""

import threading
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

T = TypeVar("T", bound=np.generic)

_MOST_KEPT = 1 << 20


class Buffers(threading.local):
    """One array a name and thread, whose content lasts until the thread asks for that name again."""

    def __init__(self) -> None:
        self._kept: dict[str, npt.NDArray[np.generic]] = {}

    def get(self, name: str, dtype: type[T], count: int) -> npt.NDArray[T]:
        """Return ``count`` elements, not cleared. Arrays of more than 2^20 are not kept."""
        if count > _MOST_KEPT:
            return np.empty(count, dtype)
        kept = self._kept.get(name)
        if kept is None or kept.size < count:
            kept = self._kept[name] = np.empty(count, dtype)
        return cast("npt.NDArray[T]", kept[:count])
