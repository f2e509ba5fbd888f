"""Which tenant's model wrote this? Texts against every tenant's keys, with a bound on naming a wrong one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stanch.errors import InvalidInput
from stanch.terms import JsonValue
from stanch.trace.text_scores import TextScores

LEAST_TOKENS = 200
"""Fewer counted tokens are not judged: a marked text of that length is missed too often."""


@dataclass(frozen=True, slots=True)
class TenantScore:
    """One tenant: z over random keys, and the bound on log10 of p, with all tenants and analyses counted."""

    tenant: str
    z: float
    log10_p: float


@dataclass(frozen=True, slots=True)
class TextDetection:
    """What texts say about the tenants.

    Attributes:
        tokens: How many tokens counted.
        n: Tenants that the bound counts.
        analyses: Analyses that it counts.
        epsilon: Bound on the chance that any tenant without a part in the texts is named.
        scores: Every tenant, highest first.
    """

    tokens: int
    n: int
    analyses: int
    epsilon: float
    scores: tuple[TenantScore, ...]

    @property
    def conclusive(self) -> bool:
        """Whether enough tokens counted to say anything."""
        return self.tokens >= LEAST_TOKENS

    @property
    def named(self) -> tuple[TenantScore, ...]:
        """Tenants whose bound reaches ε; none where too few tokens counted."""
        return tuple(score for score in self.scores if self.conclusive and score.log10_p <= math.log10(self.epsilon))

    @property
    def sentence(self) -> str:
        """What the result claims."""
        return (
            f"The probability, over the secret keys, that any of {self.n} tenants without a part in these texts would "
            f"be named in {self.analyses} analyses is at most {self.epsilon:g}."
        )

    def to_json(self) -> dict[str, JsonValue]:
        """Return the result for machines, with the twenty highest scores."""
        verdict = "found" if self.named else "nothing" if self.conclusive else "inconclusive"
        return {
            "schema": "stanch/text-trace/v1",
            "verdict": verdict,
            "tokens": self.tokens,
            "n": self.n,
            "analyses": self.analyses,
            "epsilon": self.epsilon,
            "sentence": self.sentence,
            "named": [score.tenant for score in self.named],
            "scores": [{"tenant": s.tenant, "z": s.z, "log10_p": s.log10_p} for s in self.scores[:20]],
        }


def detect_text(
    texts: Sequence[Sequence[int]], tenants: Mapping[str, Sequence[int]], *, epsilon: float = 1e-9, analyses: int = 1
) -> TextDetection:
    """Score texts under every tenant's keys.

    Args:
        texts: Token numbers of each text, made by the tokenizer of the model that may have written it.
        tenants: Each tenant's keys, from :meth:`stanch.trace.TextRoot.keys`.
        epsilon: Bound on the chance of naming any tenant without a part in the texts.
        analyses: How many such analyses share ``epsilon``; decided before the first.

    Raises:
        InvalidInput: There is no tenant, a number is out of range, or a token is malformed.
    """
    if not tenants or analyses < 1 or not 0 < epsilon < 1:
        raise InvalidInput("text detection: expected tenants, analyses from 1, and an epsilon between 0 and 1")
    scores, share = TextScores.of(texts), math.log10(len(tenants) * analyses)
    found = []
    for tenant, keys in tenants.items():
        score = scores.score(keys)
        z = scores.z(score)
        # Below two deviations the bound says nothing once the tenants are counted; 0 is always a bound.
        log10_p = min(0.0, scores.log10_bound(score) + share) if z > 2 else 0.0
        found.append(TenantScore(tenant, z, log10_p))
    found.sort(key=lambda item: -item.z)
    return TextDetection(scores.tokens, len(tenants), analyses, epsilon, tuple(found))
