"""The Merkle tree over the rows of a dataset, with salted leaves."""

import hashlib
from collections.abc import Iterator

from stanch.crypto import Frontier, hkdf_sha256, hmac_sha256, leaf_hash
from stanch.data.dataset import Dataset

_SALT_SIZE = 16
_DIGEST = 32


class Salts:
    """The salts of a dataset: salt_i = HMAC-SHA256(K_salt, LE64(i))[:16], K_salt derived from the dataset key."""

    def __init__(self, key: bytes) -> None:
        self._key = hkdf_sha256(key, info=b"stanch/record-salt/v1", length=32)

    def of(self, index: int) -> bytes:
        """Return the salt of row ``index``."""
        return hmac_sha256(self._key, index.to_bytes(8, "little"))[:_SALT_SIZE]

    def commitment(self) -> str:
        """Return SHA-256("stanch/salt-commitment/v1" ‖ 0 ‖ K_salt) in hexadecimal."""
        return hashlib.sha256(b"stanch/salt-commitment/v1\x00" + self._key).hexdigest()


def row_leaf(salt: bytes, canonical_row: bytes) -> bytes:
    """Return the leaf hash (RFC 9162) of ``salt ‖ SHA-256(canonical row)``."""
    return leaf_hash(salt + hashlib.sha256(canonical_row).digest())


class RootBuilder:
    """Builds the root from the SHA-256 of each canonical row, part by part in their order; constant memory."""

    def __init__(self, key: bytes) -> None:
        self._salts, self._frontier = Salts(key), Frontier()

    def add(self, digests: bytes) -> None:
        """Take the digests of the next rows, 32 bytes each, one after the other."""
        first = self._frontier.size
        self._frontier = self._frontier.append(
            leaf_hash(self._salts.of(first + start // _DIGEST) + digests[start : start + _DIGEST])
            for start in range(0, len(digests), _DIGEST)
        )

    def root(self) -> str:
        """Return the root of the rows so far, as :func:`dataset_root` does of all."""
        return self._frontier.root().hex()


def leaves(dataset: Dataset, salts: Salts) -> Iterator[bytes]:
    """Yield the leaf hash of each row."""
    return (row_leaf(salts.of(index), row) for index, row in enumerate(dataset.canonical_rows()))


def dataset_root(dataset: Dataset, key: bytes) -> str:
    """Return the root of the tree under ``key`` in hexadecimal; constant memory."""
    return Frontier().append(leaves(dataset, Salts(key))).root().hex()
