"""Key derivation: HKDF (RFC 5869)."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand


def hkdf_sha256(key: bytes, *, info: bytes, length: int, salt: bytes = b"") -> bytes:
    """Return ``length`` bytes of HKDF-SHA256, extract and expand; an empty salt means 32 zero bytes (RFC 5869, 2.2)."""
    return HKDF(hashes.SHA256(), length, salt or None, info).derive(key)


def hkdf_sha384(key: bytes, *, info: bytes, length: int, salt: bytes = b"") -> bytes:
    """Return ``length`` bytes of HKDF-SHA384, extract and expand."""
    return HKDF(hashes.SHA384(), length, salt or None, info).derive(key)


def hkdf_expand_sha384(key: bytes, *, info: bytes, length: int) -> bytes:
    """Return ``length`` bytes of HKDF-Expand with SHA-384 (RFC 5869, 2.3); ``key`` is the pseudo-random key."""
    return HKDFExpand(hashes.SHA384(), length, info).derive(key)
