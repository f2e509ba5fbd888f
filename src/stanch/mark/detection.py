"""Detection: from which recipients' copies a suspect was made, with a bound on ever naming an innocent one."""

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import scipy

from stanch.errors import InvalidInput
from stanch.mark.adapter import compare_adapters
from stanch.mark.alignment import align
from stanch.mark.bounds import decided, log10_bound, threshold
from stanch.mark.features import FeatureSet, Variant, compare_weights
from stanch.mark.keys import MarkKeys
from stanch.mark.layout import Kind
from stanch.mark.scoring import cancel, draw_stratum, score, score_on
from stanch.mark.suspect import Originals, Suspect, is_recognised, match_renamed, open_suspect
from stanch.terms import SILENT, JsonValue, Progress

_MAX_ROUNDS = 4
_STRATA = (1 << 16, 1 << 20, 1 << 24)
_IDLE = -2.0  # a stage that drops fewer than one innocent in fifty costs more than it saves
_VARIANTS: Mapping[Kind, tuple[Variant, ...]] = {
    "full": (Variant.PLAIN, Variant.PROJECTED, Variant.SPECTRAL, Variant.TANGENT, Variant.ALIGNED),
    "adapter": (Variant.PLAIN, Variant.PROJECTED, Variant.SPECTRAL, Variant.ADAPTER),
}
_SHORTLIST = 64  # innocents that a quick screening lets pass, about
_LEAST_MATCHED = 0.25
_MARGIN = 4.0  # standard deviations: a colluder that scores τ + 4 in full is lost at a stage with chance 3e-5

