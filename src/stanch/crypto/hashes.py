"""SHA-256, BLAKE2b, BLAKE3 and HMAC behind one small interface."""

import hashlib
import hmac
from collections.abc import Callable
from typing import Literal

import blake3

from stanch.errors import InvalidInput

HashName = Literal["sha256", "blake3"]
"""What our own formats use."""

_BLOCK = 64
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))

FileHashName = Literal["sha256", "blake2b", "blake3"]
"""What a signed directory may use; BLAKE2b gives 64 bytes, the others 32."""


class Hasher:
    """An incremental hash by name: ``sha256`` (FIPS 180-4), ``blake2b`` (RFC 7693, 64 bytes) or ``blake3``.

    Args:
        name: Which one.
        parallel: Let BLAKE3 use all processors for updates of about a mebibyte and more; the others never do.
    """

    def __init__(self, name: FileHashName, *, parallel: bool = False) -> None:
        if name not in {"sha256", "blake2b", "blake3"}:
            raise InvalidInput(f"unknown hash: expected sha256, blake2b or blake3, found {name!r}")
        threads = blake3.blake3.AUTO if parallel else 1
        self._hash = blake3.blake3(max_threads=threads) if name == "blake3" else hashlib.new(name)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take in more bytes."""
        self._hash.update(data)

    def digest(self) -> bytes:
        """Return the digest of all bytes so far."""
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


def hmac_prf(key: bytes) -> Callable[[bytes], bytes]:
    """Return HMAC-SHA256 under ``key`` as a function of the data, for many short calls under one key.

    The key's two blocks are hashed once (RFC 2104, section 4). Safe to share between threads.
    """
    block = (key if len(key) <= _BLOCK else sha256(key)).ljust(_BLOCK, b"\0")
    inner, outer = hashlib.sha256(block.translate(_INNER)), hashlib.sha256(block.translate(_OUTER))

    def mac(data: bytes) -> bytes:
        first, second = inner.copy(), outer.copy()
        first.update(data)
        second.update(first.digest())
        return second.digest()

    return mac
