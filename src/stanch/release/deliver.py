"""Putting a sealed bundle into a store, so that it is there whole or not at all."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stanch.errors import Conflict, InvalidInput, NotFound, StoreError, StoreTimeout, Tampered
from stanch.release.pool import run_all
from stanch.release.quorum_files import QuorumFiles
from stanch.release.remote import RemoteBundle, list_pieces, stream_path
from stanch.release.revocations import Revocation, newest_revocations, refusal
from stanch.release.revoke import withdraw
from stanch.seal import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    Manifest,
    Recipients,
    ReleaseMemory,
    read_manifest,
    read_signature,
    verify_sealed,
)
from stanch.seal.folder import DIGESTS_NAME, RECIPIENTS_NAME, BundleFolder
from stanch.seal.layout import list_segments
from stanch.seal.recipients import MAX_RECIPIENTS_FILE
from stanch.seal.segments import SignedStreams
from stanch.seal.verify import read_recipients
from stanch.sign import Bundle, TrustedKeys, verify_manifest
from stanch.store import CREATE, Match
from stanch.terms import SILENT, Progress, VerifiedDigest

_WORKERS = 4
_ATTEMPTS = 4


class RemoteConflict(Conflict):
    """The store holds other bytes where a part of the bundle belongs; nothing was overwritten."""


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What was delivered.

    Attributes:
        bundle_id: The bundle's id.
        sent: Objects that were sent.
        skipped: Objects that were there already.
        has_key: Whether what opens the bundle was among them.
    """

    bundle_id: str
    sent: int
    skipped: int
    has_key: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverParams:
    """How a bundle is delivered.

    Attributes:
        decided: The manifest that somebody decided about; another bundle at that path is refused.
        quorum: Record and approvals of a copy that opens by quorum; they are put beside it.
        with_key: Otherwise everything but what opens the bundle is put: no approval, and ``recipients.json`` without
            a stanza. Deliver again with it to complete the bundle.
        check: Compare every byte that is there, also of a bundle that was delivered whole.
        progress: Told ``("verify" or "deliver", stored bytes done, total)``.
    """

    decided: VerifiedDigest | None = None
    quorum: QuorumFiles | None = None
    with_key: bool = True
    check: bool = False
    progress: Progress = SILENT


_DEFAULTS = DeliverParams()


def deliver(
    bundle: Path, remote: RemoteBundle, trusted: TrustedKeys, *, memory: ReleaseMemory,
    params: DeliverParams = _DEFAULTS,
) -> DeliveryReport:  # fmt: skip
    """Put a sealed bundle below ``<store>/<bundle id>/``, the manifest last: without it nothing is taken for whole.

    The whole bundle is verified before anything is sent, and each segment once more as it is sent. No object is
    overwritten: one that is there must be the signed bytes, and is skipped, which is how an interrupted delivery goes
    on. Two things are replaced: ``recipients.json`` by one of a higher epoch, and what goes beside a copy that opens by
    quorum. Each worker holds one stream in memory.

    Where this manifest lies in the store already, the bundle was delivered whole: its streams are left alone, and only
    what opens it is put. What opens it is put between two looks at the revocation list: what is revoked meanwhile is
    taken out again.

    Args:
        bundle: The bundle's directory.
        remote: Where it goes.
        trusted: The publisher's keys.
        memory: The publisher's own, of this store's revocation lists: one that is left out there is noticed.
        params: Further settings.

    Raises:
        VerificationError: The bundle is not what its publisher signed, or not the one decided about; nothing was sent.
        Rollback: The store's revocation list is older than one seen there before; nothing was sent.
        InvalidInput: A copy that opens by quorum comes without its record, or another one with a record.
        Revoked: The bundle names a recipient that the store's list has revoked.
        RemoteConflict: The store holds other bytes.
        StoreError: The store failed; deliver again to go on.
    """
    part = _read_bundle(bundle, remote, trusted, params)
    is_whole = not params.check and _holds(remote, part.manifest)
    recipients = (
        read_recipients(BundleFolder(bundle), part.manifest, part.publisher)
        if is_whole
        else verify_sealed(bundle, part.publisher, progress=params.progress).recipients
    )
    named = {part.owner, *(stanza.key_id for stanza in recipients.stanzas)}

    def find_revoked() -> list[Revocation]:
        gone = newest_revocations(remote, trusted, part.manifest.lineage, memory).revoked(remote.bundle_id)
        return [entry for key_id, entry in gone.items() if key_id in named]

    for entry in find_revoked():
        raise refusal(entry)
    sender = _Sender(remote, SignedStreams(BundleFolder(bundle), part.manifest))
    if is_whole:
        sender.skipped += len(part.manifest.streams) + 1
    else:
        sender.send_streams(params.progress)
        sender.send_document(DIGESTS_NAME, sender.streams.digests.data)
    for entry in find_revoked():
        raise refusal(entry)
    sender.send_key(recipients, params)
    if gone := find_revoked():
        withdraw(remote, {entry.key_id for entry in gone}, part.owner, params.quorum)
        raise refusal(gone[0])
    sender.send_document(SIGNATURE_NAME, part.signature)
    sender.send_document(MANIFEST_NAME, part.manifest.to_bytes())
    return DeliveryReport(remote.bundle_id, sender.sent, sender.skipped, params.with_key)