Effort = Literal["quick", "deep"]
"""How screening drops recipients: ``quick`` keeps the highest few, ``deep`` drops only who cannot reach τ + 4."""


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """What will be analysed, fixed before the first score: the error bound counts all of it.

    Attributes:
        variants: In order.
        n: Issued leaves of every release that is scored, at least those given to :func:`detect`.
        rounds: Rounds of each variant, at most 4: after each, the accused are cancelled and the rest scored again.
        epsilon: Chance of naming any innocent.
        releases: Releases that the same suspect is scored against.
        views: Sets of coordinates on which each score may decide, here or in an evidence pack.
        decoy_coordinates: Size of the keyed stratum on which decoys are scored.
        effort: How recipients are screened. It saves time and never enters the bound, which covers all n.
    """

    variants: tuple[Variant, ...]
    n: int
    rounds: int = 2
    epsilon: float = 1e-9
    releases: int = 1
    views: int = 1
    decoy_coordinates: int = 1 << 19
    effort: Effort = "deep"

    def __post_init__(self) -> None:
        if not self.variants or len(set(self.variants)) != len(self.variants):
            raise InvalidInput("score plan: expected one or more different variants")
        if not 1 <= self.rounds <= _MAX_ROUNDS or min(self.releases, self.views, self.decoy_coordinates) < 1:
            raise InvalidInput("score plan: expected 1 to 4 rounds, and positive numbers")
        if self.effort not in {"quick", "deep"}:
            raise InvalidInput("score plan: expected the effort quick or deep")
        threshold(self.n, self.analyses, self.epsilon)

    @property
    def analyses(self) -> int:
        """T: variants × rounds × releases × views."""
        return len(self.variants) * self.rounds * self.releases * self.views

    @property
    def threshold(self) -> float:
        """τ: the score from which a recipient is accused."""
        return threshold(self.n, self.analyses, self.epsilon)

    def screening(self, coordinates: int) -> tuple[tuple[int, float], ...]:
        """Return ``(m, t)``: a recipient goes on only if its score on the stratum of m coordinates is at least t.

        t depends on n, m and D = ``coordinates`` alone. If it depended on other recipients' scores, the accused would
        depend on innocents' keys, and cancelling them would break the bound.
        """
        stages = []
        for size in _STRATA:
            if size < coordinates:
                deep = (self.threshold + _MARGIN) * math.sqrt(size / coordinates) - _MARGIN
                quick = float(scipy.special.ndtri(1 - _SHORTLIST / self.n)) if self.n > 2 * _SHORTLIST else -math.inf
                stages.append((size, deep if self.effort == "deep" else quick))
        return tuple((size, least) for size, least in stages if least > _IDLE)

    def power(self, z: float, coordinates: int) -> float:
        """Return a lower bound on the chance that a recipient whose score in full is ``z`` passes every stage."""
        lost = sum(
            1 - float(scipy.special.ndtr(z * math.sqrt(m / coordinates) - t)) for m, t in self.screening(coordinates)
        )
        return max(0.0, 1 - lost)

    @classmethod
    def default(cls, kind: Kind, n: int, *, epsilon: float = 1e-9) -> "ScorePlan":
        """Return the plan for one release of a kind: every variant that applies to it, two rounds each."""
        return cls(_VARIANTS[kind], n, epsilon=epsilon)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the plan; its digest belongs into the ledger before the first score."""
        return {
            "schema": "stanch/score-plan/v1",
            "variants": [str(variant) for variant in self.variants],
            "n": self.n,
            "rounds": self.rounds,
            "analyses": self.analyses,
            "epsilon": self.epsilon,
            "releases": self.releases,
            "views": self.views,
            "decoy_coordinates": self.decoy_coordinates,
            "effort": self.effort,
        }


@dataclass(frozen=True, slots=True)
class DecoyStatistics:
    """Scores of keys that were committed to and never issued: they show that the statistic behaves as claimed.

    Attributes:
        count: Decoys.
        mean: Mean of their z.
        sd: Standard deviation of their z.
        maximum: Largest z.
        coordinates: Coordinates of the keyed stratum they were scored on.
    """

    count: int
    mean: float
    sd: float
    maximum: float
    coordinates: int

    def plausible(self, tau: float) -> bool:
        """Say whether the decoys look like N(0,1): |mean| ≤ 5/√N, sd within 1 ± 5/√(2N), none at τ or above."""
        return (
            abs(self.mean) <= 5 / math.sqrt(self.count)
            and abs(self.sd - 1) <= 5 / math.sqrt(2 * self.count)
            and self.maximum < tau
        )


@dataclass(frozen=True, slots=True)
class VariantResult:
    """What one variant showed.

    Attributes:
        variant: The variant.
        matched: Coordinates of the tensors that were recognised.
        unmatched: Marked tensors that were not.
        release_z: Score of the ownership mark: whether the suspect comes from this release at all.
        decoys: Scores of the decoys; None where the suspect shows nothing, for example the unmarked original.
        rounds: Rounds that were run.
    """

    variant: Variant
    matched: int
    unmatched: tuple[str, ...]
    release_z: float
    decoys: DecoyStatistics | None
    rounds: int


@dataclass(frozen=True, slots=True)
class RecipientScore:
    """How one recipient's key scored.

    Attributes:
        recipient: The recipient.
        batch: Its batch.
        leaf: Its leaf in the batch's commitment.
        z: Score by variant; that of the round in which it was accused, else the largest of all rounds. Of a recipient
            that screening dropped, the score on the stratum where it was dropped.
        variant: Where the score was largest.
        log10_p: Bound on the chance that any innocent would score this high in this plan.
        accused: Whether the score reached τ in any variant.
    """

    recipient: str
    batch: int
    leaf: int
    z: Mapping[Variant, float]
    variant: Variant
    log10_p: float
    accused: bool

    @property
    def best(self) -> float:
        """The largest score."""
        return self.z[self.variant]


@dataclass(frozen=True, slots=True)
class Detection:
    """The result of :func:`detect`.

    Attributes:
        scores: Every recipient, highest score first.
        variants: What each variant showed.
        plan: The plan that was followed.
        threshold: τ.
        coordinates: D, the coordinates of the release.
        unread: What of the suspect could hold weights and was not read; while there is some, that nobody is accused
            means nothing.
        needs_base: Nothing was compared: the suspect is a whole model, the original an adapter, and its base is not
            known.
    """

    scores: tuple[RecipientScore, ...]
    variants: tuple[VariantResult, ...]
    plan: ScorePlan
    threshold: float
    coordinates: int
    unread: tuple[str, ...] = ()
    needs_base: bool = False

    @classmethod
    def without_base(cls, originals: Originals, plan: ScorePlan) -> "Detection":
        """Return what :class:`stanch.mark.adapter.BaseNeeded` leaves of a detection: nothing was compared."""
        names = tuple(entry.name for entry in originals.layout.entries)
        results = tuple(VariantResult(variant, 0, names, 0.0, None, 0) for variant in plan.variants)
        return cls((), results, plan, plan.threshold, originals.layout.coordinates, needs_base=True)

    @property
    def accused(self) -> tuple[RecipientScore, ...]:
        """Every recipient whose score reached τ."""
        return tuple(score for score in self.scores if score.accused)

    @property
    def next_z(self) -> float:
        """The highest score of those not accused; 0 where all are."""
        return max((score.best for score in self.scores if not score.accused), default=0.0)

    @property
    def release_z(self) -> float:
        """The highest score of the ownership mark."""
        return max(result.release_z for result in self.variants)

    @property
    def matched(self) -> float:
        """The largest share of the release's coordinates that a variant recognised in the suspect."""
        return max(result.matched for result in self.variants) / self.coordinates

    @property
    def too_little(self) -> bool:
        """Whether so little was recognised that *nobody is accused* means nothing; an accusation holds all the same."""
        return self.matched < _LEAST_MATCHED

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Marked tensors that no variant recognised in the suspect."""
        return tuple(
            name for name in self.variants[0].unmatched if all(name in result.unmatched for result in self.variants)
        )

    @property
    def decoys_plausible(self) -> bool:
        """Whether the decoys of every variant look as they must; if not, no score may be relied on."""
        return all(result.decoys is None or result.decoys.plausible(self.threshold) for result in self.variants)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the result for people and evidence packs; it holds no key."""
        return {
            "schema": "stanch/mark-detection/v1",
            "plan": self.plan.to_json(),
            "threshold": self.threshold,
            "coordinates": self.coordinates,
            "matched": self.matched,
            "unmatched": list(self.unmatched),
            "unread": list(self.unread),
            "decoys_plausible": self.decoys_plausible,
            "variants": [_variant_json(result) for result in self.variants],
            "scores": [_score_json(score) for score in self.scores],
        }


