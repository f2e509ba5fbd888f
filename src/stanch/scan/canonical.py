"""Canonical form of a found value, and the keyed names made of it: fingerprints and pseudonyms."""

import base64
import hashlib
import hmac
import ipaddress
import re

import phonenumbers

from stanch.scan.fold import fold_text

_DIGITS_ONLY = frozenset(
    [
        "au-business-number",
        "au-tfn",
        "bank-account-number",
        "be-national-number",
        "br-cnpj",
        "br-cpf",
        "ca-sin",
        "card-security-code",
        "ch-ahv",
        "de-tax-id",
        "dk-cpr",
        "imei",
        "in-aadhaar",
        "it-partita-iva",
        "kr-rrn",
        "nl-bsn",
        "no-fnr",
        "payment-card",
        "pl-pesel",
        "se-personnummer",
        "tr-tckn",
        "uk-nhs",
        "uk-sort-code",
        "us-bank-routing",
        "us-itin",
        "us-ssn",
        "za-id",
    ]
)
_COMPACT = frozenset(
    [
        "bic",
        "cn-ric",
        "driving-licence",
        "es-dni",
        "es-nie",
        "fi-hetu",
        "fr-nir",
        "iban",
        "in-pan",
        "it-codice-fiscale",
        "license-plate",
        "mac-address",
        "mx-rfc",
        "passport-number",
        "sg-nric",
        "uk-nino",
        "us-dea-number",
        "us-mbi",
        "vehicle-vin",
    ]
)
_PSEUDONYM = re.compile(r"<[A-Z][A-Z0-9-]{0,63}:[A-Z2-7]{20}>")


def canonical_value(kind: str, value: str) -> bytes:
    """Return the form in which equal values of a kind are equal bytes.

    E-mail addresses in lower case, telephone numbers in E.164 where they parse, network addresses in their shortest
    form, numbers of cards and persons as digits, what mixes letters and digits in capitals without separators, names
    and postal addresses in lower case with single spaces; anything else as folded.
    """
    folded = fold_text(value).strip()
    if kind == "email":
        return folded.lower()
    if kind == "phone":
        return _telephone(folded)
    if kind in _DIGITS_ONLY:
        return re.sub(rb"[^0-9]", b"", folded)
    if kind in _COMPACT:
        return re.sub(rb"[ .:/-]", b"", folded).upper()
    if kind == "ip-address":
        return _address(folded)
    return b" ".join(folded.lower().split()) if kind in {"person", "postal-address"} else folded


def letters_of(value: str) -> str:
    """Return the letters of a value, folded and in lower case."""
    folded = fold_text(value).decode("utf-8", "replace").lower()
    return "".join(filter(str.isalpha, folded))


def _address(folded: bytes) -> bytes:
    try:
        return str(ipaddress.ip_address(folded.decode("utf-8", "replace"))).encode()
    except ValueError:
        return folded


def _telephone(folded: bytes) -> bytes:
    try:
        number = phonenumbers.parse(folded.decode("utf-8", "replace"), "US")
    except phonenumbers.NumberParseException:
        return re.sub(rb"[^0-9]", b"", folded)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164).encode()


def pseudonym_digest(key: bytes, kind: str, canonical: bytes) -> bytes:
    """Return HMAC-SHA256 over ``stanch/pseudonym/v1 ‖ 0 ‖ kind ‖ 0 ‖ canonical``; the kind as it stands in labels."""
    return hmac.digest(key, b"\0".join((b"stanch/pseudonym/v1", kind.encode(), canonical)), "sha256")


def pseudonym(key: bytes, kind: str, value: str) -> str:
    """Return ``<KIND:`` with the first 20 base32 characters of the digest and ``>``."""
    label = label_name(kind)
    digest = pseudonym_digest(key, label, canonical_value(kind, value))
    return f"<{label}:{base64.b32encode(digest).decode()[:20]}>"


def is_pseudonym(text: str) -> bool:
    """Tell whether a text has the form of a pseudonym."""
    return _PSEUDONYM.fullmatch(text) is not None


def label_name(kind: str) -> str:
    """Return the name of a kind as it stands in a label."""
    return kind.upper()


def fingerprint(key: bytes, kind: str, canonical: bytes) -> str:
    """Return what :class:`Fingerprint` makes of a whole canonical value, in a third of the time."""
    return hmac.digest(key, kind.encode() + b"\0" + canonical, "sha256")[:16].hex()


class Fingerprint:
    """HMAC-SHA256 of kind and canonical value under the report key, cut to 16 bytes; fed in pieces where needed."""

    def __init__(self, key: bytes, kind: str) -> None:
        self._mac = hmac.new(key, kind.encode() + b"\0", hashlib.sha256)

    def update(self, canonical: bytes) -> None:
        """Add the next piece of the canonical value."""
        self._mac.update(canonical)

    def hex(self) -> str:
        """Return the fingerprint in hexadecimal."""
        return self._mac.digest()[:16].hex()
