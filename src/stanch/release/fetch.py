"""Getting a delivered bundle from a store that nobody needs to trust: every byte is checked before it is kept."""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stanch.crypto import sync_folder
from stanch.crypto.timestamp import TimestampRoots
from stanch.errors import Conflict, StoreError, Tampered
from stanch.release.pool import run_all
from stanch.release.quorum_files import QuorumFiles, quorum_folder
from stanch.release.remote import Piece, RemoteBundle, SignedManifest, list_pieces, stream_path
from stanch.release.revocations import NO_REVOCATIONS, RevocationList, newest_revocations, refusal
from stanch.seal import MANIFEST_NAME, SIGNATURE_NAME, Manifest, Recipients, ReleaseMemory
from stanch.seal.digests import SignedDigests, digests_size
from stanch.seal.folder import (
    BODY_NAME,
    DIGESTS_NAME,
    PARTIAL_SUFFIX,
    RECIPIENTS_NAME,
    check_entries,
)
from stanch.seal.memory import check_release, remember_release
from stanch.seal.recipients import MAX_RECIPIENTS_FILE
from stanch.sign import Timestamped, TrustedKeys
from stanch.terms import SILENT, Progress, VerifiedDigest

_NEW = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchParams:
    """How a bundle is fetched.

    Attributes:
        min_release: Least release number accepted, which pins the first contact.
        revocations: A list that came another way; the store's own is read in any case.
        workers: Requests under way at once; each holds one segment in memory.
        timestamp_roots: If given, the manifest's signatures need a time-stamp of an authority that descends from these.
        progress: Told ``("fetch", stored bytes done, total)``.
    """

    min_release: int = 1
    revocations: RevocationList = NO_REVOCATIONS
    workers: int = 8
    timestamp_roots: TimestampRoots | None = None
    progress: Progress = SILENT


_DEFAULTS = FetchParams()


@dataclass(frozen=True, slots=True)
class FetchedBundle:
    """A bundle of which every byte was compared with what its publisher signed.

    Attributes:
        path: Where it lies.
        manifest: Its manifest.
        publisher: The manifest's digest as verified.
        received: Bytes of streams that came from the store; the rest was there from an earlier try.
        quorum: The folder beside it with record and approvals, if it opens by quorum; else None.
    """

    path: Path
    manifest: Manifest
    publisher: VerifiedDigest
    received: int
    quorum: Path | None


def fetch(
    remote: RemoteBundle,
    dest: Path,
    trusted: TrustedKeys,
    *,
    memory: ReleaseMemory,
    params: FetchParams = _DEFAULTS,
) -> FetchedBundle:
    """Fetch a delivered bundle into the new directory ``dest``.

    Manifest and signature come first, then what they allow: release number, revocations, digests, and then the streams
    in pieces, each compared with its signed digest before it is written to ``dest.partial``. A failure leaves that
    directory, which nothing opens; fetching again compares what is in it and asks only for the rest.

    Args:
        remote: The delivered bundle.
        dest: The bundle's directory; it appears only when it is whole and durable.
        trusted: The publisher's keys.
        memory: Where releases and revocation lists are remembered; the release only when all of it was checked.
        params: Further settings.

    Raises:
        VerificationError: The store holds something else than the publisher signed, or an older release.
        Revoked: Nobody that the bundle was for may still fetch it.
        Conflict: ``dest`` exists, or another process is fetching to it.
        StoreError: The store or the disk failed; fetch again to go on.
    """
    if dest.exists() or dest.is_symlink():
        raise Conflict(f"{dest}: exists already", next_step="choose another --out")
    roots = params.timestamp_roots
    signed = remote.signed_manifest(trusted if roots is None else Timestamped(trusted, roots))
    manifest = signed.manifest
    release = check_release(memory, signed.publisher, manifest, min_release=params.min_release)
    listed = newest_revocations(remote, trusted, manifest.lineage, memory)
    recipients = params.revocations.remaining(listed.remaining(read_recipients(remote, signed)))
    beside = read_beside(remote, manifest, trusted, (listed, params.revocations))
    digests = SignedDigests(remote.document(DIGESTS_NAME, digests_size(manifest)), manifest)
    with _partial(dest) as partial:
        check_entries(partial, len(manifest.streams), unfinished=True)
        received = _fetch_streams(remote, partial, manifest, digests, params)
        documents = {
            DIGESTS_NAME: digests.data, RECIPIENTS_NAME: recipients.to_bytes(), SIGNATURE_NAME: signed.signature,
            MANIFEST_NAME: manifest.to_bytes(),
        }  # fmt: skip
        if beside is not None:
            beside.write(quorum_folder(dest))
        # Before there is a bundle: were that to fail, what was fetched is taken up again.
        remember_release(memory, signed.publisher, manifest.lineage, release)
        _finish(partial, dest, documents, len(manifest.streams))
    folder = quorum_folder(dest) if beside is not None else None
    return FetchedBundle(dest, manifest, signed.publisher, received, folder)


