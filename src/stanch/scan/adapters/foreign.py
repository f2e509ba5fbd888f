"""From a foreign rule to a recogniser.

A foreign rule has no examples that were tried, so it is unverified: its severity is ``high``, never more. Its anchor is
a string that every match holds, or else as much of the expression as an anchor can say. A rule whose matches have no
bound is cut to 512 bytes left and 4,096 right of its anchor and runs on whole texts only.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stanch.errors import InvalidInput
from stanch.scan.adapters.conditions import Conditions
from stanch.scan.adapters.expression import Expression
from stanch.scan.adapters.factor import Factor, mask_bytes
from stanch.scan.check import Check
from stanch.scan.hold import LiteralHold, RunHold
from stanch.scan.pack import MAX_AFTER, MAX_BEFORE
from stanch.scan.recogniser import Context, Recogniser, Source
from stanch.terms import JsonValue, Severity

SCORE = 0.6
_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class ForeignRules:
    """Rules from elsewhere: those that run, and the id and reason of each that does not."""

    origin: str
    recognisers: tuple[Recogniser, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def whole_only(self) -> tuple[str, ...]:
        """The ids of the rules that run on whole texts only."""
        return tuple(rule.id for rule in self.recognisers if rule.whole_only)

    def to_json(self) -> dict[str, JsonValue]:
        """Return what a report says of the rules."""
        return {
            "origin": self.origin,
            "unverified": len(self.recognisers),
            "whole_only": [*self.whole_only],
            "skipped": [f"{name}: {reason}" for name, reason in self.skipped],
        }


def foreign_kind(origin: str, name: str) -> str:
    """Return the kind of a foreign rule; it begins with the rule's origin, so that it is none of ours."""
    return f"{origin}-{_SLUG.sub('-', name.lower()).strip('-') or 'rule'}"


def make_recogniser(
    name: str, expression: Expression, check: Check, *, looks_around: bool, source: Source
) -> Recogniser:
    """Return the recogniser of a foreign rule; ``source.title`` begins with its origin.

    Raises:
        InvalidInput: No part of the expression tells where to look.
    """
    origin = source.title.split()[0]
    factor = expression.whole.best()
    if factor is None:
        raise InvalidInput("nothing in the expression tells where to look")
    before, after = factor.before + factor.longest, factor.after + 1
    return Recogniser(
        id=f"{origin}/{name}",
        kind=foreign_kind(origin, name),
        version=1,
        family="secret",
        anchor=factor.anchor,
        caseless=factor.caseless,
        before=min(before, MAX_BEFORE),
        after=min(after, MAX_AFTER),
        confirm=expression.text,
        left=b"",
        right=b"",
        cont=mask_bytes(factor.after_mask),
        hold=_hold(factor, min(before, MAX_BEFORE)),
        validator="",
        context=Context(),
        score=SCORE,
        severity=Severity.HIGH,
        examples=(),
        counterexamples=(),
        source=source,
        check=check,
        whole_only=looks_around or before > MAX_BEFORE or after > MAX_AFTER,
    )


def needed_keywords(expression: Expression, keywords: Iterable[str]) -> tuple[str, ...]:
    """Return the keywords in lower case, or none where every match holds one of them anyway."""
    lowered = tuple(dict.fromkeys(word.lower() for word in keywords if word))
    for factor in expression.whole.factors:
        if factor.literals and all(any(w.encode() in lit.lower() for w in lowered) for lit in factor.literals):
            return ()
    return lowered


def conditions_of(expression: Expression, conditions: Conditions) -> Conditions:
    """Return the conditions without the keywords that need not be looked for."""
    return Conditions(conditions.entropy, needed_keywords(expression, conditions.keywords), conditions.allowances)


def _hold(factor: Factor, before: int) -> LiteralHold | RunHold:
    if factor.literals and factor.before == 0:
        return LiteralHold()
    return RunHold(mask_bytes(factor.mask | factor.before_mask), before - 1)