@dataclass(frozen=True, slots=True)
class _SignedBundle:
    """A verified manifest, the bytes of its signature, and the recipient where it opens by quorum, or empty."""

    manifest: Manifest
    publisher: VerifiedDigest
    signature: bytes
    owner: str


def _read_bundle(bundle: Path, remote: RemoteBundle, trusted: TrustedKeys, params: DeliverParams) -> _SignedBundle:
    manifest, signature, quorum = read_manifest(bundle), read_signature(bundle), params.quorum
    publisher = verify_manifest(manifest.to_bytes(), Bundle.parse(signature, what=SIGNATURE_NAME), trusted)
    if params.decided is not None and publisher.sha256 != params.decided.sha256:
        raise Tampered(f"{bundle}: another bundle lies here than was decided about", next_step="deliver it again")
    if remote.bundle_id != manifest.bundle_id:
        raise InvalidInput(f"{bundle}: another bundle than {remote.bundle_id[:16]}…, the place of which was named")
    if (quorum is None) != (manifest.quorum is None):
        raise InvalidInput(f"{bundle}: exactly a copy that opens by quorum is delivered with a quorum record")
    owner = quorum.verify(manifest, trusted).recipient_id if quorum is not None else ""
    return _SignedBundle(manifest, publisher, signature, owner)


def _holds(remote: RemoteBundle, manifest: Manifest) -> bool:
    """Say whether this very manifest lies in the store, where a delivery puts it last."""
    ours = manifest.to_bytes()
    try:
        return remote.blobs.get(remote.key(MANIFEST_NAME), length=len(ours) + 1) == ours
    except NotFound:
        return False


