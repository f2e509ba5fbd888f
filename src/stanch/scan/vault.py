"""The vault: values that were replaced by pseudonyms, sealed so that whoever redacts cannot open them.

The file is ``stanch/vault/v1`` (``docs/spec/vault.md``): one for each run. Its key is made for it, wrapped to the
recipients, and forgotten when the run ends.
"""

import hmac
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from stanch.crypto import RandomBytes, canonical_json, frame, hkdf_sha256, parse_json, random_bytes, read_private
from stanch.crypto.files import write_private
from stanch.crypto.siv import NONCE_SIZE, decrypt_siv, encrypt_siv
from stanch.crypto.stanza import BoundContext, KeyProvider, Stanza, decode_base64url, encode_base64url
from stanch.errors import InvalidInput, NoIdentityMatched, NotFound, StanchError, Tampered
from stanch.terms import JsonValue

FORMAT = "stanch/vault/v1"
_MAX_BYTES = 256 << 20
_MAX_LINE = 1 << 16
_MAX_STANZAS = 64


class Vault:
    """Takes values while a text is redacted. One object serves many threads of one process.

    Args:
        path: The new file; :meth:`save` writes it.
        recipients: Who can open it.
        rng: Source of the key, the id and the nonces.

    Raises:
        InvalidInput: The file exists already, or there is no recipient.
    """

    def __init__(self, path: Path, recipients: Sequence[KeyProvider], *, rng: RandomBytes = random_bytes) -> None:
        if path.exists() or path.is_symlink():
            raise InvalidInput(f"{path}: exists already and is not replaced", next_step="choose another file name")
        if not 1 <= len(recipients) <= _MAX_STANZAS:
            raise InvalidInput(f"vault: expected 1 to {_MAX_STANZAS} recipients, found {len(recipients)}")
        self._path, self._rng, self._owner = path, rng, os.getpid()
        self._id, root = rng(32), rng(32)
        self._keys = _Keys(self._id, root)
        self._stanzas = [recipient.wrap(root, _context(self._id)) for recipient in recipients]
        self._boxes: dict[str, tuple[str, bytes]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Vault({self._id.hex()[:16]}, {len(self._boxes)} values)"

    def add(self, kind: str, pseudonym: str, value: str) -> None:
        """Seal a value under its pseudonym; of equal values the first spelling is kept.

        Raises:
            StanchError: In a child process, whose values would be lost.
        """
        if os.getpid() != self._owner:
            raise StanchError("vault: a child process would lose its values", next_step="redact in one process")
        with self._lock:
            if pseudonym not in self._boxes:
                aad = self._keys.aad(kind, pseudonym)
                data = value.encode("utf-8", "surrogatepass")
                self._boxes[pseudonym] = kind, encrypt_siv(self._keys.values, self._rng(NONCE_SIZE), data, aad=aad)

    def save(self) -> None:
        """Write the file with mode 0600, whole or not at all.

        Raises:
            InvalidInput: The file exists by now, or its folder cannot be written.
        """
        with self._lock:
            stanzas: list[JsonValue] = [stanza.to_json() for stanza in self._stanzas]
            lines = [canonical_json({"format": FORMAT, "id": self._id.hex(), "stanzas": stanzas})]
            lines += [
                canonical_json({"box": encode_base64url(box), "kind": kind, "pseudonym": name})
                for name, (kind, box) in sorted(self._boxes.items())
            ]
            body = b"".join(line + b"\n" for line in lines)
            write_private(self._path, body + canonical_json({"mac": self._keys.code(body).hex()}) + b"\n")


class OpenVault:
    """A verified vault; values are decrypted one by one, when they are asked for."""

    def __init__(self, keys: "_Keys", boxes: Mapping[str, tuple[str, bytes]]) -> None:
        self._keys = keys
        self._boxes = boxes

    def __repr__(self) -> str:
        return f"OpenVault({len(self._boxes)} values)"

    @property
    def kinds(self) -> Mapping[str, str]:
        """The kind of each pseudonym."""
        return MappingProxyType({name: kind for name, (kind, _) in self._boxes.items()})

    def reveal(self, pseudonym: str) -> str:
        """Return the value that a pseudonym stands for.

        Raises:
            NotFound: The vault does not hold it.
            DecryptionFailed: The entry was changed by somebody who holds the key.
        """
        if pseudonym not in self._boxes:
            raise NotFound("vault: it does not hold this pseudonym", next_step="look in the vault of the same run")
        kind, box = self._boxes[pseudonym]
        data = decrypt_siv(self._keys.values, box, aad=self._keys.aad(kind, pseudonym))
        return data.decode("utf-8", "surrogatepass")


def open_vault(path: Path, identity: KeyProvider) -> OpenVault:
    """Verify a vault with the key of one of its recipients, before any value in it is decrypted.

    Raises:
        InvalidInput: The file cannot be read, others may read it, or it is no vault.
        NoIdentityMatched: It was not made for this identity.
        DecryptionFailed: The wrapped key was changed.
        Tampered: The file was changed after it was written.
    """
    data = read_private(path, limit=_MAX_BYTES)
    head, _, _ = data.partition(b"\n")
    vault_id, stanzas = _header(head, path)
    stanza = next((stanza for stanza in stanzas if identity.describe().names(stanza)), None)
    if stanza is None:
        raise NoIdentityMatched(f"{path}: was not made for this identity")
    keys = _Keys(vault_id, identity.unwrap(stanza, _context(vault_id)))
    start = data.rfind(b"\n", 0, -1) + 1
    body, last = data[:start], data[start:]
    if not hmac.compare_digest(last, canonical_json({"mac": keys.code(body).hex()}) + b"\n"):
        raise Tampered(f"{path}: was changed after it was written", why="its authentication code differs")
    boxes: dict[str, tuple[str, bytes]] = {}
    for line in body.split(b"\n")[1:-1]:
        match parse_json(line, what=f"{path}: entry", max_bytes=_MAX_LINE):
            case {"box": str(box), "kind": str(kind), "pseudonym": str(name), **rest} if not rest:
                boxes[name] = kind, decode_base64url(box, what=f"{path}: entry")
            case _:
                raise InvalidInput(f"{path}: expected entries with box, kind and pseudonym")
    return OpenVault(keys, boxes)


def _header(line: bytes, path: Path) -> tuple[bytes, list[Stanza]]:
    match parse_json(line, what=f"{path}: header", max_bytes=_MAX_LINE * 16):
        case {"format": "stanch/vault/v1", "id": str(name), "stanzas": list(items), **rest} if not rest:
            pass
        case _:
            raise InvalidInput(f"{path}: expected a vault, {FORMAT}")
    try:
        vault_id = bytes.fromhex(name)
    except ValueError:
        vault_id = b""
    if len(vault_id) != 32 or not 1 <= len(items) <= _MAX_STANZAS:
        raise InvalidInput(f"{path}: expected an id of 32 bytes and 1 to {_MAX_STANZAS} stanzas")
    return vault_id, [Stanza.from_json(item) for item in items]


class _Keys:
    """What is derived from the key of a vault: one key for its values, one for the file's authentication code."""

    def __init__(self, vault_id: bytes, root: bytes) -> None:
        self._id = vault_id
        self.values = hkdf_sha256(root, info=b"stanch/vault/v1/values", length=32)
        self._code = hkdf_sha256(root, info=b"stanch/vault/v1/mac", length=32)

    def aad(self, kind: str, pseudonym: str) -> bytes:
        return frame(FORMAT.encode(), self._id, kind.encode(), pseudonym.encode())

    def code(self, body: bytes) -> bytes:
        return hmac.digest(self._code, body, "sha256")


def _context(vault_id: bytes) -> BoundContext:
    return BoundContext(vault_id, bytes(32), None, FORMAT.encode(), ())
