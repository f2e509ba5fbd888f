"""What the guard looks for, and what it does when it finds it."""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, cached_property

from stanch.scan import Dictionary, Policy, Scanner, SpanIndex
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
_ALWAYS_BLOCK = frozenset({TRAINING_TEXT, ENCODED_TRAINING_TEXT, ENCODED_TEXT, CANARY})


@dataclass(frozen=True)
class GuardPolicy:
    """The guard's settings.

    A canary, a run of training text and an encoded text that is too long to be read always block: there is no way to
    say otherwise.

    Attributes:
        index: The keyed index of the training text, or None.
        canaries: Texts whose appearance proves a leak; found whatever the case, spacing or width, and reversed. Each
            needs at least four letters or digits.
        dictionaries: The customer's own terms, as keyed hashes.
        block_from: Findings of this severity and above end the answer; less severe ones are redacted.

    Raises:
        InvalidInput: A canary is too short or too long to be looked for.
    """

    index: SpanIndex | None = None
    canaries: tuple[str, ...] = field(default=(), repr=False)
    dictionaries: tuple[Dictionary, ...] = ()
    block_from: Severity = Severity.HIGH

    def __post_init__(self) -> None:
        _ = self.scanner, self.known  # compiled now: a policy that cannot be kept is refused before the first answer

    @cached_property
    def scanner(self) -> Scanner:
        """The compiled scanner of canaries, dictionaries and of the shipped recognisers."""
        if not self.canaries and not self.dictionaries:
            return _shipped()
        return Scanner(Policy(literals=self.canaries, dictionaries=self.dictionaries))

    @cached_property
    def known(self) -> Scanner | None:
        """The compiled scanner of canaries and dictionaries alone; None if there are none."""
        if not self.canaries and not self.dictionaries:
            return None
        return Scanner(Policy(recognisers=(), literals=self.canaries, dictionaries=self.dictionaries))

    def action(self, kind: str, severity: Severity) -> Action:
        """Return what happens to a finding."""
        if kind in _ALWAYS_BLOCK or severity.rank >= self.block_from.rank:
            return Action.BLOCK
        return Action.REDACT


@cache
def _shipped() -> Scanner:
    """Return the scanner of the shipped recognisers alone; compiling it takes a second, and it serves all."""
    return Scanner(Policy())
