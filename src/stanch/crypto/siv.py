"""AES-256-GCM-SIV (RFC 8452): encryption of single values, which stays safe even if a nonce is used twice."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from stanch.crypto.floe import decryption_failed

NONCE_SIZE = 12


def encrypt_siv(key: bytes, nonce: bytes, data: bytes, *, aad: bytes) -> bytes:
    """Encrypt ``data``, bound to ``aad``; the result is the nonce of 12 bytes, the ciphertext and a tag of 16."""
    return nonce + AESGCMSIV(key).encrypt(nonce, data, aad)


def decrypt_siv(key: bytes, box: bytes, *, aad: bytes) -> bytes:
    """Return what :func:`encrypt_siv` encrypted.

    Raises:
        DecryptionFailed: Another key, another ``aad``, or changed bytes.
    """
    try:
        return AESGCMSIV(key).decrypt(box[:NONCE_SIZE], box[NONCE_SIZE:], aad)
    except (InvalidTag, ValueError):
        raise decryption_failed() from None
