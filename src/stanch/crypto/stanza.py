"""Wrapped root keys: the stanza that carries one, what it is bound to, and the protocol of key providers."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, Self, runtime_checkable

from stanch.crypto.frame import frame
from stanch.errors import ExternalError, InvalidInput
from stanch.terms import JsonValue

ROOT_SIZE = 32
_TYPE = re.compile(r"[a-z0-9-]{1,40}")
_KEY_ID = re.compile(r"[!-~]{1,200}")
_FIELD = re.compile(r"[a-z][a-z_]{0,31}")
_MAX_FIELDS = 16
_MAX_TEXT = 8192


class KeyUnavailable(ExternalError):
    """The key that could unwrap a stanza is not at hand."""


class KeyDestroyed(KeyUnavailable):
    """The service that kept the key no longer has it, or will not use it again."""


def check_root(root: bytes) -> None:
    """Refuse to wrap anything but 32 bytes.

    Raises:
        InvalidInput: Another length.
    """
    if len(root) != ROOT_SIZE:
        raise InvalidInput(f"root key: expected {ROOT_SIZE} bytes, found {len(root)}")


def encode_base64url(data: bytes) -> str:
    """Return URL-safe base64 without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64url(text: str, *, what: str) -> bytes:
    """Read URL-safe base64 without padding; exactly one text stands for each byte string.

    Raises:
        InvalidInput: Another alphabet, padding, a wrong length or stray bits. The message does not quote the text.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:  # binascii.Error is one
        data = b""
    if encode_base64url(data) != text:
        raise InvalidInput(f"{what}: expected URL-safe base64 without padding")
    return data


@dataclass(frozen=True, slots=True)
class WrapContext:
    """What a wrapped root key is bound to: bundle, manifest and the grant's end.

    Attributes:
        bundle_id: 32 bytes.
        manifest_sha256: SHA-256 of the bytes of ``manifest.json``.
        not_after: When the grant ends, as RFC 3339 UTC text, or None.
    """

    bundle_id: bytes
    manifest_sha256: bytes
    not_after: str | None

    def info(self, kind: str, key_id: str) -> bytes:
        """Return the context bytes of a stanza of type ``kind`` for ``key_id``."""
        end = (self.not_after or "").encode()
        return frame(b"stanch/seal/v1/wrap", self.bundle_id, self.manifest_sha256, kind.encode(), key_id.encode(), end)


@dataclass(frozen=True, slots=True)
class BoundContext(WrapContext):
    """A context that binds a purpose and more values too; what is wrapped under it never opens as a plain root key.

    Attributes:
        label: The purpose, unlike every other.
        values: What else the wrap is bound to.
    """

    label: bytes
    values: tuple[bytes, ...]

    def info(self, kind: str, key_id: str) -> bytes:
        """Return the context bytes: label, values, and those of the plain context."""
        return frame(self.label, *self.values, WrapContext.info(self, kind, key_id))


@dataclass(frozen=True, slots=True)
class Stanza:
    """One wrapped root key.

    Attributes:
        type: The construction, for example ``hpke-x25519``.
        key_id: Whom it is for.
        not_after: When the grant ends, as RFC 3339 UTC text, or None.
        fields: The construction's own values; binary ones as base64url text.
    """

    type: str
    key_id: str
    not_after: str | None
    fields: Mapping[str, str | int] = field(repr=False)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the stanza as it stands in ``recipients.json``."""
        return {"type": self.type, "key_id": self.key_id, "not_after": self.not_after, **self.fields}

    @classmethod
    def from_json(cls, value: JsonValue) -> Self:
        """Check the form that stanzas of every type share; the provider checks its own fields.

        Raises:
            InvalidInput: Not of that form.
        """
        if not isinstance(value, dict):
            raise InvalidInput("stanza: expected an object")
        fields: dict[str, str | int] = {}
        for name, item in value.items():
            if name in {"type", "key_id", "not_after"}:
                continue
            if isinstance(item, bool) or not isinstance(item, str | int) or not _FIELD.fullmatch(name):
                raise InvalidInput("stanza: expected fields with lower-case names, each a text or an integer")
            if len(str(item)) > _MAX_TEXT:
                raise InvalidInput(f"stanza: expected fields of at most {_MAX_TEXT} characters")
            fields[name] = item
        kind, key_id, not_after = value.get("type"), value.get("key_id"), value.get("not_after", 0)
        if not isinstance(kind, str) or not _TYPE.fullmatch(kind) or len(fields) > _MAX_FIELDS:
            raise InvalidInput("stanza: expected a type and at most 16 fields")
        if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
            raise InvalidInput("stanza: expected a key_id of 1 to 200 printable ASCII characters")
        if not_after is not None and not isinstance(not_after, str):
            raise InvalidInput("stanza: expected not_after to be a time or null")
        return cls(kind, key_id, not_after, fields)

    def expect(self, kind: str, names: frozenset[str]) -> None:
        """Check that the stanza is of type ``kind`` and has exactly these fields.

        Raises:
            InvalidInput: It is not.
        """
        if self.type != kind or self.fields.keys() != names:
            raise InvalidInput(f"stanza: expected type {kind} with the fields {', '.join(sorted(names))}")

    def binary(self, name: str, size: int) -> bytes:
        """Return a binary field of exactly ``size`` bytes.

        Raises:
            InvalidInput: The field is of another form or length.
        """
        data = decode_base64url(str(self.fields[name]), what=f"stanza field {name}")
        if len(data) != size:
            raise InvalidInput(f"stanza field {name}: expected {size} bytes, found {len(data)}")
        return data


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """What a key provider is, without any secret.

    Attributes:
        type: The type of stanza that it makes and reads.
        key_id: Whom its stanzas name; None where any stanza of the type may be meant (passphrases).
        recipient: The text that names it as a recipient.
    """

    type: str
    key_id: str | None
    recipient: str

    def names(self, stanza: Stanza) -> bool:
        """Say whether ``stanza`` is meant for this provider."""
        return stanza.type == self.type and self.key_id in {None, stanza.key_id}


