"""Rows that stand in the data set several times: which they are, and how many of them come out.

A text that is repeated is remembered far more often, so its rate is told apart from the rate of all rows.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from stanch.audit.extraction import Drawn, is_extractable
from stanch.audit.params import BOUND_CONFIDENCE, AuditParams
from stanch.audit.rates import clopper_pearson
from stanch.audit.sections import SINGLE, RepeatedTier
from stanch.data import Record
from stanch.data.neardup import cluster_texts
from stanch.data.shingles import folded_text

TIERS: Final = ((SINGLE, 1), ("2-3", 2), ("4-15", 4), (">=16", 16))
"""Names of the tiers and from how many copies each begins."""

_SIMILAR = 0.8
_PERMUTATIONS = 128
_MUCH = 4


def count_copies(members: Sequence[Record]) -> dict[str, int]:
    """Return how many rows say nearly the same (Jaccard >= 0.8), itself included, for each row that is repeated."""
    report = cluster_texts(((record.id, folded_text(record)) for record in members), _SIMILAR, _PERMUTATIONS)
    return {name: len(cluster) for cluster in report.clusters for name in cluster}


def much_repeated(copies: int) -> bool:
    """Say whether all rows with so many copies are tested, and not only a sample."""
    return copies >= _MUCH


def summarise_repeated(
    drawn: Sequence[Drawn], copies: Mapping[str, int], params: AuditParams, *, controlled: bool
) -> tuple[RepeatedTier, ...]:
    """Count the rows that come out by how often they are repeated; empty if none is.

    The bound speaks of rows, and rows of one cluster come out together: with few clusters it says less than it seems.
    """
    by_tier: dict[str, list[Drawn]] = {}
    for one in drawn:
        by_tier.setdefault(_tier_of(copies.get(one.probe.record.id, 1)), []).append(one)
    if by_tier.keys() <= {TIERS[0][0]}:
        return ()
    found = []
    for name in (name for name, _ in TIERS if name in by_tier):
        rows = by_tier[name]
        attributable = sum(one.attributable(params, controlled=controlled) for one in rows)
        upper = clopper_pearson(attributable, len(rows), confidence=BOUND_CONFIDENCE, side="upper").upper
        k = sum(is_extractable(one.target, params) for one in rows)
        found.append(RepeatedTier(name, k, len(rows), attributable, upper))
    return tuple(found)


def _tier_of(copies: int) -> str:
    return next(name for name, least in reversed(TIERS) if copies >= least)
