"""``recipients.json``: the wrapped root keys. It changes when recipients change and carries no signature.

Each stanza is bound to the bundle, the signed manifest and its own expiry by the key wrap, and the root that comes out
is checked against the signed commitment: editing this file can take access away, never give it or change what opens.
"""

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from stanch.crypto import canonical_json, parse_json, sync_folder, write_atomic
from stanch.crypto.passphrase import PASSPHRASE_STANZA
from stanch.crypto.stanza import KeyProvider, KeyUnavailable, Stanza, WrapContext
from stanch.errors import InvalidInput, NoIdentityMatched, NotPermitted, QuorumNotMet, StoreError, Tampered
from stanch.seal.keys import ReleaseRoot
from stanch.seal.manifest import Manifest
from stanch.seal.quorum import QUORUM_SHARE_STANZA, unfold_redeemed
from stanch.seal.times import format_time, parse_time
from stanch.terms import JsonValue

RECIPIENTS_FORMAT: Final = "stanch/recipients/v1"
MAX_RECIPIENTS_FILE = 4 << 20
MAX_STANZAS = 4096
_NAME = "recipients.json"
_FIELDS = {"format", "bundle_id", "manifest_sha256", "epoch", "stanzas"}


class GrantExpired(NotPermitted):
    """The release, or the grant to this recipient, has ended."""


