"""Names of people without a model: evidence from introductions, a gazetteer and the words themselves."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from stanch.errors import InvalidInput
from stanch.scan.validators.verdict import ABSTAIN, REJECT, Outcome, Verdict

MAGIC = b"STXNAME\x01"
PREFIX = 5

_INTRODUCTION = 32

_INTRODUCED = re.compile(
    r"(?:\b(?:name\s+is|i\s+am|i'm|dear|mr|mrs|ms|miss|dr|prof|sir|herrn?|frau|lieber?|monsieur|madame|mme|mlle|chere?|senora?|"
    r"sra?|don|estimad[oa]|querid[oa]|signora?|sig|car[oa]|gentile|meneer|mevrouw|dhr|mevr|beste|geachte|prezad[oa]|signed|"
    r"signed\s+by|mein\s+name\s+ist|ich\s+bin|ich\s+hei\u00dfe|ich\s+heisse|je\s+m'appelle|je\s+suis|me\s+llamo|mi\s+nombre\s+es|"
    r"soy|mi\s+chiamo|sono|mijn\s+naam\s+is|ik\s+heet|ik\s+ben|meu\s+nome\s+e|chamo-me|me\s+chamo)\b|\bname[\"']?\s{0,2}[:=])[\s.,:\"']{0,4}\Z",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9._+-]{1,63})@[A-Za-z0-9-]{1,63}\.[A-Za-z]")
_JOINTS = re.compile(r"[._+-]|[0-9]+")
_MONTH = re.compile(
    rb"(?:january?|february?|march|april|may|june?|july?|juni|juli|august|september|october|november|december)\b",
    re.IGNORECASE,
)
_ADDRESSES, _SHORTEST, _SHORT = 8, 3, 5
_COMPANY = re.compile(r" (?:inc|ltd|llc|plc|corp|gmbh|group|sons|holdings|ventures|solutions)\.?\Z", re.IGNORECASE)
"""What ends the name of a company; many begin with a family's name."""
_HAILED = re.compile(r"(?:\A|[\n.!?>\"] {0,2})(?:hi|hey|good (?:morning|afternoon|evening)),? \Z", re.IGNORECASE)
_GREETED = re.compile(
    r"\b(?:hi|hello|hey|hallo|hola|ciao|ola|bonjour|regards|sincerely|thanks|cheers|wishes|gru(?:ss|\u00df)(?:en|e)?|gruessen|"
    r"cordialement|salutations|saludos|saluti|groet(?:en)?|atenciosamente|cumprimentos|this\s+is|customer|client|patient|"
    r"agent|contact|named|called|call\s+me|applicant|colleague|friend|son|daughter|brother|sister|wife|husband|mother|father|ask\s+for|speak\s+to|from|to|cc|by|and|with|for|user|employee|sender|recipient)[\s.,:!]{1,4}\Z",
    re.IGNORECASE,
)


def name_digest(word: str) -> bytes:
    """Return what the gazetteer stores of a name: the first five bytes of BLAKE2b of its lower-case form."""
    return hashlib.blake2b(word.lower().encode(), digest_size=PREFIX, person=b"stanch/names/v1").digest()


@dataclass(frozen=True, slots=True)
class Gazetteer:
    """Given names, family names and ordinary words, each as five-byte digests."""

    given: frozenset[bytes]
    family: frozenset[bytes]
    words: frozenset[bytes]

    @classmethod
    def parse(cls, data: bytes) -> "Gazetteer":
        """Read ``names.bin``: magic, three big-endian 32-bit counts, then the sorted digests.

        Raises:
            InvalidInput: Wrong magic or length.
        """
        counts = [int.from_bytes(data[8 + 4 * i : 12 + 4 * i], "big") for i in range(3)]
        if data[:8] != MAGIC or len(data) != 20 + PREFIX * sum(counts):
            raise InvalidInput("names.bin: not a gazetteer, or cut short")
        lists, at = [], 20
        for count in counts:
            lists.append(frozenset(data[at + PREFIX * i : at + PREFIX * (i + 1)] for i in range(count)))
            at += PREFIX * count
        return cls(*lists)


