"""Windows: short pieces of a byte stream, chosen by their content, so that a copy is found at whatever offset it lies.

A window is 64 bytes long and begins wherever its first eight bytes, as a little-endian integer times an odd constant,
have ten leading zero bits: about once in 1,024 bytes of weights. Both the protected tensor and a file that holds it, in
whatever container and wherever, choose the same windows (content-defined sampling, as in rsync-like deduplication).
"""

from collections.abc import Iterator

import numpy as np

from stanch.crypto import hash_bytes

WINDOW = 64
WINDOW_DIGEST = 16
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(54)


def window_digest(window: bytes) -> bytes:
    """Return the first 16 bytes of the BLAKE3 of a window."""
    return hash_bytes("blake3", window)[:WINDOW_DIGEST]


class WindowStream:
    """Yields the windows of a stream of bytes that is fed in chunks of any size."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, chunk: bytes | memoryview) -> Iterator[bytes]:
        """Yield the windows that end in ``chunk``, each once, in no particular order."""
        data = self._tail + bytes(chunk)
        starts = len(data) - WINDOW + 1
        self._tail = data[max(starts, 0) :]
        for shift in range(min(8, starts)):
            # The window's second word is looked at too: in runs of one value every place would be a window.
            words = np.frombuffer(data, "<u8", offset=shift, count=(len(data) - shift) // 8)
            first = words[:-1]
            chosen = (((first * _MULTIPLIER) >> _SHIFT) == 0) & (first != words[1:])
            for place in (np.flatnonzero(chosen) * 8 + shift).tolist():
                if place < starts:
                    yield data[place : place + WINDOW]
