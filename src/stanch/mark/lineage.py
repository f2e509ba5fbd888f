"""Lineage without a mark: does a suspect descend from the original, and how sure is that?

*Order test.* Each feed-forward unit of the original is matched with one of the suspect's; ``a`` counts units at the
same place. If the suspect was trained independently, the order of its units is exchangeable, ``a`` has the law of the
fixed points of a random permutation, and the bound on p is exact (Zhu et al., Independence Tests for Language Models).
Whoever re-orders the units blinds it.

*Match test.* The two halves of a unit (what it reads by, and what it writes or multiplies with) are matched on their
own; ``a`` counts units where both agree. Re-ordering and rotating do not blind it, but its p-value holds only if the
pairing of halves tells nothing about the original's. Layers of one model already break that. So it counts only against
other models of the family, the controls.

Both tests show a common origin alone: two tunings of one public model have it, and neither descends from the other.
*Derived* also needs that the suspect holds the original's own change from its base; and since whoever names a base that
lies further back names changes that others hold as well, the base must be the one that the statement of the original's
tuning names, or siblings, tuned from the same base by others, must hold much less of that change.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput
from stanch.mark.alignment import Aligner, open_aligner
from stanch.mark.suspect import Originals, Suspect, open_suspect
from stanch.mark.units import Pair, assign, cosines
from stanch.terms import JsonValue
from stanch.weights import directory_digest, read_json_object

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
Verdict = Literal["derived", "shares-base", "unrelated", "inconclusive"]

_OUTLYING = 6.0
_LEAST_SHARE = 0.5
_TIMES_CONTROL = 10.0
_TIMES_SIBLING = 2.0
_STATEMENT = "statement.json"
_NOMINAL = -3.0
_TOLD = 5


def log10_agreements(agreements: int, layers: int) -> float:
    """Return an upper bound on log10 of the chance of so many fixed points in ``layers`` random permutations together.

    The factorial moments of the fixed points are at most 1, so those of their sum S are at most L^m, and
    ``P(S ≥ m) ≤ E C(S, m) ≤ L^m/m!``; Chernoff's bound ``exp(m − L − m ln(m/L))`` follows from them as well. Both hold
    for permutations of any size, and for injections; the lesser is returned.
    """
    if not layers:
        return 0.0
    m, count = agreements, layers
    moment = m * math.log(count) - math.lgamma(m + 1)
    chernoff = m - count - m * math.log(m / count) if m > count else 0.0
    return min(moment, chernoff) / math.log(10)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often matched units agree.

    Attributes:
        agreements: Units that agree, in all layers.
        units: Units that were compared.
        layers: Layers that were compared.
    """

    agreements: int
    units: int
    layers: int

    @property
    def share(self) -> float:
        """Agreements by units."""
        return self.agreements / self.units if self.units else 0.0

    @property
    def log10_p(self) -> float:
        """Bound on log10 of the chance of so many."""
        return log10_agreements(self.agreements, self.layers)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the counts and the bound."""
        return {
            "agreements": self.agreements,
            "units": self.units,
            "layers": self.layers,
            "share": self.share,
            "log10_p": self.log10_p,
        }


@dataclass(frozen=True, slots=True)
class Effect:
    """How much of the suspect the original explains, once aligned.

    Attributes:
        cosine: Cosine of all compared weights together.
        explained: Share of the suspect's energy that multiples of the original's tensors explain.
        tensors: The cosine of each tensor.
    """

    cosine: float
    explained: float
    tensors: dict[str, float]

    def to_json(self) -> dict[str, JsonValue]:
        """Return the effect sizes."""
        return {"cosine": self.cosine, "explained": self.explained, "tensors": dict(self.tensors)}


@dataclass(frozen=True, slots=True)
class LineageReport:
    """The result of :func:`examine_lineage`.

    Attributes:
        order: The order test; its bound is a p-value.
        match: The match test; its bound alone is no evidence.
        controls: The match test's shares of the controls, in the order given.
        effect: How much of the suspect the original explains.
        tuning: The same for their changes from the base; None without one.
        epsilon: Level of the order test.
        stated: Whether the base is the one that the statement of the original's tuning names.
        siblings: Of each sibling, how much of its change from the base that of the original explains.
        unread: What of the suspect could hold weights and was not read.
    """

    order: Agreement
    match: Agreement
    controls: tuple[float, ...]
    effect: Effect
    tuning: Effect | None
    epsilon: float
    stated: bool = False
    siblings: tuple[float, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def related(self) -> bool:
        """Whether both are of one origin.

        Guarantee: a suspect whose order of units is independent of the original's is called related by the order test
        with chance at most ``epsilon``. The match test calls it so only where half of the units agree, and ten times as
        many as in any control.
        """
        if self.order.log10_p <= math.log10(self.epsilon):
            return True
        return bool(self.controls) and self.match.share >= max(_LEAST_SHARE, _TIMES_CONTROL * max(self.controls))

    @property
    def holds_tuning(self) -> bool:
        """Whether the suspect holds the original's own change from its base: half of its own change is explained by it.

        Counted only with a stated base, or where it is twice what any sibling shows.
        """
        if self.tuning is None or self.tuning.explained < _LEAST_SHARE or not (self.stated or self.siblings):
            return False
        return self.tuning.explained >= _TIMES_SIBLING * max(self.siblings, default=0.0)

    @property
    def verdict(self) -> Verdict:
        """``derived``, ``shares-base``, ``unrelated`` or ``inconclusive``."""
        if self.related:
            return "derived" if self.holds_tuning else "shares-base"
        if not self.order.units:
            return "inconclusive"
        return "inconclusive" if self.match.log10_p <= _NOMINAL or self.unread else "unrelated"

    @property
    def sentence(self) -> str:
        """What the result says, and no more."""
        if self.verdict == "unrelated":
            return "No relation to the original was found."
        if self.verdict == "inconclusive" and self.unread:
            return f"What could be weights was not read: {', '.join(self.unread[:_TOLD])}; give each of these alone."
        if self.verdict == "inconclusive":
            return "The tests do not decide; controls of the same family, or the mark, may."
        if self.verdict == "shares-base":
            return (
                "The suspect and the original share a base; that it holds the original's tuning was not shown. "
                "The base that the original's statement names may show it, or a sibling; or the mark."
            )
        named = "the base that the statement of its tuning names" if self.stated else "a base"
        others = f", and siblings hold at most {max(self.siblings):.1%} of theirs" if self.siblings else ""
        return (
            f"The suspect is derived from the original: it holds the original's own change from {named}{others}. This "
            "assumes that nobody else tuned that base to the same change."
        )

    def to_json(self) -> dict[str, JsonValue]:
        """Return the report."""
        return {
            "schema": "stanch/mark-lineage/v2",
            "verdict": self.verdict,
            "sentence": self.sentence,
            "order": self.order.to_json(),
            "match": self.match.to_json(),
            "controls": list(self.controls),
            "effect": self.effect.to_json(),
            "tuning": None if self.tuning is None else self.tuning.to_json(),
            "epsilon": self.epsilon,
            "stated": self.stated,
            "siblings": list(self.siblings),
            "unread": list(self.unread),
        }


def examine_lineage(
    original: Path,
    suspect: Path,
    *,
    base: Path | None = None,
    controls: Sequence[Path] = (),
    siblings: Sequence[Path] = (),
    epsilon: float = 1e-9,
    rng: np.random.Generator | None = None,
) -> LineageReport:
    """Test whether a suspect descends from an original that carries no mark.

    Args:
        original: Directory of the original model.
        suspect: A model directory, a safetensors file or a GGUF file.
        base: The public model that the original was tuned from, to tell "shares the base" from "holds the tuning".
        controls: Models of the same family that are known to be unrelated.
        siblings: Models that others tuned from the same base.
        epsilon: Level of the order test.
        rng: Breaks ties between units that match equally well.

    Raises:
        InvalidInput: The original is an adapter or of an unknown family, the suspect is an adapter, siblings are given
            without a base, or epsilon is not between 0 and 1.
    """
    if not 0 < epsilon < 1:
        raise InvalidInput(f"lineage: expected an epsilon between 0 and 1, found {epsilon}")
    if siblings and base is None:
        raise InvalidInput(
            "lineage: siblings are compared by their change from the base", next_step="give the base too"
        )
    rng = rng or np.random.default_rng()
    originals = Originals(original, base)
    beside = [_aligned(_opened(originals, path)) for path in siblings]
    aligner = _opened(originals, suspect)
    order, match = count_agreements(aligner, rng)
    found = _aligned(aligner)
    return LineageReport(
        order=order,
        match=match,
        controls=tuple(count_agreements(_opened(originals, path), rng)[1].share for path in controls),
        effect=_effect(originals, found, None),
        tuning=None if originals.base_weights is None else _effect(originals, found, originals.base_weights),
        epsilon=epsilon,
        stated=base is not None and _stated_base(original) == str(directory_digest(base).root),
        siblings=tuple(_effect(originals, sibling, originals.base_weights).explained for sibling in beside),
        unread=aligner.suspect.doubtful,
    )


def _stated_base(original: Path) -> JsonValue:
    """Return the digest of the base that the statement of the original's tuning names, or None."""
    path = original / _STATEMENT
    return read_json_object(path).get("base_digest") if path.is_file() else None


