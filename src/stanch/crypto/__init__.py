"""Primitives and keys: the only package that imports ``cryptography``.

Hashes and Merkle trees (RFC 9162), canonical JSON (RFC 8785), key derivation, keyed streams, signatures, and whole or
private files. The encrypted stream (:mod:`stanch.crypto.floe`), HPKE and identities are imported from their modules.

Example:
    >>> from stanch.crypto import canonical_json, merkle_root, leaf_hash
    >>> canonical_json({"b": 1, "a": [1.5, None]})
    b'{"a":[1.5,null],"b":1}'
    >>> merkle_root([leaf_hash(b"")]).hex()[:16]
    '6e340b9cffb37a98'
"""

from stanch.crypto.canonical import canonical_json, parse_json
from stanch.crypto.files import read_private, sync_folder, write_atomic, write_private
from stanch.crypto.frame import frame
from stanch.crypto.hashes import FileHashName, Hasher, HashName, hash_bytes, hmac_sha256, sha256
from stanch.crypto.kdf import hkdf_expand_sha384, hkdf_sha256, hkdf_sha384
from stanch.crypto.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_path,
    inclusion_path,
    leaf_hash,
    merkle_root,
    node_hash,
    verify_consistency,
    verify_inclusion,
)
from stanch.crypto.prf import RandomBytes, aes_ctr_into, aes_ecb_blocks, block_prf, random_bytes
from stanch.crypto.signing import KeyKind, SigningKey, VerifyKey, key_id

__all__ = [
    "EMPTY_ROOT",
    "FileHashName",
    "Frontier",
    "HashName",
    "Hasher",
    "KeyKind",
    "RandomBytes",
    "SigningKey",
    "VerifyKey",
    "aes_ctr_into",
    "aes_ecb_blocks",
    "block_prf",
    "canonical_json",
    "consistency_path",
    "frame",
    "hash_bytes",
    "hkdf_expand_sha384",
    "hkdf_sha256",
    "hkdf_sha384",
    "hmac_sha256",
    "inclusion_path",
    "key_id",
    "leaf_hash",
    "merkle_root",
    "node_hash",
    "parse_json",
    "random_bytes",
    "read_private",
    "sha256",
    "sync_folder",
    "verify_consistency",
    "verify_inclusion",
    "write_atomic",
    "write_private",
]
