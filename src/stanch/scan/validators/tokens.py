"""Tokens with a checksum or a structure that can be parsed."""

import base64
import json
import re

from stanch.scan.validators.checksum import crc32_base62
from stanch.scan.validators.entropy import url_credentials
from stanch.scan.validators.verdict import ABSTAIN, REJECT, STRONG, Outcome, Verdict
from stanch.terms import Severity

_MAX_HEADER = 512
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_USER_PASSWORD = re.compile(rb"[!-9;-~]{1,64}:[!-~]{3,256}")


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


def _decoded(text: bytes) -> bytes | None:
    """Return what a base64 or base64url text stands for, or None."""
    try:
        return base64.b64decode(text.translate(_URL_SAFE) + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        return None


def basic_credentials(value: bytes, _left: str) -> Verdict:
    """Judge the credentials of HTTP Basic authentication: base64 of ``user:password`` (RFC 7617), not ``test:test``."""
    plain = _decoded(value)
    if plain is None or not _USER_PASSWORD.fullmatch(plain):
        return REJECT
    judged = url_credentials(plain, "")
    return REJECT if judged.outcome is Outcome.REJECT else Verdict(Outcome.STRONG, severity=judged.severity)


def pypi_token(value: bytes, _left: str) -> Verdict:
    """Judge a token of the Python package index: a macaroon (version 2) whose location is the index."""
    plain = _decoded(value.partition(b"-")[2][:44])
    return STRONG if plain is not None and plain[:2] == b"\x02\x01" and b"pypi.org" in plain[:20] else REJECT


def discord_token(value: bytes, _left: str) -> Verdict:
    """Judge a Discord bot token: its first part is base64 of the bot's number."""
    plain = _decoded(value.partition(b".")[0])
    return STRONG if plain is not None and plain.isdigit() and 17 <= len(plain) <= 20 else REJECT


def gitlab_token(value: bytes, _left: str) -> Verdict:
    """Judge a GitLab token; a routable one gives its payload's length in base 36, and that must be right."""
    payload, marker, check = value.partition(b"-")[2].rpartition(b".01.")
    if not marker or len(check) != 9:
        return ABSTAIN
    return STRONG if int(check[:2], 36) == len(payload) else REJECT


def putty_key(_value: bytes, left: str) -> Verdict:
    """Note that a PuTTY key is encrypted: the salt of its passphrase stands right before it (PPK format, version 3)."""
    return Verdict(Outcome.ABSTAIN, severity=Severity.HIGH) if "Argon2-Salt: " in left else ABSTAIN
