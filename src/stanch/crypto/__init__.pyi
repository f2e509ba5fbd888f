from .canonical import canonical_json, parse_json
from .files import read_private, sync_folder, write_atomic, write_private
from .frame import frame
from .hashes import FileHashName, Hasher, HashName, hash_bytes, hmac_prf, hmac_sha256, sha256
from .kdf import hkdf_expand_sha384, hkdf_sha256, hkdf_sha384
from .merkle import (
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
from .prf import KeyStream, RandomBytes, aes_ctr_into, aes_ecb_blocks, block_prf, random_bytes
from .signing import KeyKind, SigningKey, VerifyKey, key_id

__all__ = [
    "EMPTY_ROOT",
    "FileHashName",
    "Frontier",
    "HashName",
    "Hasher",
    "KeyKind",
    "KeyStream",
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
    "hmac_prf",
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
