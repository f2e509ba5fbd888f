"""What a foreign expression needs a text to hold: its widths, its bytes, and the strings no match can do without.

Byte sets are masks: bit ``b`` says that byte ``b`` is in the set. Widths are upper bounds and sets supersets, so that a
window made from them never cuts a match.
"""

import functools
import itertools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from stanch.scan.anchor import MAX_WIDTH

ENDLESS = 1 << 40
"""The width of an infinite repeat."""

EVERY_BYTE = (1 << 256) - 1 & ~(1 << 0x1E)  # the separator is in no text
_MOST_LITERALS, _MOST_ALTERNATIVES, _KEPT = 64, 256, 6
_LEAST_LITERAL, _RARE_LITERAL, _GOOD_LITERAL, _RARE_RUN = 2, 4, 6, 12


class Side(NamedTuple):
    """What may stand beside a factor: at most so many bytes out of a set."""

    longest: int
    mask: int


@dataclass(frozen=True, slots=True)
class Factor:
    """A piece that every match holds: literals, or an anchor of byte classes where ``literals`` is empty.

    ``before`` and ``after`` are the most bytes of a match left and right of it, and the masks what they can be.
    """

    literals: tuple[bytes, ...]
    anchor: str
    caseless: bool
    shortest: int
    longest: int
    mask: int
    before: int = 0
    before_mask: int = 0
    after: int = 0
    after_mask: int = 0

    def between(self, left: "Side", right: "Side") -> "Factor":
        """Return this factor with more around it."""
        return replace(
            self,
            before=self.before + left.longest,
            before_mask=self.before_mask | left.mask,
            after=self.after + right.longest,
            after_mask=self.after_mask | right.mask,
        )

    @property
    def quality(self) -> tuple[int, int, bool, bool, int]:
        """Sorts factors: literals before runs of classes, but those that stand in ordinary words behind long runs.

        Of one rank, long ones come first, then those that begin a match, have a bounded left, or are few.
        """
        length = min(self.shortest, _GOOD_LITERAL if self.literals else MAX_WIDTH)
        rank = 2 * (length >= _RARE_LITERAL) if self.literals else 2 * (length >= _RARE_RUN) - 1
        return rank, length, self.before == 0, self.before < ENDLESS, -len(self.literals)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an expression: its widths, its bytes, all its strings if they are few, and its factors."""

    shortest: int
    longest: int
    mask: int
    literals: tuple[bytes, ...] | None
    caseless: bool
    anchor: str | None
    factors: tuple[Factor, ...] = ()

    def best(self) -> Factor | None:
        """Return the factor to search for."""
        return max(self.factors, key=lambda factor: factor.quality, default=None)


NOTHING = Part(0, 0, 0, (b"",), caseless=False, anchor="")


@cache
def byte_part(mask: int, *, caseless: bool = False) -> Part:
    """Return the part that is one byte of a set; ``caseless`` says that both cases of one letter are in it."""
    members = mask_bytes(mask)
    literals: tuple[bytes, ...] | None = None
    if caseless:
        literals = (members[:1].lower(),)
    elif 0 < len(members) <= 4:
        literals = tuple(bytes([byte]) for byte in members)
    return Part(1, 1, mask, literals, caseless, class_text(mask) if mask & EVERY_BYTE else None)


@cache
def mask_bytes(mask: int) -> bytes:
    """Return the bytes of a mask in order, without the separator."""
    return bytes(byte for byte in range(256) if mask & EVERY_BYTE & 1 << byte)


def class_text(mask: int) -> str:
    """Return a mask as a class of :mod:`stanch.scan.anchor`."""
    members, ranges = mask_bytes(mask), []
    for _, run in itertools.groupby(enumerate(members), key=lambda pair: pair[1] - pair[0]):
        places = [byte for _, byte in run]
        ranges.append(f"\\x{places[0]:02x}" + (f"-\\x{places[-1]:02x}" if len(places) > 1 else ""))
    return f"[{''.join(ranges)}]"


def literal_text(literals: Sequence[bytes]) -> str:
    """Return literals as an anchor."""
    texts = ["".join(chr(b) if chr(b).isalnum() and b < 0x80 else f"\\x{b:02x}" for b in lit) for lit in literals]
    return texts[0] if len(texts) == 1 else f"(?:{'|'.join(texts)})"


def join(parts: Sequence[Part]) -> Part:
    """Return the parts in a row."""
    if len(parts) == 1:
        return parts[0]
    factors: list[Factor] = []
    for run in (_literal_run, _class_run):
        first = 0
        while first < len(parts):
            last, found = run(parts, first)
            if found is not None:
                factors.append(found.between(_side(parts[:first]), _side(parts[last:])))
            first = max(last, first + 1)
    for place, part in enumerate(parts):
        if part.factors:
            left, right = _side(parts[:place]), _side(parts[place + 1 :])
            factors += [factor.between(left, right) for factor in part.factors]
    return replace(_measure(parts), factors=_kept(factors))


def either(parts: Sequence[Part]) -> Part:
    """Return the choice between parts."""
    if len(parts) == 1:
        return parts[0]
    literals: tuple[bytes, ...] | None = ()
    for part in parts:
        literals = None if literals is None or part.literals is None else (*literals, *part.literals)
    if literals is not None:
        literals = tuple(dict.fromkeys(literals))
        literals = literals if len(literals) <= _MOST_LITERALS else None
    anchor = None
    if all(part.anchor is not None for part in parts):
        anchor = "(?:" + "|".join(part.anchor or "" for part in parts) + ")"
    mask, caseless = _union(part.mask for part in parts), any(part.caseless for part in parts)
    whole = Part(min(p.shortest for p in parts), max(p.longest for p in parts), mask, literals, caseless, anchor)
    best = [max(_own(part), key=lambda factor: factor.quality, default=None) for part in parts]
    chosen = [factor for factor in best if factor is not None]
    merged = _merge(chosen) if len(chosen) == len(parts) else None
    return replace(whole, factors=() if merged is None else (merged,))


def repeat(part: Part, low: int, high: int) -> Part:
    """Return the part ``low`` to ``high`` times; ``high`` may be ``ENDLESS``."""
    longest = min(part.longest * high, ENDLESS)
    literals = None
    if part.literals is not None and high <= 8 and len(part.literals) ** high <= _MOST_LITERALS:
        counts = (itertools.product(part.literals, repeat=count) for count in range(low, high + 1))
        literals = tuple(dict.fromkeys(b"".join(row) for row in itertools.chain.from_iterable(counts)))
    anchor = None
    if part.anchor is not None and longest <= MAX_WIDTH and high < 1000:
        anchor = f"(?:{part.anchor}){{{low},{high}}}"
    whole = Part(part.shortest * low, longest, part.mask, literals, part.caseless, anchor)
    if low == 0:
        return whole
    # Any of the copies may be the one that is found, so the others may stand on both sides of it.
    others = Side(min(part.longest * (high - 1), ENDLESS), part.mask)
    factors = [factor.between(others, others) for factor in _own(part)]
    copies = min(low, MAX_WIDTH // part.longest) if 0 < part.longest <= MAX_WIDTH else 0
    if part.anchor is not None and copies and anchor is None:
        rest = Side(min(part.longest * (high - copies), ENDLESS), part.mask)
        text = f"(?:{part.anchor}){{{copies}}}"
        run = Factor((), text, part.caseless, part.shortest * copies, part.longest * copies, part.mask)
        factors.append(run.between(rest, rest))
    return replace(whole, factors=_kept(factors))


def _own(part: Part) -> tuple[Factor, ...]:
    """Return the factors of a part, itself included."""
    own = [*part.factors]
    for _, found in (_literal_run([part], 0), _class_run([part], 0)):
        if found is not None:
            own.append(found)
    return tuple(own)


def _literal_run(parts: Sequence[Part], first: int) -> tuple[int, Factor | None]:
    """Return the longest run of parts from ``first`` on whose strings can be listed, and where it ends."""
    literals: tuple[bytes, ...] = (b"",)
    last, caseless = first, False
    for last in range(first, len(parts) + 1):
        if last == len(parts):
            break
        further = parts[last].literals
        if further is None or len(literals) * len(further) > _MOST_LITERALS:
            break
        grown = tuple(dict.fromkeys(a + b for a, b in itertools.product(literals, further)))
        if max(map(len, grown)) > MAX_WIDTH:
            break
        literals, caseless = grown, caseless or parts[last].caseless
    shortest, longest = min(map(len, literals)), max(map(len, literals))
    if shortest < _LEAST_LITERAL:
        return last, None
    mask = _union(part.mask for part in parts[first:last])
    return last, Factor(literals, literal_text(literals), caseless, shortest, longest, mask)


def _class_run(parts: Sequence[Part], first: int) -> tuple[int, Factor | None]:
    """Return the longest run of parts from ``first`` on that fits into an anchor, and where it ends."""
    width, texts, last = 0, [], first
    while last < len(parts) and (text := parts[last].anchor) is not None and width + parts[last].longest <= MAX_WIDTH:
        width += parts[last].longest
        texts.append(text)
        last += 1
    run = _measure(parts[first:last])
    if run.shortest < _LEAST_LITERAL:
        return last, None
    return last, Factor((), "".join(texts), run.caseless, run.shortest, run.longest, run.mask)


def _merge(factors: Sequence[Factor]) -> Factor | None:
    """Return one factor for a choice between several."""
    literals: tuple[bytes, ...] = ()
    if all(factor.literals for factor in factors):
        literals = tuple(dict.fromkeys(literal for factor in factors for literal in factor.literals))
        if len(literals) > _MOST_ALTERNATIVES:
            return None
    return Factor(
        literals=literals,
        anchor=literal_text(literals) if literals else "(?:" + "|".join(f.anchor for f in factors) + ")",
        caseless=any(factor.caseless for factor in factors),
        shortest=min(factor.shortest for factor in factors),
        longest=max(factor.longest for factor in factors),
        mask=_union(factor.mask for factor in factors),
        before=max(factor.before for factor in factors),
        before_mask=_union(factor.before_mask for factor in factors),
        after=max(factor.after for factor in factors),
        after_mask=_union(factor.after_mask for factor in factors),
    )


def _measure(parts: Sequence[Part]) -> Part:
    """Return the parts in a row, without factors."""
    literals: tuple[bytes, ...] | None = (b"",)
    anchor: str | None = ""
    for part in parts:
        if literals is not None and part.literals is not None and len(literals) * len(part.literals) <= _MOST_LITERALS:
            literals = tuple(dict.fromkeys(a + b for a, b in itertools.product(literals, part.literals)))
        else:
            literals = None
        anchor = None if anchor is None or part.anchor is None else anchor + part.anchor
    longest = min(sum(part.longest for part in parts), ENDLESS)
    return Part(
        sum(part.shortest for part in parts),
        longest,
        _union(part.mask for part in parts),
        literals,
        any(part.caseless for part in parts),
        anchor if longest <= MAX_WIDTH else None,
    )


def _side(parts: Sequence[Part]) -> Side:
    return Side(min(sum(part.longest for part in parts), ENDLESS), _union(part.mask for part in parts))


def _union(masks: Iterable[int]) -> int:
    return functools.reduce(operator.or_, masks, 0)


def _kept(factors: Sequence[Factor]) -> tuple[Factor, ...]:
    return tuple(sorted(factors, key=lambda factor: factor.quality, reverse=True)[:_KEPT])