def _aligned(aligner: Aligner) -> Suspect:
    return Suspect({} if aligner.turn is None else aligner.weights())


def _opened(originals: Originals, suspect: Path) -> Aligner:
    aligner = open_aligner(originals, open_suspect(suspect))
    if aligner is None:
        raise InvalidInput(
            "lineage: expected whole models, the original of the Llama, GPT-2 or BERT family",
            next_step="of an adapter, give the merged model",
        )
    return aligner


def count_agreements(aligner: Aligner, rng: np.random.Generator) -> tuple[Agreement, Agreement]:
    """Return the counts of the order test and of the match test."""
    order = match = units = layers = 0
    for first, second in _halves(aligner):
        one, two = (_matched(half(), rng) for half in (first, second))
        whole = _matched(first() + second(), rng)
        order += int(np.count_nonzero(whole == np.arange(len(whole))))
        match += int(np.count_nonzero((one == two) & (one >= 0)))
        units += len(whole)
        layers += 1
    return Agreement(order, units, layers), Agreement(match, units, layers)


def _halves(aligner: Aligner) -> Iterator[tuple[Callable[[], Floats], Callable[[], Floats]]]:
    """Yield for each layer the similarities (original × suspect) of the two halves of its units."""
    for layer in aligner.family.layers:
        up, down = aligner.reading(layer.up, layer.feed_gain), aligner.writing(layer.down)
        gate = None if layer.gate is None else aligner.reading(layer.gate, layer.feed_gain)
        if up is None or down is None or (gate is None) != (layer.gate is None):
            continue
        first = _without_outliers(up if gate is None else gate)
        # A gated unit's second half may be scaled by anything, its sign too.
        second = _without_outliers(up) if gate is not None else Pair(down.suspect.T, down.original.T)
        if len(first.suspect) == len(second.suspect):
            yield partial(cosines, first), partial(_similarity, second, signless=gate is not None)


