"""Checking a whole bundle against the publisher's signature, without any key to its contents."""

from dataclasses import dataclass
from pathlib import Path

from stanch.errors import Tampered
from stanch.seal.folder import RECIPIENTS_NAME, BundleFolder
from stanch.seal.layout import list_segments
from stanch.seal.manifest import Manifest
from stanch.seal.recipients import MAX_RECIPIENTS_FILE, Recipients
from stanch.seal.segments import SignedStreams, segment_buffer
from stanch.terms import SILENT, Progress, VerifiedDigest


@dataclass(frozen=True, slots=True)
class VerifiedSealed:
    """A bundle of which every byte that the publisher signed was compared.

    Attributes:
        manifest: Its manifest.
        recipients: Who it names; this part carries no signature.
        stored: Bytes of all streams.
    """

    manifest: Manifest
    recipients: Recipients
    stored: int


def verify_sealed(src: Path, publisher: VerifiedDigest, *, progress: Progress = SILENT) -> VerifiedSealed:
    """Compare manifest, digests, and every header and segment of a bundle with what the publisher signed.

    Args:
        src: The bundle's directory.
        publisher: The manifest's digest as verified by ``sign``.
        progress: Told ``("verify", stored bytes done, total)``.

    Raises:
        VerificationError: Tampered (naming stream and segment), NotSealed, SignatureMissing, UnexpectedFile,
            BundleIncomplete or NonCanonicalStream.
        InvalidInput: A document is malformed.
    """
    folder = BundleFolder(src)
    manifest = folder.verified_manifest(publisher)
    recipients = Recipients.parse(folder.document(RECIPIENTS_NAME, MAX_RECIPIENTS_FILE))
    if (recipients.bundle_id, recipients.manifest_sha256) != (manifest.bundle_id, publisher.sha256.hex()):
        raise Tampered(f"{RECIPIENTS_NAME}: belongs to another bundle", next_step="fetch the bundle again")
    streams = SignedStreams(folder, manifest)
    total, done, buffer = sum(stream.stored for stream in manifest.streams), 0, segment_buffer()
    for stream in manifest.streams:
        progress("verify", done, total)
        streams.read_header(stream.n)
        for _ in streams.read_segments(stream.n, list(list_segments(stream.n, stream.size)), buffer):
            pass
        done += stream.stored
    progress("verify", total, total)
    return VerifiedSealed(manifest, recipients, total)
