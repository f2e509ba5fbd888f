"""Putting a sealed bundle into a store, so that it is there whole or not at all."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stanch.errors import Conflict, InvalidInput, NotFound, Tampered
from stanch.release.pool import run_all
from stanch.release.quorum_files import QuorumFiles
from stanch.release.remote import RemoteBundle, list_pieces, stream_path
from stanch.release.revocations import read_revocations, refusal
from stanch.seal import MANIFEST_NAME, SIGNATURE_NAME, Recipients, read_manifest, read_signature, verify_sealed
from stanch.seal.folder import DIGESTS_NAME, RECIPIENTS_NAME, BundleFolder
from stanch.seal.layout import list_segments
from stanch.seal.recipients import MAX_RECIPIENTS_FILE
from stanch.seal.segments import SignedStreams
from stanch.sign import Bundle, TrustedKeys, verify_manifest
from stanch.store import CREATE, BlobStore, Match
from stanch.terms import SILENT, Progress, VerifiedDigest

_WORKERS = 4


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


def deliver(
    bundle: Path,
    blobs: BlobStore,
    trusted: TrustedKeys,
    *,
    decided: VerifiedDigest | None = None,
    quorum: QuorumFiles | None = None,
    with_key: bool = True,
    progress: Progress = SILENT,
) -> DeliveryReport:
    """Put a sealed bundle below ``<store>/<bundle id>/``, the manifest last: without it nothing is taken for whole.

    The whole bundle is verified before anything is sent, and each segment once more as it is sent. No object is
    overwritten: one that is there must be the signed bytes, and is skipped, which is how an interrupted delivery goes
    on. Two things are replaced: ``recipients.json`` by one of a higher epoch, and what goes beside a copy that opens by
    quorum. Each worker holds one stream in memory.

    Args:
        bundle: The bundle's directory.
        blobs: The store.
        trusted: The publisher's keys.
        decided: The manifest that somebody decided about; another bundle at that path is refused.
        quorum: Record and approvals of a copy that opens by quorum; they are put beside it.
        with_key: Otherwise everything but what opens the bundle is put: no approval, and ``recipients.json`` without
            a stanza. Deliver again with it to complete the bundle.
        progress: Told ``("verify" or "deliver", stored bytes done, total)``.

    Raises:
        VerificationError: The bundle is not what its publisher signed, or not the one decided about; nothing was sent.
        InvalidInput: A copy that opens by quorum comes without its record, or another one with a record.
        Revoked: The bundle names a recipient that the store's list has revoked.
        RemoteConflict: The store holds other bytes.
        StoreError: The store failed; deliver again to go on.
    """
    manifest, signature = read_manifest(bundle), read_signature(bundle)
    publisher = verify_manifest(manifest.to_bytes(), Bundle.parse(signature, what=SIGNATURE_NAME), trusted)
    if decided is not None and publisher.sha256 != decided.sha256:
        raise Tampered(f"{bundle}: another bundle lies here than was decided about", next_step="deliver it again")
    if (quorum is None) != (manifest.quorum is None):
        raise InvalidInput(f"{bundle}: exactly a copy that opens by quorum is delivered with a quorum record")
    wanted = {quorum.verify(manifest, trusted).recipient_id} if quorum is not None else set()
    recipients = verify_sealed(bundle, publisher, progress=progress).recipients
    gone = read_revocations(blobs, trusted, manifest.lineage).revoked(manifest.bundle_id)
    for key_id in (*wanted, *(stanza.key_id for stanza in recipients.stanzas)):
        if key_id in gone:
            raise refusal(gone[key_id])
    streams = SignedStreams(BundleFolder(bundle), manifest)
    sender = _Sender(RemoteBundle(blobs, "", manifest.bundle_id), streams)
    if quorum is not None:
        (quorum if with_key else QuorumFiles(quorum.record)).send(sender.remote)
    total, done = sum(stream.stored for stream in manifest.streams), 0
    for stream, sent in run_all(range(len(manifest.streams)), sender.send_stream, _WORKERS):
        sender.count(sent=sent)
        done += manifest.streams[stream].stored
        progress("deliver", done, total)
    sender.send_document(DIGESTS_NAME, streams.digests.data)
    sender.send_recipients(recipients) if with_key or quorum else sender.withhold_recipients(recipients)
    sender.send_document(SIGNATURE_NAME, signature)
    sender.send_document(MANIFEST_NAME, manifest.to_bytes())
    return DeliveryReport(manifest.bundle_id, sender.sent, sender.skipped, with_key)


@dataclass(slots=True)
class _Sender:
    """Sends the parts of one verified bundle and counts them."""

    remote: RemoteBundle
    streams: SignedStreams
    sent: int = 0
    skipped: int = 0

    def count(self, *, sent: bool) -> None:
        self.sent += sent
        self.skipped += not sent

    def send_stream(self, number: int) -> tuple[int, bool]:
        """Send one stream, or compare the one that is there with the signed digests."""
        key, stream = self.remote.key(stream_path(number)), self.streams.manifest.streams[number]
        try:
            found = self.remote.blobs.head(key).size
        except NotFound:
            try:
                self.remote.blobs.put(key, self._read_stream(number), mode=CREATE)
            except Conflict:  # another delivery was faster, or the store was asked twice
                found = self.remote.blobs.head(key).size
            else:
                return number, True
        if found != stream.stored:
            raise _conflict(key)
        for piece in list_pieces(number, stream.size):
            if not piece.match(self.remote.read(piece), self.streams.digests):
                raise _conflict(key)
        return number, False

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
