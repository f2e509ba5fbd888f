"""Taking a delivered bundle back from one recipient."""

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from stanch.crypto import SigningKey
from stanch.errors import Conflict, InvalidInput, NotFound
from stanch.release.quorum_files import QuorumFiles, approval_name
from stanch.release.remote import RemoteBundle
from stanch.release.revocations import (
    REVOCATIONS_NAME,
    Revocation,
    RevocationList,
    newest_revocations,
    remember_revocations,
)
from stanch.seal import Recipients, ReleaseMemory
from stanch.seal.folder import RECIPIENTS_NAME
from stanch.seal.recipients import MAX_RECIPIENTS_FILE
from stanch.seal.times import format_time
from stanch.sign import TrustedKeys
from stanch.store import CREATE, Match, PutMode

_ATTEMPTS = 8
_Done = TypeVar("_Done")


@dataclass(frozen=True, slots=True)
class RevokeOrder:
    """Whose access is revoked.

    Attributes:
        key_id: Whose.
        reason: What the list will say.
        signer: The publisher's key that signs the list.
        at: Since when.
        others: Further keys that sign it, where readers demand several.
    """

    key_id: str
    reason: str
    signer: SigningKey
    at: datetime
    others: tuple[SigningKey, ...] = ()


def revoke(remote: RemoteBundle, order: RevokeOrder, trusted: TrustedKeys, *, memory: ReleaseMemory) -> RevocationList:
    """Enter a recipient into the store's revocation list, then remove its stanza from the delivered bundle.

    A copy that opens by quorum has one recipient, who stands in its record: all stanzas and approvals go. Of another
    copy whose key was not delivered yet the store names nobody, and ``key_id`` is entered as it is given.

    **Revoking does not un-share.** Whoever fetched the bundle still has it, and whoever opened it may have kept its
    content. Repeating it is safe and completes what a crash left half done.

    Args:
        remote: The delivered bundle.
        order: Whom and why.
        trusted: The publisher's keys, old ones too, and how many must have signed; they check what lies in the store.
        memory: The publisher's own, of this store's lists: what was once revoked is not signed away.

    Returns:
        The list as it now stands.

    Raises:
        InvalidInput: The key id is not a recipient of the bundle.
        VerificationError: What lies in the store is not the publisher's, or ``trusted`` does not accept who signs.
        Rollback: The store's list is older than one seen there before; nothing was signed.
        Conflict: Somebody else kept changing the store.
    """
    manifest = remote.signed_manifest(trusted).manifest
    beside = QuorumFiles.receive(remote, manifest.quorum.n) if manifest.quorum is not None else None
    owner = beside.verify(manifest, trusted).recipient_id if beside is not None else ""
    entry = Revocation(manifest.bundle_id, order.key_id, order.reason, format_time(order.at))

    def enter() -> RevocationList:
        mode = _mode(remote, REVOCATIONS_NAME)
        found = newest_revocations(remote, trusted, manifest.lineage, memory)
        if order.key_id in found.revoked(manifest.bundle_id):
            return found
        there = _recipients(remote)
        waits = there.epoch == 0 and not there.stanzas  # its key was not delivered yet, so that it names nobody
        if not waits and order.key_id not in {owner, *(stanza.key_id for stanza in there.stanzas)}:
            raise InvalidInput(f"{order.key_id[:80]!r} is not a recipient of this bundle")
        new = RevocationList(found.number + 1, (*found.entries, entry))
        data = new.sign(order.signer, *order.others)
        # Or the next reader would refuse the whole list.
        RevocationList.verify(data, trusted.for_lineage(manifest.lineage))
        remote.blobs.put(REVOCATIONS_NAME, data, mode=mode)
        remember_revocations(new, remote, trusted, memory)
        return new

    # The list first: should the second step fail, those who ask are refused already.
    made = _again(enter)
    withdraw(remote, {order.key_id}, owner, beside)
    return made


def withdraw(remote: RemoteBundle, key_ids: Collection[str], owner: str, beside: QuorumFiles | None) -> None:
    """Remove the stanzas of some recipients from a delivered bundle, and the approvals that lie beside it.

    Args:
        remote: The delivered bundle.
        key_ids: Whose.
        owner: The recipient of a copy that opens by quorum, whose are all stanzas; else empty.
        beside: What goes beside such a copy.

    Raises:
        Conflict: Somebody else kept changing the store.
    """

    def remove() -> None:
        mode = _mode(remote, remote.key(RECIPIENTS_NAME))
        old = _recipients(remote)
        kept = tuple(stanza for stanza in old.stanzas if not {owner, stanza.key_id} & {*key_ids})
        if kept != old.stanzas:
            new = Recipients(old.bundle_id, old.manifest_sha256, old.epoch + 1, kept)
            remote.blobs.put(remote.key(RECIPIENTS_NAME), new.to_bytes(), mode=mode)

    _again(remove)
    for x in beside.approvals if beside is not None else ():
        with contextlib.suppress(NotFound):  # somebody else took it away
            remote.blobs.delete(remote.key(approval_name(x)))


def _mode(remote: RemoteBundle, key: str) -> PutMode:
    """Return how to put ``key`` unless it changes from now on; asked before its content is read."""
    try:
        return Match(remote.blobs.head(key).etag)
    except NotFound:
        return CREATE


def _recipients(remote: RemoteBundle) -> Recipients:
    return Recipients.parse(remote.document(RECIPIENTS_NAME, MAX_RECIPIENTS_FILE))


def _again(change: Callable[[], _Done]) -> _Done:
    """Do a change that may meet somebody else's, a few times."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return change()
        except Conflict:
            continue
    return change()