def read_beside(
    remote: RemoteBundle, manifest: Manifest, trusted: TrustedKeys, lists: Iterable[RevocationList]
) -> QuorumFiles | None:
    """Return what goes beside a copy that opens by quorum, whose recipient stands in its record alone."""
    if manifest.quorum is None:
        return None
    files = QuorumFiles.receive(remote, manifest.quorum.n)
    recipient = files.verify(manifest, trusted).recipient_id
    for listed in lists:
        if recipient in (gone := listed.revoked(manifest.bundle_id)):
            raise refusal(gone[recipient])
    return files


def read_recipients(remote: RemoteBundle, signed: SignedManifest) -> Recipients:
    """Return who a delivered bundle names, if the document belongs to that bundle."""
    recipients = Recipients.parse(remote.document(RECIPIENTS_NAME, MAX_RECIPIENTS_FILE))
    recipients.check_manifest(signed.manifest, signed.publisher.sha256)
    return recipients


@contextmanager
def _partial(dest: Path) -> Iterator[Path]:
    """Yield the unfinished directory of ``dest``, which no other process writes to meanwhile."""
    partial = dest.with_name(dest.name + PARTIAL_SUFFIX)
    try:
        (partial / BODY_NAME).mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield partial
        finally:
            os.close(handle)
    except BlockingIOError as error:
        raise Conflict(f"{partial}: another process is fetching to it", next_step="wait for it") from error
    except OSError as error:
        raise StoreError(
            f"{partial}: cannot be written",
            why=os.strerror(error.errno or 0),
            next_step="mend or free the disk and fetch again; what is there is used",
        ) from error


def _fetch_streams(
    remote: RemoteBundle, partial: Path, manifest: Manifest, digests: SignedDigests, params: FetchParams
) -> int:
    """Make every stream complete on disk and return how many bytes were received for it."""

    def ensure(piece: Piece) -> tuple[int, int]:
        stream = piece.segment.stream
        path = partial / stream_path(stream)
        handle = os.open(path, _NEW, 0o600)
        try:
            if os.fstat(handle).st_size > manifest.streams[stream].stored:  # left by another bundle
                os.ftruncate(handle, manifest.streams[stream].stored)
            if piece.match(os.pread(handle, piece.length, piece.offset), digests):
                return piece.length, 0
            data = remote.read(piece)
            if not piece.match(data, digests):
                raise Tampered(
                    f"stream {stream}, segment {piece.segment.position}: the store sent other bytes than were signed",
                    why="its copy was changed, damaged or cut off; nothing of them was kept",
                    next_step="tell the publisher; fetch again once the store is mended",
                )
            _write_at(handle, data, piece.offset)
        finally:
            os.close(handle)
        return piece.length, piece.length

    total, done, received = sum(stream.stored for stream in manifest.streams), 0, 0
    pieces = (piece for stream in manifest.streams for piece in list_pieces(stream.n, stream.size))
    for length, new in run_all(pieces, ensure, params.workers):
        done, received = done + length, received + new
        params.progress("fetch", done, total)
    return received


def _finish(partial: Path, dest: Path, documents: dict[str, bytes], streams: int) -> None:
    """Write the documents, the manifest last, make everything durable, and give the directory its name.

    No temporary file is used: what a crash leaves is written over by the next try, and nobody opens it before.
    """
    for stream in range(streams):
        _sync(partial / stream_path(stream))
    for name, data in documents.items():
        _sync(partial / name, data)
    check_entries(partial, streams)
    sync_folder(partial / BODY_NAME)
    sync_folder(partial)
    if dest.exists():  # made since the beginning
        raise Conflict(f"{dest}: exists already", next_step="choose another --out")
    partial.rename(dest)
    sync_folder(dest.parent)


def _sync(path: Path, data: bytes | None = None) -> None:
    """Make a file durable, with new content if any is given."""
    handle = os.open(path, _NEW, 0o600)
    try:
        if data is not None:
            os.ftruncate(handle, 0)
            _write_at(handle, data, 0)
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_at(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(handle, view, offset)
        view, offset = view[count:], offset + count
