"""What a recogniser is: the rule that finds one kind of value."""

from dataclasses import dataclass

from stanch.scan.check import Check
from stanch.scan.hold import Hold
from stanch.terms import Severity


@dataclass(frozen=True, slots=True)
class Context:
    """Whole words that raise (``near``) or lower (``never``) the score when they stand left of a value.

    ``fields`` names JSON keys and record fields that raise it; case, ``_`` and ``-`` do not matter there. A value with
    ``required`` context is nothing at all where the context does not raise its score.
    """

    near: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    required: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """The public page that a rule was written from, and the day it was read."""

    title: str
    url: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recogniser:
    """One rule of a pack; its written form is described in :mod:`stanch.scan.pack`.

    Attributes:
        id: Unique name of the rule; ``kind`` is what users see.
        anchor: Byte regular expression of finite width that every value contains; necessary, not sufficient.
        lead: Bytes that must not touch the anchor on its left; ``trail`` likewise on its right. With them the matcher
            passes over what a boundary would refuse later. Letters of a caseless anchor stand there in both cases.
        before: A value announced by an anchor that ends at ``e`` starts at ``e - before`` or later.
        after: Nothing at ``e + after`` or later is looked at; the byte right of the value counts.
        confirm: RE2 expression; its group ``v`` is the value if present, else the whole match.
        left: Bytes that must not touch the value on its left; ``right`` likewise.
        cont: Bytes that a value may go on with after ``e``; the first other byte closes the window.
        hold: What a stream holds back for this rule.
        validator: Name in :data:`stanch.scan.validators.REGISTRY`, or empty.
        score: Base score from 0 to 1.
        check: What a foreign rule asks beyond its shape. Such a rule is matched leftmost-first, as its authors expect,
            and its value is the first group that holds something where no group is named ``v``.
        whole_only: The rule has no bound, or asks about text that a stream may not have yet; streams leave it out.
    """

    id: str
    kind: str
    version: int
    family: str
    anchor: str
    caseless: bool
    lead: bytes = b""
    trail: bytes = b""
    before: int
    after: int
    confirm: str
    left: bytes
    right: bytes
    cont: bytes
    hold: Hold
    validator: str
    context: Context
    score: float
    severity: Severity
    examples: tuple[str, ...]
    counterexamples: tuple[str, ...]
    source: Source
    check: Check | None = None
    whole_only: bool = False

    @property
    def verified(self) -> bool:
        """Whether the rule comes with examples that its linter has tried."""
        return bool(self.examples)
