"""Features: what a suspect shows at each coordinate, computed from suspect, originals and public models alone.

Nothing in this module knows a recipient's key, and no function takes one. That is what makes the error bound hold for
every suspect: conditional on the features, the score of an innocent recipient is a sub-Gaussian sum over its own key.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from stanch.mark.buffers import Buffers
from stanch.mark.embedding import RowBlock, row_blocks, row_scales
from stanch.mark.kernels import COMPILER
from stanch.mark.layout import Layout, LayoutEntry
from stanch.mark.rounding import Grid, find_grid
from stanch.mark.scratch import Scratch
from stanch.mark.sums import sum_rows
from stanch.mark.suspect import Originals, Suspect
from stanch.mark.threads import run_each
from stanch.weights import to_float32

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
T = TypeVar("T")
Store = Callable[[RowBlock, Floats], None]

LARGEST = np.float32(1e12)
"""Weights of a suspect beyond this, infinity and NaN are taken as absent, so that sums stay inside float32."""

_PRUNED_SHARE = 1e-3
_CLIP = np.float32(4)
_buffers = Buffers()
_LIMIT = np.float32(1e15)  # squares of what is below, and sums of them, stay inside float32


class Variant(StrEnum):
    """How features are made. Each variant counts as one analysis a round.

    ``plain`` compares weight by weight; ``projected`` also removes what the original, the base, row means and rounding
    explain (scaling, merging with the base, 8 and 4 bits); ``spectral`` also mutes low-rank drift (later tuning);
    ``tangent`` reads a mark out of a full model whose change from the base was cut to a low rank; ``aligned`` undoes
    permutations, rotations and scales that leave a model as it is, then works as ``spectral``; ``adapter`` reads an
    adapter's mark out of the change of the merged weights, whatever was done to the factors.
    """

    PLAIN = "plain"
    PROJECTED = "projected"
    SPECTRAL = "spectral"
    TANGENT = "tangent"
    ALIGNED = "aligned"
    ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """Features of one variant.

    Attributes:
        variant: How they were made.
        values: float32 by global coordinate; 0 where the suspect shows nothing. In a scratch file without a name.
        layout: The coordinates.
        unmatched: Marked tensors that the suspect does not have in a form this variant reads, or not with what they
            hold; see :func:`stanch.mark.suspect.is_recognised`. The features of the latter are kept.
    """

    variant: Variant
    values: Floats
    layout: Layout
    unmatched: tuple[str, ...]

    @property
    def matched(self) -> int:
        """Coordinates of the tensors that were recognised."""
        missing = set(self.unmatched)
        return sum(entry.count for entry in self.layout.entries if entry.name not in missing)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some rows of a tensor: original, suspect, further known tensors, which entries take part, suspect − original.

    ``rounded`` is the original on the suspect's grid, where it has one. ``counts`` is how many entries of each row take
    part, at least 1. The thread's next rows overwrite these.
    """

    original: Floats
    suspect: Floats
    known: tuple[Floats, ...]
    rounded: tuple[Floats, ...]
    kept: Mask
    counts: npt.NDArray[np.intp]
    residual: Floats

    def mask(self, values: Floats) -> Floats:
        """Set ``values`` to 0 where an entry takes no part; return them."""
        if not self.kept.all():
            np.copyto(values, 0, where=~self.kept)
        return values

    def errors(self) -> Doubles:
        """Return the rms of each row's own rounding error, in row scales; 0 for rows on no grid, or of zeros."""
        if not self.rounded:
            return np.zeros(len(self.original))
        scales = row_scales(self.original).astype(np.float64)
        found = np.sqrt(sum_rows(self.rounded[0] - self.original, squared=True) / self.original.shape[1])
        errors: Doubles = np.divide(found, scales, out=np.zeros_like(scales), where=scales > 0)
        return errors

    def centred(self) -> list[Floats]:
        """Return original, known − original, and residual, without row means: order statistics shift whole rows.

        All but the last are the directions whose share of the residual carries no mark.
        """
        found, others = [], (*self.known, *self.rounded)
        for number, values in enumerate((self.original, *others, self.residual)):
            target = _buffers.get(f"centred {number}", np.float32, values.size).reshape(values.shape)
            shown = np.subtract(values, self.original, out=target) if 0 < number <= len(others) else values
            found.append(self._centre(shown, target))
        return found

    def _centre(self, values: Floats, target: Floats) -> Floats:
        """Fill ``target`` with the values less the row means of the entries that take part; 0 for the others."""
        loops = COMPILER.loops(values.size)
        if loops is not None:
            loops.centre(values, self.kept, self.counts, target)
            return target
        if target is not values:
            target[...] = values
        mean = sum_rows(self.mask(target)) / self.counts
        target -= mean.astype(np.float32)[:, np.newaxis]
        return self.mask(target)


