"""Walking over folded text, window by window, and asking the index about each."""

from dataclasses import dataclass

import numpy as np

from stanch.crypto import aes_ecb_blocks
from stanch.scan.spans.bloom import BlockedBloom, finalise, probe
from stanch.scan.spans.rolling import P, RollingKey, WindowHasher, window_hash

_BULK = 256


@dataclass(frozen=True, slots=True, order=True)
class Hit:
    """A window of the queried text that is (probably) in the index: half-open, absolute folded offsets."""

    start: int
    end: int


class SpanCursor:
    """Takes folded text in pieces and returns the windows in it that the index holds.

    Below 256 new bytes it works with Python's integers, above with numpy; both give the same hits.
    """

    def __init__(self, key: RollingKey, k: int, filter_: BlockedBloom) -> None:
        self._key, self._k, self._filter = key, k, filter_
        self._flat = np.ascontiguousarray(filter_.words).data.cast("B").cast("Q")
        self._blocks = len(filter_.words)
        self._hasher = WindowHasher(key, k)
        self._out = tuple(value * pow(key.base, k, P) % P for value in key.values)
        self._tail = b""
        self._hash: int | None = None
        self.position = 0

    def push(self, folded: bytes) -> list[Hit]:
        """Take the next folded bytes and return the hits among the windows that end in them, by start."""
        text = self._tail + folded
        first = self.position - len(self._tail)
        self.position += len(folded)
        starts: list[int] = []
        if len(text) >= self._k:
            starts = self._bulk(text) if len(folded) >= _BULK else self._single(text)
        # The next window starts one byte after the last one of this text.
        self._tail = text[-(self._k - 1) :] if self._k > 1 else b""
        return [Hit(first + start, first + start + self._k) for start in starts]

    def _bulk(self, text: bytes) -> list[int]:
        hashes = self._hasher.all(text)
        self._hash = int(hashes[-1])
        self._dropped = text[-self._k]
        found: list[int] = []
        for start in range(0, len(hashes), 4096):
            tile = self._filter.holds(finalise(self._key.finaliser, hashes[start : start + 4096]))
            found += (np.flatnonzero(tile) + start).tolist()
        return found

    def _single(self, text: bytes) -> list[int]:
        key, k = self._key, self._k
        value = self._hash
        hashes = []
        for end in range(k, len(text) + 1):
            if value is None:
                value = window_hash(key, text[end - k : end])
            else:
                gone = text[end - k - 1] if end > k else self._dropped
                value = (value * key.base + key.values[text[end - 1]] - self._out[gone]) % P
            hashes.append(value)
        self._hash = value
        self._dropped = text[-k]
        finalised = memoryview(
            aes_ecb_blocks(key.finaliser, b"".join(value.to_bytes(8, "little") + bytes(8) for value in hashes))
        ).cast("Q")
        return [
            number
            for number in range(len(hashes))
            if probe(self._flat, self._blocks, finalised[2 * number], finalised[2 * number + 1])
        ]
