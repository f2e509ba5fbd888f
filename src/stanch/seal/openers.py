"""Who can open a bundle, and what stands against making sure that nobody can."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from stanch.crypto.passphrase import PASSPHRASE_STANZA
from stanch.crypto.providers.age import AGE_STANZA
from stanch.crypto.providers.aws import AWS_STANZA, is_multi_region
from stanch.crypto.providers.pkcs11 import PKCS11_STANZA
from stanch.crypto.recipient import STANZAS
from stanch.crypto.stanza import Stanza
from stanch.errors import Tampered
from stanch.seal.folder import RECIPIENTS_NAME, BundleFolder, read_manifest
from stanch.seal.manifest import Quorum
from stanch.seal.quorum import QUORUM_SHARE_STANZA, QUORUM_STANZA
from stanch.seal.recipients import MAX_RECIPIENTS_FILE, Recipients
from stanch.seal.times import now_utc, parse_time

_KEY_FILE = "a key file, of which there may be copies"
_KEPT_BY: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(STANZAS.values(), _KEY_FILE),
        AGE_STANZA: _KEY_FILE,
        QUORUM_STANZA: "approvers, who release it together",
        QUORUM_SHARE_STANZA: _KEY_FILE,
        PASSPHRASE_STANZA: "a passphrase, which cannot be destroyed",
        PKCS11_STANZA: "a key on a token",
        AWS_STANZA: "a key of KMS",
    }
)
_LEFT_OPEN: Mapping[str, str] = MappingProxyType(
    {
        PKCS11_STANZA: "a backup of the token, if there is one, keeps the key",
        AWS_STANZA: "until the waiting period of 7 to 30 days ends, the deletion of a KMS key can be cancelled",
    }
)
"""The types whose keys a service can destroy, and what is left open even then."""


@dataclass(frozen=True, slots=True)
class Opener:
    """Who can open a bundle, by one stanza.

    Attributes:
        type: The stanza's type.
        key_id: Whom it names.
        not_after: When the grant ends, or None. An end binds honest readers only: the key still unwraps.
        ended: Whether it has ended.
        kept_by: What keeps the key, in words.
        shreddable: Whether that can destroy it.
    """

    type: str
    key_id: str
    not_after: str | None
    ended: bool
    kept_by: str
    shreddable: bool

    @classmethod
    def of(cls, stanza: Stanza, now: datetime) -> "Opener":
        """Return whom a stanza names."""
        ended = stanza.not_after is not None and now >= parse_time(stanza.not_after, what=RECIPIENTS_NAME)
        kept_by, shreddable = _KEPT_BY.get(stanza.type, "something unknown to this release"), stanza.type in _LEFT_OPEN
        if stanza.type == AWS_STANZA and is_multi_region(str(stanza.fields.get("key_arn"))):
            kept_by, shreddable = "a multi-Region key of KMS, which other regions keep too", False
        return cls(stanza.type, stanza.key_id, stanza.not_after, ended, kept_by, shreddable)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Who can open a bundle.

    Attributes:
        openers: One for each stanza.
        quorum: How many of how many approvers open it together, or None.
        epoch: How often the recipients changed.
    """

    openers: tuple[Opener, ...]
    quorum: Quorum | None
    epoch: int

    @property
    def shreddable(self) -> bool:
        """Whether every key that opens the bundle can be destroyed."""
        return self.quorum is None and bool(self.openers) and all(opener.shreddable for opener in self.openers)

    @property
    def defeats(self) -> tuple[str, ...]:
        """What stands against shredding, in sentences."""
        reasons = [f"{o.key_id} is {o.kept_by}" for o in self.openers if not o.shreddable]
        if self.quorum is not None:
            reasons.append("the approvers' shares are wrapped to key files, of which there may be copies")
        changed = f"changed {self.epoch} times" if self.epoch else "never changed"
        reasons.append(
            f"{RECIPIENTS_NAME} says that it {changed}, and nobody signs it: an earlier one may name other keys"
        )
        kinds = {opener.type for opener in self.openers}
        reasons += [text for kind, text in _LEFT_OPEN.items() if kind in kinds]
        return (*reasons, "whoever opened the bundle may have kept its contents or its root key")


def diagnose(src: Path, *, clock: Callable[[], datetime] = now_utc) -> Diagnosis:
    """Say whom the stanzas of a bundle name, **without checking them**: nobody vouches for that file.

    Raises:
        NotSealed: Not a sealed bundle.
        Tampered: The recipients are those of another bundle.
        InvalidInput: A document is malformed.
    """
    manifest, now = read_manifest(src), clock()
    recipients = Recipients.parse(BundleFolder(src).document(RECIPIENTS_NAME, MAX_RECIPIENTS_FILE))
    if recipients.bundle_id != manifest.bundle_id:
        raise Tampered(f"{RECIPIENTS_NAME}: belongs to another bundle", next_step="fetch the bundle again")
    openers = tuple(Opener.of(stanza, now) for stanza in recipients.stanzas)
    return Diagnosis(openers, manifest.quorum, recipients.epoch)