def public_key_only(key_id: str, stanza: Stanza, context: WrapContext) -> KeyUnavailable:
    """Return the error of whoever asks a public key to open a stanza."""
    return KeyUnavailable(
        f"{key_id}: cannot open a stanza of {stanza.type} for bundle {context.bundle_id.hex()[:16]}",
        why="this is the public half of the key",
        next_step="give the identity file that belongs to it",
    )


class KeyProvider(Protocol):
    """Wraps a release root key to somebody, or unwraps it for them."""

    def wrap(self, root: bytes, context: WrapContext) -> Stanza:
        """Wrap the 32-byte ``root``, bound to ``context``."""
        ...

    def unwrap(self, stanza: Stanza, context: WrapContext) -> bytes:
        """Return the 32-byte root.

        Raises:
            DecryptionFailed: The stanza was not made for this key and this context, or was changed.
            KeyUnavailable: The secret key is not here.
            KeyDestroyed: It is nowhere any more.
            InvalidInput: The stanza is malformed.
        """
        ...

    def describe(self) -> KeyDescription:
        """Say what this provider is; never a secret."""
        ...


@dataclass(frozen=True, slots=True)
class DestroyedKey:
    """What a key service did, or found done, when it was told to destroy a key.

    Attributes:
        type: The type of the key's stanzas.
        key_id: Whom they name.
        recipient: The text that names the key.
        state: ``destroyed`` now; ``scheduled`` for deletion: refused for use from now on, but the service's
            administrators can rescue it until ``gone_at``; or ``absent``: the service says that it holds no such key.
        gone_at: From when on nobody can bring the key back; the time of the answer unless it is scheduled.
    """

    type: str
    key_id: str
    recipient: str
    state: Literal["destroyed", "scheduled", "absent"]
    gone_at: datetime


@runtime_checkable
class DestroyableKey(KeyProvider, Protocol):
    """A key that a service keeps and can destroy, so that what was wrapped to it opens never again."""

    def destroy(self) -> DestroyedKey:
        """Destroy the key; telling it twice is no error.

        Raises:
            KeyUnavailable: The service did not do it.
        """
        ...
