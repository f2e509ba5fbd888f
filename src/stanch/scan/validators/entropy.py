"""Values without a shape of their own, judged by how random they look."""

import math
import re

from stanch.scan.validators.label import names_no_secret
from stanch.scan.validators.verdict import ABSTAIN, REJECT, Outcome, Verdict
from stanch.terms import Severity

UUID = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
WORDS = re.compile(rb"[A-Za-z]?[a-z]+(?:[-_.:/ ][A-Za-z]?[a-z]+)*")
_HEX = re.compile(rb"[0-9a-f]+|[0-9A-F]+")
CODE = re.compile(
    rb"[({\[]|->|::|//|\\|^[A-Za-z_]+\.[A-Za-z_]+|^~?/[a-z]|^arn:|^(?:get|set|is|self|this)[._A-Z]"
    rb"|[a-z]\.[a-z]+\.[a-z]"
)
IDENTIFIER = re.compile(
    rb"(?:pass|pwd|secret|token|key|val|arg|param|str|test|user|foo|bar|var|tmp|field|input|data|hash|ver|v|int|uint|sha|md"
    rb"|utf|base|ascii|pw|p|s|x)[a-z]*[0-9]{0,3}|[a-z]+[0-9]?(?:_[a-z0-9]+)+|[A-Z]+[0-9]{0,2}(?:_[A-Z0-9]+)*|[0-9.,:/-]+"
    rb"|[0-9]+[a-z]{1,3}"
)
_PASSWORD_WORD = re.compile(
    rb"(?:my_?|db_?|the_?|x|jwt)?(?:pass(?:word|wd|phrase)?|pwd?|secret|token|key|port|xxx+|yyy+|test|changeme|pass1234?|foo"
    rb"|bar|baz|tiger|webhook)[0-9]?|\[.*"
)
_PLAIN_LETTERS = bytes.maketrans(b"013457@$!", b"oleastasi")
_STANDS_IN = re.compile(rb"passw|pass\b|secret|changeme|letmein|qwerty")
_TYPE = re.compile(rb"(?:[A-Z][0-9]{0,2})?(?:[A-Z][a-z]+[0-9]{0,2}){2,}\.?")
_ARTIFACT = re.compile(
    rb"[a-z][a-z0-9]*(?:[-_.][a-z0-9]+)*[-_][0-9]+(?:\.[0-9]+)+.*|urn:.*|/?[a-z0-9._-]+(?:/[a-z0-9._-]+){2,}/?|[A-Z]+(?:-[A-Z0-9]+){2,}|[0-9]{4}-[0-9]{2}-[0-9]{2}[a-z-]*"
)
_LESS = Verdict(Outcome.ABSTAIN, severity=Severity.MEDIUM)
_GUESSED, _FEW = 4, 3
_NAME = re.compile(rb"[A-Za-z_$][A-Za-z0-9_$]*(?:\.[A-Za-z_$][A-Za-z0-9_$]*)*")
_JOINT = re.compile(rb"[._]|[a-z0-9][A-Z]")
_DIGITS = re.compile(rb"[0-9]+")
_CAPITALISED = re.compile(rb"[A-Z][a-z]{2,}")
_PARAMETERS = re.compile(r"\b(?:def|fn|func|function)\s+\w+\s*\([^)]*\Z")
_ASSIGNED = re.compile(r"[:=]\s*\Z")
_QUOTES = ('"', "'", "`")
RESOURCE = re.compile(r"arn:[^\s\"']*\Z")
_REPOSITORY = re.compile(r"\bgithub://\Z", re.IGNORECASE)
"""An address of fsspec: ``github://owner:repository@revision/path``."""
_PORT = re.compile(rb"[0-9]{1,5}[?#]")
_JOINED = re.compile(rb"[A-Za-z]{3,}[!#%^*~]{1,3}[A-Za-z]{3,}[!#%^*~]{0,3}")
_PIECE = re.compile(rb"[A-Z]?[a-z]+|[A-Z]+")
_CLASSES = tuple(re.compile(pattern) for pattern in (rb"[a-z]", rb"[A-Z]", rb"[0-9]", rb"[^0-9A-Za-z]"))


