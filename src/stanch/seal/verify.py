"""Checking a whole bundle against the publisher's signature, without any key to its contents."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stanch.seal.folder import RECIPIENTS_NAME, BundleFolder
from stanch.seal.layout import list_segments
from stanch.seal.manifest import Manifest, StreamEntry
from stanch.seal.recipients import MAX_RECIPIENTS_FILE, Recipients
from stanch.seal.segments import SignedStreams
from stanch.terms import SILENT, Progress, VerifiedDigest

_THREADS = min(4, os.cpu_count() or 1)


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
    recipients = read_recipients(folder, manifest, publisher)
    streams = SignedStreams(folder, manifest)
    total, done = sum(stream.stored for stream in manifest.streams), 0
    progress("verify", done, total)
    with ThreadPoolExecutor(min(_THREADS, len(manifest.streams)), thread_name_prefix="verify") as pool:
        for stored in pool.map(partial(_verify_stream, streams), manifest.streams):
            done += stored
            progress("verify", done, total)
    return VerifiedSealed(manifest, recipients, total)


def read_recipients(folder: BundleFolder, manifest: Manifest, publisher: VerifiedDigest) -> Recipients:
    """Return who can open a bundle, once the document belongs to it.

    Raises:
        Tampered: It belongs to another bundle.
        InvalidInput: It is malformed.
    """
    recipients = Recipients.parse(folder.document(RECIPIENTS_NAME, MAX_RECIPIENTS_FILE))
    recipients.check_manifest(manifest, publisher.sha256)
    return recipients


def _verify_stream(streams: SignedStreams, stream: StreamEntry) -> int:
    """Compare a stream's header and segments with their digests; return its stored bytes."""
    streams.read_header(stream.n)
    for _ in streams.read_segments(stream.n, list(list_segments(stream.n, stream.size))):
        pass
    return stream.stored
