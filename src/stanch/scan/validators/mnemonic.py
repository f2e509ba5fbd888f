"""Recovery phrases of wallets: words of a list with a checksum (BIP-39)."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from stanch.errors import InvalidInput
from stanch.scan.validators.verdict import REJECT, Outcome, Verdict

_LENGTHS = (12, 15, 18, 21, 24)
_SIZE = 2048
_BITS = 11
_WORD = re.compile(rb"[A-Za-z]+")
_MAX_GAP = 10


@cache
def word_numbers() -> Mapping[bytes, int]:
    """Return the English list: each word and its number.

    Raises:
        InvalidInput: The shipped list is not whole.
    """
    words = resources.files("stanch.scan").joinpath("packs/bip39-english.txt").read_bytes().split()
    if len(set(words)) != _SIZE or words != sorted(words):
        raise InvalidInput(f"bip39-english.txt: expected {_SIZE} words in order, found {len(words)}")
    return {word: number for number, word in enumerate(words)}


def has_checksum(numbers: Sequence[int]) -> bool:
    """Tell whether the numbers of 12 to 24 words end with the checksum of what they encode (BIP-39)."""
    value = 0
    for number in numbers:
        value = value << _BITS | number
    check = len(numbers) // 3
    entropy = (value >> check).to_bytes(len(numbers) * 4 // 3, "big")
    return hashlib.sha256(entropy).digest()[0] >> (8 - check) == value & ((1 << check) - 1)


def recovery_phrase(value: bytes, _left: str) -> Verdict:
    """Judge a text that may hold a recovery phrase: it means all words that stand in some phrase with a right checksum.

    A phrase next to a word that happens to be in the list may be right in two places; then both are meant.
    """
    numbers = word_numbers()
    run: list[tuple[int, int, int]] = []
    found: list[tuple[int, int]] = []
    for word in _WORD.finditer(value):
        number = numbers.get(word[0].lower())
        if run and (number is None or word.start() - run[-1][1] > _MAX_GAP):
            found += _phrases(run)
            run = []
        if number is not None:
            run.append((word.start(), word.end(), number))
    found += _phrases(run)
    if not found:
        return REJECT
    return Verdict(Outcome.STRONG, part=(min(first for first, _ in found), max(last for _, last in found)))


def _phrases(run: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Return the places of the phrases with a right checksum in a run of list words."""
    return [
        (run[first][0], run[first + length - 1][1])
        for length in _LENGTHS
        for first in range(len(run) - length + 1)
        if has_checksum([number for _, _, number in run[first : first + length]])
    ]
