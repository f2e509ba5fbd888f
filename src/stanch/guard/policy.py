"""What the guard looks for, and what it does when it finds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, cached_property
from types import MappingProxyType

from stanch.errors import InvalidInput
from stanch.scan import Dictionary, Policy, Recogniser, Scanner, SpanIndex, load_pack
from stanch.scan.hold import SwallowHold
from stanch.scan.pack import join_packs
from stanch.scan.policy import LITERAL_KIND
from stanch.terms import Severity


class Action(StrEnum):
    """What happens to a finding; the worst of all findings is the verdict of an answer."""

    ALLOW = "allow"
    REDACT = "redact"
    BLOCK = "block"

    @property
    def rank(self) -> int:
        """0 for ``allow`` to 2 for ``block``."""
        return _RANKS[self]

    def worst(self, other: "Action") -> "Action":
        """Return the worse of two."""
        return self if self is other or self.rank > other.rank else other


_RANKS = {action: rank for rank, action in enumerate(Action)}


TRAINING_TEXT = "training-text"
ENCODED_TRAINING_TEXT = "training-text-encoded"
ENCODED_TEXT = "encoded-text"
CANARY = LITERAL_KIND
_ALWAYS_BLOCK = frozenset({ENCODED_TRAINING_TEXT, ENCODED_TEXT, CANARY})
_OWN = _ALWAYS_BLOCK | {TRAINING_TEXT}


@dataclass(frozen=True)
class GuardPolicy:
    """The guard's settings.

    A canary, encoded training text and an encoded text that is too long to be read always block: there is no way to say
    otherwise. A run of training text blocks. It can be redacted where its head is held, too (``lead_hold``); but an
    escape or a border within :data:`stanch.guard.REPLAYED` code points after it ends the answer, as does one in it.
    A value without a bound, such as a private key, blocks or is allowed: how far it reaches where escapes stand in it
    is not known when its label would have to leave.

    Attributes:
        index: The keyed index of the training text, or None.
        canaries: Texts whose appearance proves a leak; found whatever the case, spacing or width, and reversed. Each
            needs at least four letters or digits.
        dictionaries: The customer's own terms, as keyed hashes.
        recognisers: Further rules, besides the shipped ones.
        actions: What happens to findings of a kind, or of all kinds of a family (``secret``, ``personal``) that are not
            named themselves; those without a bound block where their family is redacted. What is allowed is not looked
            for.
        allow: Values that everybody may know, such as a support address; they pass, whatever their kind. A canary does
            not.
        lead_hold: Hold back the last characters of every answer, as many as a run needs to be hit; see
            :class:`stanch.guard.SpanGate`.
        block_from: Of the kinds without an action, findings of this severity and above end the answer; less severe ones
            are redacted.

    Raises:
        InvalidInput: A canary is too short or too long to be looked for, an action is of a kind that nothing finds or
            that always blocks, or a rule cannot stand beside the others.
    """

    index: SpanIndex | None = None
    canaries: tuple[str, ...] = field(default=(), repr=False)
    dictionaries: tuple[Dictionary, ...] = ()
    recognisers: tuple[Recogniser, ...] = ()
    actions: Mapping[str, Action] = field(default_factory=lambda: MappingProxyType({}))
    allow: tuple[str, ...] = field(default=(), repr=False)
    lead_hold: bool = False
    block_from: Severity = Severity.HIGH

    def __post_init__(self) -> None:
        if self.lead_hold and self.index is None:
            raise InvalidInput("lead_hold: there is no index whose runs could be held", next_step="name the index")
        named = sorted({rule.kind for rule in self.recognisers} & _OWN)
        if named:
            raise InvalidInput(f"a rule finds {named[0]!r}", next_step="give its kind a name that the guard has not")
        families = {rule.family for rule in self._rules}
        known = families | {rule.kind for rule in self._rules} | {one.label for one in self.dictionaries}
        for name in sorted(self.actions):
            if name in _ALWAYS_BLOCK:
                raise InvalidInput(f"actions: {name!r} always blocks", next_step="remove it from the actions")
            if name == TRAINING_TEXT:
                self._check_training_text(self.actions[name])
                continue
            if name not in known:
                raise InvalidInput(
                    f"actions: there is no kind {name[:80]!r}", next_step=f"use one of {', '.join(sorted(known))}"
                )
            if name in self._unbounded and self.actions[name] is Action.REDACT:
                raise InvalidInput(
                    f"actions: {name!r} cannot be redacted", why="its values have no bound", next_step="let it block"
                )
        _ = self.scanner, self.known  # compiled now: a policy that cannot be kept is refused before the first answer

    def _check_training_text(self, action: Action) -> None:
        if action is Action.ALLOW:
            raise InvalidInput(
                f"actions: {TRAINING_TEXT!r} is never allowed", next_step="let it block, or leave the index out"
            )
        if action is Action.REDACT and not self.lead_hold:
            raise InvalidInput(
                f"actions: {TRAINING_TEXT!r} can be redacted only with lead_hold",
                why="otherwise the head of each run leaves, and the answer goes on to the next one",
                next_step="set lead_hold = true",
            )

    @cached_property
    def scanner(self) -> Scanner:
        """The compiled scanner of canaries, dictionaries and of the recognisers."""
        if not (self.canaries or self.dictionaries or self.recognisers or self.allow or self._allowed_kinds):
            return _shipped()
        return Scanner(self._policy(self._rules))

    @cached_property
    def known(self) -> Scanner | None:
        """The compiled scanner of canaries and dictionaries alone; None if there are none."""
        if not self.canaries and not self.dictionaries:
            return None
        return Scanner(self._policy(()))

    def action(self, kind: str, severity: Severity) -> Action:
        """Return what happens to a finding."""
        if kind in _ALWAYS_BLOCK:
            return Action.BLOCK
        if (chosen := self._chosen.get(kind)) is not None:
            return chosen
        return Action.BLOCK if severity.rank >= self.block_from.rank else Action.REDACT

    def _policy(self, rules: tuple[Recogniser, ...]) -> Policy:
        found = {rule.kind for rule in rules} | {one.label for one in self.dictionaries}
        return Policy(
            recognisers=rules, literals=self.canaries, dictionaries=self.dictionaries, allowed=self.allow,
            without=frozenset(self._allowed_kinds & found),
        )  # fmt: skip

    @cached_property
    def _rules(self) -> tuple[Recogniser, ...]:
        return join_packs(load_pack(), self.recognisers) if self.recognisers else load_pack()

    @cached_property
    def _chosen(self) -> dict[str, Action]:
        """The actions by kind; the worst one of a kind that stands in several families."""
        chosen = {TRAINING_TEXT: Action.BLOCK}
        for rule in self._rules:
            if (action := self.actions.get(rule.family)) is not None:
                chosen[rule.kind] = action.worst(chosen.get(rule.kind, Action.ALLOW))
        for kind in self._unbounded:
            if chosen.get(kind) is not Action.ALLOW:
                chosen[kind] = Action.BLOCK
        return chosen | dict(self.actions)

    @cached_property
    def _unbounded(self) -> frozenset[str]:
        return frozenset(rule.kind for rule in self._rules if isinstance(rule.hold, SwallowHold))

    @cached_property
    def _allowed_kinds(self) -> frozenset[str]:
        return frozenset(kind for kind, action in self._chosen.items() if action is Action.ALLOW) - _ALWAYS_BLOCK


@cache
def _shipped() -> Scanner:
    """Return the scanner of the shipped recognisers alone; compiling it takes a second, and it serves all."""
    return Scanner(Policy())
