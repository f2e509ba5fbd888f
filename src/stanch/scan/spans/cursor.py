"""Walking over folded text, window by window, and asking the index about each."""

from dataclasses import dataclass
from functools import cache
from struct import Struct

import numpy as np

from stanch.crypto import block_prf
from stanch.scan.compiler import COMPILER
from stanch.scan.kernels import BLOCKS, HASH, MOST
from stanch.scan.spans.bloom import BlockedBloom, finalise, probe
from stanch.scan.spans.rolling import TILE, P, RollingKey, WindowHasher, window_hash

_HALVES = Struct("<4xII4x")  # of a finalised fingerprint: the upper half of y0 and the lower half of y1


@dataclass(frozen=True, slots=True, order=True)
class Hit:
    """A window of the queried text that is (probably) in the index: half-open, absolute folded offsets."""

    start: int
    end: int


class Lookup:
    """What all walks over one index share: its filter and what its key makes of each byte."""

    def __init__(self, key: RollingKey, k: int, filter_: BlockedBloom) -> None:
        self.key, self.k, self.filter = key, k, filter_
        self.hasher = WindowHasher(key, k)
        gone = pow(key.base, k, P)
        self.out = tuple(value * gone % P for value in key.values)
        self.words = np.require(filter_.words, requirements=["C", "A"]).reshape(-1)
        self.words.flags.writeable = False
        self.flat = self.words.data.cast("B").cast("Q")
        self.firsts = tuple(self.flat[word::8] for word in range(5))  # the first word of every block, the second …
        limbs = key.base & (2**31 - 1), key.base >> 31
        leaving = [P - value for value in self.out]
        self.room = np.array([*key.values, *leaving, *limbs, 0, 0, *bytes(2 * MOST)], dtype=np.uint64)


class SpanCursor:
    """Takes folded text in pieces and returns the windows in it that the index holds.

    Below 256 new bytes it works with compiled steps or, as long as there are none, with Python's integers, above with
    numpy; all give the same hits.

    Attributes:
        permute: The keyed finaliser.
        words: The index's filter.
        room: What the compiled steps work in.
    """

    def __init__(self, lookup: Lookup) -> None:
        self._lookup, self._k = lookup, lookup.k
        self.permute, self.words = block_prf(lookup.key.finaliser), lookup.words
        self._tail = b""  # the last k bytes, or all while there are fewer
        self._steps = COMPILER.steps
        self.room = lookup.room.copy()
        self._hash = 0  # of the tail, once it has k bytes; with compiled steps it is in the room
        self._blocks = self.room.data.cast("B")[8 * BLOCKS :]
        self.position = 0

    @property
    def size(self) -> int:
        """Bytes of a window."""
        return self._k

    @property
    def tail(self) -> bytes:
        """The last bytes: a window, or all while there are fewer."""
        return self._tail

    @property
    def window(self) -> tuple[bytes, int] | None:
        """The last window and its hash, as if the text followed zeros; None before the text, and without steps."""
        if self._steps is None or not self._tail:
            return None
        if len(self._tail) == self._k:
            return self._tail, int(self.room[HASH])
        tail = self._tail.rjust(self._k, b"\0")
        return tail, window_hash(self._lookup.key, tail)

    def skip(self, last: bytes, size: int, value: int) -> None:
        """Take ``size`` bytes with which no window ends that is held.

        Args:
            last: All of them, or so many of the last ones as a window has.
            size: How many they are.
            value: The hash of the last window.
        """
        self._tail = (self._tail + last)[-self._k :]
        self.position += size
        self._go_on_from(value)

    def push(self, folded: bytes) -> list[Hit]:
        """Take the next folded bytes and return the hits among the windows that end in them, by start."""
        if not folded:
            return []
        k, before, size = self._k, self._tail, len(folded)
        text = before + folded
        first = self.position - k + 1
        self.position += size
        self._tail = text[-k:]
        if size >= MOST and len(text) >= k:
            ends = self._bulk(text, len(before))
        elif len(before) == k:
            ends = self._single(size, text)
        elif len(text) >= k:
            # The first window of all ends in this piece: it follows one that began a byte earlier.
            text, done = b"\0" + text, k - len(before) - 1
            self._go_on_from(window_hash(self._lookup.key, text[:k]))
            ends = [done + end for end in self._single(size - done, text)]
        else:
            return []
        return [Hit(first + end, first + end + k) for end in ends] if ends else []

    def _go_on_from(self, value: int) -> None:
        """Set the hash of the tail."""
        self._hash = self.room[HASH] = value

    def _bulk(self, text: bytes, before: int) -> list[int]:
        """Return the new bytes, counted from 0, at which windows end that are held."""
        skip = 1 if before == self._k else 0
        lookup = self._lookup
        hashes = lookup.hasher.all(text)[skip:]
        self._go_on_from(int(hashes[-1]))
        found: list[int] = []
        for start in range(0, len(hashes), TILE):
            tile = lookup.filter.holds(finalise(lookup.key.finaliser, hashes[start : start + TILE]))
            found += (np.flatnonzero(tile) + (start + self._k - 1 + skip - before)).tolist()
        return found

    def _single(self, size: int, text: bytes) -> list[int]:
        """Do as :meth:`_bulk` for the last ``size`` bytes; the first ones of the text leave the window for them."""
        steps = self._steps
        if steps is None:
            return self._plain(size, text)
        steps.roll(text, size, self.room)
        finalised = self.permute(self._blocks[: 16 * size])
        if not steps.look(finalised, self._lookup.words):
            return []
        rows = np.frombuffer(finalised, dtype="<u8").reshape(-1, 2)
        found: list[int] = np.flatnonzero(self._lookup.filter.holds(rows)).tolist()
        return found

    def _plain(self, size: int, text: bytes) -> list[int]:
        """Do as :meth:`_single`, in Python."""
        COMPILER.count(size)
        lookup = self._lookup
        # Plain loops over local names in one function: a comprehension costs half as much again.
        values, out, base, value = lookup.key.values, lookup.out, lookup.key.base, self._hash
        hashes = []
        for new, gone in zip(text[-size:], text):  # noqa: B905 - to say that one is longer costs more than a step
            value = (value * base + values[new] - out[gone]) % P
            hashes.append(value)
        self._hash = value
        finalised = self.permute(_blocks(len(hashes)).pack(*hashes))
        first, second, third, fourth, fifth = lookup.firsts
        count, number = len(lookup.filter.words), -1
        held = []
        for high, low in _HALVES.iter_unpack(finalised):
            number += 1
            block = high * count >> 32
            # Five words, in place, sort out all but one window in a hundred; the call does the rest.
            if (
                first[block] >> (low & 63) & 1
                and second[block] >> (low >> 6 & 63) & 1
                and third[block] >> (low >> 12 & 63) & 1
                and fourth[block] >> (low >> 18 & 63) & 1
                and fifth[block] >> (low >> 24 & 63) & 1
            ):
                y1 = int.from_bytes(finalised[16 * number + 8 : 16 * number + 16], "little")
                if probe(lookup.flat, block * 8, y1):
                    held.append(number)
        return held


@cache
def _blocks(count: int) -> Struct:
    """Return the layout of so many blocks ``LE64(h) ‖ LE64(0)``."""
    return Struct("<" + "Q8x" * count)
