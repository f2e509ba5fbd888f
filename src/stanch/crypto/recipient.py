"""Recipients: public keys to which root keys are wrapped, and the text form in which people pass them on."""

from stanch.crypto.hashes import sha256
from stanch.crypto.hpke import OVERHEAD, hpke_encrypt
from stanch.crypto.signing import key_id
from stanch.crypto.stanza import (
    ROOT_SIZE,
    KeyDescription,
    KeyUnavailable,
    Stanza,
    WrapContext,
    decode_base64url,
    encode_base64url,
)
from stanch.errors import InvalidInput

X25519_STANZA = "hpke-x25519"
WRAPPED_SIZE = ROOT_SIZE + OVERHEAD
_KIND = "x25519"
_PREFIX = f"stanch1-{_KIND}-"
_PUBLIC_SIZE = 32
_CHECKSUM_SIZE = 4


class X25519Recipient:
    """A recipient's X25519 public key; wraps with HPKE, cannot unwrap.

    ``str(recipient)`` is ``stanch1-x25519-`` and base64url of the key and four bytes of checksum.
    """

    def __init__(self, public: bytes) -> None:
        if len(public) != _PUBLIC_SIZE:
            raise InvalidInput(f"recipient key: expected {_PUBLIC_SIZE} bytes, found {len(public)}")
        self.public = public
        self.key_id = key_id(_KIND, public)

    def __str__(self) -> str:
        return _PREFIX + encode_base64url(self.public + _checksum(self.public))

    def __repr__(self) -> str:
        return f"X25519Recipient({self.key_id})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, X25519Recipient) and self.public == other.public

    def __hash__(self) -> int:
        return hash(self.public)

    def wrap(self, root: bytes, context: WrapContext) -> Stanza:
        """Wrap the 32-byte ``root`` with HPKE, bound to ``context`` through HPKE's info."""
        if len(root) != ROOT_SIZE:
            raise InvalidInput(f"root key: expected {ROOT_SIZE} bytes, found {len(root)}")
        wrapped = hpke_encrypt(self.public, root, info=context.info(X25519_STANZA, self.key_id))
        return Stanza(X25519_STANZA, self.key_id, context.not_after, {"ct": encode_base64url(wrapped)})

    def unwrap(self, stanza: Stanza, context: WrapContext) -> bytes:
        """Refuse: a public key opens nothing.

        Raises:
            KeyUnavailable: Always.
        """
        raise KeyUnavailable(
            f"{self.key_id}: cannot open a stanza of {stanza.type} for bundle {context.bundle_id.hex()[:16]}",
            why="this is the public half of the key",
            next_step="give the identity file that belongs to it",
        )

    def describe(self) -> KeyDescription:
        """Return the stanza type and the key id."""
        return KeyDescription(X25519_STANZA, self.key_id)


def _checksum(public: bytes) -> bytes:
    return sha256(_KIND.encode(), public)[:_CHECKSUM_SIZE]


def parse_recipient(text: str) -> X25519Recipient:
    """Read a recipient's text form.

    Raises:
        InvalidInput: Another form, or a checksum that shows a typing error.
    """
    if not text.startswith(_PREFIX):
        raise InvalidInput(
            f"recipient: expected {_PREFIX}…, found {text[:16]!r}",
            next_step="ask the recipient for the line that `stanch key new` printed",
        )
    data = decode_base64url(text.removeprefix(_PREFIX), what="recipient")
    public, checksum = data[:-_CHECKSUM_SIZE], data[-_CHECKSUM_SIZE:]
    if len(public) != _PUBLIC_SIZE or checksum != _checksum(public):
        raise InvalidInput(
            "recipient: the checksum does not fit",
            why="a character is wrong or missing",
            next_step="copy the whole line again",
        )
    return X25519Recipient(public)
