"""Values that a name announces: what the name says of them, and what they look like behind it.

A value that could be guessed, or that only a name makes a secret, is a finding of medium severity.
"""

import base64
import re

from stanch.scan.validators.entropy import (
    CODE,
    IDENTIFIER,
    RESOURCE,
    UUID,
    WORDS,
    assignment,
    character_classes,
    entropy,
    is_named_type,
    is_wordy,
    short_secret,
    stands_in,
)
from stanch.scan.validators.label import label, names_no_secret
from stanch.scan.validators.names import gazetteer, name_digest
from stanch.scan.validators.verdict import ABSTAIN, REJECT, Outcome, Verdict
from stanch.terms import Severity

_LESS = Verdict(Outcome.ABSTAIN, severity=Severity.MEDIUM)
_LONG = 16
_DIGIT = re.compile(rb"[0-9]")
_HASH = re.compile(rb"[0-9a-fA-F-]+")
_FEW_DIGITS = 3
_SIGN = re.compile(rb"[!@#$%^&*?~]")
_PLAIN = re.compile(rb"[A-Z]?[a-z]+[!?.]{0,3}")
_EXPRESSION = re.compile(rb"\\[a-z]|\(\?|\.\*|\]\+|\[[a-zA-Z0-9]-|%[sdr]")
_ACTION = re.compile(rb"[a-z][a-z0-9-]*:(?:[A-Z]+[a-z]+)+[A-Z]*\*?|[a-z]+(?:_[a-z]+)+[+-][0-9]")
_PLACE = re.compile(
    rb"(?:https?:)?//.*|\.{0,2}/[a-z].*|[A-Za-z]:\\.*|[0-9A-Za-z._-]+@[0-9A-Za-z.-]+"
    rb"|[a-z0-9.-]+\.(?:com|org|net|io|py|js|ts|json|ya?ml|pem|crt|key|html?|php|java|go|rb|txt|md)\b.*"
)
_NO_VALUE = re.compile(
    rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T.*|[.0-9xXa-fA-F_+-]{4,15}[ip]?[0-9]*|(?:[A-Z0-9]{1,6}-)?(?:HMAC|RSA|SHA|AES)[-_].*"
)
_KEYED = re.compile(
    r"(?:api|access|auth|secret|client|app|account)[_-]?(?:key|token|secret)|api[_-]?id|apikey", re.IGNORECASE
)
_NUMBERED = re.compile(rb"[A-Z]?[a-z]*[0-9]+[.)]*|[A-Z]+[0-9a-z]?-?[0-9]+")
_HEADED = re.compile(r"-H |-header|headers?[\"'({ ]")
_AUTHORISED = re.compile(r"authorization[^0-9A-Za-z]", re.IGNORECASE)
_SPOKEN = re.compile(r"(?:pass(?:word|wd|phrase|code)?s?|passwort|pwd|secret|api[_-]?key)\Z", re.IGNORECASE)
_SAID = re.compile(rb"[a-z][a-z']*[!?.,]?(?: [a-z][a-z']*[!?.,]?){1,7}|[a-z]{6,24}[!?]?")
_TALK = re.compile(
    rb"\b(?:pass\w*|pwd|secret|token|key|login|log|sign|enter|type|your|you|the|this|must|is|are|not|no|new|old|current|confirm"
    rb"|reset|change|show|hide|forgot|forgotten|invalid|incorrect|wrong|required|please|for|to|if|user|username|optional|set|get"
    rb"|value of|string|text|name|field|input|missing|empty|none|null|true|false|undefined)\b"
)
_TAIL = b")]};,'\""
_FIELD_VALUE = re.compile(r"[\"']?,?\s{1,20}[\"']?value[\"']?\s{0,2}[:=]\s{0,2}[\"']?\Z", re.IGNORECASE)
_PAIRS = {ord(")"): ord("("), ord("]"): ord("["), ord("}"): ord("{")}


def quoted_secret(value: bytes, left: str) -> Verdict:
    """Judge a quoted value behind a name such as ``password`` or ``api_key``; signs and brackets may be a part of it.

    Small letters are a password where they are a phrase or no ordinary word; a text for readers (``enter your
    password``), the words of programs and what a cloud calls an action (``iam:GetRole``) are none.
    """
    if _PLACE.fullmatch(value) or _NO_VALUE.fullmatch(value) or _EXPRESSION.search(value) or names_no_secret(left):
        return REJECT
    name = label(left)
    if UUID.fullmatch(value):
        return ABSTAIN if _KEYED.search(name) else REJECT
    if _SAID.fullmatch(value):
        return _LESS if _SPOKEN.search(name) and _is_phrase(value) else REJECT
    if b" " in value or IDENTIFIER.fullmatch(value) or _ACTION.fullmatch(value):
        return REJECT
    signs, classes = len(set(_SIGN.findall(value))), character_classes(value)
    if len(value) >= _LONG:
        strong = (signs and classes > 2 and not _PLAIN.fullmatch(value)) or (signs > 1 and entropy(value) >= 3.5)
        return _graded(value) if strong else assignment(value, left)
    if re.search(rb"[(){}\[\]<>=|\\]|\A[$%@]", value) or is_named_type(value):
        return REJECT
    mixed = classes > 2 and (signs or _DIGIT.search(value)) and not WORDS.fullmatch(value)
    return _graded(value) if mixed or (signs and classes > 1 and not _PLAIN.fullmatch(value)) else REJECT


