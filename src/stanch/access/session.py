"""Proof of who asks: a statement signed with a registered local key, and the session that it opens.

The verifier's fresh nonce makes each statement good for one session only; no password exists anywhere.
"""

from dataclasses import dataclass
from typing import Literal

from stanch.crypto import SigningKey, frame

CredentialKind = Literal["local", "api-key", "oidc", "mtls", "browser"]
"""``local``: a key of the workspace. ``browser``: a session that a code flow opened. The others are their own proof."""

LEEWAY_MS = 60_000
_LABEL = b"stanch/access/v1/session"


@dataclass(frozen=True, slots=True)
class LocalLogin:
    """A signed session statement: who (key id), for which challenge, when, and the signature."""

    key_id: str
    nonce: bytes
    time_ms: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Session:
    """An authenticated principal; made only where a credential was verified.

    Attributes:
        principal: Pseudonymous id.
        key_id: The public name of the credential: a key id, the id of an API key or of a token.
        mfa: Whether a second factor counts.
        started_ms: When it was opened.
        expires_ms: From when on it is refused.
        kind: What kind of credential it was.
    """

    principal: str
    key_id: str
    mfa: bool
    started_ms: int
    expires_ms: int
    kind: CredentialKind = "local"


def session_message(origin: str, nonce: bytes, time_ms: int) -> bytes:
    """Return what is signed: ``frame(label, origin, nonce, u64 milliseconds)``."""
    return frame(_LABEL, origin.encode(), nonce, time_ms.to_bytes(8, "big"))


def sign_session(key: SigningKey, origin: str, nonce: bytes, time_ms: int) -> LocalLogin:
    """Sign a session statement for the workspace ``origin`` in answer to its challenge ``nonce``."""
    return LocalLogin(key.key_id, nonce, time_ms, key.sign(session_message(origin, nonce, time_ms)))
