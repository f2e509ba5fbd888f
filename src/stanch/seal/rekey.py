"""Changing who can open a bundle, without touching its body, its manifest or its signature."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from stanch.crypto.stanza import KeyProvider, Stanza
from stanch.errors import InvalidInput, NotPermitted
from stanch.seal.folder import RECIPIENTS_NAME, BundleFolder
from stanch.seal.manifest import Manifest
from stanch.seal.recipients import MAX_RECIPIENTS_FILE, Recipients, changing, replace_recipients, unwrap_root, wrap_root
from stanch.seal.times import now_utc, parse_time
from stanch.terms import VerifiedDigest


def rekey(
    src: Path,
    publisher: VerifiedDigest,
    identity: KeyProvider,
    add: Sequence[KeyProvider] = (),
    remove: Sequence[str] = (),
    *,
    not_after: datetime | None = None,
    clock: Callable[[], datetime] = now_utc,
) -> Recipients:
    """Wrap the root key of a bundle to more recipients and drop the stanzas of others.

    Removing does not un-share: whoever could open the bundle may have kept its root key or its contents. A later
    content is kept from them by :func:`stanch.seal.reseal` or a new sealing.

    Args:
        src: The bundle's directory.
        publisher: The manifest's digest as verified by ``sign``.
        identity: A key that can open the bundle now.
        add: New recipients.
        remove: Key ids to drop.
        not_after: When the new grants end; the release's own end where None.
        clock: Returns the time that grants are compared with.

    Returns:
        The new recipients, as written; the epoch is one higher.

    Raises:
        InvalidInput: Nothing to change, an unknown key id, nobody left, a recipient twice, or an end after the
            release's own.
        VerificationError: As :func:`stanch.seal.open_bundle`.
        NotPermitted: The identity's grant has ended, or the bundle opens by quorum.
        StoreError: The disk is full or fails; the recipients are as they were.
    """
    if not add and not remove:
        raise InvalidInput("nothing to change: name recipients to add or key ids to remove")
    folder = BundleFolder(src)
    manifest = folder.verified_manifest(publisher)
    if manifest.quorum is not None:
        raise NotPermitted(
            "a bundle that opens by quorum takes no other recipients",
            why="one key alone would then open it",
            next_step="seal it again for the other recipient and let the approvers release that",
        )
    with changing(src):
        old = Recipients.parse(folder.document(RECIPIENTS_NAME, MAX_RECIPIENTS_FILE))
        root = unwrap_root(old, manifest, publisher.sha256, [identity], clock())
        try:
            if unknown := sorted(set(remove) - {stanza.key_id for stanza in old.stanzas}):
                raise InvalidInput(f"{unknown[0][:80]}: is not a recipient of this bundle")
            kept = tuple(stanza for stanza in old.stanzas if stanza.key_id not in set(remove))
            added = wrap_root(root, publisher.sha256, _grant_end(manifest, not_after, clock()), add)
        finally:
            root.wipe()
        if not kept + added:
            raise InvalidInput("nobody would be left who can open the bundle", next_step="delete the bundle instead")
        return _replace(src, old, kept + added)


def add_redeemed(
    src: Path,
    publisher: VerifiedDigest,
    identity: KeyProvider,
    redeemed: Stanza,
    *,
    clock: Callable[[], datetime] = now_utc,
) -> Recipients:
    """Add the stanza that redeeming a quorum gave, in place of an earlier one for the same key.

    Args:
        src: The bundle's directory.
        publisher: The manifest's digest as verified by ``sign``.
        identity: The recipient's key; the stanza must open with it.
        redeemed: The stanza.
        clock: Returns the time that grants are compared with.

    Raises:
        InvalidInput: The bundle opens without a quorum, or the stanza is malformed.
        VerificationError: As :func:`stanch.seal.open_bundle`.
        NotPermitted: The grant has ended.
    """
    folder = BundleFolder(src)
    manifest = folder.verified_manifest(publisher)
    if manifest.quorum is None:
        raise InvalidInput("this bundle opens without a quorum", next_step="open it with your identity")
    with changing(src):
        old = Recipients.parse(folder.document(RECIPIENTS_NAME, MAX_RECIPIENTS_FILE))
        alone = replace(old, stanzas=(redeemed,))
        unwrap_root(alone, manifest, publisher.sha256, [identity], clock()).wipe()
        name = (redeemed.type, redeemed.key_id)
        kept = tuple(stanza for stanza in old.stanzas if (stanza.type, stanza.key_id) != name)
        return _replace(src, old, (*kept, redeemed))


def _replace(src: Path, old: Recipients, stanzas: tuple[Stanza, ...]) -> Recipients:
    new = replace(old, epoch=old.epoch + 1, stanzas=stanzas)
    replace_recipients(src, new)
    return new


def _grant_end(manifest: Manifest, not_after: datetime | None, now: datetime) -> datetime | None:
    end = None if manifest.not_after is None else parse_time(manifest.not_after, what="manifest.json, not_after")
    if not_after is None:
        return end
    if not_after <= now or (end is not None and not_after > end):
        raise InvalidInput("the new grants would end before they begin, or after the release itself")
    return not_after
