"""SHA-256, HMAC and BLAKE3 behind one small interface."""

import hashlib
import hmac
from typing import Literal

import blake3

from stanch.errors import InvalidInput

HashName = Literal["sha256", "blake3"]


class Hasher:
    """An incremental hash by name: ``sha256`` (FIPS 180-4) or ``blake3``; both give 32 bytes."""

    def __init__(self, name: HashName) -> None:
        if name not in {"sha256", "blake3"}:
            raise InvalidInput(f"unknown hash: expected sha256 or blake3, found {name!r}")
        self._hash = hashlib.sha256() if name == "sha256" else blake3.blake3()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take in more bytes."""
        self._hash.update(data)

    def digest(self) -> bytes:
        """Return the 32-byte digest of all bytes so far."""
        return bytes(self._hash.digest())


def hash_bytes(name: HashName, data: bytes | bytearray | memoryview) -> bytes:
    """Return the 32-byte digest of ``data`` under the named hash."""
    hasher = Hasher(name)
    hasher.update(data)
    return hasher.digest()


def sha256(*parts: bytes | bytearray | memoryview) -> bytes:
    """Return the SHA-256 of the concatenated parts. Use :func:`stanch.crypto.frame` where parts could run together."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """Return HMAC-SHA256 (RFC 2104)."""
    return hmac.digest(key, data, "sha256")
