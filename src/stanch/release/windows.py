"""Windows: short pieces of a byte stream, chosen by their content, so that a copy is found at whatever offset it lies.

A window is 64 bytes long and begins wherever its first four bytes, as a little-endian integer times an odd constant
modulo 2^32, have twelve leading zero bits, and differ from the next four: about once in 4,096 bytes of weights. Both
the protected tensor and a file that holds it, in whatever container and wherever, choose the same windows
(content-defined sampling, as in de-duplicating backups).
"""

from collections.abc import Iterator

import numpy as np

from stanch.crypto import hash_bytes

WINDOW = 64
WINDOW_DIGEST = 16
_WORD = 4
_MULTIPLIER = np.uint32(0x9E3779B1)
_BELOW = np.uint32(1 << 20)


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
        for shift in range(min(_WORD, starts)):
            words = np.frombuffer(data, "<u4", offset=shift, count=(len(data) - shift) // _WORD)
            chosen = words[:-1] * _MULTIPLIER < _BELOW
            chosen &= words[:-1] != words[1:]  # in runs of one value every place would be a window
            for place in (np.flatnonzero(chosen) * _WORD + shift).tolist():
                if place < starts:
                    yield data[place : place + WINDOW]