def _variant_json(result: VariantResult) -> dict[str, JsonValue]:
    decoys: JsonValue = None
    if result.decoys is not None:
        found = result.decoys
        decoys = {"count": found.count, "mean": found.mean, "sd": found.sd, "max": found.maximum}
        decoys["coordinates"] = found.coordinates
    return {
        "variant": str(result.variant),
        "matched": result.matched,
        "release_z": result.release_z,
        "decoys": decoys,
        "rounds": result.rounds,
    }


def _score_json(score: RecipientScore) -> dict[str, JsonValue]:
    return {
        "recipient": score.recipient,
        "batch": score.batch,
        "leaf": score.leaf,
        "variant": str(score.variant),
        "z": {str(variant): z for variant, z in score.z.items()},
        "log10_p": score.log10_p,
        "accused": score.accused,
    }


def extract(originals: Originals, suspect: Suspect, variant: Variant, *, alpha: float, threads: int = 1) -> FeatureSet:
    """Return the features of one variant: a function of suspect, original and public models, of no recipient's key.

    ``alpha`` is the strength of the release's mark; it sets the floor of the noise.

    Raises:
        InvalidInput: The variant does not apply to this kind of release.
        BaseNeeded: The base model is needed and missing.
    """
    invariant = variant is Variant.ADAPTER or (variant is Variant.SPECTRAL and originals.kind == "adapter")
    if invariant and originals.kind != "adapter":
        raise InvalidInput("the variant 'adapter' applies only to releases of an adapter")
    compare = compare_adapters if invariant else compare_weights
    if suspect.adapter is None:
        suspect = match_renamed(suspect, originals.references)
    if variant is Variant.ALIGNED:
        suspect = align(originals, suspect)
    features = compare(originals, suspect, variant, alpha=alpha, threads=threads)
    strange = [
        name for name, known_by in _compared(originals, features) if not is_recognised(originals, suspect, known_by)
    ]
    return replace(features, unmatched=(*features.unmatched, *strange))


def _compared(originals: Originals, features: FeatureSet) -> list[tuple[str, str]]:
    """Return each tensor that was compared, and the weight by which it is recognised: of factors, what they change."""
    modules = originals.adapter.modules.values() if originals.kind == "adapter" else ()
    changed = {factor.name: f"{module.module}.weight" for module in modules for factor in (module.a, module.b)}
    missing = set(features.unmatched)
    names = (entry.name for entry in features.layout.entries if entry.name not in missing)
    return [(name, changed.get(name, name)) for name in names]


