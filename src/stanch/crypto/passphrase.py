"""Passphrases: Argon2id (RFC 9106) to a key and a commitment, then AES-256-GCM.

Argon2id gives 64 bytes: the key-encryption key and a *check* that is stored and compared first. AES-GCM alone does not
commit to its key; with the check a wrapped key opens under one passphrase only.
"""

import hmac
import threading
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from stanch.crypto.files import read_private
from stanch.crypto.prf import RandomBytes, random_bytes
from stanch.crypto.signing import key_id
from stanch.crypto.stanza import (
    ROOT_SIZE,
    KeyDescription,
    Stanza,
    WrapContext,
    check_root,
    decode_base64url,
    encode_base64url,
)
from stanch.errors import DecryptionFailed, InvalidInput
from stanch.terms import JsonValue, SecretStr

PASSPHRASE_STANZA = "passphrase"  # noqa: S105 - the name of a stanza type
_SIZES: Mapping[str, int] = MappingProxyType({"salt": 16, "check": 32, "nonce": 12})
_TAG = 16
_COSTS: Mapping[str, tuple[int, int]] = MappingProxyType({"t": (3, 16), "m_kib": (65536, 1 << 20), "p": (4, 16)})
"""Argon2id costs: what we write, which is also the least accepted, and the most accepted."""

# OpenSSL's Argon2id computes lanes in a pool of threads of its own; two computations at once can wait for each other
# without end (seen with cryptography 50.0.2). One at a time also bounds the memory.
_ONE_AT_A_TIME = threading.Lock()

_FIELDS = frozenset(_SIZES) | frozenset(_COSTS) | {"ct"}


class Passphrase:
    """Wraps root keys under a passphrase, and unwraps them.

    Args:
        text: The passphrase; NFC-normalised, so that it is the same on every keyboard.
        rng: Source of salts and nonces.
    """

    def __init__(self, text: str, *, rng: RandomBytes = random_bytes) -> None:
        if not text:
            raise InvalidInput("passphrase: expected at least one character")
        self._secret = SecretStr(unicodedata.normalize("NFC", text))
        self._rng = rng

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a passphrase from a private file; one final newline is not part of it.

        Raises:
            InvalidInput: Others may read the file, or it is not UTF-8 text.
        """
        try:
            text = read_private(path).decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{path}: a passphrase is UTF-8 text") from error
        return cls(text.removesuffix("\n"))

    def __repr__(self) -> str:
        return "Passphrase(…)"

    def wrap(self, root: bytes, context: WrapContext) -> Stanza:
        """Wrap the 32-byte ``root``, bound to ``context``."""
        check_root(root)
        salt = self._rng(_SIZES["salt"])
        name = key_id(PASSPHRASE_STANZA, salt)
        fields = self._lock(root, salt, context.info(PASSPHRASE_STANZA, name))
        return Stanza(PASSPHRASE_STANZA, name, context.not_after, fields)

    def unwrap(self, stanza: Stanza, context: WrapContext) -> bytes:
        """Return the 32-byte root.

        Raises:
            DecryptionFailed: Another passphrase, another context, or changed values.
            InvalidInput: The stanza is malformed, or its Argon2id costs are weaker than ours or absurdly high.
        """
        stanza.expect(PASSPHRASE_STANZA, _FIELDS)
        return self.unlock(stanza.fields, context.info(PASSPHRASE_STANZA, stanza.key_id))

    def describe(self) -> KeyDescription:
        """Return the stanza type; a passphrase names no key, so any passphrase stanza may be meant."""
        return KeyDescription(PASSPHRASE_STANZA, None, "passphrase:")

    def lock(self, secret: bytes, *, aad: bytes) -> dict[str, str | int]:
        """Encrypt secret bytes to the fields of a passphrase stanza, bound to ``aad``."""
        return self._lock(secret, self._rng(_SIZES["salt"]), aad)

    def unlock(self, fields: Mapping[str, JsonValue], aad: bytes, size: int = ROOT_SIZE) -> bytes:
        """Return the ``size`` bytes that :meth:`lock` encrypted.

        Raises:
            DecryptionFailed: Another passphrase, another ``aad``, or changed values.
            InvalidInput: The fields are malformed, or the Argon2id costs are out of range.
        """
        costs, values = _checked(fields, size)
        key, check = self._stretch(values["salt"], costs)
        if not hmac.compare_digest(check, values["check"]):
            raise _not_unlocked()
        try:
            return AESGCM(key).decrypt(values["nonce"], values["ct"], aad)
        except InvalidTag:
            raise _not_unlocked() from None

    def _lock(self, secret: bytes, salt: bytes, aad: bytes) -> dict[str, str | int]:
        costs = {name: least for name, (least, _) in _COSTS.items()}
        key, check = self._stretch(salt, costs)
        nonce = self._rng(_SIZES["nonce"])
        values = {"salt": salt, "check": check, "nonce": nonce, "ct": AESGCM(key).encrypt(nonce, secret, aad)}
        return {**costs, **{name: encode_base64url(value) for name, value in values.items()}}

    def _stretch(self, salt: bytes, costs: Mapping[str, int]) -> tuple[bytes, bytes]:
        """Return the key-encryption key and the check, 32 bytes each."""
        argon = Argon2id(salt=salt, length=64, iterations=costs["t"], lanes=costs["p"], memory_cost=costs["m_kib"])
        with _ONE_AT_A_TIME:
            output = argon.derive(self._secret.reveal().encode())
        return output[:32], output[32:]


def _not_unlocked() -> DecryptionFailed:
    """Return the one error of every failure after a passphrase came into use."""
    return DecryptionFailed(
        "this passphrase does not unlock it",
        why="it is another passphrase, or what it locks was changed",
        next_step="try again; if the passphrase is right, restore the file",
    )


def _checked(fields: Mapping[str, JsonValue], size: int) -> tuple[dict[str, int], dict[str, bytes]]:
    """Return the costs and binary values, all within their limits, before any memory is spent on them."""
    if fields.keys() != _FIELDS:
        raise InvalidInput(f"passphrase lock: expected the fields {', '.join(sorted(_FIELDS))}")
    costs: dict[str, int] = {}
    for name, (least, most) in _COSTS.items():
        cost = fields[name]
        if not isinstance(cost, int) or not least <= cost <= most:
            raise InvalidInput(f"passphrase lock: expected {name} from {least} to {most}")
        costs[name] = cost
    values: dict[str, bytes] = {}
    for name, length in {**_SIZES, "ct": size + _TAG}.items():
        values[name] = decode_base64url(str(fields[name]), what=f"passphrase lock, {name}")
        if len(values[name]) != length:
            raise InvalidInput(f"passphrase lock: expected {length} bytes of {name}, found {len(values[name])}")
    return costs, values
