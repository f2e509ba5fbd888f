"""Releasing a share of a sealed copy's root key, and opening the copy with enough of them.

:func:`approve` is the approver's side: the share is unwrapped under exactly the request that the publisher signed,
wrapped to the recipient, and signed. :func:`redeem` is the recipient's side. No server ever holds the root key.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from stanch.crypto import SigningKey, frame
from stanch.crypto.recipient import parse_public
from stanch.crypto.shares import Share, join_secret
from stanch.crypto.stanza import KeyProvider, Stanza
from stanch.errors import (
    InvalidInput,
    NoIdentityMatched,
    PolicyViolation,
    QuorumNotMet,
    Tampered,
    VerificationError,
)
from stanch.release.copy import read_publisher
from stanch.release.quorum import (
    TO_APPROVER,
    TO_RECIPIENT,
    QuorumRecord,
    QuorumRequest,
    read_record,
    share_digest,
)
from stanch.seal import GrantExpired, Manifest, add_redeemed
from stanch.seal.keys import ReleaseRoot
from stanch.seal.quorum import wrap_redeemed
from stanch.sign import (
    Bundle,
    HasSubject,
    PredicateType,
    Statement,
    Subject,
    TrustedKeys,
    all_of,
    sign_statement,
    verify_bundle,
)
from stanch.terms import Digest

APPROVAL_TYPE = "urn:stanch:share-approval:v1"
_SUBJECT = "quorum-request"
MAX_APPROVAL = 1 << 16


class _ApprovalWire(msgspec.Struct, forbid_unknown_fields=True):
    x: Annotated[int, msgspec.Meta(ge=1, le=16)]
    stanza: dict[str, str | int | None]


@dataclass(frozen=True, slots=True)
class Redemption:
    """What redeeming gave.

    Attributes:
        stanza: The root, wrapped to the recipient's own key.
        approvers: Whose shares were joined, in the order of the request.
        left_out: What was wrong with each approval that did not count.
    """

    stanza: Stanza
    approvers: tuple[str, ...]
    left_out: tuple[str, ...]


def approve(record: QuorumRecord, identity: KeyProvider, signer: SigningKey, *, now: datetime) -> bytes:
    """Release one approver's share to the recipient; return the signed approval as a file.

    Args:
        record: The record as the publisher signed it; show its request to the approver first.
        identity: The approver's key that the share is wrapped to.
        signer: The approver's Ed25519 key.
        now: The time.

    Raises:
        GrantExpired: The request has ended.
        NotPermitted: ``signer`` is the key of no approver.
        NoIdentityMatched: ``identity`` is not that approver's.
        DecryptionFailed: The request is not the one that the share was made for, or the share was changed.
    """
    request = record.request
    _check_time(request, now)
    x = request.share_of(signer.key_id)
    share = _unwrap(request, x, record.shares[x - 1].stanza, TO_APPROVER, identity)
    _check_share(record, share)
    recipient = parse_public(request.release.recipient_key)
    stanza = recipient.wrap(share.y, request.share_context(TO_RECIPIENT, x))
    subject = Subject(_SUBJECT, request.digest)
    return sign_statement(Statement((subject,), APPROVAL_TYPE, {"x": x, "stanza": stanza.to_json()}), signer).to_bytes()


def redeem(
    record: QuorumRecord, approvals: Sequence[bytes], identity: KeyProvider, manifest: Manifest, *, now: datetime
) -> Redemption:
    """Join the shares of at least m approvals, and wrap the root to the recipient's own key.

    An approval that does not count is named and left out.

    Args:
        record: The record as the publisher signed it.
        approvals: The files that :func:`approve` gave.
        identity: The recipient's key.
        manifest: The copy's manifest as the publisher signed it.
        now: The time.

    Raises:
        PolicyViolation: The record is about another copy.
        GrantExpired: The grant has ended.
        QuorumNotMet: Fewer than m approvals count; for another identity than the recipient's none does.
        DecryptionFailed: The shares join to another root than the signed one.
    """
    request = record.request
    request.check_manifest(manifest)
    _check_time(request, now)
    counted: dict[int, tuple[Share, bytes]] = {}
    left_out: list[str] = []
    for position, data in enumerate(approvals, 1):
        try:
            share = _read_approval(record, data, identity)
        except (VerificationError, InvalidInput) as error:
            left_out.append(f"approval {position}: {error.what}")
            continue
        counted.setdefault(share.x, (share, data))
    if len(counted) < request.m:
        raise QuorumNotMet(
            f"approvals of exactly this request: expected {request.m}, found {len(counted)}",
            why="; ".join(left_out),
            next_step="ask more approvers to release their shares",
        )
    points = sorted(counted)
    plain = request.context
    root = ReleaseRoot(join_secret([counted[x][0] for x in points], request.m), plain.bundle_id)
    try:
        root.check(bytes.fromhex(manifest.root_commitment))
        digest = Digest.sha256(frame(b"stanch/quorum/v1/approvals", *(counted[x][1] for x in points)))
        stanza = wrap_redeemed(root, plain, identity, request=request.digest, approvals=digest)
    finally:
        root.wipe()
    return Redemption(stanza, tuple(request.approvers[x - 1].principal for x in points), tuple(left_out))


def redeem_copy(
    bundle: Path, trusted: TrustedKeys, record: bytes, approvals: Sequence[bytes], identity: KeyProvider, *,
    now: datetime,
) -> Redemption:  # fmt: skip
    """Redeem the approvals of a copy and add the stanza that opens it to its recipients.

    Raises:
        StanchError: As :func:`redeem`, :func:`read_record` and :func:`stanch.release.read_publisher`.
    """
    manifest, publisher = read_publisher(bundle, trusted)
    made = redeem(read_record(record, trusted), approvals, identity, manifest, now=now)
    add_redeemed(bundle, publisher, identity, made.stanza, clock=lambda: now)
    return made


def _check_time(request: QuorumRequest, now: datetime) -> None:
    if now >= request.release.expires:
        raise GrantExpired(f"the request ended at {request.release.not_after}", next_step="propose the release again")


def check_approval(record: QuorumRecord, data: bytes) -> int:
    """Return the number of the share that an approval releases, once its approver's signature and the request held.

    Whether the share itself is right only its recipient can see.

    Raises:
        VerificationError: It is not signed by the approver whose share it is, or is of another request.
        InvalidInput: It is malformed.
    """
    return _open_approval(record, data).x


def _read_approval(record: QuorumRecord, data: bytes, identity: KeyProvider) -> Share:
    """Return the share that one approval releases, once signature, request and share digest held."""
    wire = _open_approval(record, data)
    share = _unwrap(record.request, wire.x, Stanza.from_json({**wire.stanza}), TO_RECIPIENT, identity)
    _check_share(record, share)
    return share


def _open_approval(record: QuorumRecord, data: bytes) -> _ApprovalWire:
    request = record.request
    if len(data) > MAX_APPROVAL:
        raise InvalidInput(f"expected at most {MAX_APPROVAL} bytes, found {len(data)}")
    keys = tuple(approver.verify_key for approver in request.approvers)
    policy = all_of(TrustedKeys(keys), PredicateType(APPROVAL_TYPE), HasSubject(_SUBJECT, request.digest))
    verified = verify_bundle(Bundle.parse(data, what="approval"), policy)
    try:
        wire = msgspec.convert(verified.statement.predicate, _ApprovalWire)
    except msgspec.ValidationError as error:
        raise InvalidInput("not an approval of a share", why=str(error)) from error
    if wire.x > len(keys) or verified.signer_key_ids != (keys[wire.x - 1].key_id,):
        raise PolicyViolation("signed by another approver than the one whose share it is")
    return wire


def _unwrap(request: QuorumRequest, x: int, stanza: Stanza, label: bytes, identity: KeyProvider) -> Share:
    if not identity.describe().names(stanza):
        raise NoIdentityMatched(
            f"share {x} is wrapped to {stanza.key_id}, not to the given identity",
            next_step="give the identity that the request names",
        )
    return Share(x, identity.unwrap(stanza, request.share_context(label, x)))


def _check_share(record: QuorumRecord, share: Share) -> None:
    expected = record.shares[share.x - 1].digest
    if not hmac.compare_digest(share_digest(record.request.digest, share), expected):
        principal = record.request.approvers[share.x - 1].principal
        raise Tampered(f"the share of {principal} is not the one that was made at sealing")