def entropy(value: bytes) -> float:
    """Return the Shannon entropy of the value's bytes in bits per byte."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in map(value.count, set(value)))


def character_classes(value: bytes) -> int:
    """Return how many kinds of characters the value has: small letters, capitals, digits, anything else."""
    return sum(pattern.search(value) is not None for pattern in _CLASSES)


def is_wordy(value: bytes) -> bool:
    """Tell whether the value has no digit and long runs of small letters, as names in programs have."""
    return not re.search(rb"[0-9]", value) and 3.5 * len(_PIECE.findall(value)) <= len(value)


def is_named_type(value: bytes) -> bool:
    """Tell whether the value is made as the names of types are: capitalised words, with a few digits behind them."""
    pieces = _PIECE.findall(value)
    if len(_CAPITALISED.findall(value)) > 1 and _NAME.fullmatch(value) and len(_DIGITS.findall(value)) <= _FEW:
        return sum(map(len, pieces)) >= 3 * len(pieces)  # Qwen2_5OmniToken2WavModel
    return _TYPE.fullmatch(value) is not None and len(_DIGITS.findall(value)) <= 2 and is_wordy(_DIGITS.sub(b"", value))


def stands_in(value: bytes) -> bool:
    """Tell whether the value holds a word for a password, if need be in disguise (``P4ssw0rd``), as samples do."""
    return _STANDS_IN.search(value.lower().translate(_PLAIN_LETTERS)) is not None


def _is_identifier(value: bytes, left: str) -> bool:
    """Tell whether a value without quotes is a name in a program: joined words, few digits (``Sam3Tracker.make``)."""
    if left.endswith(_QUOTES) or not _NAME.fullmatch(value) or not _JOINT.search(value):
        return False
    pieces = _PIECE.findall(value)
    return len(_DIGITS.findall(value)) <= 2 and sum(map(len, pieces)) >= 3 * len(pieces) > 0


def assignment(value: bytes, left: str) -> Verdict:
    """Judge a value assigned to a secret-like name: long, mixed, near its greatest entropy, no words, no UUID."""
    if len(value) < 16 or character_classes(value) < 2 or UUID.fullmatch(value) or WORDS.fullmatch(value):
        return REJECT
    hexadecimal = _HEX.fullmatch(value) is not None
    if CODE.search(value) or is_wordy(value) or _is_identifier(value, left) or (hexadecimal and len(value) < 24):
        return REJECT
    alphabet = 16 if hexadecimal else 64
    if entropy(value) / math.log2(min(len(value), alphabet)) < 0.75 or _ARTIFACT.fullmatch(value):
        return REJECT
    if RESOURCE.search(left) or names_no_secret(left):  # slow, so last
        return REJECT
    return _LESS if is_named_type(value) or stands_in(value) else ABSTAIN


def short_secret(value: bytes, left: str) -> Verdict:
    """Judge a short value assigned to a secret-like name: a digit and another kind of characters, no code.

    Without a digit, words that a sign joins (``Correct!Horse``) are a finding of medium severity.
    """
    if len(value) < 6 or character_classes(value) < 2 or UUID.fullmatch(value):
        return REJECT
    if CODE.search(value) or IDENTIFIER.fullmatch(value) or names_no_secret(left):
        return REJECT
    if not re.search(rb"[0-9]", value):
        return _LESS if character_classes(value) > 2 and _JOINED.fullmatch(value) else REJECT
    bonus = 0.1 if character_classes(value) > 2 else 0.0
    return Verdict(Outcome.ABSTAIN, bonus=bonus, severity=Severity.MEDIUM if stands_in(value) else None)


def password(value: bytes, left: str) -> Verdict:
    """Judge a word that is called a password in prose: two character classes, one of them not lower-case letters.

    In a list of parameters the word is a type; behind a colon or a sign of assignment letters alone may be one.
    """
    if _PARAMETERS.search(left) and _is_identifier(value, left):
        return REJECT
    if len(value) < 6 or character_classes(value) < 2 or WORDS.fullmatch(value) or CODE.search(value):
        return REJECT
    bonus = 0.2 if character_classes(value) > 2 else 0.0
    assigned = _ASSIGNED.search(left.rstrip("\"'`")) and not re.search(rb"[0-9!@#$%^&*?~]", value)
    return Verdict(Outcome.ABSTAIN, bonus=bonus, severity=Severity.MEDIUM if assigned or stands_in(value) else None)


def cloud_secret(value: bytes, _left: str) -> Verdict:
    """Judge a 40-character cloud secret: at least 4.2 bits a byte."""
    return ABSTAIN if entropy(value) >= 4.2 else REJECT


def netrc_password(value: bytes, _left: str) -> Verdict:
    """Judge a password of a ``.netrc`` file: no word, no name in a program and no word for a password."""
    bare = re.sub(rb"[^0-9A-Za-z]", b"", value.lower())
    word = WORDS.fullmatch(value) or IDENTIFIER.fullmatch(value) or _PASSWORD_WORD.fullmatch(bare)
    return REJECT if word or b"password".startswith(bare) or b"\\x" in value else ABSTAIN


def url_credentials(value: bytes, left: str) -> Verdict:
    """Judge ``user:password`` in a URL: a user's own name, or a word for a password, is no password.

    Three characters, or digits alone, are what documentation has: a finding of medium severity.
    """
    user, _, secret = value.replace(b'"', b"").replace(b"'", b"").partition(b":")
    lowered = secret.lower()
    stands_for = (
        lowered == user.lower()
        or _PASSWORD_WORD.fullmatch(lowered.strip(b"[]()$"))
        or lowered[:1] in (b"[", b"$")
        or (lowered[:1], lowered[-1:]) == (b"{", b"}")
    )
    if _PORT.match(secret) or _REPOSITORY.search(left):  # the host's own port, and what is asked of it
        return REJECT
    named = not secret and not re.search(rb"[0-9]", user)  # a user alone, whose password is asked for
    if stands_for or named or b"[" in user or user[:1] == b"$":
        return REJECT
    return _LESS if stands_in(secret) or len(secret) < _GUESSED or secret.isdigit() else ABSTAIN
