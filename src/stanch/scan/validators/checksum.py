"""Checksums: of payment cards, bank accounts, national numbers and tokens."""

import zlib
from collections.abc import Iterable

_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BASE62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
"""Length of an account number by country code (SWIFT IBAN registry)."""


def luhn(digits: bytes) -> bool:
    """Tell whether the ASCII digits pass the Luhn check (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = (digit - 48) << (place & 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def mod97(account: bytes) -> int:
    """Return the remainder of a compact, upper-case IBAN; 1 says valid (ISO 13616-1, ISO/IEC 7064 MOD 97-10)."""
    moved = account[4:] + account[:4]
    return int("".join(str(int(chr(byte), 36)) for byte in moved)) % 97


def crc32_base62(body: bytes) -> bytes:
    """Return the six-character base62 CRC-32 that ends GitHub and npm tokens (alphabet 0-9A-Za-z)."""
    value, check = zlib.crc32(body), bytearray()
    for _ in range(6):
        value, digit = divmod(value, 62)
        check.append(_BASE62[digit])
    return bytes(reversed(check))


def weighted(symbols: bytes, weights: Iterable[int]) -> int:
    """Return the sum of ASCII digits, each times its weight."""
    return sum((digit - 48) * weight for digit, weight in zip(symbols, weights, strict=True))


def mod11_10(digits: bytes) -> bool:
    """Tell whether the ASCII digits pass ISO/IEC 7064 MOD 11,10."""
    product = 10
    for digit in digits[:-1]:
        product = ((product + digit - 48) % 10 or 10) * 2 % 11
    return (product + digits[-1] - 48) % 10 == 1


def verhoeff(digits: bytes) -> bool:
    """Tell whether the ASCII digits pass the check of Verhoeff (1969): the dihedral group of order 10."""
    state = 0
    for place, digit in enumerate(reversed(digits)):
        value = digit - 48
        for _ in range(place % 8):
            value = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[value]
        state = _dihedral(state, value)
    return state == 0


def _dihedral(left: int, right: int) -> int:
    """Multiply in the dihedral group: 0 to 4 are rotations, 5 to 9 reflections."""
    turned = (left + right if left < 5 else left - right) % 5
    return turned if (left < 5) == (right < 5) else turned + 5


def bech32_checksum(text: str) -> int | None:
    """Return the constant to which a lower-case Bech32 text sums (BIP-173: 1, BIP-350: 0x2bc830a3), or None."""
    prefix, found, data = text.rpartition("1")
    values = [_BECH32.find(symbol) for symbol in data]
    if not found or not prefix or len(data) < 6 or min(values) < 0:
        return None
    check = 1
    for value in [*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix), *values]:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= term if top >> bit & 1 else 0
    return check
