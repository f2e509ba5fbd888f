"""Tokens with a checksum or a structure that can be parsed."""

import base64
import json

from stanch.scan.validators.checksum import crc32_base62
from stanch.scan.validators.verdict import REJECT, STRONG, Outcome, Verdict

_MAX_HEADER = 512


def crc62_token(value: bytes, _left: str) -> Verdict:
    """Judge ``<prefix>_<30 characters><6 characters of base62 CRC-32>``: the form of GitHub and npm tokens."""
    body = value.rpartition(b"_")[2]
    return STRONG if crc32_base62(body[:-6]) == body[-6:] else REJECT


def aws_account(body: bytes) -> int:
    """Return the account number that the 16 characters after the prefix of an AWS access key id encode."""
    return (int.from_bytes(base64.b32decode(body)[:6], "big") & 0x7FFFFFFFFF80) >> 7


def aws_key_id(value: bytes, _left: str) -> Verdict:
    """Note the account that an AWS access key id names. The rule is not published, so that it never rejects."""
    account = aws_account(value[4:])
    return Verdict(Outcome.ABSTAIN, note=f"account {account:012d}" if account < 10**12 else "")


def jwt(value: bytes, _left: str) -> Verdict:
    """Judge a JSON Web Token by its header: base64url of a JSON object with ``alg`` (RFC 7515, section 4.1)."""
    header = value.partition(b".")[0]
    if len(header) > _MAX_HEADER:
        return REJECT
    try:
        parsed = json.loads(base64.urlsafe_b64decode(header + b"=" * (-len(header) % 4)))
    except (ValueError, RecursionError):
        return REJECT
    return STRONG if isinstance(parsed, dict) and isinstance(parsed.get("alg"), str) else REJECT
