"""Inclusion and consistency proofs computed from the hashes of perfect subtrees, sans-IO.

``subtree(level, index)`` is the hash of leaves ``[index·2^level, (index+1)·2^level)``; a proof over n leaves asks for
O(log² n) of them.
"""

from collections.abc import Callable

from stanch.crypto import Frontier
from stanch.errors import InvalidInput
from stanch.ledger.damage import LogDamaged

Subtree = Callable[[int, int], bytes]


def frontier_at(size: int, subtree: Subtree) -> Frontier:
    """Return the frontier of the tree over the first ``size`` leaves."""
    return Frontier(size, tuple(_perfect(0, size, subtree)))


def stored_frontier(size: int, data: bytes) -> Frontier:
    """Return the frontier that stands in the log's row.

    Raises:
        LogDamaged: It is none of that size: somebody else changed the row.
    """
    try:
        return Frontier.parse(size, data)
    except InvalidInput as error:
        found = f"{len(data)} bytes"
        raise LogDamaged("frontier", None, expected=f"the hashes of {size} entries", found=found) from error


def range_root(low: int, high: int, subtree: Subtree) -> bytes:
    """Return ``MTH(D[low:high])``, where ``low`` is a multiple of a power of two not below ``high - low``."""
    return Frontier(high - low, tuple(_perfect(low, high, subtree))).root()


def _perfect(low: int, high: int, subtree: Subtree) -> list[bytes]:
    hashes, count = [], high - low
    for level in reversed(range(count.bit_length())):
        if count >> level & 1:
            hashes.append(subtree(level, low >> level))
            low += 1 << level
    return hashes


def prove_inclusion(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Return ``PATH(index, D[size])`` of RFC 9162 section 2.1.3.1, leaf side first."""
    if not 0 <= index < size:
        raise InvalidInput(f"no entry {index} in a log of {size}")
    path, low, high = [], 0, size
    while high - low > 1:
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        if index < middle:
            path.append(range_root(middle, high, subtree))
            high = middle
        else:
            path.append(range_root(low, middle, subtree))
            low = middle
    return path[::-1]


def prove_consistency(old_size: int, size: int, subtree: Subtree) -> list[bytes]:
    """Return ``PROOF(old_size, D[size])`` of RFC 9162 section 2.1.4.1; empty for size 0 and for equal sizes."""
    if not 0 <= old_size <= size:
        raise InvalidInput(f"no log of {old_size} inside one of {size}")
    path: list[bytes] = []
    low, high = 0, size
    if old_size in {0, size}:
        return path
    while old_size != high:
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        if old_size <= middle:
            path.append(range_root(middle, high, subtree))
            high = middle
        else:
            path.append(range_root(low, middle, subtree))
            low = middle
    # RFC 9162 leaves out the old tree itself where it is a whole subtree from the left edge: the verifier has its root.
    if low:
        path.append(range_root(low, high, subtree))
    return path[::-1]
