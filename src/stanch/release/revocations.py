"""The revocation list of a store: which recipients of which bundles a publisher has taken back.

``<store>/revocations.json`` is a signed statement (:mod:`stanch.sign`) with the predicate ``{"number", "entries"}``;
each entry is ``{"bundle_id", "key_id", "reason", "at"}``. ``number`` rises with each change. Clients remember the
highest one that they saw at a store, so that an older list, or none, is not taken for news.

Revoking does not un-share: whoever opened a bundle may have kept its key and its content. The list binds those who ask.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import msgspec

from stanch.crypto import SigningKey, canonical_json, parse_json, sha256
from stanch.crypto.stanza import KeyDescription, KeyProvider
from stanch.errors import Equivocation, InvalidInput, NotFound, NotPermitted, PolicyViolation, Rollback
from stanch.release.remote import RemoteBundle
from stanch.seal import Recipients, ReleaseMemory, SeenRelease
from stanch.seal.manifest import Hex32, Positive
from stanch.seal.times import parse_time
from stanch.sign import Bundle, PredicateType, Statement, Subject, TrustedKeys, all_of, sign_statement
from stanch.sign import verify_bundle as verify_signature
from stanch.store import BlobStore
from stanch.terms import Digest

REVOCATIONS_TYPE: Final = "urn:stanch:revocations:v1"
REVOCATIONS_NAME: Final = "revocations.json"
MAX_REVOCATIONS_FILE = 16 << 20
MAX_REASON = 200
_SUBJECT = "revocations"


class Revoked(NotPermitted):
    """The publisher has revoked this recipient's access to this bundle."""


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry: which recipient of which bundle, why, and since when."""

    bundle_id: Hex32
    key_id: str
    reason: str
    at: str

    def __post_init__(self) -> None:
        if not 1 <= len(self.key_id) <= 200 or not self.key_id.isprintable():
            raise InvalidInput("revocation: expected a key id of 1 to 200 printable characters")
        if not 1 <= len(self.reason) <= MAX_REASON or not self.reason.isprintable():
            raise InvalidInput(f"revocation: expected a reason of 1 to {MAX_REASON} printable characters")
        parse_time(self.at, what="revocation, at")


class _Predicate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: Positive
    entries: tuple[Revocation, ...]


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A list that a trusted publisher signed, or the empty one of number 0 that every store begins with.

    Attributes:
        number: Rises by one with each change.
        entries: No two for the same bundle and key.
    """

    number: int
    entries: tuple[Revocation, ...]

    def sign(self, signer: SigningKey, *others: SigningKey) -> bytes:
        """Return the list as a file signed by one key or by several."""
        predicate = msgspec.to_builtins(_Predicate(self.number, self.entries))
        subject = Subject(_SUBJECT, Digest.sha256(canonical_json(predicate)))
        return sign_statement(Statement((subject,), REVOCATIONS_TYPE, predicate), signer, *others).to_bytes()

    @classmethod
    def verify(cls, data: bytes, trusted: TrustedKeys) -> Self:
        """Read a signed list.

        Raises:
            VerificationError: No trusted key signed it, or it is a statement about something else.
            InvalidInput: It is malformed.
        """
        bundle = Bundle.parse(data, what=REVOCATIONS_NAME)
        verified = verify_signature(bundle, all_of(trusted, PredicateType(REVOCATIONS_TYPE)))
        content = canonical_json(verified.statement.predicate)
        if verified.statement.subjects != (Subject(_SUBJECT, Digest.sha256(content)),):
            raise PolicyViolation(f"{REVOCATIONS_NAME}: the statement is about other bytes than its own list")
        try:
            read = msgspec.convert(parse_json(content, what=REVOCATIONS_NAME), _Predicate)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{REVOCATIONS_NAME}: {error}") from error
        if len({(entry.bundle_id, entry.key_id) for entry in read.entries}) != len(read.entries):
            raise InvalidInput(f"{REVOCATIONS_NAME}: a recipient stands twice")
        return cls(read.number, read.entries)

    @property
    def digest(self) -> str:
        """SHA-256 of the entries, in hexadecimal; rollback memory goes by it."""
        return sha256(canonical_json(msgspec.to_builtins(self.entries))).hex()

    def revoked(self, bundle_id: str) -> dict[str, Revocation]:
        """Return the entries of one bundle by key id."""
        return {entry.key_id: entry for entry in self.entries if entry.bundle_id == bundle_id}

    def remaining(self, recipients: Recipients) -> Recipients:
        """Return ``recipients`` without the stanzas that were revoked.

        Raises:
            Revoked: None is left.
        """
        gone = self.revoked(recipients.bundle_id)
        kept = tuple(stanza for stanza in recipients.stanzas if stanza.key_id not in gone)
        if gone and not kept:
            raise refusal(next(iter(gone.values())))
        return replace(recipients, stanzas=kept)


