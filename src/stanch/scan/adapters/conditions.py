"""What foreign rules ask of a value: entropy, words near it, and allow-lists; and our own checksums laid over it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache

import re2

from stanch.scan.adapters.expression import compile_foreign
from stanch.scan.check import Candidate
from stanch.scan.pack import load_pack
from stanch.scan.validators import REGISTRY
from stanch.scan.validators.entropy import entropy
from stanch.scan.validators.verdict import ABSTAIN, REJECT, Validator, Verdict
from stanch.terms import JsonValue

REACH = 4096
"""Bytes on each side of a match in which a keyword or the ends of its line are looked for."""

_CHECKSUMS = ("crc62-token", "jwt")


class Target(StrEnum):
    """What an allow-list's expressions are tried on."""

    SECRET = "secret"  # noqa: S105 - the word of the file format
    MATCH = "match"
    LINE = "line"


@dataclass(frozen=True, slots=True)
class Allowance:
    """A value is no finding if an expression is found in the target or a stop word in the value; or only if both are.

    ``together`` asks for both. Stop words are in lower case.
    """

    target: Target
    expressions: tuple[str, ...]
    stopwords: tuple[str, ...]
    together: bool

    def covers(self, candidate: Candidate) -> bool:
        """Tell whether the candidate is allowed."""
        answers = []
        if self.expressions:
            subject = {Target.SECRET: lambda: candidate.value, Target.MATCH: lambda: candidate.match}.get(
                self.target, lambda: candidate.line(REACH)
            )()
            answers.append(found_in(self.expressions, subject))
        if self.stopwords:
            value = candidate.value.lower()
            answers.append(any(word.encode() in value for word in self.stopwords))
        return all(answers) if self.together else any(answers)


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of one rule.

    Attributes:
        entropy: Bits per byte that the value must exceed; 0 asks for nothing.
        keywords: Lower-case words of which one must stand within :data:`REACH` of the match; none asks for nothing.
        allowances: What is no finding after all.
    """

    entropy: float = 0.0
    keywords: tuple[str, ...] = ()
    allowances: tuple[Allowance, ...] = ()

    def judge(self, candidate: Candidate) -> Verdict:
        """Reject a candidate that does not meet the conditions; what is left is judged by our own checksums."""
        if self.entropy and entropy(candidate.value) <= self.entropy:
            return REJECT
        if self.keywords:
            around = candidate.around(REACH).lower()
            if not any(word.encode() in around for word in self.keywords):
                return REJECT
        if any(allowance.covers(candidate) for allowance in self.allowances):
            return REJECT
        return checksum_verdict(candidate.value)

    def facts(self) -> JsonValue:
        """Return all conditions."""
        allowed: list[JsonValue] = [
            [str(a.target), [*a.expressions], [*a.stopwords], a.together] for a in self.allowances
        ]
        return {"entropy": self.entropy, "keywords": [*self.keywords], "allowed": allowed}

    @property
    def looks_around(self) -> bool:
        """Whether text beyond the match decides, which a stream may not have yet."""
        return bool(self.keywords) or any(a.target is Target.LINE and a.expressions for a in self.allowances)


def found_in(expressions: tuple[str, ...], subject: bytes) -> bool:
    """Tell whether one of the expressions is found in the subject."""
    return bool(expressions) and _union(expressions).search(subject) is not None


def checksum_verdict(value: bytes) -> Verdict:
    """Judge a value of any foreign rule by our own rule of the same shape, if one has a published checksum."""
    for fullmatch, validator in _checksums():
        if fullmatch(value) is not None:
            return validator(value, "")
    return ABSTAIN


@cache
def _checksums() -> tuple[tuple[Callable[[bytes], object], Validator], ...]:
    rules = (rule for rule in load_pack() if rule.validator in _CHECKSUMS)
    return tuple((compile_foreign(rule.confirm).fullmatch, REGISTRY[rule.validator]) for rule in rules)


@lru_cache(maxsize=4096)
def _union(expressions: tuple[str, ...]) -> "re2._Regexp":
    for expression in expressions:  # each must stand alone: two broken ones may be one that is not
        compile_foreign(expression)
    return compile_foreign("|".join(f"(?:{expression})" for expression in expressions))
