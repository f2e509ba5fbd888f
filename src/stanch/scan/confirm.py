"""From an anchor's end to a scored finding: window, RE2 confirmation, boundary bytes, deny list, validator, context.

Everything here is a function of the folded text alone, so that a stream and a whole text give the same answer.
"""

import re
from functools import lru_cache
from typing import NamedTuple

import re2

from stanch.errors import InvalidInput
from stanch.scan.anchor import parse_anchor
from stanch.scan.check import Candidate
from stanch.scan.context import WIDTH, Surroundings
from stanch.scan.fold import SEPARATOR
from stanch.scan.hold import SwallowHold, TrailingHold
from stanch.scan.recogniser import Context, Recogniser
from stanch.scan.validators import REGISTRY, Outcome, Verdict
from stanch.scan.validators.deny import has_example_word, is_placeholder, is_published, is_sequence
from stanch.terms import Severity

RESIDUAL = 0.2
"""Candidates from this score up to the policy's least score are kept as residuals."""

_COMPILED = 1024
"""How many expressions are remembered, so that the next scanner of a process need not compile the shipped rules."""
_ABSTAIN = Verdict(Outcome.ABSTAIN)
_UNANCHORED = re2._Anchor.UNANCHORED  # noqa: SLF001 - see Confirmer
_NO_MATCH = (-1, -1)


class Located(NamedTuple):
    """Where an expression matches, ``first`` to ``stop``, and its value in there, ``start`` to ``end``."""

    first: int
    stop: int
    start: int
    end: int

    def moved(self, by: int) -> "Located":
        """Return the same place counted from another beginning."""
        return Located(self.first + by, self.stop + by, self.start + by, self.end + by)


class Match(NamedTuple):
    """A confirmed value in folded bytes: half-open span, score, severity and why. ``open`` says that it may go on."""

    start: int
    end: int
    score: float
    severity: Severity
    reason: str
    open: bool