def _subtract(suspect: Floats, original: Floats, *, pruned: bool) -> tuple[Floats, Mask]:
    """Return suspect − original, and which entries take part; 0 for the others.

    Zeros of the original were never marked; zeros of a pruned suspect show nothing.
    """
    residual = _buffers.get("residual", np.float32, suspect.size).reshape(suspect.shape)
    kept = _buffers.get("kept", np.bool_, suspect.size).reshape(suspect.shape)
    loops = COMPILER.loops(suspect.size)
    if loops is not None:
        loops.subtract(suspect, original, LARGEST, pruned, residual, kept)
        return residual, kept
    np.less(np.abs(suspect, out=residual), LARGEST, out=kept)
    kept &= original != 0
    if pruned:
        kept &= suspect != 0
    np.subtract(suspect, original, out=residual)
    np.copyto(residual, 0, where=~kept)
    return residual, kept


def _count_zeros(rows: npt.NDArray[np.generic]) -> int:
    """Return how many values are 0, of floats or of raw bfloat16 (uint16)."""
    # The sign is shifted out: what is left of a zero of either sign is 0.
    shown = rows.view(np.uint16) << np.uint16(1) if rows.dtype == np.uint16 else rows
    return rows.size - int(np.count_nonzero(shown))


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One tensor of the original against the suspect's, read block by block; the suspect's lies on ``grid``, if any."""

    entry: LayoutEntry
    originals: Originals
    suspect: Suspect
    alpha: float
    pruned: bool
    grid: Grid | None

    @classmethod
    def of(
        cls, entry: LayoutEntry, originals: Originals, suspect: Suspect, alpha: float, *, fitted: bool
    ) -> "_Comparison | None":
        """Return the comparison, or None where the suspect's tensor does not match; a grid is sought if ``fitted``."""
        weight, zeros = suspect.weight(entry.name, entry.shape), 0
        if weight is None:
            return None
        for block in row_blocks(entry):
            rows = block.of(weight.stored) if weight.stored is not None else weight.read(block.rows)
            if rows is None:
                return None
            zeros += _count_zeros(rows)
        grid = find_grid(entry.rows, weight.read) if fitted else None
        return cls(entry, originals, suspect, alpha, zeros > _PRUNED_SHARE * entry.count, grid)

    def read(self, block: RowBlock) -> _Rows:
        original = self._original(block)
        suspect = self.suspect.rows(self.entry.name, self.entry.shape, block.rows)
        if suspect is None:
            suspect = np.full_like(original, np.nan)
        base = self.originals.base_weights
        found = None if base is None else base.rows(self.entry.name, self.entry.shape, block.rows)
        suspect = np.ascontiguousarray(suspect)
        residual, kept = _subtract(suspect, original, pruned=self.pruned)
        counts = np.full(len(kept), kept.shape[1]) if kept.all() else np.count_nonzero(kept, axis=1)
        known = () if found is None else (found,)
        rounded = () if self.grid is None else (self.grid.round(original, suspect),)
        return _Rows(original, suspect, known, rounded, kept, np.maximum(counts, 1), residual)

    def _original(self, block: RowBlock) -> Floats:
        tensor = self.originals.tensors[self.entry.name]
        raw = block.of(tensor)
        return to_float32(raw, tensor.dtype, _buffers.get("original", np.float32, raw.size).reshape(raw.shape))

    def whole(self) -> RowBlock:
        return RowBlock(self.entry, 0, self.entry.rows)


def _deviations(rows: _Rows, residual: Floats, scales: Floats, least: float | Doubles) -> Floats:
    """Return each row's rms over its kept entries, at least ``least`` times the row's scale; 1 for rows without either.

    At half of α the floor changes no score of a true copy, whose residual holds at least a good part of the mark. It
    keeps rows that hold less from being amplified: a few rows set to almost exactly the original would else outweigh
    all others.
    """
    power = sum_rows(residual, squared=True) / rows.counts
    deviations = np.maximum(np.sqrt(power), least * scales.astype(np.float64))
    return np.where(deviations > 0, deviations, 1.0).astype(np.float32)


def _standardise(residual: Floats, deviations: Floats, gains: Floats) -> Floats:
    """Change ``residual`` to residual / row deviation, clipped to ±4, times the row's gain; return it."""
    loops = COMPILER.loops(residual.size)
    if loops is not None:
        loops.standardise(residual, deviations, gains)
        return residual
    residual /= deviations[:, np.newaxis]
    np.clip(residual, -_CLIP, _CLIP, out=residual)
    residual *= gains[:, np.newaxis]
    return residual


