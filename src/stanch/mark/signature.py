"""The values of a mark: AES-256-CTR key stream → a table of Gaussian bin means; any coordinate on its own.

The table's values are conditional means of N(0,1), rounded toward zero: a mean-preserving contraction, so that by
Jensen's inequality ``E exp(tX) ≤ exp(t²/2)`` for every t. All error bounds of the package rest on this one line, and it
holds for the table as shipped, not for an idealised Gaussian.
"""

from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt

from stanch.crypto import aes_ctr_into, aes_ecb_blocks, sha256
from stanch.errors import StanchError
from stanch.mark.buffers import Buffers

Values = npt.NDArray[np.float32]

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


def signature_values(stream: bytes, start: int, count: int, out: Values | None = None) -> Values:
    """Return the values at the coordinates ``start … start + count − 1``.

    Args:
        stream: The 32-byte stream key.
        start: First coordinate, any non-negative integer.
        count: How many.
        out: Where to write them; by default a new array.
    """
    lead = start % GROUP
    drawn = _buffers.get("drawn", np.uint16, lead + count)
    aes_ctr_into(stream, (start // GROUP).to_bytes(16, "big"), drawn.data)
    indexes = _buffers.get("indexes", np.intp, count)
    indexes[:] = drawn[lead:].view("<u2")
    # Every 16-bit index is in the table; of the modes that need no second array, "wrap" is the faster one.
    return gaussian_table().take(indexes, out=out, mode="wrap")


def counter_blocks(groups: npt.NDArray[np.int64]) -> bytes:
    """Return the AES counter blocks of groups of 8 coordinates, to be shared by the calls for many keys."""
    blocks = np.zeros((len(groups), 2), ">u8")
    blocks[:, 1] = groups
    return blocks.tobytes()


def scattered_values(stream: bytes, blocks: bytes) -> Values:
    """Return the values of the groups that :func:`counter_blocks` was given: 8 for each, in order."""
    return gaussian_table().take(np.frombuffer(aes_ecb_blocks(stream, blocks), "<u2"), mode="wrap")