@cache
def gazetteer() -> Gazetteer:
    """Return the shipped gazetteer."""
    return Gazetteer.parse(resources.files("stanch.scan").joinpath("packs/names.bin").read_bytes())


def person_name(value: bytes, left: str) -> Verdict:
    """Judge some capitalised words: the verdict's bonus is the sum of the evidence.

    Leading words that are ordinary and no given names, and trailing ones that are no family names, are left out.
    """
    book = gazetteer()
    spoken = value.decode("utf-8", "ignore")
    words = spoken.split(" ")
    digests = [name_digest(word.rstrip(".")) for word in words]
    first, last = 0, len(words)
    while first < last and digests[first] in book.words and digests[first] not in book.given:
        first += 1
    while last > first and digests[last - 1] in book.words and digests[last - 1] not in book.family:
        last -= 1
    if first == last or _COMPANY.search(spoken):
        return REJECT
    chosen = digests[first:last]
    if any(map(_is_abbreviation, words[first:last], chosen)) and not value.isupper():
        return REJECT
    ordinary = not book.words.isdisjoint(chosen)
    given = not book.given.isdisjoint(chosen[: max(1, len(chosen) - 1)])
    family = not book.family.isdisjoint(chosen[1:])
    evidence = 0.3 * given + 0.25 * family + 0.1 * (len(chosen) >= 2) + 0.1 * (len(chosen) >= 2 and not ordinary)
    evidence -= (0.15 if given and family else 0.25) * ordinary
    skipped = " ".join([*words[:first], ""])
    before = (left[-_INTRODUCTION:] + skipped)[-_INTRODUCTION:]
    if (first == 0 and _INTRODUCED.search(before)) or (first == 0 and not ordinary and _HAILED.search(before)):
        evidence += 0.5
    elif _GREETED.search(before):
        evidence += 0.25
    if "@" in left and _in_address([word.strip("'.-").lower() for word in words[first:last]], left):
        evidence += 0.4
    start = len(skipped.encode())
    return Verdict(Outcome.ABSTAIN, bonus=evidence, part=(start, start + len(" ".join(words[first:last]).encode())))


def _is_abbreviation(word: str, digest: bytes) -> bool:
    """Tell whether a word is up to five capitals that are nobody's name, as in ``James URL Wilson``."""
    book = gazetteer()
    known = digest in book.family or digest in book.given or word in {"JR", "SR", "II", "III", "IV"}
    return 1 < len(word) <= _SHORT and word.isupper() and word.isalpha() and not known


def _in_address(names: list[str], left: str) -> bool:
    """Tell whether one of the last e-mail addresses to the left is made of the names, or of one and an initial."""
    given, family = names[0], names[-1]
    joined = {given + family, family + given, given[:1] + family, family + given[:1], given + family[:1]}
    for address in _ADDRESS.findall(left)[-_ADDRESSES:]:
        parts = [part for part in _JOINTS.split(address.lower()) if part]
        if {given, family} <= set(parts) and len(given) >= _SHORTEST:
            return True
        if len(names) > 1 and "".join(parts) in joined:
            return True
    return False


def labelled_word(value: bytes, _left: str) -> Verdict:
    """Judge what stands behind a label such as ``Last name:``: not an ordinary word, which would describe the field."""
    book = gazetteer()
    digests = [name_digest(word) for word in value.decode("utf-8", "ignore").split(" ")]
    known = any(d in book.given or d in book.family for d in digests) or len(digests) > 1
    return REJECT if digests[0] in book.words and not known else ABSTAIN


def spoken_name(value: bytes, _left: str) -> Verdict:
    """Judge small letters behind ``my name is``: a given name, and the family names that follow it."""
    book = gazetteer()
    words = value.decode().split(" ")
    digests = [name_digest(word) for word in words]
    if digests[0] not in book.given or digests[0] in book.words:
        return REJECT
    size = 1
    while size < len(words) and digests[size] in book.family and digests[size] not in book.words:
        size += 1
    return Verdict(Outcome.ABSTAIN, part=(0, len(" ".join(words[:size]))))


def residence(value: bytes, left: str) -> Verdict:
    """Judge what stands behind ``lives in`` or ``born in``: a month is no place."""
    return REJECT if _MONTH.match(value) else labelled_word(value, left)
