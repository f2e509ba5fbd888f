"""What a mark costs: the loss of original and marked copy on the owner's records, before anything is sealed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from stanch.errors import GateFailed, InvalidInput
from stanch.terms import JsonValue, Source

TOLERANCE = 0.005
"""By how much of the original's loss a mark may raise it."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A model's loss on some records.

    Attributes:
        nats: Mean over all their learned tokens, in nats a token.
        records: How many records there were.
        tokens: How many tokens that is.
    """

    nats: float
    records: int
    tokens: int


Evaluate: TypeAlias = Callable[[Source], Loss]
"""Measures the model in a source, which need not lie on a disk."""


@dataclass(frozen=True, slots=True)
class Utility:
    """The loss of a model before and after it was marked, on the same records."""

    original: Loss
    marked: Loss

    @property
    def rise(self) -> float:
        """By how much of the original's loss the mark raised it; negative where it fell."""
        return self.marked.nats / self.original.nats - 1

    def to_json(self) -> dict[str, JsonValue]:
        """Return it for people and programs."""
        return {
            "loss": self.original.nats, "marked_loss": self.marked.nats, "rise": self.rise, "tolerance": TOLERANCE,
            "records": self.original.records, "tokens": self.original.tokens,
        }  # fmt: skip

    def to_payload(self) -> dict[str, JsonValue]:
        """Return it for the log, which takes no fractions as numbers."""
        return {name: repr(value) if isinstance(value, float) else value for name, value in self.to_json().items()}


def check_utility(evaluate: Evaluate, original: Source, marked: Source) -> Utility:
    """Return the loss of both, the marked copy's no more than :data:`TOLERANCE` above the original's.

    Raises:
        GateFailed: It is more, or not a number.
        InvalidInput: The original's own loss is nothing to compare with: zero or not finite.
    """
    before = evaluate(original)
    if not 0 < before.nats < math.inf:
        raise InvalidInput(
            f"the unmarked model's loss: expected a positive number, found {before.nats}",
            next_step="check the weights, or measure on other records",
        )
    found = Utility(before, evaluate(marked))
    if not found.rise <= TOLERANCE:  # a loss that is not a number is refused as well
        raise GateFailed(
            f"the mark costs too much: loss {before.nats:.4f} before, {found.marked.nats:.4f} nats a token after it "
            f"({found.rise:+.2%}, allowed {TOLERANCE:+.2%}) on {before.records:,} records, {before.tokens:,} tokens",
            why="the recipient would get a worse model than the one that was audited",
            next_step="with few tokens it may be chance: measure on more records; else propose the release again "
            "with a weaker mark: stanch release propose MODEL … --alpha SMALLER",
        )
    return found