def _plain(comparison: _Comparison, store: Store) -> bool:
    for block in row_blocks(comparison.entry):
        found = _compare_stored(comparison, block)
        if found is None:
            rows = comparison.read(block)
            found = _matched_filter(rows, rows.residual, comparison.alpha / 2)
        store(block, found)
    return True


def _compare_stored(comparison: _Comparison, block: RowBlock) -> Floats | None:
    """Make the features of ``plain`` in one pass; None where original or suspect is not stored in bfloat16."""
    original, entry = comparison.originals.tensors[comparison.entry.name], comparison.entry
    weight = comparison.suspect.weight(entry.name, entry.shape)
    suspect = None if weight is None else weight.stored
    if suspect is None or original.dtype != "BF16" or suspect.dtype != "BF16":
        return None
    loops = COMPILER.loops(block.count * entry.columns)
    if loops is None:
        return None
    features = _buffers.get("residual", np.float32, block.count * entry.columns).reshape(block.count, entry.columns)
    least = comparison.alpha / 2
    loops.compare(block.of(suspect), block.of(original), LARGEST, comparison.pruned, least, features)
    return features


def _matched_filter(rows: _Rows, residual: Floats, least: float | Doubles) -> Floats:
    """Return ``clip(R, ±4√v)·s/v``: a matched filter with the noise of each row."""
    scales = row_scales(rows.original)
    deviations = _deviations(rows, residual, scales, least)
    return _standardise(residual, deviations, scales / deviations)


def _fit(comparison: _Comparison) -> Doubles:
    """Return the least-squares coefficients of the residual on the regressors, over the whole tensor."""
    parts = []
    for block in row_blocks(comparison.entry):
        columns = [values.ravel() for values in comparison.read(block).centred()]
        parts.append([[float(np.dot(a, b)) for b in columns] for a in columns])
    moments = np.sum(np.array(parts), axis=0)
    coefficients: Doubles = np.linalg.lstsq(moments[:-1, :-1], moments[:-1, -1], rcond=1e-10)[0]
    return coefficients


def _projected_residual(rows: _Rows, coefficients: Doubles) -> Floats:
    *regressors, residual = rows.centred()
    for regressor, coefficient in zip(regressors, coefficients, strict=True):
        residual -= np.multiply(regressor, np.float32(coefficient), out=regressor)
    return residual


def _usual(comparison: _Comparison, coefficients: Doubles) -> float:
    """Return the median deviation of the rows that lie on a grid, in row scales; 0 where none does."""
    if comparison.grid is None:
        return 0.0
    found: list[float] = []
    for block in row_blocks(comparison.entry):
        rows = comparison.read(block)
        power = sum_rows(_projected_residual(rows, coefficients), squared=True) / rows.counts
        scales, errors = row_scales(rows.original).astype(np.float64), rows.errors()
        found += (np.sqrt(power[errors > 0]) / scales[errors > 0]).tolist()
    return float(np.median(found)) if found else 0.0


def _floors(rows: _Rows, alpha: float, usual: float) -> Doubles:
    """Return the least deviation of each row, in row scales: half of α; on a grid what is usual there.

    Where rounding is removed, a row shows its mark in the few weights that it moved to another value of the grid. A row
    without any holds but a rest of the rounding, and must not outweigh the others for being quiet. No floor is above
    the row's own rounding error: so rows that somebody puts on a grid, or fills with noise, touch no other row.
    """
    return np.maximum(alpha / 2, np.minimum(usual, rows.errors()))


def _projected(comparison: _Comparison, store: Store) -> bool:
    coefficients = _fit(comparison)
    usual = _usual(comparison, coefficients)
    for block in row_blocks(comparison.entry):
        rows = comparison.read(block)
        floors = _floors(rows, comparison.alpha, usual)
        store(block, _matched_filter(rows, _projected_residual(rows, coefficients), floors))
    return True


