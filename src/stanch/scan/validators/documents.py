"""Machine-readable travel documents (ICAO Doc 9303) and addresses of crypto-currencies."""

import hashlib

from stanch.scan.validators.checksum import bech32_checksum
from stanch.scan.validators.verdict import MEDIUM, REJECT, STRONG, Verdict

_BASE58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_COUNTRIES = (
    "AD AE AF AG AI AL AM AO AR AT AU AW AZ BA BB BD BE BF BG BH BI BJ BM BN BO BR BS BT BW BY BZ CA CD CF CG CH "
    "CI CL CM CN CO CR CU CV CW CY CZ DE DJ DK DM DO DZ EC EE EG ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH "
    "GI GL GM GN GP GQ GR GT GU GW GY HK HN HR HT HU ID IE IL IM IN IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP "
    "KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MG MH MK ML MM MN MO MQ MR MS MT MU MV MW MX MY MZ "
    "NA NC NE NG NI NL NO NP NR NZ OM PA PE PF PG PH PK PL PM PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG "
    "SH SI SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TG TH TJ TL TM TN TO TR TT TV TW TZ UA UG US UY UZ VA VC VE "
    "VG VI VN VU WF WS XK YE YT ZA ZM ZW "
)
"""Country codes of ISO 3166-1 that appear in bank identifiers."""

_BECH32, _BECH32M = 1, 0x2BC830A3


def _icao(field: bytes) -> bytes:
    """Return the check digit of a field: weights 7, 3, 1 (ICAO Doc 9303-3, section 4.9)."""
    total = 0
    for place, byte in enumerate(field):
        symbol = chr(byte)
        total += (0 if symbol == "<" else int(symbol, 36)) * (7, 3, 1)[place % 3]
    return b"%d" % (total % 10)


def mrz(value: bytes, _left: str) -> Verdict:
    """Judge the machine-readable zone of a passport (two lines of 44) or an identity card (three lines of 30)."""
    lines = value.split()
    if len(lines) == 2:
        line = lines[1]
        fields = [(line[0:9], line[9:10]), (line[13:19], line[19:20]), (line[21:27], line[27:28])]
        fields.append((line[0:10] + line[13:20] + line[21:43], line[43:44]))
    else:
        first, line = lines[0], lines[1]
        fields = [(first[5:14], first[14:15]), (line[0:6], line[6:7]), (line[8:14], line[14:15])]
        fields.append((first[5:30] + line[0:7] + line[8:15] + line[18:29], line[29:30]))
    return STRONG if all(_icao(field) == check for field, check in fields) else REJECT


def base58_payload(value: bytes) -> bytes | None:
    """Return what a base58check text holds, or None where its checksum is wrong."""
    number = 0
    for byte in value:
        digit = _BASE58.find(byte)
        if digit < 0:
            return None
        number = number * 58 + digit
    zeros = len(value) - len(value.lstrip(b"1"))
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    check = hashlib.sha256(hashlib.sha256(data[:-4]).digest()).digest()[:4]
    return data[:-4] if len(data) > 4 and check == data[-4:] else None


def base58check(value: bytes, _left: str) -> Verdict:
    """Judge a base58check text: a Bitcoin or Litecoin address, a wallet key or an extended private key."""
    return STRONG if base58_payload(value) is not None else REJECT


def bech32_address(value: bytes, _left: str) -> Verdict:
    """Judge a segregated-witness address (BIP-173, BIP-350)."""
    return STRONG if bech32_checksum(value.lower().decode("ascii")) in {_BECH32, _BECH32M} else REJECT


def age_secret_key(value: bytes, _left: str) -> Verdict:
    """Judge an age secret key: Bech32 (C2SP age specification)."""
    return STRONG if bech32_checksum(value.lower().decode("ascii")) == _BECH32 else REJECT


def bic(value: bytes, _left: str) -> Verdict:
    """Judge a business identifier code (ISO 9362) by its country."""
    return MEDIUM if value[4:6].decode("ascii") in _COUNTRIES.split() else REJECT
