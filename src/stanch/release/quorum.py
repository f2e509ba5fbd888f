"""The quorum record: who must release one sealed copy together, and a share of its root key for each of them.

A :class:`ReleaseRequest` is written before a copy is made and cannot name its manifest. A :class:`QuorumRequest`
completes it at sealing, when the manifest's digest exists and the root key is still in memory: it holds the request as
it was asked for, that digest, and the approvers. Its digest Q is the one thing that approvers sign, and each share is
wrapped under Q: for a changed certificate, recipient, end, approver or manifest no share unwraps.

The record carries the publisher's signature, as the manifest does: approvers and recipient need no other trusted key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

import msgspec

from stanch.crypto import SigningKey, VerifyKey, canonical_json, frame, parse_json, sha256
from stanch.crypto.recipient import parse_public
from stanch.crypto.shares import Share, split_secret
from stanch.crypto.stanza import (
    BoundContext,
    KeyDescription,
    KeyUnavailable,
    Stanza,
    WrapContext,
    decode_base64url,
    encode_base64url,
)
from stanch.errors import InvalidInput, NotPermitted, PolicyViolation
from stanch.release.request import ReleaseRequest
from stanch.seal import Manifest, Quorum
from stanch.seal.manifest import Hex32
from stanch.seal.quorum import QUORUM_STANZA
from stanch.sign import Bundle, PredicateType, Statement, Subject, TrustedKeys, all_of, sign_statement, verify_bundle
from stanch.terms import Digest

QUORUM_REQUEST_FORMAT: Final = "stanch/quorum-request/v1"
QUORUM_RECORD_TYPE = "urn:stanch:quorum-record:v1"
TO_APPROVER = b"stanch/quorum/v1/share-to-approver"
TO_RECIPIENT = b"stanch/quorum/v1/share-to-recipient"
MAX_APPROVERS = 16
MAX_RECORD = 1 << 20


class Approver(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One approver.

    Attributes:
        principal: Who it is: a name, or the pseudonymous id in the record.
        recipient: The key that the share is wrapped to, ``stanch1-…``.
        key: The Ed25519 public key that signs approvals: its 32 bytes as base64url.
    """

    principal: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    recipient: str
    key: str

    @classmethod
    def of(cls, principal: str, recipient: str, key: VerifyKey) -> Self:
        """Return an approver who signs with ``key``."""
        return cls(principal=principal, recipient=recipient, key=encode_base64url(key.raw))

    @property
    def verify_key(self) -> VerifyKey:
        """The key that signs approvals."""
        return VerifyKey.from_raw_ed25519(decode_base64url(self.key, what="approver's key"))


class QuorumRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What approvers release: one sealed copy, for one recipient, until a day, by any ``m`` of them.

    Attributes:
        release: What was asked for: model, certificate, recipient, end, proposer.
        manifest_sha256: Digest of the sealed copy's manifest.
        bundle_id: Id of the sealed copy.
        m: How many must approve.
        approvers: 2 to 16; share x belongs to the x-th.
    """

    format: Literal["stanch/quorum-request/v1"] = QUORUM_REQUEST_FORMAT
    release: ReleaseRequest
    manifest_sha256: Hex32
    bundle_id: Hex32
    m: int
    approvers: tuple[Approver, ...]

    def __post_init__(self) -> None:
        _check(self.release, self.approvers, self.m)

    def to_bytes(self) -> bytes:
        """Return the canonical JSON."""
        return canonical_json(msgspec.to_builtins(self))

    @property
    def digest(self) -> Digest:
        """Q: SHA-256 of the canonical JSON; what approvers sign and shares are bound to."""
        return Digest.sha256(self.to_bytes())

    @property
    def context(self) -> WrapContext:
        """Bundle, manifest and end of the grant."""
        return WrapContext(bytes.fromhex(self.bundle_id), bytes.fromhex(self.manifest_sha256), self.release.not_after)

    def share_of(self, key_id: str) -> int:
        """Return the number of the share that belongs to the approver who signs with a key.

        Raises:
            NotPermitted: It is the key of no approver.
        """
        keys = [approver.verify_key.key_id for approver in self.approvers]
        if key_id not in keys:
            raise NotPermitted(
                f"{key_id[:80]} is the key of no approver of this request",
                next_step="use the key that you registered as an approver",
            )
        return 1 + keys.index(key_id)

    def share_context(self, label: bytes, x: int) -> BoundContext:
        """Return what share ``x`` is bound to when it is wrapped for the purpose ``label``."""
        plain, values = self.context, (self.digest.value, bytes([x]))
        return BoundContext(plain.bundle_id, plain.manifest_sha256, plain.not_after, label, values)

    def check_manifest(self, manifest: Manifest) -> None:
        """Check that this request is about exactly the copy with this manifest.

        Raises:
            PolicyViolation: It is about another; names the first thing that differs.
        """
        release = self.release
        pairs = (
            ("manifest", self.manifest_sha256, Digest.sha256(manifest.to_bytes()).hex),
            ("bundle", self.bundle_id, manifest.bundle_id),
            ("quorum", Quorum(self.m, len(self.approvers)), manifest.quorum),
            ("certificate", release.certificate_sha256, manifest.commitments.certificate),
            ("end of the grant", release.not_after, manifest.not_after),
            ("line of releases", release.lineage, manifest.lineage),
            ("release number", release.release_number, manifest.release_number),
        )
        for name, expected, found in pairs:
            if expected != found:
                raise PolicyViolation(
                    f"the quorum's request is about another {name}: expected {expected}, found {found}",
                    next_step="use the record that was made with this copy",
                )


def _check(release: ReleaseRequest, approvers: Sequence[Approver], m: int) -> None:
    """Check that the approvers are distinct people, none of whom proposed the release or receives the copy."""
    principals = [approver.principal for approver in approvers]
    recipients = [parse_public(approver.recipient).key_id for approver in approvers]
    signers = [approver.verify_key.key_id for approver in approvers]
    receiver = parse_public(release.recipient_key).key_id
    if not 2 <= m <= len(approvers) <= MAX_APPROVERS:
        found = f"expected 2 <= m <= n <= {MAX_APPROVERS}, found {m} of {len(approvers)}"
    elif any(len(set(values)) != len(values) for values in (principals, recipients, signers)):
        found = "an approver stands twice"
    elif release.proposer_key in signers:
        found = "the proposer is among the approvers"
    elif receiver in recipients or release.recipient_name in principals:
        found = "the recipient is among the approvers"
    else:
        return
    raise InvalidInput(
        f"quorum: {found}", next_step="name distinct people as approvers, none who proposed the release or receives it"
    )


def share_digest(request: Digest, share: Share) -> str:
    """Return the hex SHA-256 over the request's digest and a share: it names a bad share without showing a good one."""
    return sha256(frame(b"stanch/quorum/v1/share", request.value, bytes([share.x]), share.y)).hex()


@dataclass(frozen=True, slots=True)
class WrappedShare:
    """A share wrapped to its approver, and the hex digest of the share."""

    stanza: Stanza
    digest: str


@dataclass(frozen=True, slots=True)
class QuorumRecord:
    """A request and the wrapped shares of the root, in the order of its approvers."""

    request: QuorumRequest
    shares: tuple[WrappedShare, ...]

    @property
    def subject(self) -> Subject:
        """What the publisher's signature is about: the manifest of the copy."""
        return Subject("manifest.json", Digest.parse(f"sha256:{self.request.manifest_sha256}"))

    @property
    def recipient_id(self) -> str:
        """Id of the key that the copy is for."""
        return parse_public(self.request.release.recipient_key).key_id

    def sign(self, signer: SigningKey) -> bytes:
        """Return the record as a file, signed with the publisher's key."""
        predicate = {
            "request": msgspec.to_builtins(self.request),
            "shares": [{"digest": share.digest, "stanza": share.stanza.to_json()} for share in self.shares],
        }
        return sign_statement(Statement((self.subject,), QUORUM_RECORD_TYPE, predicate), signer).to_bytes()


class _ShareWire(msgspec.Struct, forbid_unknown_fields=True):
    digest: Hex32
    stanza: dict[str, str | int | None]


class _RecordWire(msgspec.Struct, forbid_unknown_fields=True):
    request: QuorumRequest
    shares: list[_ShareWire]


