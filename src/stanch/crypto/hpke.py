"""HPKE in base mode (RFC 9180): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.

The one-shot form of the library has no associated data, so whatever a message must be bound to goes into ``info``,
which RFC 9180 section 5.1 mixes into the key schedule.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from stanch.crypto.floe import decryption_failed
from stanch.errors import InvalidInput

OVERHEAD = 48
"""Encapsulated key (32 bytes) and tag (16 bytes)."""


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def hpke_public(secret: bytes) -> bytes:
    """Return the 32-byte public key of a 32-byte X25519 secret key."""
    return x25519.X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def hpke_encrypt(public: bytes, plaintext: bytes, *, info: bytes) -> bytes:
    """Encrypt to an X25519 public key; the result is the encapsulated key, ciphertext and tag.

    Raises:
        InvalidInput: The public key is not usable (RFC 7748, section 6.1: the shared secret would be all zero).
    """
    try:
        return _suite().encrypt(plaintext, x25519.X25519PublicKey.from_public_bytes(public), info)
    except ValueError as error:
        raise InvalidInput("recipient key: not a usable X25519 public key") from error


def hpke_decrypt(secret: bytes, ciphertext: bytes, *, info: bytes) -> bytes:
    """Decrypt with an X25519 secret key.

    Raises:
        DecryptionFailed: The ciphertext was not made for this key and this ``info``, or was changed.
    """
    try:
        return _suite().decrypt(ciphertext, x25519.X25519PrivateKey.from_private_bytes(secret), info)
    except (InvalidTag, ValueError):
        raise decryption_failed() from None