@dataclass(frozen=True, slots=True)
class Recipients:
    """The document: which bundle and manifest it belongs to, how often it changed, and the stanzas.

    Attributes:
        bundle_id: 64 hex digits.
        manifest_sha256: 64 hex digits.
        epoch: Rises by one with each change.
        stanzas: At most 4,096; no two with the same type and key id, and at most one passphrase, since a passphrase
            does not say which of several it is.
    """

    bundle_id: str
    manifest_sha256: str
    epoch: int
    stanzas: tuple[Stanza, ...]

    def __post_init__(self) -> None:
        names = [(stanza.type, "" if stanza.type == PASSPHRASE_STANZA else stanza.key_id) for stanza in self.stanzas]
        if len(names) > MAX_STANZAS:
            raise InvalidInput(f"{_NAME}: expected at most {MAX_STANZAS} stanzas, found {len(names)}")
        if len(set(names)) != len(names):
            raise InvalidInput(f"{_NAME}: a recipient stands twice", why="one stanza a key and one passphrase a bundle")
        for stanza in self.stanzas:
            if stanza.not_after is not None:
                parse_time(stanza.not_after, what=f"{_NAME}, not_after")

    def check_manifest(self, manifest: Manifest, sha256: bytes) -> None:
        """Raise :class:`Tampered` where the document belongs to another bundle, or to another manifest of it."""
        if (self.bundle_id, self.manifest_sha256) != (manifest.bundle_id, sha256.hex()):
            raise Tampered(f"{_NAME}: belongs to another bundle", next_step="fetch the bundle again")

    def to_bytes(self) -> bytes:
        """Return the canonical JSON of the document."""
        return canonical_json(
            {
                "format": RECIPIENTS_FORMAT,
                "bundle_id": self.bundle_id,
                "manifest_sha256": self.manifest_sha256,
                "epoch": self.epoch,
                "stanzas": [stanza.to_json() for stanza in self.stanzas],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the document, strictly.

        Raises:
            InvalidInput: A rule of the format is broken.
        """
        document = parse_json(data, what=_NAME, max_bytes=MAX_RECIPIENTS_FILE)
        if not isinstance(document, dict) or document.keys() != _FIELDS or document["format"] != RECIPIENTS_FORMAT:
            raise InvalidInput(f"{_NAME}: expected format {RECIPIENTS_FORMAT} with its five fields")
        match document:
            case {
                "bundle_id": str(bundle_id),
                "manifest_sha256": str(manifest_sha256),
                "epoch": int(epoch),
                "stanzas": list(stanzas),
            } if epoch >= 0 and not isinstance(epoch, bool):
                recipients = cls(bundle_id, manifest_sha256, epoch, tuple(map(Stanza.from_json, stanzas)))
            case _:
                raise InvalidInput(f"{_NAME}: a field is of the wrong type")
        if recipients.to_bytes() != data:
            raise InvalidInput(f"{_NAME}: expected canonical JSON (RFC 8785)")
        return recipients


@contextmanager
def changing(src: Path) -> Iterator[None]:
    """Let nobody else change the recipients of the bundle at ``src`` meanwhile; read them only then.

    Raises:
        StoreError: The folder cannot be locked.
    """
    try:
        handle = os.open(src, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
    except OSError as error:
        raise StoreError(f"{src}: its recipients cannot be changed", why=os.strerror(error.errno or 0)) from error


def replace_recipients(src: Path, new: Recipients) -> None:
    """Write ``recipients.json`` of the bundle at ``src`` anew, durably; the caller holds :func:`changing`.

    Raises:
        StoreError: The disk is full or fails.
        InvalidInput: The bundle cannot be written, or the folder that it lies in cannot, or is of another file system.
    """
    # The new file is made beside the bundle: a crash must not leave an entry inside that readers refuse.
    folder = src.resolve()
    beside = folder.with_name(f"{folder.name}.{_NAME}.partial")
    try:
        write_atomic(beside, new.to_bytes())
        beside.replace(folder / _NAME)
    except (InvalidInput, OSError) as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno not in {errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        raise InvalidInput(
            f"{src}: its recipients are as they were: the new ones are written in {folder.parent} and moved from there",
            why=os.strerror(error.errno or 0) if isinstance(error, OSError) else error.what,
            next_step="let both folders be written and be of one file system: where the bundle is itself a mount, "
            "mount the folder above it, or copy it into a folder first",
        ) from error
    sync_folder(folder)


def wrap_root(
    root: ReleaseRoot, manifest_sha256: bytes, not_after: datetime | None, providers: Sequence[KeyProvider]
) -> tuple[Stanza, ...]:
    """Wrap the root to each provider."""
    end = None if not_after is None else format_time(not_after)
    context = WrapContext(root.bundle_id, manifest_sha256, end)
    return tuple(provider.wrap(root.reveal(), context) for provider in providers)


def unwrap_root(
    recipients: Recipients, manifest: Manifest, manifest_sha256: bytes, identities: Sequence[KeyProvider], now: datetime
) -> ReleaseRoot:
    """Open the first stanza that one of ``identities`` is named by, whose grant has not ended and whose key is at hand.

    Where the manifest demands a quorum, only stanzas that a redemption left count; all others are passed over.

    Raises:
        Tampered: The document belongs to another bundle or manifest, or a grant outlives the release.
        QuorumNotMet: The bundle opens by a quorum, and none was redeemed for one of ``identities``.
        GrantExpired: The release or the grant has ended.
        NoIdentityMatched: No stanza is for one of ``identities``.
        DecryptionFailed: The stanza was changed, or carries another root than the signed one.
        KeyUnavailable: The keys of all such stanzas are out of reach; the last one is named.
    """
    recipients.check_manifest(manifest, manifest_sha256)
    end = None if manifest.not_after is None else parse_time(manifest.not_after, what="manifest.json, not_after")
    if end is not None and now >= end:
        raise GrantExpired(f"the release ended at {manifest.not_after}", next_step="ask the publisher for a new one")
    bundle_id = bytes.fromhex(manifest.bundle_id)
    candidates = [(stanza, WrapContext(bundle_id, manifest_sha256, stanza.not_after)) for stanza in recipients.stanzas]
    if manifest.quorum is not None:
        candidates = [unfold_redeemed(*pair) for pair in candidates if pair[0].type == QUORUM_SHARE_STANZA]

    def unwrap(stanza: Stanza, context: WrapContext, identity: KeyProvider) -> ReleaseRoot:
        if end is not None and (stanza.not_after is None or parse_time(stanza.not_after, what=_NAME) > end):
            raise Tampered(f"{_NAME}: the grant to {stanza.key_id} outlives the release")
        root = ReleaseRoot(identity.unwrap(stanza, context), bundle_id)
        root.check(bytes.fromhex(manifest.root_commitment))
        return root

    *others, last = _choose(candidates, manifest, identities, now)
    for one in others:
        with suppress(KeyUnavailable):
            return unwrap(*one)
    return unwrap(*last)


def _choose(
    candidates: Sequence[tuple[Stanza, WrapContext]],
    manifest: Manifest,
    identities: Sequence[KeyProvider],
    now: datetime,
) -> list[tuple[Stanza, WrapContext, KeyProvider]]:
    """Return the stanzas that one of the identities can open, with that one; at least one."""
    ended: Stanza | None = None
    found = []
    for stanza, context in candidates:
        for identity in identities:
            if identity.describe().names(stanza):
                if stanza.not_after is None or now < parse_time(stanza.not_after, what=_NAME):
                    found.append((stanza, context, identity))
                else:
                    ended = stanza
    if found:
        return found
    if ended is not None:
        raise GrantExpired(
            f"the grant to {ended.key_id} ended at {ended.not_after}", next_step="ask the publisher for a new one"
        )
    if manifest.quorum is not None:
        raise QuorumNotMet(
            f"this bundle opens only when {manifest.quorum.m} of {manifest.quorum.n} approvers release it",
            why="no single identity is accepted for it before that",
            next_step="redeem their approvals first",
        )
    named: list[JsonValue] = [identity.describe().key_id or identity.describe().type for identity in identities]
    raise NoIdentityMatched(
        f"none of the given identities is a recipient of this bundle: {named}",
        next_step="ask the publisher to add your key: stanch seal rekey --add",
    )
