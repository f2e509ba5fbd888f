"""Generators in the examples of a pack, so that no live-looking token is ever written into a file.

``{A62:30}`` stands for 30 random letters and digits, ``{crc62}`` for the checksum of what was generated just before it;
see :data:`_ALPHABETS` for the other alphabets. The same seed gives the same example.
"""

import base64
import hashlib
import random
import re
from collections.abc import Callable, Iterator

from stanch.errors import InvalidInput
from stanch.scan.validators import REGISTRY, Outcome
from stanch.scan.validators.checksum import IBAN_LENGTHS, bech32_checksum, crc32_base62, luhn, mod97
from stanch.scan.validators.mnemonic import has_checksum, word_numbers

_SLOT = re.compile(r"(?<![${])\{([A-Za-z0-9]+)(?::([A-Za-z0-9]+))?(?::(\d{1,4}))?\}")
_DIGITS, _UPPER = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ALPHABETS = {
    "A62": _DIGITS + _UPPER + _UPPER.lower(),
    "a36": _DIGITS + _UPPER.lower(),
    "A36": _DIGITS + _UPPER,
    "A26": _UPPER,
    "a32": _UPPER.lower() + "234567",
    "a26": _UPPER.lower(),
    "hex": "0123456789abcdef",
    "d": _DIGITS,
    "b32": _UPPER + "234567",
    "b64": _DIGITS + _UPPER + _UPPER.lower() + "+/",
    "b64url": _DIGITS + _UPPER + _UPPER.lower() + "-_",
}
_VALID = {
    "abn": ("au-abn", "## ### ### ###"),
    "aadhaar": ("in-aadhaar", "2### #### ####"),
    "aba": ("aba-routing", "0########"),
    "ahv": ("ch-ahv", "756.####.####.##"),
    "benn": ("be-national", "85.0#.2#-###.##"),
    "bsn": ("nl-bsn", "#########"),
    "cf": ("it-codice-fiscale", "@@@@@@##A##@###@"),
    "cnpj": ("br-cnpj", "##.###.###/0001-##"),
    "cpf": ("br-cpf", "###.###.###-##"),
    "cpr": ("dk-cpr", "1#0#8#-####"),
    "dea": ("us-dea", "B@#######"),
    "detax": ("de-tax-id", "## ### ### ###"),
    "dni": ("es-dni", "########@"),
    "fnr": ("no-fnr", "1#0#81#####"),
    "hetu": ("fi-hetu", "1#0#7#-###@"),
    "imei": ("imei", "35######-######-#"),
    "inpan": ("mixed-code", "@@@P@####@"),
    "nhs": ("uk-nhs", "### ### ####"),
    "nie": ("es-dni", "X#######@"),
    "nino": ("uk-nino", "@@######C"),
    "nir": ("fr-nir", "1 8# 0# 75 ### ### ##"),
    "nric": ("sg-nric", "S#######@"),
    "pesel": ("pl-pesel", "8#0#2######"),
    "piva": ("it-partita-iva", "###########"),
    "pnr": ("se-personnummer", "8#0#2#-####"),
    "ric": ("cn-ric", "11010519890#2#####"),
    "rrn": ("kr-rrn", "8#0#2#-1######"),
    "sin": ("ca-sin", "### ### ###"),
    "tckn": ("tr-tckn", "1##########"),
    "tfn": ("au-tfn", "### ### ###"),
    "usitin": ("us-itin", "9##-7#-####"),
    "vin": ("vin", "1@@@@#####@######"),
    "zaid": ("za-id", "800#2#####08#"),
}
"""Generators whose values a validator must accept: its name, and a shape with # for a digit and @ for a letter."""

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_COINS = {"btc": ("00", 20), "wif": ("80", 32), "xprv": ("0488ade4", 74)}
"""Version bytes and number of random bytes of base58check values."""

_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


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
        elif name == "luhn" and first is not None:
            self._last = self._luhn(first, int(second or 16))
        elif name == "iban" and first in IBAN_LENGTHS:
            self._last = self._iban(str(first))
        elif first is None:
            self._last = self._named(name)
        else:
            raise InvalidInput(f"unknown generator {match[0]!r} in an example")
        return self._last

    def _named(self, name: str) -> str:
        if name in _VALID:
            return self._accepted(*_VALID[name])
        if name in _COINS:
            return self._base58check(*_COINS[name])
        makers: dict[str, Callable[[], str]] = {
            "age": lambda: self._bech32("age-secret-key-", "", 52).upper(),
            "agepq": lambda: self._bech32("age-secret-key-pq-", "", 52).upper(),
            "basic": lambda: self._base64(f"svc{self._draw(_DIGITS, 3)}:{self._draw(_ALPHABETS['A62'], 15)}"),
            "bech32": lambda: self._bech32("bc", "q", 32),
            "bip39": self._phrase,
            "crc62": lambda: crc32_base62(self._last.encode()).decode(),
            "discord": lambda: self._base64(f"8{self._draw(_DIGITS, 17)}"),
            "jwt": self._jwt,
            "pypi": lambda: self._base64("\x02\x01\x08pypi.org\x02$" + self._draw(_ALPHABETS["hex"], 10)),
        }
        if name not in makers:
            raise InvalidInput(f"unknown generator {{{name}}} in an example")
        return makers[name]()

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

    def _accepted(self, validator: str, shape: str) -> str:
        """Draw values of a shape until the validator accepts one."""
        rng = random.Random(next(self._symbols))  # noqa: S311 - examples; the stream itself is too slow for many tries
        while True:
            value = "".join(
                rng.choice(_DIGITS) if c == "#" else rng.choice("ABCEGHJKLMNPRSTWXYZ") if c == "@" else c for c in shape
            )
            if REGISTRY[validator](value.encode(), "").outcome is not Outcome.REJECT:
                return value

    def _base58check(self, prefix: str, size: int) -> str:
        body = bytes.fromhex(prefix + self._draw(_ALPHABETS["hex"], 2 * size))
        data = body + hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4]
        number, text = int.from_bytes(data, "big"), ""
        while number:
            number, digit = divmod(number, 58)
            text = _BASE58[digit] + text
        return "1" * (len(data) - len(data.lstrip(b"\0"))) + text

    def _bech32(self, prefix: str, version: str, size: int) -> str:
        body = f"{prefix}1{version}{self._draw(_BECH32, size)}"
        rest = (bech32_checksum(body + "qqqqqq") or 0) ^ 1
        return body + "".join(_BECH32[rest >> 5 * (5 - place) & 31] for place in range(6))

    def _phrase(self) -> str:
        words = list(word_numbers())
        body = [next(self._symbols) % len(words) for _ in range(11)]
        last = next(number for number in range(len(words)) if has_checksum([*body, number]))
        return " ".join(words[number].decode() for number in [*body, last])

    @staticmethod
    def _base64(plain: str) -> str:
        return base64.b64encode(plain.encode()).rstrip(b"=").decode()
