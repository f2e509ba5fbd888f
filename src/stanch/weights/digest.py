"""The digest of a directory: what a model or dataset directory is called by in the ledger."""

import os
from dataclasses import dataclass
from pathlib import Path

from stanch.crypto.canonical import canonical_json
from stanch.crypto.hashes import Hasher
from stanch.errors import InvalidInput
from stanch.terms import Digest, JsonValue
from stanch.weights.folder import walk_files

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class DirectoryDigest:
    """A directory's digest and the files that went into it.

    Attributes:
        root: SHA-256 of the canonical JSON of ``[{"name", "sha256", "size"}]``.
        files: ``(relative path with /, size in bytes, SHA-256 in hex)``, sorted by the UTF-8 bytes of the path.
    """

    root: Digest
    files: tuple[tuple[str, int, str], ...]


def directory_digest(path: Path) -> DirectoryDigest:
    """Hash every file below ``path``.

    Raises:
        InvalidInput: As :func:`walk_files`, or the directory holds no file.
    """
    files = tuple((name, *_hash_file(item)) for name, item in walk_files(path))
    if not files:
        raise InvalidInput(f"expected a directory with files, found none in {path}")
    listing: JsonValue = [{"name": name, "sha256": digest, "size": size} for name, size, digest in files]
    return DirectoryDigest(Digest.sha256(canonical_json(listing)), files)


def _hash_file(path: Path) -> tuple[int, str]:
    """Return the size and the SHA-256 (hex) of the bytes that were actually read."""
    hasher, size = Hasher("sha256"), 0
    buffer = bytearray(_READ_BYTES)
    # O_NOFOLLOW: a file swapped for a link after the walk must not be followed.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            hasher.update(memoryview(buffer)[:count])
            size += count
    return size, hasher.digest().hex()
