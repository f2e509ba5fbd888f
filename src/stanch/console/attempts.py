"""Sign-ins that are under way: the browser keeps each, sealed, and nothing of it is kept here.

Whoever begins many takes no room from anybody. The address that was asked for stays sealed with the attempt: it never
travels to the issuer and back. An attempt may be opened again until it is too old; the code that belongs to it is good
once, at the issuer.
"""

import base64
from dataclasses import dataclass

import msgspec

from stanch.access.directory import not_authenticated
from stanch.access.oidc import LoginAttempt
from stanch.crypto import RandomBytes, random_bytes
from stanch.crypto.siv import NONCE_SIZE, decrypt_siv, encrypt_siv
from stanch.errors import DecryptionFailed

_LABEL = b"stanch/console/v1/attempt"
_LONGEST = 4096


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    issuer: str
    state: str
    nonce: str
    verifier: str
    begun_ms: int
    step_up: bool
    target: str


@dataclass(frozen=True, slots=True)
class Attempts:
    """Seals and opens attempts.

    Attributes:
        key: Secret of 32 bytes.
        rng: Source of randomness.
    """

    key: bytes
    rng: RandomBytes = random_bytes

    def seal(self, attempt: LoginAttempt, target: str) -> str:
        """Return an attempt and the address to go on to, for a cookie of the browser that began it."""
        whole = _Sealed(
            attempt.issuer, attempt.state, attempt.nonce, attempt.verifier, attempt.begun_ms, attempt.step_up, target
        )
        box = encrypt_siv(self.key, self.rng(NONCE_SIZE), msgspec.json.encode(whole), aad=_LABEL)
        return base64.urlsafe_b64encode(box).decode()

    def open(self, sealed: str) -> tuple[LoginAttempt, str]:
        """Return the attempt of a browser, and the address that was sealed with it.

        How old it may be is for :meth:`stanch.access.oidc.CodeFlow.finish` to say.

        Raises:
            NotAuthenticated: It is none of ours.
        """
        try:
            if len(sealed) > _LONGEST:
                raise not_authenticated()
            box = base64.b64decode(sealed.encode("ascii"), altchars=b"-_", validate=True)
            found = msgspec.json.decode(decrypt_siv(self.key, box, aad=_LABEL), type=_Sealed)
        except (DecryptionFailed, ValueError) as error:  # binascii.Error, UnicodeEncodeError, DecodeError
            raise not_authenticated() from error
        attempt = LoginAttempt(found.issuer, found.state, found.nonce, found.verifier, found.begun_ms, found.step_up)
        return attempt, found.target
