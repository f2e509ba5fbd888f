"""Identities: the secret keys that open sealed bundles, and the files that hold them."""

from collections.abc import Callable
from pathlib import Path
from typing import Self

from stanch.crypto.canonical import canonical_json, parse_json
from stanch.crypto.files import read_private, write_private
from stanch.crypto.frame import frame
from stanch.crypto.hpke import KEM_SIZES, KemKind, hpke_decrypt, hpke_public
from stanch.crypto.passphrase import Passphrase
from stanch.crypto.prf import RandomBytes, random_bytes
from stanch.crypto.providers.age import SECRET_PREFIX, AgeIdentity
from stanch.crypto.recipient import STANZAS, Recipient, parse_public, parse_recipient
from stanch.crypto.stanza import (
    ROOT_SIZE,
    KeyDescription,
    KeyProvider,
    Stanza,
    WrapContext,
    decode_base64url,
    encode_base64url,
)
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

IDENTITY_FORMAT = "stanch/identity/v1"


class Identity:
    """A secret key of one of HPKE's kinds; opens what was wrapped to its :attr:`recipient`."""

    def __init__(self, secret: bytes, kind: KemKind = "x25519") -> None:
        if len(secret) != KEM_SIZES[kind].secret:
            raise InvalidInput(f"identity: expected {KEM_SIZES[kind].secret} secret bytes, found {len(secret)}")
        self._secret = secret
        self.recipient = Recipient(kind, hpke_public(secret, kind))

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
        kind = self.recipient.kind
        stanza.expect(STANZAS[kind], frozenset({"ct"}))
        wrapped = stanza.binary("ct", ROOT_SIZE + KEM_SIZES[kind].overhead)
        return hpke_decrypt(self._secret, wrapped, info=context.info(stanza.type, stanza.key_id), kind=kind)

    def describe(self) -> KeyDescription:
        """Return the stanza type, the key id and the recipient's text."""
        return self.recipient.describe()

    def save(self, path: Path, *, passphrase: Passphrase | None = None) -> None:
        """Write the identity file with mode 0600, its secret locked by ``passphrase`` where one is given.

        Raises:
            InvalidInput: The file exists already.
        """
        public, kind = str(self.recipient), self.recipient.kind
        document: dict[str, JsonValue] = {"format": IDENTITY_FORMAT, "kind": kind, "public": public}
        if passphrase is None:
            document["secret"] = encode_base64url(self._secret)
        else:
            document["locked"] = {**passphrase.lock(self._secret, aad=_lock_context(kind, public))}
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
        return cls.parse(read_private(path), what=path.name, passphrase=passphrase)

    @classmethod
    def parse(cls, data: bytes, *, what: str, passphrase: Callable[[], Passphrase] | None = None) -> Self:
        """Read the content of an identity file; see :meth:`load`."""
        kind: KemKind
        match parse_json(data, what=what):
            case {"format": "stanch/identity/v1", "kind": ("x25519" | "hybrid") as kind, **rest}:
                pass
            case _:
                raise InvalidInput(
                    f"{what}: expected an identity file of kind {' or '.join(KEM_SIZES)}",
                    next_step="make one with: stanch key new --out FILE",
                )
        match rest:
            case {"public": str(public), "secret": str(text)} if len(rest) == 2:
                secret = decode_base64url(text, what=what)
            case {"public": str(public), "locked": dict(locked)} if len(rest) == 2:
                secret = _unlock(locked, kind, public, what, passphrase)
            case _:
                raise InvalidInput(f"{what}: expected the fields format, kind, public and one of secret, locked")
        identity = cls(secret, kind)
        if identity.recipient != parse_public(public):
            raise InvalidInput(f"{what}: the public key does not belong to the secret key")
        return identity


def _lock_context(kind: KemKind, public: str) -> bytes:
    return frame(b"stanch/identity/v1/lock", kind.encode(), public.encode())


def _unlock(
    locked: dict[str, JsonValue], kind: KemKind, public: str, name: str, passphrase: Callable[[], Passphrase] | None
) -> bytes:
    """Return the secret of a locked identity file."""
    if passphrase is None:
        raise InvalidInput(f"{name}: the identity is locked", next_step="give its passphrase")
    return passphrase().unlock(locked, _lock_context(kind, public), KEM_SIZES[kind].secret)


def load_identity(path: Path, *, passphrase: Callable[[], Passphrase] | None = None) -> KeyProvider:
    """Read whatever opens bundles from a private file; its content says what it is.

    That is an identity file of stanch; one of ``age-keygen``; or one line that names a key kept elsewhere:
    ``pkcs11:…``, ``arn:aws:kms:…`` or ``passphrase:``.

    Args:
        path: The file; refused when others than its owner may read or change it.
        passphrase: Asked for a passphrase only where one is needed.

    Raises:
        InvalidInput: It is none of these, or is locked and no passphrase was given.
        DecryptionFailed: The passphrase is wrong or the file was changed.
        MissingExtraError: The part for this kind of key is not installed.
    """
    data = read_private(path)
    if data.startswith(b"{"):
        return Identity.parse(data, what=path.name, passphrase=passphrase)
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if text.startswith(("#", SECRET_PREFIX)):
        return AgeIdentity.parse(text, what=path.name)
    if text.startswith(("pkcs11:", "arn:", "passphrase:")) and "\n" not in text:
        return parse_recipient(text, passphrase=passphrase)
    raise InvalidInput(
        f"{path.name}: expected an identity file of stanch or age, or a line pkcs11:…, arn:aws:kms:… or passphrase:",
        next_step="make one with: stanch key new --out FILE",
    )


def generate_identity(kind: KemKind = "x25519", *, rng: RandomBytes = random_bytes) -> Identity:
    """Make a new identity.

    Raises:
        InvalidInput: The kind is unknown.
    """
    if kind not in KEM_SIZES:
        raise InvalidInput(f"identity kind: expected {' or '.join(KEM_SIZES)}, found {kind!r}")
    return Identity(rng(KEM_SIZES[kind].secret), kind)
