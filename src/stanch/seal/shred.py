"""Crypto-shredding: destroying the keys that open a bundle, so that no copy of it ever opens again.

Which keys those are says ``recipients.json``, which nobody signs: a stanza that somebody took out of it leaves no trace
there, and a copy of the earlier file still opens.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stanch.crypto.stanza import DestroyableKey, DestroyedKey, KeyDestroyed, Stanza, WrapContext
from stanch.errors import InvalidInput, NotPermitted
from stanch.seal.folder import RECIPIENTS_NAME, BundleFolder
from stanch.seal.keys import ReleaseRoot
from stanch.seal.manifest import Manifest
from stanch.seal.openers import Opener
from stanch.seal.recipients import MAX_RECIPIENTS_FILE, Recipients
from stanch.seal.times import format_time, now_utc
from stanch.terms import JsonValue, VerifiedDigest

DESTRUCTION_FORMAT = "stanch/destruction-record/v1"


class ShreddingDefeated(NotPermitted):
    """The bundle would still open after every given key was destroyed."""


@dataclass(frozen=True, slots=True)
class Destruction:
    """What was destroyed, and of which bundle.

    Attributes:
        bundle_id: 64 hex digits.
        manifest_sha256: 64 hex digits.
        lineage: The line of releases.
        release_number: The release's number.
        epoch: How often the recipients had changed, as the unsigned list says; an earlier copy may name keys that
            live on.
        at: When the last key was destroyed.
        keys: Each key and what its service answered.
    """

    bundle_id: str
    manifest_sha256: str
    lineage: str
    release_number: int
    epoch: int
    at: datetime
    keys: tuple[DestroyedKey, ...]

    def to_json(self) -> dict[str, JsonValue]:
        """Return the destruction record; its canonical JSON is the file, and the predicate of its signature."""
        return {
            "format": DESTRUCTION_FORMAT,
            "bundle_id": self.bundle_id,
            "manifest_sha256": self.manifest_sha256,
            "lineage": self.lineage,
            "release_number": self.release_number,
            "epoch": self.epoch,
            "at": format_time(self.at),
            "keys": [
                {
                    "type": key.type,
                    "key_id": key.key_id,
                    "key": key.recipient,
                    "state": key.state,
                    "gone_at": format_time(key.gone_at),
                }
                for key in self.keys
            ],
        }


def shred(
    src: Path,
    publisher: VerifiedDigest,
    keys: Sequence[DestroyableKey],
    *,
    sealed_for: Collection[str] = (),
    clock: Callable[[], datetime] = now_utc,
) -> Destruction:
    """Destroy every key that the bundle's list names, after each has shown that it opens the bundle.

    A key that is already destroyed is recorded as its service finds it, so that a shredding that broke off is finished
    by repeating it. What else is wrapped to these keys is lost too, and whoever opened the bundle may have kept its
    contents.

    Args:
        src: The bundle's directory.
        publisher: The manifest's digest as verified by ``sign``.
        keys: The keys of all stanzas, and no other.
        sealed_for: Key ids that the bundle was sealed for, as somebody recorded who does not rely on its list.
        clock: Returns the time of the record.

    Raises:
        ShreddingDefeated: A stanza is for a key that cannot be destroyed or was not given, one of ``sealed_for`` has
            no stanza, or a quorum has shares. Nothing was destroyed.
        InvalidInput: A given key is of no stanza. Nothing was destroyed.
        DecryptionFailed: A stanza does not open with its key. Nothing was destroyed.
        KeyUnavailable: A key's service did not do it; keys before it may be destroyed.
        VerificationError: As :func:`stanch.seal.open_bundle`.
    """
    folder = BundleFolder(src)
    manifest = folder.verified_manifest(publisher)
    recipients = Recipients.parse(folder.document(RECIPIENTS_NAME, MAX_RECIPIENTS_FILE))
    recipients.check_manifest(manifest, publisher.sha256)
    if manifest.quorum is not None:
        raise ShreddingDefeated("approvers hold shares of this bundle's key", why="their key files may have copies")
    if missing := sorted(set(sealed_for) - {stanza.key_id for stanza in recipients.stanzas}):
        raise ShreddingDefeated(
            f"{missing[0]}: the bundle was sealed for it, and {RECIPIENTS_NAME} does not name it",
            why="a copy of an earlier list still opens with that key",
            next_step="find out who took it away; shred with the list that the bundle was made with",
        )
    pairs = _pair(recipients.stanzas, keys, clock())
    for stanza, key in pairs:
        _prove(manifest, publisher.sha256, stanza, key)
    destroyed = tuple(key.destroy() for _, key in pairs)
    return Destruction(
        bundle_id=manifest.bundle_id,
        manifest_sha256=publisher.sha256.hex(),
        lineage=manifest.lineage,
        release_number=manifest.release_number,
        epoch=recipients.epoch,
        at=clock(),
        keys=destroyed,
    )


def _pair(
    stanzas: Sequence[Stanza], keys: Sequence[DestroyableKey], now: datetime
) -> list[tuple[Stanza, DestroyableKey]]:
    """Return each stanza with its key."""
    pairs = [(stanza, key) for stanza in stanzas for key in keys if key.describe().names(stanza)]
    paired = [stanza for stanza, _ in pairs]
    for stanza in stanzas:
        opener = Opener.of(stanza, now)
        if stanza not in paired or not opener.shreddable:
            raise ShreddingDefeated(
                f"{opener.key_id}: would still open the bundle; it is {opener.kept_by}",
                next_step="give its key too" if opener.shreddable else "seal anew, only to keys that can be destroyed",
            )
    used = [key for _, key in pairs]
    if len(pairs) != len(stanzas) or any(key not in used for key in keys):
        raise InvalidInput("expected exactly the keys of this bundle, each once", why="no other key is to be destroyed")
    return pairs


def _prove(manifest: Manifest, manifest_sha256: bytes, stanza: Stanza, key: DestroyableKey) -> None:
    """Check that the key opens this very bundle, so that no edit of a stanza makes us destroy another one."""
    bundle_id = bytes.fromhex(manifest.bundle_id)
    try:
        root = ReleaseRoot(key.unwrap(stanza, WrapContext(bundle_id, manifest_sha256, stanza.not_after)), bundle_id)
    except KeyDestroyed:
        return
    try:
        root.check(bytes.fromhex(manifest.root_commitment))
    finally:
        root.wipe()