def _similarity(pair: Pair, *, signless: bool) -> Floats:
    found = cosines(pair)
    return np.abs(found, out=found) if signless else found


def _without_outliers(pair: Pair) -> Pair:
    """Return both without input columns whose rms is over six times the median: few of them would decide all."""
    kept = np.ones(pair.original.shape[1], np.bool_)
    for values in pair:
        rms = np.sqrt(np.square(values, dtype=np.float64).mean(axis=0))
        masked = np.isnan(rms)
        kept &= ~masked
        if not masked.all():
            kept &= rms <= _OUTLYING * np.median(rms[~masked])
    return Pair(pair.suspect[:, kept], pair.original[:, kept])


def _matched(similarity: Floats, rng: np.random.Generator) -> Numbers:
    """Return the suspect's unit for each of the original's, −1 for none.

    The suspect's units are shuffled first. A search breaks ties by place; unshuffled, a suspect of equal units would
    agree everywhere, and the order test would not be exact.
    """
    shuffle = rng.permutation(similarity.shape[1])
    own, other = assign(similarity[:, shuffle])
    units = np.full(len(similarity), -1)
    units[own] = shuffle[other]
    return units


def _effect(originals: Originals, suspect: Suspect, base: Suspect | None) -> Effect:
    """Return the effect sizes of the weights, or of their changes from a base."""
    tensors, product, power, own_power, explained = {}, 0.0, 0.0, 0.0, 0.0
    for entry in originals.layout.entries:
        theirs = suspect.rows(entry.name, entry.shape)
        before = None if base is None else base.rows(entry.name, entry.shape)
        if theirs is None or (base is not None and before is None):
            continue
        ours = originals.tensors[entry.name].to_float32().reshape(theirs.shape)
        shown = np.isfinite(theirs)
        pair = (
            np.where(shown, values if before is None else values - before, np.float32(0)) for values in (theirs, ours)
        )
        one, two = (values.astype(np.float64).ravel() for values in pair)
        dot, mine, yours = float(one @ two), float(two @ two), float(one @ one)
        if mine > 0 and yours > 0:
            tensors[entry.name] = dot / math.sqrt(mine * yours)
            explained += dot * dot / mine
        product, power, own_power = product + dot, power + yours, own_power + mine
    if power == 0 or own_power == 0:
        return Effect(0.0, 0.0, tensors)
    return Effect(product / math.sqrt(power * own_power), explained / power, tensors)