def _spectral(comparison: _Comparison, store: Store) -> bool:
    """Whiten the standardised residual Q by its own covariance: ``(QQᵀ/n + λI)⁻¹ Q``, n = the longer side.

    Without a decomposition this scales each singular value σ to σ/(σ²/n + λ): drift of few directions is muted. λ is
    the median eigenvalue, that is the noise of what is not low-rank, but at least a quarter of the mark's own variance.
    """
    coefficients = _fit(comparison)
    usual = _usual(comparison, coefficients)
    rows = comparison.read(comparison.whole())
    residual = _projected_residual(rows, coefficients)
    scales = row_scales(rows.original)
    deviations = _deviations(rows, residual, scales, _floors(rows, comparison.alpha, usual))
    q = _standardise(residual, deviations, np.ones_like(deviations))
    wide = q.shape[0] <= q.shape[1]
    gram = ((q @ q.T) if wide else (q.T @ q)).astype(np.float64) / max(q.shape)
    own = np.square(comparison.alpha / 2 * scales / deviations, dtype=np.float64).mean()
    level = max(float(np.median(np.linalg.eigvalsh(gram))), float(own))
    if level > 0:
        filtering = np.linalg.inv(gram + level * np.eye(len(gram))).astype(np.float32)
        q = filtering @ q if wide else q @ filtering
    store(comparison.whole(), q * (scales / deviations)[:, np.newaxis])
    return True


def _significant_rank(values: Floats, shape: tuple[int, ...]) -> int:
    """Return how many singular values stand out of rounding noise: 0 unless they are few.

    The threshold is Gavish and Donoho's for noise of unknown size (2014, section III-E), and a thousandth of the
    largest where there is no noise.
    """
    beta = min(shape) / max(shape)
    edge = (0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43) * float(np.median(values))
    rank = int(np.count_nonzero(values > max(edge, 1e-3 * float(values[0]))))
    return rank if rank <= min(shape) // 4 else 0


def _tangent(comparison: _Comparison, store: Store) -> bool:
    """Compare in the directions that a cut to the suspect's rank leaves of a mark.

    The cut ``X`` of ``C``, the copy's change from the base, keeps leading singular vectors of it: ``UᵀC = UᵀX`` and
    ``CV = XV``, exactly. ``C`` being the original's own change and a mark, ``UUᵀR + RVVᵀ − UUᵀRVVᵀ`` of the residual
    ``R`` is the same of the mark alone, however much of the original's change was cut away.
    """
    rows = comparison.read(comparison.whole())
    if not rows.known:
        return False
    change = rows.mask(rows.suspect - rows.known[0])
    u, values, vt = np.linalg.svd(change, full_matrices=False)
    rank = _significant_rank(values, change.shape)
    if rank == 0:
        return False
    u, vt = u[:, :rank], vt[:rank]
    residual = rows.residual
    left = u @ (u.T @ residual)
    shown = left + ((residual - left) @ vt.T) @ vt
    store(comparison.whole(), _matched_filter(rows, rows.mask(shown), comparison.alpha / 2))
    return True


_MAKERS = {
    Variant.PLAIN: _plain,
    Variant.PROJECTED: _projected,
    Variant.SPECTRAL: _spectral,
    Variant.ALIGNED: _spectral,
    Variant.TANGENT: _tangent,
}


def compare_weights(
    originals: Originals, suspect: Suspect, variant: Variant, *, alpha: float, threads: int = 1
) -> FeatureSet:
    """Make the features of a variant that compares tensors; for ``aligned``, of a suspect that is aligned already."""
    layout = originals.layout
    make = _MAKERS[variant]

    with Scratch(layout.extent) as scratch:

        def store(block: RowBlock, features: Floats) -> None:
            scratch.write(block.start, drop_not_finite(features))

        def work(entry: LayoutEntry) -> bool:
            comparison = _Comparison.of(entry, originals, suspect, alpha, fitted=make in {_projected, _spectral})
            return comparison is not None and make(comparison, store)

        found = match_each(work, layout.entries, threads)
        unmatched = tuple(entry.name for entry, hit in zip(layout.entries, found, strict=True) if not hit)
        return FeatureSet(variant, scratch.values(), layout, unmatched)


def match_each(work: Callable[[T], bool], items: Sequence[T], threads: int) -> list[bool]:
    """Run ``work`` for each item on ``threads`` threads; the results come in order.

    A hostile suspect may overflow or make a factorisation fail: what is not finite is dropped afterwards, and an item
    whose factorisation fails counts as unmatched.
    """

    def guarded(item: T) -> bool:
        try:
            with np.errstate(all="ignore"):
                return work(item)
        except np.linalg.LinAlgError:
            return False

    return run_each(guarded, items, threads)


def drop_not_finite(values: Floats) -> Floats:
    """Set what is not finite, or too large to be squared in float32, to 0; return the values."""
    # A NaN makes the comparison false.
    if values.size and not (values.min() > -_LIMIT and values.max() < _LIMIT):
        values[~(np.abs(values) < _LIMIT)] = 0
    return values
