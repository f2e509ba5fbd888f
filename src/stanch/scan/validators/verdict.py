"""What a validator answers about a value."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from stanch.terms import Severity


class Outcome(Enum):
    """The answer; the number is the score that the value gets at least."""

    REJECT = -1.0
    ABSTAIN = 0.0
    WEAK = 0.45
    MEDIUM = 0.6
    STRONG = 0.95


@dataclass(frozen=True, slots=True)
class Verdict:
    """A validator's answer, what it adds to the score, the part of the value it means, its own severity, a note."""

    outcome: Outcome
    bonus: float = 0.0
    part: tuple[int, int] | None = None
    severity: Severity | None = None
    note: str = ""


REJECT = Verdict(Outcome.REJECT)
ABSTAIN = Verdict(Outcome.ABSTAIN)
WEAK = Verdict(Outcome.WEAK)
MEDIUM = Verdict(Outcome.MEDIUM)
STRONG = Verdict(Outcome.STRONG)

Validator: TypeAlias = Callable[[bytes, str], Verdict]
"""Called with the folded value and up to 96 characters of folded text left of it; a pure function."""
