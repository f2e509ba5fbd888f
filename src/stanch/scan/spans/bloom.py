"""A blocked Bloom filter: every key sets one bit in each of the eight words of one 64-byte block."""

import math
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
        block, masks = _places(fingerprints, blocks)
        order = np.argsort(block, kind="stable")
        for word in range(_WORDS):
            np.bitwise_or.at(words[:, word], block[order], masks[order, word])
        return cls(words)

    def holds(self, fingerprints: Words) -> npt.NDArray[np.bool_]:
        """Tell for each row (y0, y1) whether it may have been inserted; no false negatives."""
        block, masks = _places(fingerprints, len(self.words))
        alive = np.arange(len(fingerprints))
        for word in range(_WORDS):
            alive = alive[(self.words[block[alive], word] & masks[alive, word]) != 0]
            if not len(alive):
                break
        found = np.zeros(len(fingerprints), dtype=np.bool_)
        found[alive] = True
        return found

    def random_hit(self) -> float:
        """Return the exact chance of a hit for a random fingerprint: mean over blocks of Π popcount / 64."""
        ones = np.bitwise_count(self.words).astype(np.float64) / 64
        return float(ones.prod(axis=1).mean())


def _places(fingerprints: Words, blocks: int) -> tuple[npt.NDArray[np.int64], Words]:
    high = fingerprints[:, 0] >> np.uint64(32)
    block = ((high * np.uint64(blocks)) >> np.uint64(32)).astype(np.int64)
    bits = (fingerprints[:, 1:2] >> _SHIFTS) & np.uint64(63)
    return block, np.uint64(1) << bits


def probe(words: memoryview, blocks: int, y0: int, y1: int) -> bool:
    """Look one fingerprint up with plain integers; ``words`` is the filter as a flat view of 64-bit words."""
    at = (((y0 >> 32) * blocks) >> 32) * _WORDS
    for shift in range(0, 6 * _WORDS, 6):
        if not words[at] >> ((y1 >> shift) & 63) & 1:
            return False
        at += 1
    return True
