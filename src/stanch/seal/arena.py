"""Memory for plaintext: huge pages, kept out of core dumps, overwritten before it is given back."""

import contextlib
import ctypes
import mmap
from collections.abc import Callable
from typing import Any, Self

_HUGE_PAGE = 2 << 20


class Arena(mmap.mmap):
    """An anonymous private mapping for ``size`` bytes of plaintext.

    From 2 MiB on the plaintext starts at a huge-page boundary: 4 KiB page faults, not the cipher, limit how fast
    plaintext can be produced. Every view of :attr:`memory` keeps the arena alive; when the last one is gone, the arena
    overwrites itself with zeros and is unmapped. Hosts without huge pages only lose speed.
    """

    def __new__(cls, size: int) -> Self:
        """Map room for ``size`` bytes."""
        huge = size >= _HUGE_PAGE
        length = (-(-size // _HUGE_PAGE) + 1) * _HUGE_PAGE if huge else max(size, 1)
        arena = super().__new__(cls, -1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        arena._address = ctypes.addressof(ctypes.c_char.from_buffer(arena))
        arena._memset = ctypes.memset
        arena._start = -arena._address % _HUGE_PAGE if huge else 0
        arena._size = size
        with contextlib.suppress(OSError):
            arena.madvise(mmap.MADV_DONTDUMP)
            if huge:
                arena.madvise(mmap.MADV_HUGEPAGE)
        return arena

    _address: int
    _start: int
    _size: int
    # Kept here, since module globals may be gone when the interpreter ends before the last view.
    _memset: Callable[[int, int, int], Any]

    @property
    def memory(self) -> memoryview:
        """The ``size`` writable bytes, zero at first."""
        return memoryview(self)[self._start : self._start + self._size]

    def wipe(self) -> None:
        """Overwrite :attr:`memory` with zeros."""
        self._memset(self._address + self._start, 0, self._size)

    def __del__(self) -> None:
        # No view is left: each holds a reference to the mapping, which is still in place here.
        self.wipe()