def detect(
    originals: Originals,
    suspect: Path,
    keys: MarkKeys,
    plan: ScorePlan,
    *,
    threads: int = 0,
    progress: Progress = SILENT,
) -> Detection:
    """Score every recipient against the suspect and accuse all who reach τ.

    Guarantee: over the secret keys, the chance that any of ``plan.n`` innocent recipients is accused is at most
    ``plan.epsilon``, whatever the suspect is.

    Args:
        originals: The unmarked original, and the base model where the suspect is merged.
        suspect: An adapter directory, a model directory, or a safetensors file.
        keys: The release's keys.
        plan: Fixed beforehand.
        threads: 0 means one a processor; the scores do not depend on it.
        progress: Told about each variant.

    Raises:
        InvalidInput: The keys belong to another original, the plan counts fewer recipients than the keys, or the
            suspect cannot be read.
        BaseNeeded: The base model is needed and missing.
    """
    if any(key.layout_digest != originals.layout.digest for key in keys.copies) or not keys.copies:
        raise InvalidInput("the keys belong to another original", next_step="give the release's own original and keys")
    if plan.n < len(keys.copies):
        raise InvalidInput(f"score plan: it counts {plan.n} recipients, but there are {len(keys.copies)} keys")
    threads = threads or os.cpu_count() or 1
    opened = open_suspect(suspect)
    results, scores = [], []
    for number, variant in enumerate(plan.variants):
        progress(f"mark: {variant}", number, len(plan.variants))
        features = extract(originals, opened, variant, alpha=keys.copies[0].alpha, threads=threads)
        result, found = _examine(features, keys, plan, threads)
        results.append(result)
        scores.append(found)
    progress("mark", len(plan.variants), len(plan.variants))
    return Detection(
        scores=_ranking(keys, plan, scores),
        variants=tuple(results),
        plan=plan,
        threshold=plan.threshold,
        coordinates=originals.layout.coordinates,
        unread=opened.doubtful,
    )


def _examine(
    features: FeatureSet, keys: MarkKeys, plan: ScorePlan, threads: int
) -> tuple[VariantResult, Sequence[float]]:
    """Score one variant in rounds. Returns its result and each recipient's score."""
    release_z = float(score(features, [keys.release_stream], threads=threads)[0])
    cancel(features, [keys.release_stream])
    decoys = _score_decoys(features, keys, plan, threads) if features.values.any() else None
    best = [-math.inf] * len(keys.copies)
    open_ = list(range(len(keys.copies)))
    for done in itertools.count(1):
        for number, z in _score_screened(features, keys, open_, plan, threads).items():
            best[number] = max(best[number], z)
        accused = [number for number in open_ if decided(best[number]) >= plan.threshold]
        open_ = [number for number in open_ if number not in accused]
        if not accused or not open_ or done == plan.rounds:
            break
        cancel(features, [keys.copies[number].stream for number in accused])
    return VariantResult(features.variant, features.matched, features.unmatched, release_z, decoys, done), best


def _score_screened(
    features: FeatureSet, keys: MarkKeys, numbers: Sequence[int], plan: ScorePlan, threads: int
) -> Mapping[int, float]:
    """Score recipients on growing strata, dropping at each stage who scores too low, and the rest in full."""
    best: dict[int, float] = {}
    left = list(numbers)
    for size, least in plan.screening(features.layout.coordinates):
        if not left:
            break
        stratum = draw_stratum(keys.strata_key, len(features.values), size)
        found = score_on(features, [keys.copies[number].stream for number in left], stratum, threads=threads)
        dropped = {number: float(z) for number, z in zip(left, found, strict=True) if z < least}
        best |= dropped
        left = [number for number in left if number not in dropped]
    found = score(features, [keys.copies[number].stream for number in left], threads=threads)
    return best | {number: float(z) for number, z in zip(left, found, strict=True)}


def _score_decoys(features: FeatureSet, keys: MarkKeys, plan: ScorePlan, threads: int) -> DecoyStatistics | None:
    if not keys.decoys:
        return None
    stratum = draw_stratum(keys.strata_key, len(features.values), plan.decoy_coordinates)
    z = score_on(features, keys.decoys, stratum, threads=threads)
    return DecoyStatistics(len(z), float(z.mean()), float(z.std()), float(z.max()), stratum.coordinates)


def _ranking(keys: MarkKeys, plan: ScorePlan, scores: Sequence[Sequence[float]]) -> tuple[RecipientScore, ...]:
    ranking = []
    for number, key in enumerate(keys.copies):
        z = {variant: found[number] for variant, found in zip(plan.variants, scores, strict=True)}
        variant = max(z, key=lambda name: z[name])
        certain = decided(z[variant])
        ranking.append(
            RecipientScore(
                recipient=key.recipient,
                batch=key.batch,
                leaf=key.leaf,
                z=z,
                variant=variant,
                log10_p=log10_bound(certain, plan.n, plan.analyses),
                accused=certain >= plan.threshold,
            )
        )
    return tuple(sorted(ranking, key=lambda item: -item.best))
