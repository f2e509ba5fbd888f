"""A blocked Bloom filter: every key sets one bit in each of the eight words of one 64-byte block."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stanch.crypto import aes_ecb_blocks
from stanch.errors import InvalidInput
from stanch.scan.spans.rolling import Hashes

Words = npt.NDArray[np.uint64]

_WORDS = 8
_SHIFTS = np.arange(0, 6 * _WORDS, 6, dtype=np.uint64)
_MAX_BLOCKS = 2**32
_BATCH = 1 << 20


def finalise(key: bytes, hashes: Hashes) -> Words:
    """Return AES-256-ECB of ``LE64(h) ‖ LE64(0)`` as rows (y0, y1): a keyed permutation of the fingerprints."""
    blocks = np.zeros((len(hashes), 2), dtype="<u8")
    blocks[:, 0] = hashes
    return np.frombuffer(aes_ecb_blocks(key, blocks.tobytes()), dtype="<u8").reshape(-1, 2)


def block_count(keys: int, bits: int) -> int:
    """Return ``ceil(keys · bits / 512)``, at least 1.

    Raises:
        InvalidInput: The filter would have 2^32 blocks or more.
    """
    blocks = max(1, math.ceil(keys * bits / 512))
    if blocks >= _MAX_BLOCKS:
        raise InvalidInput(f"span index: {keys} windows need {blocks} blocks", next_step="split the dataset")
    return blocks


@dataclass(frozen=True, slots=True)
class BlockedBloom:
    """The filter's words, shape (blocks, 8), little-endian, perhaps memory-mapped."""

    words: Words

    @classmethod
    def build(cls, fingerprints: Words, blocks: int) -> "BlockedBloom":
        """Make a filter that holds the finalised fingerprints (rows y0, y1)."""
        words = np.zeros((blocks, _WORDS), dtype="<u8")
        for start in range(0, len(fingerprints), _BATCH):
            rows = fingerprints[start : start + _BATCH]
            at = _first_words(rows, blocks)
            for word in range(_WORDS):
                bits = (rows[:, 1] >> _SHIFTS[word]) & np.uint64(63)
                np.bitwise_or.at(words.reshape(-1), at + word, np.uint64(1) << bits)
        return cls(words)

    @classmethod
    def union(cls, filters: "Sequence[BlockedBloom]") -> "BlockedBloom":
        """Return the filter that holds what any of these holds; all have as many blocks."""
        words = filters[0].words.copy()
        for other in filters[1:]:
            words |= other.words
        return cls(words)

    def holds(self, fingerprints: Words) -> npt.NDArray[np.bool_]:
        """Tell for each row (y0, y1) whether it may have been inserted; no false negatives."""
        flat = self.words.reshape(-1)
        alive = np.arange(len(fingerprints))
        at, bits = _first_words(fingerprints, len(self.words)), fingerprints[:, 1]
        for word in range(_WORDS):
            # Most rows fall out at the first words: only the others are looked up further.
            kept = (flat[at + word] >> ((bits >> _SHIFTS[word]) & np.uint64(63)) & np.uint64(1)) != 0
            alive, at, bits = alive[kept], at[kept], bits[kept]
        found = np.zeros(len(fingerprints), dtype=np.bool_)
        found[alive] = True
        return found

    def random_hit(self) -> float:
        """Return the exact chance of a hit for a random fingerprint: mean over blocks of Π popcount / 64."""
        ones = np.bitwise_count(self.words).astype(np.float64) / 64
        return float(ones.prod(axis=1).mean())


def _first_words(fingerprints: Words, blocks: int) -> npt.NDArray[np.int64]:
    """Return for each fingerprint where its block begins, in words."""
    high = fingerprints[:, 0] >> np.uint64(32)
    return ((high * np.uint64(blocks)) >> np.uint64(32)).astype(np.int64) * _WORDS


def probe(words: memoryview, at: int, y1: int) -> bool:
    """Look up with plain integers; ``words`` holds the filter, and ``at`` is where the block begins."""
    return all(words[at + word] >> ((y1 >> 6 * word) & 63) & 1 for word in range(_WORDS))