@dataclass(slots=True)
class _Sender:
    """Sends the parts of one verified bundle and counts them."""

    remote: RemoteBundle
    streams: SignedStreams
    sent: int = 0
    skipped: int = 0
    own: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, *, sent: bool) -> None:
        self.sent += sent
        self.skipped += not sent

    def send_streams(self, progress: Progress) -> None:
        """Send all streams, several at once; one by one where the line is too slow for that."""
        streams = self.streams.manifest.streams
        left, done, workers = dict.fromkeys(range(len(streams))), 0, _WORKERS
        while left:
            try:
                for stream in run_all(list(left), self.send_stream, workers):
                    del left[stream]
                    done += streams[stream].stored
                    progress("deliver", done, sum(stream.stored for stream in streams))
            except StoreTimeout:
                if workers == 1:
                    raise
                workers = 1

    def send_stream(self, number: int) -> int:
        """Send one stream, or compare the one that is there with the signed digests; return its number."""
        if number in self.own:
            return number
        key, stream = self.remote.key(stream_path(number)), self.streams.manifest.streams[number]
        found = self._put_stream(key, number)
        if found is not None:
            if found != stream.stored:
                raise _conflict(key)
            for piece in list_pieces(number, stream.size):
                if not piece.match(self.remote.read(piece), self.streams.digests):
                    raise _conflict(key)
        with self.lock:
            self.own.add(number)
            self.count(sent=found is None)
        return number

    def _put_stream(self, key: str, number: int) -> int | None:
        """Put one stream and return None, or the stored bytes of the one that is there."""
        for _ in range(_ATTEMPTS):
            try:
                return self.remote.blobs.head(key).size
            except NotFound:
                # Another delivery is faster, the service was asked twice, or it takes one writer of a key at a time.
                with contextlib.suppress(Conflict):
                    self.remote.blobs.put(key, self._read_stream(number), mode=CREATE)
                    return None
        raise StoreError(f"{key}: the store refused it, and holds none", next_step="deliver again")

    def _read_stream(self, number: int) -> Iterator[bytes]:
        yield self.streams.read_header(number)
        segments = list(list_segments(number, self.streams.manifest.streams[number].size))
        for _, data in self.streams.read_segments(number, segments):
            yield bytes(data)  # the buffer is used again

    def send_document(self, name: str, data: bytes) -> None:
        """Put a document, or find the same bytes there."""
        try:
            self.remote.blobs.put(self.remote.key(name), data, mode=CREATE)
        except Conflict:
            if self.remote.blobs.get(self.remote.key(name), length=len(data) + 1) != data:
                raise _conflict(self.remote.key(name)) from None
            self.count(sent=False)
        else:
            self.count(sent=True)

    def send_key(self, recipients: Recipients, params: DeliverParams) -> None:
        """Put what opens the bundle, or what stands in its place until then."""
        if params.quorum is not None:
            (params.quorum if params.with_key else QuorumFiles(params.quorum.record)).send(self.remote)
        if params.with_key or params.quorum is not None:
            self.send_recipients(recipients)
        else:
            self.withhold_recipients(recipients)

    def send_recipients(self, ours: Recipients) -> None:
        """Put ``recipients.json``, or replace one of a lower epoch unless it changes meanwhile."""
        key = self.remote.key(RECIPIENTS_NAME)
        try:
            self.remote.blobs.put(key, ours.to_bytes(), mode=CREATE)
        except Conflict:
            etag = self.remote.blobs.head(key).etag
            theirs = self.remote.document(RECIPIENTS_NAME, MAX_RECIPIENTS_FILE)
            if theirs == ours.to_bytes():
                self.count(sent=False)
                return
            if theirs != _withheld(ours) and (epoch := _epoch(theirs)) >= ours.epoch:
                raise RemoteConflict(
                    f"{key}: changed in the store too, as by a revocation: epoch {epoch}, the bundle's is {ours.epoch}",
                    why="only a list of a higher epoch replaces another",
                    next_step="if the bundle's is right, raise its epoch by naming somebody anew, then deliver again: "
                    "stanch seal rekey BUNDLE --remove KEY-ID --add RECIPIENT",
                ) from None
            self.remote.blobs.put(key, ours.to_bytes(), mode=Match(etag))
        self.count(sent=True)

    def withhold_recipients(self, ours: Recipients) -> None:
        """Put ``recipients.json`` without a stanza, unless there is one already."""
        try:
            self.remote.blobs.put(self.remote.key(RECIPIENTS_NAME), _withheld(ours), mode=CREATE)
        except Conflict:
            self.count(sent=False)
        else:
            self.count(sent=True)


def _withheld(recipients: Recipients) -> bytes:
    """Return what stands for recipients whose key is not delivered yet; it gives way to the real ones."""
    return Recipients(recipients.bundle_id, recipients.manifest_sha256, 0, ()).to_bytes()


def _epoch(data: bytes) -> int:
    """Return the epoch of the recipients in the store; what cannot be read is replaced."""
    try:
        return Recipients.parse(data).epoch
    except InvalidInput:
        return -1


def _conflict(key: str) -> RemoteConflict:
    return RemoteConflict(
        f"{key}: the store holds other bytes than the bundle",
        why="a delivery never overwrites",
        next_step="see who wrote there; remove the object, or deliver to another place",
    )
