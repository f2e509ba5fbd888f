"""The lifetime budget for false accusations: every plan spends, nothing is refunded."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from stanch.errors import InvalidInput, NotPermitted

LIFETIME = "1e-6"
"""Default bound on the probability that an organisation ever accuses an innocent recipient by stanch."""

PER_CASE = "1e-9"
"""Default bound for one case."""

_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,15})(\.[0-9]{1,30})?(e-?[0-9]{1,2})?")


class ErrorBudgetExhausted(NotPermitted):
    """A plan would spend more error probability than the organisation allowed itself for its whole life."""


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """How much error probability may be spent in total, and what earlier plans spent (exact decimals)."""

    total: str = LIFETIME
    spent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for value in (self.total, *self.spent):
            parse_probability(value)

    def charge(self, epsilon: str) -> "ErrorBudget":
        """Return the budget after a plan of ``epsilon``.

        Raises:
            ErrorBudgetExhausted: The sum would exceed the total. By the union bound the total is what all cases
                together risk, so more would break the stated guarantee.
        """
        after = ErrorBudget(self.total, (*self.spent, epsilon))
        if _sum(after.spent) > parse_probability(self.total):
            raise ErrorBudgetExhausted(
                f"the plan would spend {epsilon}, but of {self.total} only {self.left:.3g} is left",
                why="every plan counts once it is made, also when it accused nobody",
                next_step="plan with a smaller epsilon, or decide on a larger lifetime budget and record why",
            )
        return after

    @property
    def left(self) -> float:
        """What is left to spend."""
        return float(parse_probability(self.total) - _sum(self.spent))


def parse_probability(text: str) -> Fraction:
    """Read a decimal strictly between 0 and 1, exactly.

    Raises:
        InvalidInput: It is not one; a negative or zero value would make room in the budget that is not there.
    """
    value = Fraction(text) if _DECIMAL.fullmatch(text) else Fraction(0)
    if not 0 < value < 1:
        raise InvalidInput(f"expected an error probability such as {PER_CASE}, found {text[:40]!r}")
    return value


def _sum(values: Iterable[str]) -> Fraction:
    return sum(map(parse_probability, values), Fraction(0))
