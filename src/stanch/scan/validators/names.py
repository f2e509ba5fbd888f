"""Names of people without a model: evidence from introductions, a gazetteer and the words themselves."""

import hashlib
import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from importlib import resources

from stanch.errors import InvalidInput
from stanch.scan.validators.verdict import REJECT, Outcome, Verdict

MAGIC = b"STXNAME\x01"
PREFIX = 5

_INTRODUCED = re.compile(
    r"(?:\b(?:name\s+is|i\s+am|i'm|dear|mr|mrs|ms|dr|herr|frau|mme|monsieur|signed|signed\s+by)\b|\bname[\"']?\s{0,2}[:=])[\s.,:\"']{0,4}\Z",
    re.IGNORECASE,
)
_GREETED = re.compile(
    r"\b(?:hi|hello|hey|regards|sincerely|thanks|cheers|wishes|this\s+is|customer|agent|contact|ask\s+for|speak\s+to)[\s.,:!]{1,4}\Z",
    re.IGNORECASE,
)


def name_digest(word: str) -> bytes:
    """Return what the gazetteer stores of a name: the first five bytes of BLAKE2b of its lower-case form."""
    return hashlib.blake2b(word.lower().encode(), digest_size=PREFIX, person=b"stanch/names/v1").digest()


@dataclass(frozen=True, slots=True)
class Gazetteer:
    """Given names, family names and ordinary words, each as sorted five-byte digests."""

    given: tuple[bytes, ...]
    family: tuple[bytes, ...]
    words: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes) -> "Gazetteer":
        """Read ``names.bin``: magic, three big-endian 32-bit counts, then the digests.

        Raises:
            InvalidInput: Wrong magic or length.
        """
        counts = [int.from_bytes(data[8 + 4 * i : 12 + 4 * i], "big") for i in range(3)]
        if data[:8] != MAGIC or len(data) != 20 + PREFIX * sum(counts):
            raise InvalidInput("names.bin: not a gazetteer, or cut short")
        lists, at = [], 20
        for count in counts:
            lists.append(tuple(data[at + PREFIX * i : at + PREFIX * (i + 1)] for i in range(count)))
            at += PREFIX * count
        return cls(*lists)


@cache
def gazetteer() -> Gazetteer:
    """Return the shipped gazetteer."""
    return Gazetteer.parse(resources.files("stanch.scan").joinpath("packs/names.bin").read_bytes())


def _holds(digests: tuple[bytes, ...], digest: bytes) -> bool:
    place = bisect_left(digests, digest)
    return place < len(digests) and digests[place] == digest


def person_name(value: bytes, left: str) -> Verdict:
    """Judge up to three capitalised words: the verdict's bonus is the sum of the evidence.

    Leading words that are ordinary and no given names are left out of the name.
    """
    book = gazetteer()
    words = [
        (match.start(), match.end(), match[0].decode("ascii", "ignore")) for match in re.finditer(rb"[^ ]+", value)
    ]
    digests = [name_digest(word.rstrip(".")) for _, _, word in words]
    first = 0
    while first < len(words) and _holds(book.words, digests[first]) and not _holds(book.given, digests[first]):
        first += 1
    last = len(words)
    while last > first and _holds(book.words, digests[last - 1]) and not _holds(book.family, digests[last - 1]):
        last -= 1
    if first == last:
        return REJECT
    evidence = 0.3 * any(_holds(book.given, digest) for digest in digests[first : max(first + 1, last - 1)])
    evidence += 0.25 * any(_holds(book.family, digest) for digest in digests[first + 1 : last])
    evidence += 0.1 * (last - first >= 2)
    evidence -= 0.25 * any(_holds(book.words, digest) for digest in digests[first:last])
    if first == 0:
        evidence += 0.5 if _INTRODUCED.search(left) else 0.25 if _GREETED.search(left) else 0.0
    else:
        evidence += 0.25 if _GREETED.search(left + value[: words[first][0]].decode("ascii", "ignore")) else 0.0
    return Verdict(Outcome.ABSTAIN, bonus=evidence, part=(words[first][0], words[last - 1][1]))
