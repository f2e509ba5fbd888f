"""Does an endpoint serve our release, or something made from it? It is asked for canaries and for their twins.

Of each pair of canaries a coin, committed to before the tuning, planted one. Whoever has nothing of the planted data
gives the planted one no more often than the other, whatever they do: they cannot know the coins. The finding says
nothing about whose copy it is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from stanch.data import Canary
from stanch.errors import InvalidInput
from stanch.terms import SILENT, JsonValue, Progress
from stanch.trace.canary_pairs import Pair, Question, new_words, question, share_given
from stanch.trace.wealth import EPSILON, MISS, SHARE, Outcome, Wealth, least_pairs

Ask = Callable[[Question], str | None]
"""Puts a question to the endpoint; None is no answer."""
_DEAF = 12


class HuntVerdict(StrEnum):
    """What a hunt says."""

    FOUND = "found"
    NOTHING = "nothing"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Hunt:
    """What a hunt came to.

    Attributes:
        verdict: What it says.
        wealth: How the pairs came out.
        pairs: How many pairs might have been asked.
        epsilon: Bound on the chance that this hunt takes an endpoint for ours that is not.
        hunts: How many hunts the log holds, this one included.
        reason: Why it is undecided, or empty.
    """

    verdict: HuntVerdict
    wealth: Wealth
    pairs: int
    epsilon: float
    hunts: int
    reason: str = ""

    @property
    def log10_p(self) -> float:
        """Bound on log10 of the chance of so many wins where nothing of the planted data is."""
        return min(0.0, -self.wealth.log_found / math.log(10))

    @property
    def sentence(self) -> str:
        """What the verdict claims, and what it does not."""
        if self.verdict == HuntVerdict.FOUND:
            return (
                "this says: the endpoint serves our release, or something made from it or from its planted data. "
                "It does not say whose copy. "
                "The probability, over the coins, that an endpoint with none of these is said to have one is at most "
                f"{self.epsilon:g} in this hunt, and {min(1.0, self.hunts * self.epsilon):g} in all "
                f"{self.hunts} hunts of the log."
            )
        if self.verdict == HuntVerdict.NOTHING:
            return (
                f"this says: the endpoint does not give every fourth of the planted texts (wrong with probability "
                f"{MISS:g} at most). It does not say that our release is not behind it."
            )
        return "this says: nothing, neither that the endpoint serves our release nor that it does not."

    def to_json(self) -> dict[str, JsonValue]:
        """Return the result for machines."""
        return {
            "schema": "stanch/hunt/v1", "verdict": str(self.verdict), "reason": self.reason, "pairs": self.pairs,
            "wins": self.wealth.wins, "losses": self.wealth.losses, "ties": self.wealth.ties,
            "unanswered": self.wealth.unanswered, "log10_p": self.log10_p, "epsilon": self.epsilon,
            "hunts": self.hunts, "miss": MISS, "share": SHARE, "sentence": self.sentence,
        }  # fmt: skip


def require_pairs(count: int, epsilon: float = EPSILON) -> None:
    """Refuse too few pairs to find anything with.

    Raises:
        InvalidInput: Fewer than a row of wins takes.
    """
    if count < least_pairs(epsilon):
        raise InvalidInput(
            f"hunt: expected at least {least_pairs(epsilon)} pairs of canaries, found {count}",
            why="so few could not show anything, whatever the endpoint answers",
            next_step="allow more queries, or plan at least 200 canaries before the next tuning",
        )


def ask_pairs(
    pairs: Sequence[Pair], ask: Ask, *, epsilon: float = EPSILON, hunts: int = 1, progress: Progress = SILENT
) -> Hunt:
    """Ask for both canaries of each pair until it is decided, the pairs end, or the endpoint says nothing any more.

    Which of a pair is asked for first, and what is asked, does not depend on the coins.

    Args:
        pairs: From :func:`stanch.trace.canary_pairs.find_pairs`.
        ask: Puts a question to the endpoint.
        epsilon: Bound on the chance of a wrong ``found``, valid whenever the hunt stops.
        hunts: How many hunts the log holds, this one included.
        progress: Called after each pair.

    Raises:
        InvalidInput: There are too few pairs to find anything with.
    """
    require_pairs(len(pairs), epsilon)
    wealth, deaf, reason = Wealth(), 0, "all pairs were asked, or as many as the queries allow"
    for number, pair in enumerate(pairs, 1):
        outcome = _outcome(pair, ask)
        wealth = wealth.take(outcome)
        progress("asking", number, len(pairs))
        if wealth.is_found(epsilon):
            return Hunt(HuntVerdict.FOUND, wealth, len(pairs), epsilon, hunts)
        if wealth.is_nothing():
            return Hunt(HuntVerdict.NOTHING, wealth, len(pairs), epsilon, hunts)
        deaf = deaf + 1 if outcome == Outcome.UNANSWERED else 0
        if deaf == _DEAF:
            reason = f"{_DEAF} pairs in a row had no answer, an echo, or twice the same"
            break
    return Hunt(HuntVerdict.UNDECIDED, wealth, len(pairs), epsilon, hunts, reason)


def _outcome(pair: Pair, ask: Ask) -> Outcome:
    first, second = _answer(pair.first, ask), _answer(pair.second, ask)
    if first is None or second is None or first.words == second.words:
        return Outcome.UNANSWERED
    planted, twin = (first, second) if pair.first.member else (second, first)
    if planted.share == twin.share:
        return Outcome.TIE
    return Outcome.WIN if planted.share > twin.share else Outcome.LOSS


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an endpoint said beyond the question, and how much of the canary that gives."""

    words: str
    share: float


def _answer(canary: Canary, ask: Ask) -> _Answer | None:
    asked = question(canary)
    said = ask(asked)
    words = new_words(asked, said) if said is not None else ""
    return _Answer(words, share_given(canary, asked, said)) if said is not None and words else None