NO_REVOCATIONS = RevocationList(0, ())


def drop_revoked(
    recipients: Recipients, identities: Sequence[KeyProvider], lists: Iterable[RevocationList]
) -> Recipients:
    """Return ``recipients`` without the stanzas that one of ``lists`` revokes, for ``identities`` to open.

    Raises:
        Revoked: The publisher took the bundle back from every one of ``identities``.
    """
    gone = {name: entry for one in lists for name, entry in one.revoked(recipients.bundle_id).items()}
    entries = [_entry_of(identity.describe(), recipients, gone) for identity in identities]
    if entries and None not in entries:
        raise refusal(next(filter(None, entries)))
    kept = tuple(stanza for stanza in recipients.stanzas if stanza.key_id not in gone)
    return replace(recipients, stanzas=kept)


def _entry_of(identity: KeyDescription, recipients: Recipients, gone: Mapping[str, Revocation]) -> Revocation | None:
    # A passphrase has no key id of its own: its stanza says which one is meant.
    named = [identity.key_id or "", *(stanza.key_id for stanza in recipients.stanzas if identity.names(stanza))]
    return next((gone[name] for name in named if name in gone), None)


def refusal(entry: Revocation) -> Revoked:
    """Return the error that says what was revoked, when and why."""
    return Revoked(
        f"access of {entry.key_id} to bundle {entry.bundle_id[:16]}… was revoked at {entry.at}",
        why=entry.reason,
        next_step="ask the publisher for a new release",
    )


def read_revocations(blobs: BlobStore, trusted: TrustedKeys, lineage: str) -> RevocationList:
    """Return the list of a store, as it counts for its bundles of a lineage; the empty one where there is none.

    Raises:
        VerificationError: Not signed by a trusted key.
        InvalidInput: Malformed or too long.
    """
    try:
        data = blobs.get(REVOCATIONS_NAME, length=MAX_REVOCATIONS_FILE + 1)
    except NotFound:
        return NO_REVOCATIONS
    if len(data) > MAX_REVOCATIONS_FILE:
        raise InvalidInput(f"{REVOCATIONS_NAME}: expected at most {MAX_REVOCATIONS_FILE} bytes")
    return RevocationList.verify(data, trusted.for_lineage(lineage))


def newest_revocations(
    remote: RemoteBundle, trusted: TrustedKeys, lineage: str, memory: ReleaseMemory
) -> RevocationList:
    """Return the list of a bundle's store once it is no older than what was seen there before, and remember it.

    Raises:
        Rollback: A newer list was seen there.
        Equivocation: Another list of the same number was seen there.
        VerificationError: Not signed by a trusted key.
        InvalidInput: Malformed or too long.
    """
    found = read_revocations(remote.blobs, trusted, lineage)
    for key in trusted.keys:
        seen = memory.last(key.key_id, _store_name(remote))
        if seen is not None and seen.number > found.number:
            raise Rollback(
                f"{remote.location}: the revocation list is older than one seen before: expected number {seen.number} "
                f"or later, found {found.number}",
                next_step="ask the publisher; somebody may have put back an old list",
            )
        if seen is not None and seen.number == found.number and seen.digest != found.digest:
            raise Equivocation(f"{remote.location}: two different revocation lists are signed as number {found.number}")
    remember_revocations(found, remote, trusted, memory)
    return found


def remember_revocations(
    listed: RevocationList, remote: RemoteBundle, trusted: TrustedKeys, memory: ReleaseMemory
) -> None:
    """Remember a store's list under every trusted key."""
    for key in trusted.keys if listed.number else ():
        memory.remember(key.key_id, _store_name(remote), SeenRelease(listed.number, listed.digest))


def _store_name(remote: RemoteBundle) -> str:
    return f"{REVOCATIONS_TYPE} {remote.location}"  # a lineage has no colon, so no release is mistaken for a list
