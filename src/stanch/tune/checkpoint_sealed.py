"""Sealed checkpoints: made in memory, encrypted to named recipients and signed, so that no plaintext reaches a disk."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stanch.crypto import SigningKey
from stanch.crypto.stanza import KeyProvider
from stanch.seal import MemorySource, SealParams, VolatileReleases, open_bundle, read_manifest, read_signature, seal
from stanch.sign import Bundle, TrustedKeys, sign_manifest, verify_manifest


@dataclass(frozen=True, slots=True)
class CheckpointSeal:
    """Who can open a run's checkpoints, and who vouches for them.

    Attributes:
        recipients: Who can open them.
        signer: Signs them; a run is resumed only from checkpoints that it signed.
        identities: Keys that open them; only resuming needs one.
    """

    recipients: tuple[KeyProvider, ...]
    signer: SigningKey = field(repr=False)
    identities: tuple[KeyProvider, ...] = field(default=(), repr=False)


def seal_files(files: Mapping[str, bytes], dest: Path, keys: CheckpointSeal, *, lineage: str, number: int) -> None:
    """Seal ``files`` (contents by name) into the new folder ``dest``, whole or not at all."""
    seal(
        MemorySource(files),
        dest,
        keys.recipients,
        SealParams(kind="other", lineage=lineage, release_number=number, workers=1),
        lambda manifest: sign_manifest(manifest, keys.signer).to_bytes(),
    )


def open_files(path: Path, keys: CheckpointSeal) -> dict[str, bytes]:
    """Return the contents of a sealed checkpoint by name; the signature is checked before anything is opened.

    Raises:
        VerificationError: Not sealed, changed, not signed by this run's key, or not for these identities.
    """
    manifest = read_manifest(path)
    signature = Bundle.parse(read_signature(path), what=f"{path.name}: signature")
    publisher = verify_manifest(manifest.to_bytes(), signature, TrustedKeys((keys.signer.public,)))
    # The journal is what remembers which checkpoint was the last.
    with open_bundle(path, publisher, keys.identities, memory=VolatileReleases()) as opened:
        return {file.path: bytes(opened.read(file.path)) for file in opened.files()}
