"""What an evidence pack shows of a suspect: features at coordinates that nobody chooses, and the scores on them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stanch.errors import Inconclusive
from stanch.mark import FeatureSet, Leaf, Variant, extract, open_suspect, score
from stanch.mark.bounds import decided
from stanch.mark.keys import stream_key
from stanch.mark.scoring import Stratum, cancel, score_on
from stanch.mark.scratch import Scratch
from stanch.mark.signature import GROUP
from stanch.trace.case import Case
from stanch.trace.decision import Accusation
from stanch.trace.plan import CasePlan, ReleaseRecord
from stanch.trace.verifier.primitives import shown_coordinates
from stanch.trace.verifier.verify import MIN_DECOYS

_DECOY_GROUPS = 1 << 12

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ShownScores:
    """Features of one variant at some coordinates, and what the keys score there.

    Attributes:
        variant: The variant.
        coordinates: Global coordinates, rising, u64.
        values: Features there, f32; of suspect, original and public models alone.
        accused: z of each accused, in their order.
        decoys: z of each decoy, on at most 65,536 of the coordinates.
    """

    variant: Variant
    coordinates: npt.NDArray[np.uint64]
    values: npt.NDArray[np.float32]
    accused: tuple[float, ...]
    decoys: Doubles


def shown_decoys(release: ReleaseRecord, acquired: str) -> tuple[int, ...]:
    """Return the decoys that a pack opens: as few as show something, and such as nobody could know before."""
    closed = release.closed_decoys(acquired)
    known = tuple(leaf for leaf in release.decoys if leaf not in closed)
    return (closed + known)[:MIN_DECOYS]


def show_scores(
    release: ReleaseRecord, case: Case, plan: CasePlan, accused: Sequence[Accusation], variant: Variant
) -> ShownScores:
    """Extract the features of ``variant`` anew and score the accused and some decoys on what a pack shows.

    These are 2^20 coordinates that follow from the batch and its beacon, or all where an accused misses τ on them.
    The features are shown as they come from suspect and original, before any key touches them: the ownership mark is
    not cancelled, so that whoever has both files can compute the same features.

    Raises:
        Inconclusive: An accused does not reach τ there, even with all coordinates.
    """
    threads = os.cpu_count() or 1
    opened = open_suspect(case.suspect_folder)
    features = extract(release.originals, opened, variant, alpha=release.plan.alpha, threads=threads)
    leaves = release.commitment.leaves
    streams = _streams(release, [leaves[item.leaf] for item in accused])
    decoys = _streams(release, [leaves[number] for number in shown_decoys(release, case.custody().acquired)])
    extent = len(features.values)
    drawn = shown_coordinates(release.commitment.root, release.beacon, extent)
    for coordinates in (drawn, np.arange(extent, dtype=np.uint64))[: 1 if len(drawn) == extent else 2]:
        stratum = Stratum((coordinates[::GROUP] // np.uint64(GROUP)).astype(np.int64))
        shown = _restrict(features, stratum)
        if not shown.values.any():
            continue
        values = np.array(shown.values[coordinates.astype(np.int64)])
        decoy_scores = score_on(shown, decoys, _sample(shown, stratum), threads=threads)
        scores = _score_rounds(shown, streams, plan, threads)
        if all(decided(z) >= plan.threshold for z in scores):
            return ShownScores(variant, coordinates, values, scores, decoy_scores)
    raise Inconclusive(
        f"case {plan.case}: what a pack can show does not carry the accusation",
        why="an accused reaches the threshold only after the ownership mark is cancelled, or in another variant",
        next_step="rely on the examination itself, and let an examiner who may see the keys repeat it",
    )


def _streams(release: ReleaseRecord, leaves: Sequence[Leaf]) -> list[bytes]:
    return [stream_key(leaf.subkey, release.beacon, leaf.layout_digest) for leaf in leaves]


def _restrict(features: FeatureSet, stratum: Stratum) -> FeatureSet:
    """Return the features with everything outside the stratum set to 0."""
    with Scratch(len(features.values)) as scratch:
        values = scratch.values()
    values.reshape(-1, GROUP)[stratum.groups] = features.values.reshape(-1, GROUP)[stratum.groups]
    return FeatureSet(features.variant, values, features.layout, features.unmatched)


def _sample(features: FeatureSet, stratum: Stratum) -> Stratum:
    """Return at most 4,096 groups, evenly chosen among those of the stratum that show something."""
    shown = stratum.groups[features.values.reshape(-1, GROUP)[stratum.groups].any(axis=1)]
    return Stratum(shown[:: -(-len(shown) // _DECOY_GROUPS)])


def _score_rounds(features: FeatureSet, streams: Sequence[bytes], plan: CasePlan, threads: int) -> tuple[float, ...]:
    """Score in rounds, as detection does: after each, those found are cancelled. Changes the features."""
    best = [float("-inf")] * len(streams)
    open_ = list(range(len(streams)))
    for _ in range(plan.rounds):
        for number, z in zip(open_, score(features, [streams[n] for n in open_], threads=threads), strict=True):
            best[number] = max(best[number], float(z))
        found = [number for number in open_ if decided(best[number]) >= plan.threshold]
        open_ = [number for number in open_ if number not in found]
        if not found or not open_:
            break
        cancel(features, [streams[number] for number in found])
    return tuple(best)
