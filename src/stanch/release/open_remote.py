"""Opening a delivered bundle where it lies: what is read is asked for by ranges, and nothing is written to a disk."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from stanch.crypto.stanza import KeyProvider
from stanch.errors import BundleIncomplete, NotFound
from stanch.release.fetch import read_recipients
from stanch.release.remote import RemoteBundle, stream_path
from stanch.release.revocations import NO_REVOCATIONS, RevocationList, drop_revoked, newest_revocations
from stanch.seal import Manifest, OpenBundle, OpenParams, ReleaseMemory, open_bundle
from stanch.seal.folder import ReadInto, stream_ended
from stanch.sign import Timestamped, TrustedKeys
from stanch.terms import VerifiedDigest


def open_remote(
    remote: RemoteBundle,
    trusted: TrustedKeys | Timestamped,
    identities: Sequence[KeyProvider],
    *,
    memory: ReleaseMemory,
    revocations: RevocationList = NO_REVOCATIONS,
    params: OpenParams | None = None,
) -> OpenBundle:
    """Open a delivered bundle as its recipient: signature first, then revocations, rollback memory, then the key.

    Documents and the sealed index are read now; later each read asks the store for the segments that it needs, and
    compares each with its signed digest before it is decrypted. Damage of what is not asked for is not noticed.

    Args:
        remote: The delivered bundle.
        trusted: The publisher's keys; time-stamps are demanded of the manifest's signatures alone.
        identities: Keys to try.
        memory: Where releases and revocation lists are remembered.
        revocations: A list that came another way; the store's own is read in any case.
        params: How the bundle is opened; each thread waits for one request at a time.

    Raises:
        Revoked: The publisher took this copy back from every one of ``identities``.
        VerificationError: The store holds something else than the publisher signed, or an older release.
        NotPermitted: The grant has ended, or the bundle opens by quorum.
        StoreError: The store failed; so may each later read.
    """
    signed = remote.signed_manifest(trusted)
    keys = trusted.trusted if isinstance(trusted, Timestamped) else trusted
    listed = newest_revocations(remote, keys, signed.manifest.lineage, memory)
    recipients = drop_revoked(read_recipients(remote, signed), identities, [listed, revocations])
    place = _RemotePlace(remote, signed.manifest)
    return open_bundle(
        place, signed.publisher, identities, memory=memory, recipients=recipients, params=params or OpenParams()
    )


@dataclass(frozen=True, slots=True)
class _RemotePlace:
    """A :class:`stanch.seal.BundlePlace` in a store, whose manifest was verified when it was got."""

    remote: RemoteBundle
    manifest: Manifest

    def verified_manifest(self, _publisher: VerifiedDigest, /) -> Manifest:
        return self.manifest

    def document(self, name: str, limit: int) -> bytes:
        return self.remote.document(name, limit)

    @contextmanager
    def stream(self, number: int, _stored: int, /) -> Iterator[ReadInto]:
        # Its length is not asked for: what lies behind the signed bytes is never read.
        name = stream_path(number)

        def read_into(target: memoryview, offset: int) -> None:
            try:
                data = self.remote.blobs.get(self.remote.key(name), start=offset, length=len(target))
            except NotFound as error:
                raise BundleIncomplete(
                    f"{self.remote.bundle_id[:16]}…: {name} is missing in the store",
                    next_step="ask the publisher to deliver it: stanch release deliver BUNDLE URI",
                ) from error
            if len(data) != len(target):
                raise stream_ended(number)
            target[:] = data

        yield read_into
