"""The lifetime budget for false accusations: every plan spends, nothing is refunded."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from stanch.errors import NotPermitted

LIFETIME = "1e-6"
"""Default bound on the probability that an organisation ever accuses an innocent recipient by stanch."""

PER_CASE = "1e-9"
"""Default bound for one case."""


class BudgetExhausted(NotPermitted):
    """A plan would spend more error probability than the organisation allowed itself for its whole life."""


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """How much error probability may be spent in total, and what earlier plans spent (exact decimals)."""

    total: str = LIFETIME
    spent: tuple[str, ...] = ()

    def charge(self, epsilon: str) -> "ErrorBudget":
        """Return the budget after a plan of ``epsilon``.

        Raises:
            BudgetExhausted: The sum would exceed the total. By the union bound the total is what all cases together
                risk, so more would break the stated guarantee.
        """
        after = ErrorBudget(self.total, (*self.spent, epsilon))
        if _sum(after.spent) > Fraction(self.total):
            raise BudgetExhausted(
                f"the plan would spend {epsilon}, but of {self.total} only {self.left:.3g} is left",
                why="every plan counts once it is made, also when it accused nobody",
                next_step="plan with a smaller epsilon, or decide on a larger lifetime budget and record why",
            )
        return after

    @property
    def left(self) -> float:
        """What is left to spend."""
        return float(Fraction(self.total) - _sum(self.spent))


def _sum(values: Iterable[str]) -> Fraction:
    return sum((Fraction(value) for value in values), Fraction(0))
