"""Login by local key: a signed statement, checked against the registered public key."""

from dataclasses import dataclass
from datetime import datetime

from stanch.crypto import VerifyKey, frame, random_bytes
from stanch.crypto.localkey import LocalKey

NONCE_BYTES = 16


@dataclass(frozen=True, slots=True)
class LocalCredential:
    """A login: by which key, for which workspace, when, and the signature that shows it.

    Attributes:
        key_id: Id of the key.
        origin: The workspace's origin, so that a login for one is nothing to another.
        nonce: 16 random bytes.
        at: When.
        signature: Over :func:`session_message`.
        mfa: Whether a passphrase unlocked the key.
    """

    key_id: str
    origin: str
    nonce: bytes
    at: datetime
    signature: bytes
    mfa: bool


def session_message(origin: str, nonce: bytes, at: datetime) -> bytes:
    """Return what a local key signs to log in."""
    return frame(b"stanch/access/v1/session", origin.encode(), nonce, at.isoformat().encode())


def present(local: LocalKey, origin: str, *, now: datetime) -> LocalCredential:
    """Sign a login."""
    nonce = random_bytes(NONCE_BYTES)
    signature = local.key.sign(session_message(origin, nonce, now))
    return LocalCredential(local.key.key_id, origin, nonce, now, signature, local.locked)


def check(credential: LocalCredential, public: VerifyKey) -> None:
    """Check a login under a registered key.

    Raises:
        NoTrustedSignature: The signature does not hold.
    """
    public.verify(credential.signature, session_message(credential.origin, credential.nonce, credential.at))
