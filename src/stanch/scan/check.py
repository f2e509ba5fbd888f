"""What a rule may ask of a confirmed value beyond its shape, where a validator's name does not say it all."""

from typing import NamedTuple, Protocol

from stanch.scan.validators.verdict import Verdict
from stanch.terms import JsonValue


class Candidate(NamedTuple):
    """A confirmed match in folded bytes: the match ``first`` to ``stop``, in it the value ``start`` to ``end``.

    ``low`` and ``high`` bound the text it stands in. Of a stream's text only the match is sure to be there, and
    ``left``, up to 96 characters left of the value.
    """

    text: bytes | bytearray
    low: int
    high: int
    first: int
    stop: int
    start: int
    end: int
    left: str

    @property
    def value(self) -> bytes:
        """The value."""
        return bytes(self.text[self.start : self.end])

    @property
    def match(self) -> bytes:
        """The whole match."""
        return bytes(self.text[self.first : self.stop])

    def around(self, reach: int) -> bytes:
        """Return the match and at most ``reach`` bytes of the text on each side of it."""
        return bytes(self.text[max(self.low, self.first - reach) : min(self.high, self.stop + reach)])

    def line(self, reach: int) -> bytes:
        """Return the lines that the match stands on, at most ``reach`` bytes of them on each side of it."""
        before = bytes(self.text[max(self.low, self.first - reach) : self.first]).rpartition(b"\n")[2]
        after = bytes(self.text[self.stop : min(self.high, self.stop + reach)]).partition(b"\n")[0]
        return before + self.match + after


class Check(Protocol):
    """Judges candidates of one rule. Hashable, without state, and the same on every machine."""

    def judge(self, candidate: Candidate) -> Verdict:
        """Return what is to be made of a candidate."""
        ...

    def facts(self) -> JsonValue:
        """Return everything that the judgement depends on, for the digest of the rules."""
        ...
