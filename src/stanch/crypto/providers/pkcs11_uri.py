"""PKCS#11 URIs (RFC 7512): which key on which token, where the module is, and which file holds the PIN."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote_to_bytes

from stanch.errors import InvalidInput

MODULE_VARIABLE = "STANCH_PKCS11_MODULE"
PIN_VARIABLE = "STANCH_PKCS11_PIN_FILE"
_TOKEN = ("token", "manufacturer", "serial", "model")
_KEY = ("object", "id")
_QUERY = {"module-path", "pin-source"}
_MAX_LENGTH = 2048
_VALUE = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/?|]|%[0-9A-Fa-f]{2})+")


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """A URI that names one secret key.

    ``str(uri)`` has only what names token and key, each in one spelling and in a fixed order: no path of this machine
    and nothing of a PIN, so that it can stand in a bundle.

    Attributes:
        token: What the token must be; some of ``token`` (its label), ``manufacturer``, ``serial`` and ``model``.
        key: The key's label (``object``, UTF-8), its ``id``, or both.
        module: The PKCS#11 library of the token.
        pin_file: A private file that holds the user PIN.
    """

    token: Mapping[str, bytes]
    key: Mapping[str, bytes]
    module: Path | None
    pin_file: Path | None

    def __str__(self) -> str:
        named = [(name, self.token[name]) for name in _TOKEN if name in self.token]
        named += [(name, self.key[name]) for name in _KEY if name in self.key]
        return "pkcs11:" + ";".join(f"{name}={quote(value, safe='')}" for name, value in named)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URI; what it does not say about module and PIN comes from the environment.

        Raises:
            InvalidInput: It is malformed, names no token or no key, holds a PIN, or has an attribute that cannot be
                said of a secret key.
        """
        if not text.startswith("pkcs11:") or len(text) > _MAX_LENGTH:
            raise InvalidInput("PKCS#11 URI: expected pkcs11:token=…;object=…")
        path, _, query = text.removeprefix("pkcs11:").partition("?")
        named, found = _attributes(path, ";"), _attributes(query, "&")
        if "pin-value" in found:
            raise InvalidInput(
                "PKCS#11 URI: holds a PIN, which others can read here",
                next_step=f"put it into a private file and name that in pin-source or {PIN_VARIABLE}",
            )
        wrong = sorted((named.keys() - {*_TOKEN, *_KEY, "type"}) | (found.keys() - _QUERY))
        if wrong or named.get("type", b"secret-key") != b"secret-key":
            raise InvalidInput(f"PKCS#11 URI: cannot be said of a secret key: {', '.join(wrong) or 'type'}")
        token, key = ({name: named[name] for name in names if name in named} for names in (_TOKEN, _KEY))
        if not token or not key or not _is_utf8(key.get("object", b"")):
            raise InvalidInput("PKCS#11 URI: expected a token and an object (UTF-8) or id")
        return cls(token, key, _file(found.get("module-path"), MODULE_VARIABLE), _pin_file(found.get("pin-source")))


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _attributes(text: str, separator: str) -> dict[str, bytes]:
    attributes: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        name, _, value = part.partition("=")
        if not _VALUE.fullmatch(value) or name in attributes:
            raise InvalidInput("PKCS#11 URI: expected each attribute once, as name=value, percent-encoded")
        attributes[name] = unquote_to_bytes(value)
    return attributes


def _pin_file(source: bytes | None) -> Path | None:
    return _file(None if source is None else source.removeprefix(b"file:"), PIN_VARIABLE)


def _file(named: bytes | None, variable: str) -> Path | None:
    text = os.environ.get(variable, "") if named is None else os.fsdecode(named)
    if not text:
        return None
    if not text.startswith("/") or "\0" in text:
        raise InvalidInput(f"PKCS#11: expected the full path of a file, in the URI or in {variable}")
    return Path(text)
