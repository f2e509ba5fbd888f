"""HPKE in base mode (RFC 9180) with HKDF-SHA256 and AES-256-GCM, over one of two KEMs.

``x25519`` is DHKEM(X25519, HKDF-SHA256). ``hybrid`` is MLKEM768-X25519 (draft-ietf-hpke-pq): it holds while either
ML-KEM-768 or X25519 does, so what is recorded today stays closed to a quantum computer of tomorrow.

The one-shot form of the library has no associated data, so whatever a message must be bound to goes into ``info``,
which RFC 9180 section 5.1 mixes into the key schedule.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from stanch.crypto.floe import decryption_failed
from stanch.errors import InvalidInput

KemKind = Literal["x25519", "hybrid"]

_SEED = 64
_MLKEM_PUBLIC = 1184
_X25519_SIZE = 32


class KemSizes(NamedTuple):
    """Bytes of a kind's keys, and what encryption adds: the encapsulated key and a tag of 16 bytes."""

    public: int
    secret: int
    overhead: int


KEM_SIZES: Mapping[KemKind, KemSizes] = MappingProxyType(
    {"x25519": KemSizes(_X25519_SIZE, _X25519_SIZE, 48), "hybrid": KemSizes(1216, 96, 1136)}
)
"""Hybrid keys are joined: ML-KEM's 1,184 bytes and X25519's 32; ML-KEM's seed of 64 bytes and X25519's 32."""


def hpke_public(secret: bytes, kind: KemKind = "x25519") -> bytes:
    """Return the public key of a secret key of this kind."""
    public = x25519.X25519PrivateKey.from_private_bytes(secret[-_X25519_SIZE:]).public_key().public_bytes_raw()
    if kind == "x25519":
        return public
    return mlkem.MLKEM768PrivateKey.from_seed_bytes(secret[:_SEED]).public_key().public_bytes_raw() + public


def hpke_encrypt(public: bytes, plaintext: bytes, *, info: bytes, kind: KemKind = "x25519") -> bytes:
    """Encrypt to a public key; the result is the encapsulated key, ciphertext and tag.

    Raises:
        InvalidInput: The public key is not usable (RFC 7748, section 6.1: the shared secret would be all zero; FIPS
            203, section 7.2: a coefficient is too large).
    """
    if len(public) != KEM_SIZES[kind].public:
        raise InvalidInput(f"recipient key: expected {KEM_SIZES[kind].public} bytes, found {len(public)}")
    try:
        key = x25519.X25519PublicKey.from_public_bytes(public[-_X25519_SIZE:])
        if kind == "x25519":
            return _suite(kind).encrypt(plaintext, key, info)
        hybrid = MLKEM768X25519PublicKey(mlkem.MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC]), key)
        return _suite(kind).encrypt(plaintext, hybrid, info)
    except ValueError as error:
        raise InvalidInput(f"recipient key: not a usable {kind} public key") from error


def hpke_decrypt(secret: bytes, ciphertext: bytes, *, info: bytes, kind: KemKind = "x25519") -> bytes:
    """Decrypt with a secret key.

    Raises:
        DecryptionFailed: The ciphertext was not made for this key and this ``info``, or was changed.
    """
    try:
        key = x25519.X25519PrivateKey.from_private_bytes(secret[-_X25519_SIZE:])
        if kind == "x25519":
            return _suite(kind).decrypt(ciphertext, key, info)
        hybrid = MLKEM768X25519PrivateKey(mlkem.MLKEM768PrivateKey.from_seed_bytes(secret[:_SEED]), key)
        return _suite(kind).decrypt(ciphertext, hybrid, info)
    except (InvalidTag, ValueError):
        raise decryption_failed() from None


def _suite(kind: KemKind) -> Suite:
    return Suite(KEM.X25519 if kind == "x25519" else KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
