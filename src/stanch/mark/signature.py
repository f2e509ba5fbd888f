"""The values of a mark: AES-256-CTR key stream → a table of Gaussian bin means; any coordinate on its own.

The table's values are conditional means of N(0,1), rounded toward zero: a mean-preserving contraction, so that by
Jensen's inequality ``E exp(tX) ≤ exp(t²/2)`` for every t. All error bounds of the package rest on this one line, and it
holds for the table as shipped, not for an idealised Gaussian.
"""

from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt

from stanch.crypto import KeyStream, aes_ecb_blocks, sha256
from stanch.errors import StanchError
from stanch.mark.buffers import Buffers
from stanch.mark.kernels import COMPILER

Values = npt.NDArray[np.float32]
Indexes = npt.NDArray[np.uint16]

GROUP = 8
"""Coordinates that share one AES block."""

_buffers = Buffers()

_UPPER_HALF = bytes.fromhex("51174eb2037d40fbf4de90a0f453edab5c8affeab9ea2f5d5d1ad28f9885d7c1")


@cache
def gaussian_table() -> Values:
    """Return the 65,536 table entries (float32, read-only).

    Raises:
        StanchError: The shipped file is damaged.
    """
    data = resources.files("stanch.mark").joinpath("gaussian.bin").read_bytes()
    if sha256(data) != _UPPER_HALF:
        raise StanchError("gaussian.bin is damaged", next_step="install stanch again")
    upper = np.frombuffer(data, "<f4").astype(np.float32)
    table = np.concatenate([-upper[::-1], upper])
    table.setflags(write=False)
    return table


class Draws:
    """The table indexes of one coordinate after the other. Not to be shared between threads."""

    def __init__(self, stream: bytes, start: int = 0, name: str = "drawn") -> None:
        """Begin at the coordinate ``start`` under a 32-byte stream key; ``name`` is that of the buffer."""
        self._stream = KeyStream(stream, bytes(16))
        self._name = name
        self.seek(start)

    def seek(self, start: int) -> None:
        """Go to the coordinate ``start``."""
        self._stream.seek((start // GROUP).to_bytes(16, "big"))
        self._stream.fill(bytearray(2 * (start % GROUP)))

    def take(self, count: int) -> Indexes:
        """Return the next ``count`` indexes, until the thread's next draw into a buffer of that name."""
        drawn = _buffers.get(self._name, np.uint16, count)
        self._stream.fill(drawn.data)
        return drawn.view("<u2")


def look_up(indexes: Indexes, out: Values | None = None) -> Values:
    """Return the values at table indexes, in ``out`` if it is given."""
    values = np.empty(len(indexes), np.float32) if out is None else out
    loops = COMPILER.loops(len(indexes))
    if loops is None:
        wide = _buffers.get("indexes", np.intp, len(indexes))
        wide[:] = indexes
        # Every 16-bit index is in the table; of the modes that need no second array, "wrap" is the faster one.
        gaussian_table().take(wide, out=values, mode="wrap")
    else:
        loops.look_up(indexes, gaussian_table(), values)
    return values


def signature_values(stream: bytes, start: int, count: int, out: Values | None = None) -> Values:
    """Return the values at the coordinates ``start … start + count − 1``.

    Args:
        stream: The 32-byte stream key.
        start: First coordinate, any non-negative integer.
        count: How many.
        out: Where to write them; by default a new array.
    """
    return look_up(Draws(stream, start).take(count), out)


def counter_blocks(groups: npt.NDArray[np.int64]) -> bytes:
    """Return the AES counter blocks of groups of 8 coordinates, to be shared by the calls for many keys."""
    blocks = np.zeros((len(groups), 2), ">u8")
    blocks[:, 1] = groups
    return blocks.tobytes()


def scattered_indexes(stream: bytes, blocks: bytes) -> Indexes:
    """Return the table indexes of the groups that :func:`counter_blocks` was given: 8 for each, in order."""
    return np.frombuffer(aes_ecb_blocks(stream, blocks), "<u2")
