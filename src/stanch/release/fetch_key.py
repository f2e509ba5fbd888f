"""Getting what opens a bundle that was fetched before its key was delivered."""

from pathlib import Path

from stanch.errors import Conflict, NotFound, PolicyViolation
from stanch.release.copy import read_publisher
from stanch.release.fetch import read_beside, read_recipients
from stanch.release.quorum_files import quorum_folder
from stanch.release.remote import RemoteBundle
from stanch.release.revocations import NO_REVOCATIONS, RevocationList, newest_revocations
from stanch.seal import Recipients, ReleaseMemory
from stanch.seal.folder import RECIPIENTS_NAME, BundleFolder
from stanch.seal.recipients import MAX_RECIPIENTS_FILE, changing, replace_recipients
from stanch.sign import TrustedKeys


def fetch_key(
    remote: RemoteBundle,
    bundle: Path,
    trusted: TrustedKeys,
    *,
    memory: ReleaseMemory,
    revocations: RevocationList = NO_REVOCATIONS,
) -> Path | None:
    """Complete the fetched directory ``bundle`` with its key, or with the approvals of a copy that opens by quorum.

    Args:
        remote: The delivered bundle.
        bundle: The directory that :func:`stanch.release.fetch` made of it.
        trusted: The publisher's keys.
        memory: Where revocation lists are remembered.
        revocations: A list that came another way; the store's own is read in any case.

    Returns:
        The folder beside it with record and approvals, if it opens by quorum; else None.

    Raises:
        NotFound: The key was not delivered yet.
        Conflict: ``bundle`` has a key already; it is kept.
        PolicyViolation: The store holds another bundle of that name.
        Revoked: Nobody that the bundle was for may still fetch it.
        VerificationError: ``bundle`` or the store hold something else than the publisher signed.
    """
    publisher = read_publisher(bundle, trusted)[1]
    signed = remote.signed_manifest(trusted)
    if signed.publisher.sha256 != publisher.sha256:
        raise PolicyViolation(f"{bundle}: is another bundle than {remote.bundle_id}", next_step="name its own URI")
    listed = newest_revocations(remote, trusted, signed.manifest.lineage, memory)
    beside = read_beside(remote, signed.manifest, trusted, (listed, revocations))
    if beside is not None:
        if len(beside.approvals) < beside.verify(signed.manifest, trusted).request.m:
            raise _waits(remote)
        beside.write(quorum_folder(bundle))
        return quorum_folder(bundle)
    recipients = revocations.remaining(listed.remaining(read_recipients(remote, signed)))
    if not recipients.stanzas:
        raise _waits(remote)
    with changing(bundle):
        if Recipients.parse(BundleFolder(bundle).document(RECIPIENTS_NAME, MAX_RECIPIENTS_FILE)).stanzas:
            raise Conflict(
                f"{bundle}: has its key already",
                why="the store's list is not signed, and may leave you out",
                next_step="to take it all the same, fetch the bundle anew with another --out",
            )
        replace_recipients(bundle, recipients)
    return None


def _waits(remote: RemoteBundle) -> NotFound:
    return NotFound(
        f"{remote.bundle_id[:16]}…: its key is not in the store yet",
        why="the publisher delivers it once you have signed for the bundle",
        next_step="stanch release receive BUNDLE, send what it wrote to the publisher, and try again",
    )
