"""What is asked for: one copy, for one recipient, until a day. Approvers sign its digest."""

import hashlib
from datetime import datetime
from typing import Self

import msgspec

from stanch.crypto import canonical_json, parse_json
from stanch.errors import InvalidInput
from stanch.terms import Digest

REQUEST_FORMAT = "stanch/release-request/v1"


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

    def __post_init__(self) -> None:
        if self.format != REQUEST_FORMAT or self.expires.tzinfo is None:
            raise ValueError(f"expected format {REQUEST_FORMAT} and a time with its zone")

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
            return msgspec.convert(parse_json(data, what=what), cls)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{what}: not a release request", why=str(error)) from error
