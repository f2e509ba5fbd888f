"""Numbers and addresses of people."""

import datetime as dt
import ipaddress
import re

import phonenumbers

from stanch.scan.validators.checksum import IBAN_LENGTHS, luhn, mod97
from stanch.scan.validators.verdict import ABSTAIN, REJECT, Outcome, Verdict
from stanch.terms import Severity

_RESERVED = re.compile(rb"(?:[@.]example\.(?:com|net|org)|\.(?:test|example|invalid|localhost))\Z", re.IGNORECASE)
_NOT_A_DOMAIN = frozenset({b"png", b"jpg", b"jpeg", b"gif", b"svg", b"webp", b"css", b"js", b"json", b"html"})
_ROW = re.compile(r"\b(?:[0-9A-Fa-f]{4} )+\Z")
_ROW_ABOVE = re.compile(r"\b(?:[0-9A-Fa-f]{4} ){4,}[0-9A-Fa-f]{4}\r?\n\Z")
_HALF_HEX = re.compile(r"[0-9][A-Fa-f]|[A-Fa-f][0-9]")
_GROUPED_CARD = re.compile(rb"[0-9]{4}([ .-])[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}|[0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5}")
_CALLED_CARD = re.compile(r"\b(?:card|cc|karte|tarjeta|carte|carta|kaart|cartao)\b[^0-9]{0,20}\Z", re.IGNORECASE)
_CC = re.compile(r"\bcc(?:\W{0,3}(?:number|num|no|nr|is)\b)?\W{1,3}\Z", re.IGNORECASE)
_CALLED_PHONE = re.compile(
    r"(?:phone|tel|telephone|mobile|cell|contact|call|dial|fax|telefon\w*|telefono|handy)"
    r"[\W_]{0,4}(?:(?:me|us|is|at|on|number|num|no|nr)\b\W{1,3}){0,3}\Z",
    re.IGNORECASE,
)
_GROUPS_BEFORE = re.compile(r"\b(?:(?=[A-Z]*[0-9])[0-9A-Z]{4}|[0-9A-Fa-f]{2} [0-9A-Fa-f]{2}) \Z|[0-9]:\Z")
_OID = re.compile(rb"1\.[23]\.|2\.5\.(?:4|8|29)\.")
"""Arcs of ISO member bodies, of identified organisations and of the directory, as certificates have them."""
_NO_PHONE = re.compile(
    rb"(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-2]\.(?:[0-9]{1,2}\.){2,}[0-9.]+|[0-9]{1,2}\.[0-9]+"
    rb"|[0-9]{1,2}([.-])[0-9]{1,2}\1[0-9]{2,4}|[0-9]{4}-[0-9]{2}-[0-9]{2}|(?:19|20)[0-9]{2}[ -](?:19|20)[0-9]{2}"
)
_ATTRIBUTE = re.compile(
    rb"^(?:self|this|request|user|config|args|os|env|settings|data|params|options|props|session)[._]"
    rb"|[._-](?:username|user|name|login|id)\Z",
    re.IGNORECASE,
)
_ORDINARY_USERS = frozenset({b"user_name", b"user_id", b"username1", b"user1", b"user_login", b"log_in", b"sign_in"})
_DECIMAL = re.compile(rb"\+[0-9]{1,3}\.[0-9]{4,}")
_LABEL_END = re.compile(r"[:=][\s\"']*\Z")
_LIVES = re.compile(r"(?:liv(?:es?|ing) at|moved to|address is) \Z", re.IGNORECASE)
_SPOKEN_STREET = re.compile(
    r"\b[0-9]{1,5}[a-z]? (?:[\w'.-]+ ){1,3}"
    r"(?:street|avenue|road|boulevard|terrace|lane|drive|court|square|crescent|way)\b"
)
_STREET = re.compile(
    r"\b(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Square|Terrace|Parkway|Highway|Hwy"
    r"|Crescent|Close|Gardens|Apt|Apartment|Suite|Flat|Am|An der|Auf der|Im|Unter den)\b"
    r"|(?:stra(?:ss|\u00df)e|[Ss]tr\.|weg|allee|platz|gasse|damm|ufer|straat|gracht|laan|plein|kade)\b"
    r"|\b(?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Cc]hemin|[Ii]mpasse|[Qq]uai|[Cc]alle|[Aa]venida|[Pp]laza|[Pp]aseo|[Vv]ia|[Vv]iale"
    r"|[Cc]orso|[Pp]iazza|[Rr]ua|[Tt]ravessa|[Uu]l\.|[Uu]lica) (?:[a-z]{1,5}[ '])*[A-Z]"
)
_POSTCODE = re.compile(
    r"\b(?:[A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][A-Z]{2}|[A-Z]{2} [0-9]{5}(?:-[0-9]{4})?|[0-9]{4,5} [A-Z][a-z]+"
    r"|[0-9]{4} ?[A-Z]{2}|[0-9]{2}-[0-9]{3} [A-Z])\b"
)
_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "PT")
_MONTHS = {
    name: month
    for month, names in enumerate(
        ("jan ene gen", "feb fev", "mar", "apr avr abr", "may mai mag mei maj", "jun juin giu", "jul juil lug",
         "aug aou ago", "sep set", "oct okt ott out", "nov", "dec dez dic"), 1)
    for name in names.split()
}  # fmt: skip
"""Months by the first letters of their names in seven languages."""


