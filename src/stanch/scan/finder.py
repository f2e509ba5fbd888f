"""Searches that are no rules: a model or another tool that reads a whole text. Streams leave them out."""

import re
from dataclasses import dataclass
from typing import Protocol

from stanch.scan.context import LABEL
from stanch.scan.found import Found
from stanch.terms import JsonValue, Severity

_NO_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Span:
    """A value that a finder has seen, in code points of the text it was given."""

    start: int
    end: int
    kind: str
    score: float


class Finder(Protocol):
    """A search over whole texts. Safe to use from several threads; ``name`` is unique in a policy."""

    @property
    def name(self) -> str:
        """What a finding names as its recogniser."""
        ...

    @property
    def kinds(self) -> frozenset[str]:
        """All kinds that may be found."""
        ...

    @property
    def severity(self) -> Severity:
        """How bad a finding is; at most ``high``, since no example proves it."""
        ...

    def find(self, text: str) -> list[Span]:
        """Return what is found in a text without lone surrogates."""
        ...

    def facts(self) -> JsonValue:
        """Return what the finder's answers depend on, for the digest of the policy."""
        ...


def search(finder: Finder, text: str) -> list[Found]:
    """Return a finder's findings in a text, without those that touch a replacement label."""
    found = []
    labels = [match.span() for match in LABEL.finditer(text)]
    for span in finder.find(_NO_CHARACTER.sub("\ufffd", text)):
        inside = 0 <= span.start < span.end <= len(text) and span.kind in finder.kinds
        if inside and not any(low < span.end and span.start < high for low, high in labels):
            score = min(1.0, max(0.0, span.score))
            found.append(Found(span.start, span.end, span.kind, finder.severity, score, finder.name, 1, "finder"))
    return found
