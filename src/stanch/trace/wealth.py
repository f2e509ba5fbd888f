"""A bet against chance: how sure a row of wins makes us, at whatever moment we stop.

Somebody who bets at fair odds gets F times their money with a chance of at most 1/F, whenever they stop (Ville's
inequality). Two such bets run over the same pairs: one against "a planted text comes back no more often than its twin",
one against "at least every fourth planted text comes back".
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self

EPSILON: Final = 1e-6
"""Bound on the chance that an endpoint is taken for one of ours that is not."""
MISS: Final = 1e-3
"""Bound on the chance that nothing is found where every fourth planted text would come back."""
SHARE: Final = 0.25
_STAKE: Final = 0.8


class Outcome(StrEnum):
    """What a pair came to; an unanswered one counts for nothing."""

    WIN = "wins"
    LOSS = "losses"
    TIE = "ties"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class Wealth:
    """What both bets have come to after a number of pairs.

    Attributes:
        wins: Pairs whose planted text came back better.
        losses: Pairs whose twin, which was never planted, came back better.
        ties: Pairs of which neither came back better.
        unanswered: Pairs about which the endpoint said nothing.
    """

    wins: int = 0
    losses: int = 0
    ties: int = 0
    unanswered: int = 0

    def take(self, outcome: Outcome) -> Self:
        """Return what both bets come to with one more pair."""
        return replace(self, **{outcome.value: getattr(self, outcome.value) + 1})

    @property
    def answered(self) -> int:
        """How many pairs counted."""
        return self.wins + self.losses + self.ties

    @property
    def log_found(self) -> float:
        """Log of the bet on planted texts: each win is a factor of 1 + 0.8, each loss one of 1 - 0.8."""
        return self.wins * math.log1p(_STAKE) + self.losses * math.log1p(-_STAKE)

    @property
    def log_nothing(self) -> float:
        """Log of the bet against them: a win is a factor of 1 - 0.8; any other answer makes that fair at ``SHARE``."""
        gain = math.log1p(_STAKE * SHARE / (1 - SHARE))
        return self.wins * math.log1p(-_STAKE) + (self.losses + self.ties) * gain

    def is_found(self, epsilon: float = EPSILON) -> bool:
        """Tell whether the first bet is won: under its hypothesis this has a chance of at most ``epsilon``, ever."""
        return self.log_found >= -math.log(epsilon)

    def is_nothing(self) -> bool:
        """Tell whether the second bet is won: under its hypothesis this has a chance of at most ``MISS``, ever."""
        return self.log_nothing >= -math.log(MISS)


def least_pairs(epsilon: float = EPSILON) -> int:
    """Return how many wins in a row the first bet takes."""
    return math.ceil(-math.log(epsilon) / math.log1p(_STAKE))
