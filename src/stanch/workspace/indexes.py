"""The index of training text as it lies on a disk: a file of its own, or sealed in a bundle.

Both need the index key of the workspace. A sealed one is opened by an identity that is derived from it, and tells
others nothing but its size, not even how many texts and windows there are. It is read into the memory of each process;
a file of its own is mapped, so that all processes of a machine share it.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stanch.crypto import hkdf_sha256
from stanch.scan import SpanIndex
from stanch.terms import Digest
from stanch.workspace.keyring import Keyring

if TYPE_CHECKING:
    from stanch.crypto.identity import Identity

_LINEAGE = "stanch/span-index"


class Sealed(NamedTuple):
    """The new folder that an index is to be sealed into."""

    folder: Path


def save_index(keys: Keyring, index: SpanIndex, out: Path | Sealed) -> None:
    """Write an index to a file, or into a sealed bundle; of the plaintext of a sealed one nothing is on a disk.

    Raises:
        Conflict: The folder exists.
        InvalidInput: The file cannot be written.
        StoreError: The folder cannot be written.
    """
    if isinstance(out, Path):
        index.save(out)
        return
    from stanch.data import seal_index  # noqa: PLC0415 - a file of its own needs none of this
    from stanch.seal import SealParams  # noqa: PLC0415 - same
    from stanch.sign import sign_manifest  # noqa: PLC0415 - same

    publisher = keys.signer("publisher")
    seal_index(
        index, out.folder, [_identity(keys.secret("index")).recipient],
        SealParams(kind="dataset", lineage=_LINEAGE, release_number=1),
        lambda manifest: sign_manifest(manifest, publisher).to_bytes(),
    )  # fmt: skip


def open_index(keys: Keyring, path: Path) -> tuple[SpanIndex, Digest]:
    """Return an index, verified, and the digest of what it was read from: of the file, or of the bundle's manifest.

    Raises:
        InvalidInput: It cannot be read.
        VerificationError: It was changed, or made with another key or by another workspace.
    """
    key = keys.secret("index")
    if not path.is_dir():
        index = SpanIndex.open(path, key)
        with path.open("rb") as file:
            return index, Digest("sha256", hashlib.file_digest(file, "sha256").digest())
    from stanch.data import open_sealed_index  # noqa: PLC0415 - a file of its own needs none of this
    from stanch.release import open_copy  # noqa: PLC0415 - same
    from stanch.seal import VolatileReleases  # noqa: PLC0415 - same
    from stanch.sign import TrustedKeys  # noqa: PLC0415 - same

    trusted = TrustedKeys(keys.publics("publisher"))
    with open_copy(path, trusted, [_identity(key)], memory=VolatileReleases()) as bundle:
        return open_sealed_index(bundle, key), Digest.sha256(bundle.manifest.to_bytes())


def _identity(key: bytes) -> "Identity":
    from stanch.crypto.hpke import KEM_SIZES  # noqa: PLC0415 - same
    from stanch.crypto.identity import Identity  # noqa: PLC0415 - same

    secret = hkdf_sha256(key, info=b"stanch/index-identity/v1", length=KEM_SIZES["hybrid"].secret)
    return Identity(secret, "hybrid")