def email(value: bytes, _left: str) -> Verdict:
    """Judge an e-mail address: dots and labels in order, no file name; domains reserved by RFC 2606 are ``info``."""
    local, _, domain = value.rpartition(b"@")
    labels = domain.split(b".")
    if local[:1] == b"." or local[-1:] == b"." or b".." in local or labels[-1].lower() in _NOT_A_DOMAIN:
        return REJECT
    if any(not label or len(label) > 63 or label[:1] == b"-" or label[-1:] == b"-" for label in labels):
        return REJECT
    return Verdict(Outcome.ABSTAIN, severity=Severity.INFO) if _RESERVED.search(value) else ABSTAIN


def _cuts(value: bytes, most: int) -> list[bytes]:
    """Return the value and what remains when up to ``most`` separated groups are taken off its end."""
    parts = re.split(rb"([ -])", value)
    return [b"".join(parts[: len(parts) - 2 * cut]) for cut in range(min(most, len(parts) // 2) + 1)]


def phone(value: bytes, left: str) -> Verdict:
    """Judge a telephone number by the numbering plans of ``phonenumbers``; trailing groups may be another's.

    Groups of other numbers right before it make it a part of them, unless a label stands between.
    """
    if _NO_PHONE.fullmatch(value):
        return REJECT
    if value[:1] not in b"+(" and _GROUPS_BEFORE.search(left) and not _CALLED_PHONE.search(left):
        return REJECT
    regions = (None,) if value.startswith(b"+") else _REGIONS
    for cut in _cuts(value, 2):
        for region in regions:
            try:
                number = phonenumbers.parse(cut.decode("ascii"), region)
            except phonenumbers.NumberParseException:
                continue
            if phonenumbers.is_possible_number(number):
                if _DECIMAL.fullmatch(cut) and not phonenumbers.is_valid_number(number):
                    return REJECT
                valid = phonenumbers.is_valid_number(number)
                return Verdict(Outcome.ABSTAIN, bonus=0.1 if valid and region is None else 0.0, part=(0, len(cut)))
    return REJECT


def _issuer(digits: bytes) -> bool:
    """Tell whether first digits and length belong to a card scheme (ISO/IEC 7812 ranges the schemes publish)."""
    size, six = len(digits), int(digits[:6])
    if 400000 <= six < 500000:
        return size in {13, 16, 19}
    if 510000 <= six < 560000 or 222100 <= six < 272100:
        return size == 16
    if six // 10000 in {34, 37}:
        return size == 15
    if 300000 <= six < 306000 or six // 10000 in {36, 38, 39}:
        return 14 <= size <= 19
    if six // 100 in {1800, 2131}:
        return size == 15
    if 352800 <= six < 359000 or six // 10000 in {62, 65} or six // 100 == 6011 or 644000 <= six < 650000:
        return 16 <= size <= 19
    return (500000 <= six < 510000 or 560000 <= six < 590000 or 600000 <= six < 700000) and 12 <= size <= 19


def _in_table(left: str) -> bool:
    """Tell whether groups of four digits go on a row that is none of whole card numbers, or begin the next row."""
    if _ROW_ABOVE.search(left):
        return True
    row = _ROW.search(left)
    if row is None:
        return False
    groups = len(row[0]) // 5
    return _HALF_HEX.search(row[0]) is not None or (groups > 1 and groups % 4 > 0)


def payment_card(value: bytes, left: str) -> Verdict:
    """Judge a payment card number: issuer range, length and Luhn; a security code may stand behind it.

    What a label right before it calls a card need not be in a range that we know, but then it is the whole number: a
    beginning of it can fit by chance. Four groups out of a table of such groups are no card number.
    """
    if b" " in value and _in_table(left):
        return REJECT
    for cut in _cuts(value, 1):
        digits = re.sub(rb"[ .-]", b"", cut)
        whole = len(value) - len(cut) <= len(" 123")
        called = whole and _CALLED_CARD.search(left) is not None and len(set(digits)) > 1
        if len(digits) >= 12 and (called or _issuer(digits)) and luhn(digits):
            grouped = _GROUPED_CARD.fullmatch(cut) is not None
            bonus = 0.1 * grouped + 0.35 * (_CC.search(left) is not None)
            return Verdict(Outcome.WEAK, bonus=bonus, part=(0, len(cut)))
    return REJECT


def iban(value: bytes, _left: str) -> Verdict:
    """Judge an IBAN: the country's length and MOD 97-10; what follows within the window may not belong to it."""
    length = IBAN_LENGTHS.get(value[:2].decode("ascii").upper(), 0)
    symbols = [place for place, byte in enumerate(value) if byte not in b" -"]
    if not length or len(symbols) < length:
        return REJECT
    end = symbols[length - 1] + 1
    compact = bytes(value[place] for place in symbols[:length]).upper()
    small = value[:2].islower()  # more often something else
    return Verdict(Outcome.WEAK if small else Outcome.MEDIUM, part=(0, end)) if mod97(compact) == 1 else REJECT


def ip_address(value: bytes, _left: str) -> Verdict:
    """Judge an IP address: global ones only; four small numbers look like a version and count less.

    Eight groups written out are an address outside 2000::/3 too, as generated data has them; object identifiers are
    none.
    """
    try:
        address = ipaddress.ip_address(value.decode("ascii"))
    except ValueError:
        return REJECT
    if not address.is_global or _OID.match(value):
        return REJECT
    if address.version == 6 and not 0x20 <= address.packed[0] <= 0x3F:  # 2000::/3 is all that IANA has given out
        groups = value.split(b":")
        return ABSTAIN if len(groups) == 8 and sum(len(group) > 2 for group in groups) >= 4 else REJECT
    small = address.version == 4 and all(byte < 32 for byte in address.packed)
    return Verdict(Outcome.ABSTAIN, bonus=-0.3) if small else ABSTAIN


def birth_date(value: bytes, _left: str) -> Verdict:
    """Judge a date by the calendar; numeric days and months are tried in both orders."""
    day, _, _ = value.partition(b"T") if value[:4].isdigit() else (value, b"", b"")
    words = re.findall(r"[0-9]+|[a-z]+", day.decode("ascii", "ignore").lower())
    named = [found for word in words if (found := _MONTHS.get(word[:4]) or _MONTHS.get(word[:3]))]
    numbers = [int(word) for word in words if word.isdigit()]
    if named and len(numbers) == 2:
        options = [(numbers[1], named[0], numbers[0])]
    elif len(numbers) == 3 and numbers[0] > 31:
        options = [(numbers[0], numbers[1], numbers[2])]
    elif len(numbers) == 3:
        options = [(numbers[2], numbers[1], numbers[0]), (numbers[2], numbers[0], numbers[1])]
    else:
        return REJECT
    return ABSTAIN if any(_is_past(*option) for option in options) else REJECT


def _is_past(year: int, month: int, day: int) -> bool:
    """Tell whether it is a date from 1900 on; two-digit years are taken as they stand in the twentieth century."""
    try:
        date = dt.date(year + 1900 if year < 100 else year, month, day)
    except ValueError:
        return False
    return 1900 <= date.year <= 2099


def mac_address(value: bytes, _left: str) -> Verdict:
    """Judge a hardware address: not all zeros, not broadcast, not a range for documentation (RFC 7042)."""
    octets = bytes.fromhex(re.sub(rb"[:-]", b"", value).decode("ascii"))
    return REJECT if octets in {bytes(6), b"\xff" * 6} or octets[:5] == b"\x00\x00\x5e\x00\x53" else ABSTAIN


def gps_position(value: bytes, _left: str) -> Verdict:
    """Judge a pair of latitude and longitude by their ranges."""
    latitude, longitude = (float(part) for part in re.split(rb"[, ]+", value))
    return ABSTAIN if abs(latitude) <= 90 and abs(longitude) <= 180 else REJECT


def gps_single(value: bytes, _left: str) -> Verdict:
    """Judge one coordinate by its range."""
    return ABSTAIN if abs(float(value)) <= 180 else REJECT


def customer_number(value: bytes, _left: str) -> Verdict:
    """Judge a customer or account number: at least four digits in it."""
    return ABSTAIN if sum(48 <= byte <= 57 for byte in value) >= 4 else REJECT


def address_line(value: bytes, left: str) -> Verdict:
    """Judge what stands behind a label such as ``Address:``: a number of a house and a word of letters.

    Where only a space follows the label, which is a verb as well (``address 3 issues``), the value must name a street
    or hold a postcode.
    """
    house = re.search(rb"(?<![0-9])[0-9]{1,5}(?![0-9])", value)
    if not house or not re.search(rb"[A-Za-z]{3}", value) or value[:2].lower() == b"0x":
        return REJECT
    spoken = value.decode("utf-8", "ignore")
    named = _LABEL_END.search(left) or _STREET.search(spoken) or _POSTCODE.search(spoken)
    return ABSTAIN if named or (_LIVES.search(left) and _SPOKEN_STREET.search(spoken)) else REJECT


def mixed_code(value: bytes, _left: str) -> Verdict:
    """Judge a short code such as a number plate: capital letters as well as digits."""
    return ABSTAIN if re.search(rb"[A-Z]", value) and re.search(rb"[0-9]", value) else REJECT


def username(value: bytes, _left: str) -> Verdict:
    """Judge a name to log in with: a digit in it, or parts that no program would call an attribute."""
    if _ATTRIBUTE.search(value) or value.lower() in _ORDINARY_USERS:
        return REJECT
    return ABSTAIN if re.search(rb"[0-9]", value) or re.search(rb"[a-z][._-][a-z]", value) else REJECT
