"""What the terms of a dictionary begin with, as a keyed filter: it tells which words may still become a term.

A stem is the first three or six bytes of a term in the view ``squeezed``, forwards or backwards. Each sets one of eight
times as many bits as there are stems, so about one stem in nine passes by chance. That is on purpose: the filter tells
whoever holds the key three bits of each stem and no more (``docs/spec/dictionary.md``, sections 2 and 4).
"""

import hashlib
from collections.abc import Iterable

_PERSON = b"stanch/stem/v1"
SHORT, LONG = 3, 6
_REMEMBERED = 1 << 15


class Stems(dict[bytes, bool]):
    """The filter under its key; each stem that was asked for is remembered, in memory only."""

    def __init__(self, bits: bytes, key: bytes) -> None:
        super().__init__()
        self._bits, self._key = bits, key

    def may_begin(self, squeezed: bytes) -> bool:
        """Tell whether a longer term, or one written backwards, may begin with this text; no false negatives."""
        size = len(squeezed)
        return size < SHORT or (self[squeezed[:SHORT]] and (size < LONG or self[squeezed[:LONG]]))

    def may_be(self, squeezed: bytes) -> bool:
        """Tell whether a term, or one written backwards, may be this text or begin with it; no false negatives."""
        size = len(squeezed)
        return size <= SHORT or (self[squeezed[:SHORT]] and (size <= LONG or self[squeezed[:LONG]]))

    def __missing__(self, stem: bytes) -> bool:
        if len(self) >= _REMEMBERED:
            self.clear()
        place = _place(self._key, stem, 8 * len(self._bits))
        found = self[stem] = bool(self._bits[place >> 3] >> (place & 7) & 1)
        return found


def stems_of(squeezed: bytes) -> set[bytes]:
    """Return the stems of a term, forwards and backwards; those as long as it is would begin nothing longer."""
    both = squeezed, squeezed.decode()[::-1].encode()
    return {text[:size] for text in both for size in (SHORT, LONG) if len(text) > size}


def build_filter(stems: Iterable[bytes], key: bytes) -> bytes:
    """Return the filter of different stems, one byte for each."""
    stems = list(stems)
    bits = bytearray(len(stems))
    for stem in stems:
        place = _place(key, stem, 8 * len(bits))
        bits[place >> 3] |= 1 << (place & 7)
    return bytes(bits)


def _place(key: bytes, stem: bytes, count: int) -> int:
    digest = hashlib.blake2b(stem, digest_size=8, key=key, person=_PERSON).digest()
    return int.from_bytes(digest, "little") % count
