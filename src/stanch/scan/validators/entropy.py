"""Values without a shape of their own, judged by how random they look."""

import math
import re

from stanch.scan.validators.verdict import ABSTAIN, REJECT, Outcome, Verdict

_UUID = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_WORDS = re.compile(rb"[A-Za-z]?[a-z]+(?:[-_.:/ ][A-Za-z]?[a-z]+)*")
_CLASSES = tuple(re.compile(pattern) for pattern in (rb"[a-z]", rb"[A-Z]", rb"[0-9]", rb"[^0-9A-Za-z]"))


def entropy(value: bytes) -> float:
    """Return the Shannon entropy of the value's bytes in bits per byte."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in map(value.count, set(value)))


def _classes(value: bytes) -> int:
    return sum(pattern.search(value) is not None for pattern in _CLASSES)


def assignment(value: bytes, _left: str) -> Verdict:
    """Judge a value assigned to a secret-like name: long, mixed, near its greatest entropy, no words, no UUID."""
    if len(value) < 16 or _classes(value) < 2 or _UUID.fullmatch(value) or _WORDS.fullmatch(value):
        return REJECT
    ratio = entropy(value) / math.log2(min(len(value), 64))
    return ABSTAIN if ratio >= 0.75 else REJECT


def password(value: bytes, _left: str) -> Verdict:
    """Judge a word that is called a password in prose: two character classes, one of them not lower-case letters."""
    if len(value) < 6 or _classes(value) < 2 or _WORDS.fullmatch(value) or b"//" in value:
        return REJECT
    return Verdict(Outcome.ABSTAIN, bonus=0.2 if _classes(value) > 2 else 0.0)


def cloud_secret(value: bytes, _left: str) -> Verdict:
    """Judge a 40-character cloud secret: at least 4.2 bits a byte."""
    return ABSTAIN if entropy(value) >= 4.2 else REJECT
