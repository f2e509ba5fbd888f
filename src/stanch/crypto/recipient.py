"""Recipients: public keys to which root keys are wrapped, and the text forms in which people pass them on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from stanch.crypto.hashes import sha256
from stanch.crypto.hpke import KEM_SIZES, KemKind, hpke_encrypt
from stanch.crypto.passphrase import Passphrase
from stanch.crypto.signing import key_id
from stanch.crypto.stanza import (
    KeyDescription,
    KeyProvider,
    Stanza,
    WrapContext,
    check_root,
    decode_base64url,
    encode_base64url,
    public_key_only,
)
from stanch.errors import InvalidInput

STANZAS: Mapping[KemKind, str] = MappingProxyType({"x25519": "hpke-x25519", "hybrid": "hpke-mlkem768-x25519"})
"""The type of stanza that a key of each kind makes and reads."""

_PREFIX = "stanch1-"
_CHECKSUM_SIZE = 4


class Recipient:
    """A recipient's public key; wraps with HPKE, cannot unwrap.

    ``str(recipient)`` is ``stanch1-``, the kind, ``-`` and base64url of the key and four bytes of checksum.
    """

    def __init__(self, kind: KemKind, public: bytes) -> None:
        if len(public) != KEM_SIZES[kind].public:
            raise InvalidInput(f"recipient key: expected {KEM_SIZES[kind].public} bytes, found {len(public)}")
        self.kind = kind
        self.public = public
        self.key_id = key_id(kind, public)

    def __str__(self) -> str:
        return f"{_PREFIX}{self.kind}-{encode_base64url(self.public + _checksum(self.kind, self.public))}"

    def __repr__(self) -> str:
        return f"Recipient({self.key_id})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipient) and (self.kind, self.public) == (other.kind, other.public)

    def __hash__(self) -> int:
        return hash(self.public)

    def wrap(self, root: bytes, context: WrapContext) -> Stanza:
        """Wrap the 32-byte ``root`` with HPKE, bound to ``context`` through HPKE's info."""
        check_root(root)
        stanza = STANZAS[self.kind]
        wrapped = hpke_encrypt(self.public, root, info=context.info(stanza, self.key_id), kind=self.kind)
        return Stanza(stanza, self.key_id, context.not_after, {"ct": encode_base64url(wrapped)})

    def unwrap(self, stanza: Stanza, context: WrapContext) -> bytes:
        """Refuse: a public key opens nothing.

        Raises:
            KeyUnavailable: Always.
        """
        raise public_key_only(self.key_id, stanza, context)

    def describe(self) -> KeyDescription:
        """Return the stanza type, the key id and the recipient's text."""
        return KeyDescription(STANZAS[self.kind], self.key_id, str(self))


def parse_recipient(text: str, *, passphrase: Callable[[], Passphrase] | None = None) -> KeyProvider:
    """Read a recipient's text form.

    Args:
        text: ``stanch1-…``, ``age1…``, ``pkcs11:…`` (RFC 7512), ``arn:aws:kms:…``, or ``passphrase:`` with the name of
            a private file that holds the passphrase, or without one.
        passphrase: Asked for a passphrase where ``text`` names no file; without it a passphrase is no recipient.

    Raises:
        InvalidInput: Another form, or a malformed one.
        MissingExtraError: The part for this form is not installed.
    """
    if text.startswith("age1"):
        from stanch.crypto.providers.age import AgeRecipient  # noqa: PLC0415 - an optional part

        return AgeRecipient(text)
    if text.startswith("pkcs11:"):
        from stanch.crypto.providers.pkcs11 import Pkcs11Key  # noqa: PLC0415 - an optional part

        return Pkcs11Key(text)
    if text.startswith("arn:"):
        from stanch.crypto.providers.aws import AwsKey  # noqa: PLC0415 - an optional part

        return AwsKey(text)
    if text.startswith("passphrase:"):
        if passphrase is None:
            raise InvalidInput("passphrase: is no recipient here", why="who opens must be known by a key")
        file = text.removeprefix("passphrase:")
        return Passphrase.read(Path(file)) if file else passphrase()
    if text.startswith(_PREFIX):
        return parse_public(text)
    raise InvalidInput(
        f"recipient: expected stanch1-…, age1…, pkcs11:…, arn:aws:kms:… or passphrase:, found {text[:16]!r}",
        next_step="ask the recipient for the line that `stanch key new` printed",
    )


def parse_public(text: str) -> Recipient:
    """Read the text form of a public key of stanch's own kinds.

    Raises:
        InvalidInput: Another form, or a checksum that shows a typing error.
    """
    for kind in KEM_SIZES:
        head = f"{_PREFIX}{kind}-"
        if not text.startswith(head):
            continue
        data = decode_base64url(text.removeprefix(head), what="recipient")
        public, checksum = data[:-_CHECKSUM_SIZE], data[-_CHECKSUM_SIZE:]
        if checksum != _checksum(kind, public):
            raise InvalidInput(
                "recipient: the checksum does not fit",
                why="a character is wrong or missing",
                next_step="copy the whole line again",
            )
        return Recipient(kind, public)
    raise InvalidInput(
        f"recipient: expected {_PREFIX}x25519-… or {_PREFIX}hybrid-…, found {text[:16]!r}",
        next_step="ask the recipient for the line that `stanch key new` printed",
    )


def _checksum(kind: KemKind, public: bytes) -> bytes:
    return sha256(kind.encode(), public)[:_CHECKSUM_SIZE]
