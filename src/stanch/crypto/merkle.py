"""Merkle trees as in RFC 9162 section 2.1 (SHA-256), sans-IO: hashing, frontier, inclusion and consistency proofs."""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from stanch.errors import InvalidInput, ProofInvalid

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
_MAX_SIZE = 2**63


def leaf_hash(data: bytes) -> bytes:
    """Return ``SHA-256(00 ‖ data)``."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return ``SHA-256(01 ‖ left ‖ right)``."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: the roots of its perfect subtrees, largest first. Append costs O(log n)."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size < _MAX_SIZE or self.size.bit_count() != len(self.hashes):
            raise InvalidInput("not a frontier: the number of hashes does not fit the size")

    def append(self, leaves: Iterable[bytes]) -> "Frontier":
        """Return the frontier after the given leaf hashes."""
        size, stack = self.size, list(self.hashes)
        for leaf in leaves:
            node, position = leaf, size
            while position & 1:
                node = node_hash(stack.pop(), node)
                position >>= 1
            stack.append(node)
            size += 1
        return Frontier(size, tuple(stack))

    def root(self) -> bytes:
        """Return the root of the tree; the empty tree's root is ``SHA-256("")``."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for node in reversed(self.hashes[:-1]):
            root = node_hash(node, root)
        return root

    def to_bytes(self) -> bytes:
        """Return the hashes, largest subtree first, concatenated."""
        return b"".join(self.hashes)

    @classmethod
    def parse(cls, size: int, data: bytes) -> Self:
        """Read what :meth:`to_bytes` wrote for a tree of ``size`` leaves."""
        if len(data) % HASH_SIZE:
            raise InvalidInput("not a frontier: its length is not a multiple of 32")
        return cls(size, tuple(data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)))


def merkle_root(leaves: Iterable[bytes]) -> bytes:
    """Return the root over the given leaf hashes."""
    level = list(leaves) or [EMPTY_ROOT]
    while len(level) > 1:
        above = [
            hashlib.sha256(b"\x01" + left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=False)
        ]
        # An odd last node stands for itself one level up: that is how RFC 9162 splits.
        level = above + level[len(above) * 2 :]
    return level[0]


def _split(size: int) -> int:
    """Return the largest power of two smaller than ``size`` (size ≥ 2)."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return ``PATH(index, leaves)`` of RFC 9162 section 2.1.3.1, leaf side first."""
    if not 0 <= index < len(leaves):
        raise InvalidInput(f"no leaf {index} in a tree of {len(leaves)}")
    path: list[bytes] = []
    low, high = 0, len(leaves)
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(merkle_root(leaves[middle:high]))
            high = middle
        else:
            path.append(merkle_root(leaves[low:middle]))
            low = middle
    return path[::-1]


def consistency_path(leaves: Sequence[bytes], size: int) -> list[bytes]:
    """Return ``PROOF(size, leaves)`` of RFC 9162 section 2.1.4.1; empty for size 0 and for the full size."""
    if not 0 <= size <= len(leaves):
        raise InvalidInput(f"no tree of {size} leaves inside one of {len(leaves)}")
    if size in {0, len(leaves)}:
        return []
    path: list[bytes] = []
    low, high, complete = 0, len(leaves), True
    while low + size != high:
        middle = low + _split(high - low)
        if low + size <= middle:
            path.append(merkle_root(leaves[middle:high]))
            high = middle
        else:
            path.append(merkle_root(leaves[low:middle]))
            size -= middle - low
            low, complete = middle, False
    if not complete:
        path.append(merkle_root(leaves[low:high]))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check an inclusion proof as RFC 9162 section 2.1.3.2 says.

    Raises:
        ProofInvalid: The leaf is not shown to be at ``index`` in the tree of ``size`` leaves with ``root``.
    """
    _check_hashes(path, leaf, root)
    if not 0 <= index < size < _MAX_SIZE:
        raise ProofInvalid(f"inclusion proof: index {index} is not inside a tree of {size}")
    position, last, node = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ProofInvalid("inclusion proof: it holds too many hashes")
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    if last != 0 or not hmac.compare_digest(node, root):
        raise ProofInvalid(f"inclusion proof: entry {index} does not lead to the root of size {size}")


def verify_consistency(  # noqa: C901 - the RFC's algorithm in one piece, to be read beside it
    old_size: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]
) -> None:
    """Check a consistency proof as RFC 9162 section 2.1.4.2 says.

    Raises:
        ProofInvalid: The tree of ``size`` leaves is not shown to extend the tree of ``old_size`` leaves.
    """
    _check_hashes(path, old_root, root)
    if not 0 <= old_size <= size < _MAX_SIZE:
        raise ProofInvalid(f"consistency proof: a tree of {size} cannot extend one of {old_size}")
    if old_size in {0, size}:
        expected = EMPTY_ROOT if old_size == 0 else root
        if path or not hmac.compare_digest(old_root, expected):
            raise ProofInvalid(f"consistency proof: the roots at size {old_size} differ")
        return
    nodes = [old_root, *path] if old_size & (old_size - 1) == 0 else list(path)
    if not nodes:
        raise ProofInvalid("consistency proof: it holds no hashes")
    position, last = old_size - 1, size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old, new = nodes[0], nodes[0]
    for sibling in nodes[1:]:
        if last == 0:
            raise ProofInvalid("consistency proof: it holds too many hashes")
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    if last != 0 or not (hmac.compare_digest(old, old_root) and hmac.compare_digest(new, root)):
        raise ProofInvalid(f"consistency proof: size {size} does not extend size {old_size}")


def _check_hashes(path: Sequence[bytes], *others: bytes) -> None:
    if any(len(node) != HASH_SIZE for node in (*path, *others)):
        raise ProofInvalid("proof: a hash is not 32 bytes")
