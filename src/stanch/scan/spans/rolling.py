"""The keyed rolling hash: a polynomial over byte values drawn from the key, modulo the prime 2^61 − 1.

``h(w) = Σ T[w_j] · b^(k−1−j) mod P``. Over the choice of the key, two fixed different windows collide with probability
at most about k / 2^61 (polynomial identity over a prime field).
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stanch.crypto import hkdf_sha256

P = 2**61 - 1
TILE = 4096

Hashes = npt.NDArray[np.uint64]

_LOW = np.uint64(2**31 - 1)
_PRIME = np.uint64(P)


@dataclass(frozen=True, slots=True)
class RollingKey:
    """The secret of one index: finaliser key, base and byte values, derived from index key and salt."""

    finaliser: bytes = field(repr=False)
    base: int = field(repr=False)
    values: tuple[int, ...] = field(repr=False)

    @classmethod
    def derive(cls, key: bytes, salt: bytes) -> "RollingKey":
        """Derive the secret: HKDF-SHA256 with info ``stanch/index/v1``, 2,088 bytes."""
        okm = hkdf_sha256(key, info=b"stanch/index/v1", length=2088, salt=salt)
        words = [int.from_bytes(okm[at : at + 8], "little") for at in range(32, 2088, 8)]
        return cls(okm[:32], words[0] % (P - 2**32) + 2**32, tuple(word % (P - 1) + 1 for word in words[1:]))


def window_hash(key: RollingKey, window: bytes) -> int:
    """Return the hash of one window by Horner's rule."""
    value = 0
    for byte in window:
        value = (value * key.base + key.values[byte]) % P
    return value


def multiply(left: Hashes, right: int) -> Hashes:
    """Return ``left · right mod P`` for values below P, on 31-bit limbs so that no product leaves 64 bits."""
    low_right, high_right = np.uint64(right & (2**31 - 1)), np.uint64(right >> 31)
    low, high = left & _LOW, left >> np.uint64(31)
    # left·right = high·high_right·2^62 + cross·2^31 + low·low_right, where 2^62 ≡ 2 and cross·2^31 wraps at bit 30.
    cross = low * high_right + high * low_right
    total = (
        ((high * high_right) << np.uint64(1))
        + (cross >> np.uint64(30))
        + ((cross & np.uint64(2**30 - 1)) << np.uint64(31))
        + low * low_right
    )
    return reduce(total)


def reduce(total: Hashes) -> Hashes:
    """Reduce values below 2^64 modulo P."""
    folded = (total & _PRIME) + (total >> np.uint64(61))
    return np.where(folded >= _PRIME, folded - _PRIME, folded)


class WindowHasher:
    """Hashes all windows of ``k`` bytes at once by doubling: ``H_2m[i] = H_m[i]·b^m + H_m[i+m]``."""

    def __init__(self, key: RollingKey, k: int) -> None:
        self._values = np.array(key.values, dtype=np.uint64)
        self._base = key.base
        self.k = k

    def all(self, text: bytes) -> Hashes:
        """Return the hashes of the windows that start at 0, 1, 2 …; empty if the text is shorter than a window."""
        count = len(text) - self.k + 1
        if count <= 0:
            return np.empty(0, dtype=np.uint64)
        # Tiles fit into the cache; larger ones are several times slower.
        tiles = [self._tile(text[start : start + TILE + self.k - 1]) for start in range(0, count, TILE)]
        return np.concatenate(tiles)

    def _tile(self, text: bytes) -> Hashes:
        power = self._values[np.frombuffer(text, dtype=np.uint8)]
        size, done, total = 1, 0, None
        remaining = self.k
        while remaining:
            if remaining & 1:
                total = self._append(total, power, done, size)
                done += size
            remaining >>= 1
            if remaining:
                power = self._append(power, power, size, size)
                size *= 2
        return np.empty(0, dtype=np.uint64) if total is None else total

    def _append(self, left: Hashes | None, right: Hashes, done: int, size: int) -> Hashes:
        """Return the hashes of windows of ``done`` bytes followed by windows of ``size`` bytes."""
        if left is None:
            return right
        shifted = right[done:]
        count = min(len(left), len(shifted))
        return reduce(multiply(left[:count], pow(self._base, size, P)) + shifted[:count])