def mixed_key(value: bytes, left: str) -> Verdict:
    """Judge what a name that ends in ``key`` is given: as an assignment, with some digits, and no digest."""
    if len(_DIGIT.findall(value)) < _FEW_DIGITS or _HASH.fullmatch(value):
        return REJECT
    return assignment(value, left)


def header_secret(value: bytes, left: str) -> Verdict:
    """Judge what a header such as ``Authorization`` or ``Api-Token`` carries: letters and digits of some length."""
    headed = _HEADED.search(left) is not None
    if not headed and (UUID.fullmatch(value) or not _AUTHORISED.search(left)):
        return REJECT
    if UUID.fullmatch(value):
        return ABSTAIN
    if not _DIGIT.search(value) or CODE.search(value) or IDENTIFIER.fullmatch(value) or names_no_secret(left):
        return REJECT
    random = entropy(value) >= 2.75 and re.search(rb"[A-Za-z]", value) is not None
    return ABSTAIN if random and (headed or len(value) >= 20) else REJECT


def strong_password(value: bytes, left: str) -> Verdict:
    """Judge a word near a short label such as ``pw``: three kinds of characters, one of them a digit, and no type."""
    if len(value) < 6 or character_classes(value) < 3 or not _DIGIT.search(value) or UUID.fullmatch(value):
        return REJECT
    wordy = (
        is_wordy(value)
        or is_named_type(value)
        or re.fullmatch(rb"[A-Z]?[a-z]*[0-9]+[.)]*|[A-Z]+[0-9a-z]?-?[0-9]+", value)
    )
    code = CODE.search(value) or IDENTIFIER.fullmatch(value) or re.search(rb"[/:]", value)
    return REJECT if wordy or code or RESOURCE.search(left) or names_no_secret(left) else ABSTAIN


def unpaired_secret(value: bytes, left: str) -> Verdict:
    """Judge an unquoted value with signs: a bracket that closes what none has opened shows that it is no code."""
    bare = value.rstrip(_TAIL)
    if len(bare) < _LONG or len(set(_SIGN.findall(bare))) < 2 or not bare.isascii() or names_no_secret(left):
        return REJECT
    opened: list[int] = []
    for byte in bare:
        if byte in _PAIRS.values():
            opened.append(byte)
        elif byte in _PAIRS and (not opened or opened.pop() != _PAIRS[byte]):
            return Verdict(Outcome.ABSTAIN, severity=Severity.MEDIUM, part=(0, len(bare)))
    return REJECT


def secret_manifest(value: bytes, _left: str) -> Verdict:
    """Judge the data of a Kubernetes Secret: some value must be base64 of at least six bytes."""
    for written in re.findall(rb"[ \t\"']([0-9A-Za-z+/]{7,4096}={0,2})[\"']?[ \t]*(?:\n|\Z)", value):
        if len(written) % 4 == 0 and len(base64.b64decode(written)) >= 6:
            return ABSTAIN
    return REJECT


def provider_key(value: bytes, left: str) -> Verdict:
    """Judge a value behind a provider's name: a UUID, or what looks random."""
    if UUID.fullmatch(value):
        return REJECT if names_no_secret(left) else ABSTAIN
    return assignment(value, left)


def named_secret(value: bytes, left: str) -> Verdict:
    """Judge what a field ``value`` holds behind the field that holds its name, as manifests have it: by that name."""
    return short_secret(value, _FIELD_VALUE.sub("=", left))


def _is_phrase(value: bytes) -> bool:
    """Tell whether small letters may be a password: words that do not speak of passwords, or no ordinary word."""
    bare = value.rstrip(b"!?.,")
    if _TALK.search(value) or (b" " not in bare and stands_in(bare)):
        return False
    return b" " in bare or bare != value or name_digest(bare.decode()) not in gazetteer().words


def _graded(value: bytes) -> Verdict:
    """Accept a value; one that is short or holds a word for a password in disguise may be a sample."""
    return _LESS if len(value) < _LONG or stands_in(value) else ABSTAIN
