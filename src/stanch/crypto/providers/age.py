"""age keys (C2SP age, X25519): the wrapped root key is an age file, which any age program opens.

age has no associated data, so the file holds ``frame(SHA-256(INFO), root)`` and the first part is compared after
decryption.
"""

import hmac
from typing import Any, Self

from stanch.crypto.floe import decryption_failed
from stanch.crypto.frame import frame
from stanch.crypto.hashes import sha256
from stanch.crypto.signing import key_id
from stanch.crypto.stanza import (
    ROOT_SIZE,
    KeyDescription,
    Stanza,
    WrapContext,
    check_root,
    decode_base64url,
    encode_base64url,
    public_key_only,
)
from stanch.errors import InvalidInput, MissingExtraError

AGE_STANZA = "age"
SECRET_PREFIX = "AGE-SECRET-KEY-1"  # noqa: S105 - what every age identity begins with
_MAX_FILE = 4096


def _pyrage() -> Any:  # noqa: ANN401 - the module has no types
    try:
        import pyrage  # noqa: PLC0415 - an optional part
    except ImportError as error:
        raise MissingExtraError("age") from error
    return pyrage


class AgeRecipient:
    """An age X25519 recipient (``age1…``); wraps, cannot unwrap.

    Raises:
        InvalidInput: Not such a recipient.
        MissingExtraError: pyrage is not installed.
    """

    def __init__(self, text: str) -> None:
        age = _pyrage()
        try:
            self._recipient = age.x25519.Recipient.from_str(text)
        except (age.RecipientError, UnicodeEncodeError) as error:
            raise InvalidInput(
                f"recipient: expected age1…, found {text[:16]!r}",
                why="a character is wrong or missing, or it is of another kind than X25519",
                next_step="copy the whole line that age-keygen printed",
            ) from error
        self._text = str(self._recipient)
        self.key_id = key_id(AGE_STANZA, self._text.encode())

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"AgeRecipient({self.key_id})"

    def wrap(self, root: bytes, context: WrapContext) -> Stanza:
        """Wrap the 32-byte ``root``, bound to ``context``."""
        check_root(root)
        plaintext = frame(_binding(context, self.key_id), root)
        wrapped = _pyrage().encrypt(plaintext, [self._recipient])
        return Stanza(AGE_STANZA, self.key_id, context.not_after, {"ct": encode_base64url(wrapped)})

    def unwrap(self, stanza: Stanza, context: WrapContext) -> bytes:
        """Refuse: a public key opens nothing.

        Raises:
            KeyUnavailable: Always.
        """
        raise public_key_only(self.key_id, stanza, context)

    def describe(self) -> KeyDescription:
        """Return the stanza type, the key id and the recipient."""
        return KeyDescription(AGE_STANZA, self.key_id, self._text)


class AgeIdentity:
    """An age X25519 secret key; opens what was wrapped to its :attr:`recipient`.

    Raises:
        InvalidInput: Not such a key. The message does not quote it.
        MissingExtraError: pyrage is not installed.
    """

    def __init__(self, secret: str) -> None:
        age = _pyrage()
        try:
            self._identity = age.x25519.Identity.from_str(secret)
        except (age.IdentityError, UnicodeEncodeError):
            raise InvalidInput(f"age identity: expected {SECRET_PREFIX}…", why="a character is wrong") from None
        self.recipient = AgeRecipient(str(self._identity.to_public()))

    def __repr__(self) -> str:
        return f"AgeIdentity({self.recipient.key_id})"

    @classmethod
    def parse(cls, text: str, *, what: str) -> Self:
        """Read the text of an identity file as ``age-keygen`` writes it: comments, and one secret key.

        Raises:
            InvalidInput: Anything else.
        """
        lines = [line.strip() for line in text.splitlines()]
        secrets = [line for line in lines if line and not line.startswith("#")]
        if len(secrets) != 1 or not secrets[0].startswith(SECRET_PREFIX):
            raise InvalidInput(f"{what}: expected one line {SECRET_PREFIX}… and comments that begin with #")
        return cls(secrets[0])

    def wrap(self, root: bytes, context: WrapContext) -> Stanza:
        """Wrap the 32-byte ``root`` to this identity's own recipient."""
        return self.recipient.wrap(root, context)

    def unwrap(self, stanza: Stanza, context: WrapContext) -> bytes:
        """Return the 32-byte root.

        Raises:
            DecryptionFailed: The stanza was not made for this identity and this context, or was changed.
            InvalidInput: The stanza is malformed.
        """
        stanza.expect(AGE_STANZA, frozenset({"ct"}))
        wrapped = decode_base64url(str(stanza.fields["ct"]), what="stanza field ct")
        if len(wrapped) > _MAX_FILE:
            raise InvalidInput(f"stanza field ct: expected at most {_MAX_FILE} bytes, found {len(wrapped)}")
        age = _pyrage()
        try:
            plaintext: bytes = age.decrypt(wrapped, [self._identity])
        except (age.DecryptError, ValueError):
            raise decryption_failed() from None
        root = plaintext[-ROOT_SIZE:]
        if not hmac.compare_digest(plaintext, frame(_binding(context, stanza.key_id), root)):
            raise decryption_failed()
        return root

    def describe(self) -> KeyDescription:
        """Return the stanza type, the key id and the recipient."""
        return self.recipient.describe()


def _binding(context: WrapContext, key: str) -> bytes:
    return sha256(context.info(AGE_STANZA, key))