class Confirmer:
    """One recogniser, ready to judge candidates."""

    def __init__(self, recogniser: Recogniser) -> None:
        """Compile the confirming expression.

        Raises:
            InvalidInput: The expression is not RE2 syntax, or the validator is unknown.
        """
        self.recogniser = recogniser
        self.shape = parse_anchor(recogniser.anchor)
        self.history = recogniser.before + WIDTH + 1
        expression = _compile(recogniser)
        self._match = expression._regexp.Match  # noqa: SLF001 - the wheel's own wrapper takes three times as long
        named = dict(expression.groupindex).get(b"v")
        foreign = range(1, expression.groups + 1) if recogniser.check is not None else ()
        self._groups = tuple(foreign) if named is None else (named,)
        # No byte set holds the separator, so a window never crosses one.
        self._stop = re.compile(b"[^" + _escaped(recogniser.cont) + b"]" if recogniser.cont else bytes([SEPARATOR]))
        if recogniser.validator and recogniser.validator not in REGISTRY:
            raise InvalidInput(f"rule {recogniser.id}: unknown validator {recogniser.validator!r}")
        self._validator = REGISTRY.get(recogniser.validator)
        self._weighs = recogniser.context != Context()
        hold = recogniser.hold
        self._run = hold if isinstance(hold, TrailingHold) else None
        literals = (literal.lower() if recogniser.caseless else literal for literal in self.shape.literals or ())
        self._literals = frozenset(literals)
        self._lengths = sorted({len(literal) for literal in self._literals}, reverse=True)
        self._swallow = hold if isinstance(hold, SwallowHold) else None
        if self._swallow is not None:
            self._body = re.compile(b"[" + _escaped(self._swallow.members) + b"]*")

    def first(self, text: bytes | bytearray, low: int, end: int) -> int:
        """Return where a value announced by the anchor that ends at ``end`` can start at the earliest."""
        if self._run is not None:
            return max(low, end - self.recogniser.before, self._run.start(text, low, end - 1))
        if self.shape.shortest == self.shape.longest:
            return max(low, end - self.shape.longest)
        tail = bytes(text[max(low, end - self.shape.longest) : end])
        if self.recogniser.caseless:
            tail = tail.lower()
        for length in self._lengths:
            if length <= len(tail) and tail[-length:] in self._literals:
                return end - length
        return end - len(tail)  # of an anchor that begins before ``low`` only the end is there

    def close(self, text: bytes | bytearray, end: int, high: int) -> int | None:
        """Return where the window of a candidate closes, or None while more text may still belong to it.

        A byte outside ``cont`` closes it, or else the limit ``after``; the byte at the limit is only looked at.
        """
        limit = end + self.recogniser.after
        if (stop := self._stop.search(text, end, min(limit, high))) is not None:
            return stop.start()
        return limit - 1 if high >= limit else None

    def locate(self, text: bytes | bytearray, low: int, window: tuple[int, int], end: int) -> Located | None:
        """Return the leftmost match in a window that covers the last byte of the anchor that ends at ``end``.

        The bytes on both sides of the window are shown to the expression, for its assertions, but never matched.
        """
        first, close = window
        base = max(low, first - 1)
        shown, position = bytes(text[base : close + 1]), first - base
        while (spans := self._match(_UNANCHORED, shown, position, close - base))[0] != _NO_MATCH:
            start, stop = spans[0]
            if start > end - 1 - base:
                return None
            if stop >= end - base:
                first, last = start, stop
                for group in self._groups:
                    if spans[group][0] < spans[group][1]:
                        first, last = spans[group]
                        break
                return Located(start + base, stop + base, first + base, last + base)
            position = start + 1
        return None

    def judge(self, text: bytes | bytearray, bounds: tuple[int, int], located: Located, field: str) -> Match | None:
        """Apply boundary bytes, deny list, validator and context to a confirmed value.

        Args:
            text: Folded bytes.
            bounds: Start of the text in them, and end of what is visible of it.
            located: What :meth:`locate` returned; the answer depends on no other part of the candidate.
            field: Name of the record field.

        Returns:
            The match with a score of at least ``RESIDUAL``, or None.
        """
        low, high = bounds
        rule = self.recogniser
        first, stop, start, end = located
        if start > low and text[start - 1] in rule.left:
            return None
        value = bytes(text[start:end])
        around = Surroundings.read(text, low, start, field)
        if rule.context.required and around.weigh(rule.context)[0] <= 0:  # before the validator, which may be slow
            return None
        verdict = self._validator(value, around.left) if self._validator is not None else _ABSTAIN
        if rule.check is not None:
            verdict = rule.check.judge(Candidate(text, low, high, first, stop, start, end, around.left))
        if verdict.outcome is Outcome.REJECT:
            return None
        if verdict.part is not None:
            skipped, length = verdict.part
            start, end = start + skipped, start + length
            value = bytes(text[start:end])
            around = Surroundings.read(text, low, start, field) if skipped else around
        if (start > low and text[start - 1] in rule.left) or (end < high and text[end] in rule.right):
            return None
        added, reasons = around.weigh(rule.context) if self._weighs else (0.0, [])
        score = round(min(1.0, max(0.0, max(rule.score, verdict.outcome.value) + verdict.bonus + added)), 4)
        if score < RESIDUAL or _denied(rule, value, proven=verdict.outcome is Outcome.STRONG):
            return None
        reasons = ["checksum or structure" if verdict.outcome.value > 0 else "shape", *reasons]
        if verdict.note:
            reasons.append(verdict.note)
        swallows = self._swallow is not None
        return Match(
            start, stop if swallows else end, score, verdict.severity or rule.severity, ", ".join(reasons), swallows
        )

    def extend(self, text: bytes | bytearray, position: int, high: int, *, final: bool) -> tuple[int, bool]:
        """Carry a swallowing match on from ``position``; return its end so far and whether it is complete."""
        if self._swallow is None:
            return position, True
        body = self._body.match(text, position, high)
        run = position if body is None else body.end()
        literal = self._swallow.close
        seen = bytes(text[run : min(high, run + len(literal))])
        if literal and seen == literal:
            return run + len(literal), True
        undecided = run == high or (literal != b"" and literal.startswith(seen))
        return run, final or not undecided


@lru_cache(_COMPILED)
def _escaped(members: bytes) -> bytes:
    return b"".join(b"\\x%02x" % byte for byte in members)


def _denied(rule: Recogniser, value: bytes, *, proven: bool) -> bool:
    if is_published(value) or is_sequence(value) or is_placeholder(value):
        return True
    return rule.family == "secret" and not proven and has_example_word(value)


def _compile(recogniser: Recogniser) -> "re2._Regexp":
    try:
        return _expression(recogniser.confirm.encode("latin-1"), longest=recogniser.check is None)
    except (re2.error, UnicodeEncodeError) as error:
        raise InvalidInput(
            f"rule {recogniser.id}: the confirming expression is not RE2 syntax", why=str(error)[:200]
        ) from error


@lru_cache(_COMPILED)
def _expression(text: bytes, *, longest: bool) -> "re2._Regexp":
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.longest_match = longest
    options.log_errors = False
    return re2.compile(text, options)
