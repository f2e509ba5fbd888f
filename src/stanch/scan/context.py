"""Words around a value: whole words only, and never those of a replacement label."""

import re
from functools import lru_cache
from typing import NamedTuple

from stanch.scan.fold import SEPARATOR
from stanch.scan.recogniser import Context

WIDTH = 96
"""Bytes of context that are read left of a value."""

_WORD = re.compile(r"[^\W_]+")
_CUT = re.compile(r"\A[^\W_]+")
LABEL = re.compile(r"<[A-Z][A-Z0-9-]*(?:[:_][A-Za-z0-9]+)?>|\A[A-Z0-9-]*(?:[:_][A-Za-z0-9]+)?>")
_KEY = re.compile(r"([A-Za-z0-9_.-]{1,64})[\"']?\s{0,3}(?:=>|:=|=|:)\s{0,3}[\"']?\Z")
_KEY_SIGNS, _AFTER_KEY = frozenset("=:>"), " \t\n\r\f\v\"'"
_JOINTS = re.compile(r"[_.\-\s]+|(?<=[a-z0-9])(?=[A-Z])")
_PLACE = re.compile(r"(?:\[[0-9]*\])+\Z")

_NONE = Context()
_NEAR, _FIELD, _NEVER = 0.35, 0.35, -0.45


class Surroundings(NamedTuple):
    """What stands left of a value inside the same text, and the name of the record field it is in."""

    left: str
    field: str

    @classmethod
    def read(cls, text: bytes | bytearray, low: int, start: int, field: str) -> "Surroundings":
        """Read up to 96 bytes before ``start``; a word cut in two by that limit is left out."""
        first = max(low, start - WIDTH)
        left = bytes(text[first:start]).decode("utf-8", "ignore")
        if first > low and _is_word(text, first - 1):
            left = _CUT.sub("", left)
        return cls(LABEL.sub(" ", left) if ">" in left else left, field)

    def weigh(self, context: Context) -> tuple[float, list[str]]:
        """Return what the context adds to a score, and the reasons in words.

        A contrary word counts unless a context word stands closer to the value: the closer sentence is about it.
        """
        if context == _NONE:
            return 0.0, []
        words = _WORD.findall(self.left.casefold())
        words.reverse()
        near, never = _first(words, context.near), _first(words, context.never)
        score = 0.0
        reasons: list[str] = []
        if near < len(words):
            score, reasons = score + _NEAR, [*reasons, "context word"]
        # The expression is slow to fail, and it can only match where such a sign stands.
        key = _KEY.search(self.left) if self.left.rstrip(_AFTER_KEY)[-1:] in _KEY_SIGNS else None
        names = _endings(self.field) | (_endings(key[1]) if key else frozenset())
        if names & context.fields:
            score, reasons = score + _FIELD, [*reasons, "field name"]
        if never < near or names & context.never:
            score, reasons = score + _NEVER, [*reasons, "contrary word"]
        return score, reasons


def _first(words: list[str], wanted: frozenset[str]) -> int:
    """Return the place of the first wanted word, or the number of words."""
    if wanted.isdisjoint(words):
        return len(words)
    return next(place for place, word in enumerate(words) if word in wanted)


def _is_word(text: bytes | bytearray, place: int) -> bool:
    byte = text[place]
    return byte >= 0x80 or (byte != SEPARATOR and chr(byte).isalnum())


@lru_cache(1024)
def _endings(name: str) -> frozenset[str]:
    """Return what a name's last words are together, of one and of many: ``home_phones[0]`` is called ``phone``."""
    words = _JOINTS.split(_PLACE.sub("", name))
    endings = {"".join(words[first:]).casefold() for first in range(len(words))}
    return frozenset(endings | {ending.removesuffix("s") for ending in endings})
