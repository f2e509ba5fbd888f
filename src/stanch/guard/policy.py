"""What the guard looks for, and what it does when it finds it."""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from stanch.scan import Policy, Scanner, SpanIndex
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
        return list(Action).index(self)

    def worst(self, other: "Action") -> "Action":
        """Return the worse of two."""
        return max(self, other, key=lambda one: one.rank)


TRAINING_TEXT = "training-text"
CANARY = LITERAL_KIND


@dataclass(frozen=True)
class GuardPolicy:
    """The guard's settings.

    A canary and a run of training text always block: there is no way to say otherwise.

    Attributes:
        index: The keyed index of the training text, or None.
        canaries: Texts whose appearance proves a leak; found whatever the case, spacing or width, and reversed. Each
            needs at least four letters or digits.
        block_from: Findings of this severity and above end the answer; less severe ones are redacted.

    Raises:
        InvalidInput: A canary is too short or too long to be looked for.
    """

    index: SpanIndex | None = None
    canaries: tuple[str, ...] = field(default=(), repr=False)
    block_from: Severity = Severity.HIGH

    def __post_init__(self) -> None:
        _ = self.scanner  # compiled now: a policy that cannot be kept is refused before the first answer

    @cached_property
    def scanner(self) -> Scanner:
        """The compiled scanner of canaries and of the shipped recognisers."""
        return Scanner(Policy(literals=self.canaries))

    def action(self, kind: str, severity: Severity) -> Action:
        """Return what happens to a finding."""
        if kind in {CANARY, TRAINING_TEXT} or severity.rank >= self.block_from.rank:
            return Action.BLOCK
        return Action.REDACT
