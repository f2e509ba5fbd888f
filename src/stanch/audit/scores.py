"""Membership scores of a record, from its features alone; higher means more like a member.

Three scores are pre-registered and tested; three more are shown but never enter a verdict.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from stanch.audit.features import Features, FloatArray
from stanch.errors import InvalidInput

EZ_ETA: Final = 1e-6
_MIN_K_SHARE = 0.2
_WBC_WINDOWS = (2, 3, 4, 6, 9, 13, 18, 25, 32, 40)


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What is known of one record: the target's figures, the base's log-probabilities, the bytes of the scored text."""

    target: Features
    base: Features | None
    text_size: int

    @property
    def gain(self) -> FloatArray:
        """Log-probability gained by the tuning, for each token (``d_t = l_t - r_t``, in float64)."""
        if self.base is None:
            raise InvalidInput("this score compares with the base model, and there is none")
        return self.target.lp.astype(np.float64) - self.base.lp.astype(np.float64)


def ratio(seen: Observation) -> float:
    """Mean log-likelihood ratio of target and base over the scored tokens."""
    return float(seen.gain.mean())


def suffix_loss(seen: Observation) -> float:
    """Mean log-probability of the scored tokens in the target."""
    return float(seen.target.lp.mean(dtype=np.float64))


def ez(seen: Observation) -> float:
    """Log-odds of gain against loss over the tokens that the target does not predict (after EZ-MIA, arXiv 2601.12104).

    Differs from the published code in two cases that would rank the clearest members last: no loss at all, and no token
    missed (then all tokens count).
    """
    gain = seen.gain
    errors = gain if seen.target.hit.all() else gain[~seen.target.hit]
    gained, lost = float(errors.clip(min=0).sum()), float((-errors).clip(min=0).sum())
    return math.log(gained + EZ_ETA) - math.log(lost + EZ_ETA)


def min_k_pp(seen: Observation) -> float:
    """Mean of the lowest 20 % of the tokens' standardised log-probabilities (Min-K%++, arXiv 2404.02936)."""
    target = seen.target
    standard = (target.lp.astype(np.float64) - target.mu) / target.sigma
    lowest = math.ceil(_MIN_K_SHARE * standard.size)
    return float(np.partition(standard, lowest - 1)[:lowest].mean())


def zlib_ratio(seen: Observation) -> float:
    """Log-probability of the scored tokens for each byte that their text takes when compressed."""
    return float(seen.target.lp.sum(dtype=np.float64)) / seen.text_size


def wbc(seen: Observation) -> float:
    """Share of windows in which the tuning gained, averaged over window widths (arXiv 2601.02751)."""
    gain = seen.gain
    sums = np.concatenate(([0.0], np.cumsum(gain)))
    widths = sorted({min(width, gain.size) for width in _WBC_WINDOWS})
    return float(np.mean([(sums[width:] - sums[:-width] > 0).mean() for width in widths]))


SCORES: Final[Mapping[str, Callable[[Observation], float]]] = MappingProxyType(
    {
        "ratio/1": ratio,
        "suffix_loss/1": suffix_loss,
        "ez/1": ez,
        "min_k_pp/1": min_k_pp,
        "zlib/1": zlib_ratio,
        "wbc/1": wbc,
    }
)
NEEDS_BASE: Final = frozenset({"ratio/1", "ez/1", "wbc/1"})
NEEDS_DISTRIBUTION: Final = frozenset({"min_k_pp/1"})
"""Scores that a black box does not give: it leaves mean and spread over the vocabulary out (not a number)."""


def compressed_size(text: str) -> int:
    """Return the bytes that ``text`` takes in UTF-8 after zlib level 6."""
    return len(zlib.compress(text.encode(), 6))


def score(seen: Observation) -> dict[str, float]:
    """Return every score that can be computed, by its name and version.

    Raises:
        InvalidInput: A score is not finite; the record is named by its id.
    """
    lacking = (NEEDS_BASE if seen.base is None else frozenset()) | (
        NEEDS_DISTRIBUTION if np.isnan(seen.target.mu).all() else frozenset()
    )
    names = [name for name in SCORES if name not in lacking]
    scores = {name: SCORES[name](seen) for name in names}
    for name, value in scores.items():
        if not math.isfinite(value):
            raise InvalidInput(
                f"record {seen.target.record_id}: its score {name} is not a finite number",
                why="the model gave a log-probability that is not finite",
                next_step="check the weights, or load them as float32",
            )
    return scores
