"""Generators in the examples of a pack, so that no live-looking token is ever written into a file.

``{A62:30}`` stands for 30 random letters and digits, ``{crc62}`` for the checksum of what was generated just before it;
see :data:`_ALPHABETS` for the other alphabets. The same seed gives the same example.
"""

import base64
import hashlib
import re
from collections.abc import Iterator

from stanch.errors import InvalidInput
from stanch.scan.validators.checksum import IBAN_LENGTHS, crc32_base62, luhn, mod97

_SLOT = re.compile(r"(?<![${])\{([A-Za-z0-9]+)(?::([A-Za-z0-9]+))?(?::(\d{1,4}))?\}")
_DIGITS, _UPPER = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ALPHABETS = {
    "A62": _DIGITS + _UPPER + _UPPER.lower(),
    "a36": _DIGITS + _UPPER.lower(),
    "A36": _DIGITS + _UPPER,
    "A26": _UPPER,
    "hex": "0123456789abcdef",
    "d": _DIGITS,
    "b32": _UPPER + "234567",
    "b64": _DIGITS + _UPPER + _UPPER.lower() + "+/",
    "b64url": _DIGITS + _UPPER + _UPPER.lower() + "-_",
}


class ExampleMaker:
    """Fills the slots of templates from one seed."""

    def __init__(self, seed: str) -> None:
        self._symbols = self._stream(seed.encode())
        self._last = ""

    @staticmethod
    def _stream(seed: bytes) -> Iterator[int]:
        counter = 0
        while True:
            block = hashlib.sha256(seed + counter.to_bytes(8, "big")).digest()
            for place in range(0, 32, 4):
                yield int.from_bytes(block[place : place + 4], "big")
            counter += 1

    def fill(self, template: str) -> str:
        """Return the template with every slot filled.

        Raises:
            InvalidInput: A slot is unknown.
        """
        return _SLOT.sub(self._slot, template)

    def _slot(self, match: re.Match[str]) -> str:
        name, first, second = match[1], match[2], match[3]
        if name in _ALPHABETS and first is not None and first.isdigit():
            self._last = self._draw(_ALPHABETS[name], int(first))
        elif name == "crc62":
            self._last = crc32_base62(self._last.encode()).decode()
        elif name == "luhn" and first is not None:
            self._last = self._luhn(first, int(second or 16))
        elif name == "iban" and first in IBAN_LENGTHS:
            self._last = self._iban(str(first))
        elif name == "jwt":
            self._last = self._jwt()
        else:
            raise InvalidInput(f"unknown generator {match[0]!r} in an example")
        return self._last

    def _draw(self, alphabet: str, count: int) -> str:
        return "".join(alphabet[next(self._symbols) % len(alphabet)] for _ in range(count))

    def _luhn(self, prefix: str, size: int) -> str:
        body = prefix + self._draw(_DIGITS, size - len(prefix) - 1)
        return next(body + digit for digit in _DIGITS if luhn((body + digit).encode()))

    def _iban(self, country: str) -> str:
        body = self._draw(_DIGITS, IBAN_LENGTHS[country] - 4)
        return f"{country}{98 - mod97(f'{country}00{body}'.encode()):02d}{body}"

    def _jwt(self) -> str:
        header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()
        claims = base64.urlsafe_b64encode(f'{{"sub":"{self._draw(_DIGITS, 10)}"}}'.encode()).rstrip(b"=").decode()
        return f"{header}.{claims}.{self._draw(_ALPHABETS['b64url'], 43)}"
