"""Commitments to personal values: the log keeps the commitment, one erasable row keeps what opens it.

Hiding while the salt is secret and random; binding by the collision resistance of SHA-256. Without its opening a
commitment says nothing, so erasing the opening erases the person from the log without breaking a proof.
"""

import dataclasses
import hmac

from stanch.crypto import RandomBytes, canonical_json, frame, hmac_sha256, random_bytes
from stanch.errors import InvalidInput, ProofInvalid
from stanch.terms import JsonScalar

_LABEL = b"stanch/ledger/v1/commit"
_SALT = 32


def commit(value: JsonScalar, field_path: str, salt: bytes) -> str:
    """Return hex ``HMAC-SHA256(salt, frame(label, field path, canonical JSON of the value))``.

    Raises:
        InvalidInput: The salt is not 32 bytes; other lengths would not bind.
    """
    if len(salt) != _SALT:
        raise InvalidInput(f"commitment salt: expected {_SALT} bytes, found {len(salt)}")
    return hmac_sha256(salt, frame(_LABEL, field_path.encode(), canonical_json(value))).hex()


@dataclasses.dataclass(frozen=True, slots=True)
class Opening:
    """What opens one commitment. Its repr shows the field only.

    Attributes:
        field: Field path.
        salt: 32 random bytes.
        value: The personal value.
        principal: Whom it is about (pseudonymous id); empty: whoever acts in the entry.
        retain_until_ms: When it may be erased without anybody asking (milliseconds UTC); None: never.
    """

    field: str
    salt: bytes = dataclasses.field(repr=False)
    value: JsonScalar = dataclasses.field(repr=False)
    principal: str = ""
    retain_until_ms: int | None = None

    @classmethod
    def make(
        cls,
        field_path: str,
        value: JsonScalar,
        *,
        principal: str = "",
        retain_until_ms: int | None = None,
        rng: RandomBytes = random_bytes,
    ) -> "Opening":
        """Return an opening of ``value`` with a fresh salt."""
        return cls(field_path, rng(_SALT), value, principal, retain_until_ms)

    @property
    def commitment(self) -> str:
        """The commitment that this opens."""
        return commit(self.value, self.field, self.salt)

    @property
    def value_json(self) -> str:
        """The value as canonical JSON, the form in which its table keeps it."""
        return canonical_json(self.value).decode()

    def check(self, commitment: str) -> None:
        """Raise :class:`stanch.errors.ProofInvalid` unless this opens ``commitment``."""
        if not hmac.compare_digest(self.commitment.encode(), commitment.encode()):
            raise ProofInvalid(f"opening of {self.field}: does not open its commitment")
