"""Identities: the secret keys that open sealed bundles, and the files that hold them."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Self

from stanch.crypto.canonical import canonical_json, parse_json
from stanch.crypto.files import read_private, write_private
from stanch.crypto.frame import frame
from stanch.crypto.hpke import hpke_decrypt, hpke_public
from stanch.crypto.passphrase import Passphrase
from stanch.crypto.prf import RandomBytes, random_bytes
from stanch.crypto.recipient import WRAPPED_SIZE, X25519_STANZA, X25519Recipient, parse_recipient
from stanch.crypto.stanza import (
    KeyDescription,
    Stanza,
    WrapContext,
    decode_base64url,
    encode_base64url,
)
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

IDENTITY_FORMAT = "stanch/identity/v1"
_KIND: Final = "x25519"
_SECRET_SIZE = 32


class Identity:
    """An X25519 secret key; opens what was wrapped to its :attr:`recipient`."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != _SECRET_SIZE:
            raise InvalidInput(f"identity: expected {_SECRET_SIZE} secret bytes, found {len(secret)}")
        self._secret = secret
        self.recipient = X25519Recipient(hpke_public(secret))

    def __repr__(self) -> str:
        return f"Identity({self.recipient.key_id})"

    def wrap(self, root: bytes, context: WrapContext) -> Stanza:
        """Wrap the 32-byte ``root`` to this identity's own recipient."""
        return self.recipient.wrap(root, context)

    def unwrap(self, stanza: Stanza, context: WrapContext) -> bytes:
        """Return the 32-byte root.

        Raises:
            DecryptionFailed: The stanza was not made for this identity and this context, or was changed.
            InvalidInput: The stanza is malformed.
        """
        stanza.expect(X25519_STANZA, frozenset({"ct"}))
        wrapped = stanza.binary("ct", WRAPPED_SIZE)
        return hpke_decrypt(self._secret, wrapped, info=context.info(X25519_STANZA, stanza.key_id))

    def describe(self) -> KeyDescription:
        """Return the stanza type and the key id."""
        return self.recipient.describe()

    def save(self, path: Path, *, passphrase: Passphrase | None = None) -> None:
        """Write the identity file with mode 0600, its secret locked by ``passphrase`` where one is given.

        Raises:
            InvalidInput: The file exists already.
        """
        public = str(self.recipient)
        document: dict[str, JsonValue] = {"format": IDENTITY_FORMAT, "kind": _KIND, "public": public}
        if passphrase is None:
            document["secret"] = encode_base64url(self._secret)
        else:
            document["locked"] = {**passphrase.lock(self._secret, aad=_lock_context(public))}
        write_private(path, canonical_json(document) + b"\n")

    @classmethod
    def load(cls, path: Path, *, passphrase: Callable[[], Passphrase] | None = None) -> Self:
        """Read an identity file.

        Args:
            path: The file; refused when others than its owner may read it.
            passphrase: Asked for the passphrase only when the file is locked.

        Raises:
            InvalidInput: Not an identity file, or it is locked and no passphrase was given.
            DecryptionFailed: The passphrase is wrong or the file was changed.
        """
        document = parse_json(read_private(path), what=path.name)
        if not isinstance(document, dict) or document.get("format") != IDENTITY_FORMAT or document.get("kind") != _KIND:
            raise InvalidInput(
                f"{path.name}: expected an identity file of kind {_KIND}",
                next_step="make one with: stanch key new --out FILE",
            )
        match document:
            case {"public": str(public), "secret": str(text)} if len(document) == 4:
                secret = decode_base64url(text, what=path.name)
            case {"public": str(public), "locked": dict(locked)} if len(document) == 4:
                secret = _unlock(locked, public, path.name, passphrase)
            case _:
                raise InvalidInput(f"{path.name}: expected the fields format, kind, public and one of secret, locked")
        identity = cls(secret)
        if identity.recipient != parse_recipient(public):
            raise InvalidInput(f"{path.name}: the public key does not belong to the secret key")
        return identity


def _lock_context(public: str) -> bytes:
    return frame(b"stanch/identity/v1/lock", _KIND.encode(), public.encode())


def _unlock(locked: dict[str, JsonValue], public: str, name: str, passphrase: Callable[[], Passphrase] | None) -> bytes:
    """Return the secret of a locked identity file."""
    if passphrase is None:
        raise InvalidInput(f"{name}: the identity is locked", next_step="give its passphrase")
    fields = {key: value for key, value in locked.items() if isinstance(value, str | int)}
    if fields.keys() != locked.keys():
        raise InvalidInput(f"{name}: the lock holds a value that is neither text nor integer")
    return passphrase().unlock(fields, _lock_context(public))


def generate_identity(kind: Literal["x25519"] = _KIND, *, rng: RandomBytes = random_bytes) -> Identity:
    """Make a new identity.

    Raises:
        InvalidInput: The kind is unknown.
    """
    if kind != _KIND:
        raise InvalidInput(f"identity kind: expected {_KIND}, found {kind!r}")
    return Identity(rng(_SECRET_SIZE))
