"""What is asked for, and the signed word of those who approve exactly that."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import msgspec

from stanch.crypto import SigningKey, VerifyKey, canonical_json, parse_json
from stanch.errors import InvalidInput
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

REQUEST_FORMAT = "stanch/release-request/v1"
APPROVAL_TYPE = "urn:stanch:approval:v1"


class ReleaseRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request to hand one copy to one recipient. Its digest Q binds every field; a change makes another request.

    Attributes:
        request_id: 16 random bytes (hex).
        model: Digest of the model folder, ``sha256:<hex>``.
        certificate_sha256: SHA-256 (hex) of the leak certificate's bytes.
        recipient_name: The recipient's name in the batch.
        recipient_key: The recipient's public key, ``stanch1-…``.
        not_after: End of the grant, RFC 3339 UTC.
        release_number: The number of the release.
        lineage: The line of releases.
        proposer_key: Id of the key of whoever asks.
    """

    format: str = REQUEST_FORMAT
    request_id: str
    model: str
    certificate_sha256: str
    recipient_name: str
    recipient_key: str
    not_after: str
    release_number: int
    lineage: str
    proposer_key: str

    def to_bytes(self) -> bytes:
        """Return the canonical JSON."""
        return canonical_json(msgspec.to_builtins(self))

    @property
    def digest(self) -> Digest:
        """Q: SHA-256 of the canonical JSON; what approvers sign."""
        return Digest("sha256", hashlib.sha256(self.to_bytes()).digest())

    @property
    def expires(self) -> datetime:
        """End of the grant."""
        return datetime.fromisoformat(self.not_after)

    @classmethod
    def parse(cls, data: bytes, *, what: str = "release request") -> Self:
        """Read a request strictly.

        Raises:
            InvalidInput: It is not one.
        """
        try:
            request = msgspec.convert(parse_json(data, what=what), cls)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{what}: not a release request", why=str(error)) from error
        if request.format != REQUEST_FORMAT or request.expires.tzinfo is None:
            raise InvalidInput(f"{what}: expected format {REQUEST_FORMAT} and a time with its zone")
        return request


@dataclass(frozen=True, slots=True)
class Approval:
    """A verified approval: which request, by which key, and the signed bytes that show it."""

    request: Digest
    key_id: str
    bundle: bytes


def sign_approval(request: ReleaseRequest, approver: SigningKey, *, now: datetime) -> bytes:
    """Approve exactly this request and return the signed bundle.

    Raises:
        InvalidInput: The request has expired.
    """
    if now >= request.expires:
        raise InvalidInput(f"the request expired at {request.not_after}", next_step="propose the release again")
    statement = Statement((Subject("request", request.digest),), APPROVAL_TYPE, {"not_after": request.not_after})
    return sign_statement(statement, approver).to_bytes()


def verify_approval(bundle: bytes, request: ReleaseRequest, approver: VerifyKey) -> Approval:
    """Check that ``approver`` signed exactly this request.

    Raises:
        VerificationError: Another key signed, or another request was approved.
    """
    subject = HasSubject("request", request.digest)
    policy = all_of(TrustedKeys((approver,)), PredicateType(APPROVAL_TYPE), subject)
    verified = verify_bundle(Bundle.parse(bundle, what="approval"), policy)
    return Approval(request.digest, verified.signer_key_ids[0], bundle)