def read_record(data: bytes, trusted: TrustedKeys, *, what: str = "quorum record") -> QuorumRecord:
    """Read a quorum record that a trusted publisher signed.

    Raises:
        VerificationError: Not signed by a trusted key, or not a record.
        InvalidInput: It is malformed, or its request breaks a rule.
    """
    parse_json(data, what=what, max_bytes=MAX_RECORD)
    bundle = Bundle.parse(data, what=what)
    keys = trusted.for_lineage(_lineage_of(bundle))
    verified = verify_bundle(bundle, all_of(keys, PredicateType(QUORUM_RECORD_TYPE)))
    try:
        wire = msgspec.convert(verified.statement.predicate, _RecordWire)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{what}: not a quorum record", why=str(error)) from error
    shares = tuple(WrappedShare(Stanza.from_json({**share.stanza}), share.digest) for share in wire.shares)
    record = QuorumRecord(wire.request, shares)
    expected = [parse_public(approver.recipient).key_id for approver in record.request.approvers]
    if [share.stanza.key_id for share in shares] != expected or verified.statement.subjects != (record.subject,):
        raise InvalidInput(f"{what}: expected one share for each approver, in their order, and the request's manifest")
    return record


def _lineage_of(bundle: Bundle) -> str:
    """Return the line of releases that the bytes under the signature name, where a scope does not look for it."""
    match Statement.parse(bundle.payload).predicate:
        case {"request": {"release": {"lineage": str(lineage)}}}:
            return lineage
    return ""  # no record: refused when its fields are read


class QuorumSplit:
    """Seals a bundle for a quorum: a key provider whose wrap splits the root among approvers.

    The stanza that it returns opens nothing; the record, which :attr:`record` holds afterwards, is the only place
    where the root is.

    Raises:
        InvalidInput: The approvers are not distinct, too few or too many, or one proposed or receives the copy.
    """

    def __init__(self, release: ReleaseRequest, approvers: Sequence[Approver], m: int) -> None:
        _check(release, approvers, m)
        self.release = release
        self._approvers = tuple(approvers)
        self.quorum = Quorum(m, len(self._approvers))
        self._record: QuorumRecord | None = None

    def __repr__(self) -> str:
        return f"QuorumSplit({self.quorum.m} of {self.quorum.n})"

    @property
    def record(self) -> QuorumRecord:
        """The record of the bundle that was sealed.

        Raises:
            InvalidInput: None was sealed yet.
        """
        if self._record is None:
            raise InvalidInput("nothing was sealed for this quorum yet")
        return self._record

    def wrap(self, root: bytes, context: WrapContext) -> Stanza:
        """Split ``root``, wrap each share to its approver, and return the stanza that names the request.

        Raises:
            InvalidInput: The grant's end is not that of the request, or a bundle was sealed for this quorum
                already.
        """
        if self._record is not None or context.not_after != self.release.not_after:
            raise InvalidInput("quorum: expected one bundle, whose grant ends when the request says")
        request = QuorumRequest(
            release=self.release, manifest_sha256=context.manifest_sha256.hex(), bundle_id=context.bundle_id.hex(),
            m=self.quorum.m, approvers=self._approvers,
        )  # fmt: skip
        shares = split_secret(root, self.quorum.m, self.quorum.n)
        wrapped = tuple(
            WrappedShare(
                parse_public(approver.recipient).wrap(share.y, request.share_context(TO_APPROVER, share.x)),
                share_digest(request.digest, share),
            )
            for approver, share in zip(self._approvers, shares, strict=True)
        )
        self._record = QuorumRecord(request, wrapped)
        fields = {"request": encode_base64url(request.digest.value)}
        return Stanza(QUORUM_STANZA, f"quorum:{self.release.request_id}", context.not_after, fields)

    def unwrap(self, stanza: Stanza, context: WrapContext) -> bytes:
        """Refuse: a split opens nothing.

        Raises:
            KeyUnavailable: Always.
        """
        raise KeyUnavailable(
            f"{stanza.key_id}: opens no stanza of bundle {context.bundle_id.hex()[:16]}",
            why="the root key was split among approvers",
            next_step="ask them to release it",
        )

    def describe(self) -> KeyDescription:
        """Return the stanza type and the key id, which is all that names a split."""
        name = f"quorum:{self.release.request_id}"
        return KeyDescription(QUORUM_STANZA, name, name)
