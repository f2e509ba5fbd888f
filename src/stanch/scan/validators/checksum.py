"""Checksums: of payment cards, bank accounts and tokens."""

import zlib

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
