"""What a suspect's weights show beside the original's, by the formulas of docs/spec/mark.md, with numpy alone.

Beside recompute.py, which reads the files. Matrices are float32, [rows, columns].
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
NF4 = np.array(
    [-1, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0,
     0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1], np.float32)  # fmt: skip
LARGEST, LIMIT, RCOND = np.float32(1e12), np.float32(1e15), 1e-6


def row_scales(weights: Floats) -> Floats:
    """Return each row's rms, rounded to bfloat16, to nearest even."""
    bits = np.sqrt(np.square(weights, dtype=np.float64).mean(axis=1)).astype(np.float32).view(np.uint32)
    kept = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(0xFFFF0000)
    scales: Floats = kept.view(np.float32)
    return scales


class Grid(NamedTuple):
    """Values that a block can hold.

    ``block`` values lie side by side in a row (0: the row); ``levels``: integers from −levels to levels (0: NF4); a
    stored value may lie ``slack`` units from these. The unit is the block's largest magnitude over ``levels``; where
    ``least`` is not 0, its least magnitude but 0, made exact by the largest, which is at least so many of it; or
    ``unit``, where all blocks have one.
    """

    block: int
    levels: int
    slack: float
    least: int = 0
    unit: float = 0.0

    def units(self, suspect: Floats) -> Floats:
        """Return the unit of each block, one line a block."""
        blocks = suspect.reshape(-1, self.block or suspect.shape[1])
        if self.unit:
            return np.full((len(blocks), 1), self.unit, np.float32)
        largest = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), np.float32(1e-30))
        if not self.least:
            scales: Floats = largest / np.float32(self.levels or 1)
            return scales
        magnitudes = np.abs(blocks)
        smallest = np.where(magnitudes > 0, magnitudes, np.float32(np.inf)).min(axis=1, keepdims=True)
        found: Floats = largest / np.maximum(np.rint(largest / smallest), np.float32(1))
        return found

    def nearest(self, scaled: Floats) -> Floats:
        """Return the nearest value of the grid to each, both in its units."""
        if self.levels:
            return np.clip(np.rint(scaled), -self.levels, self.levels)
        return NF4[np.searchsorted((NF4[1:] + NF4[:-1]) / 2, scaled)]

    def holds(self, suspect: Floats) -> npt.NDArray[np.bool_]:
        """Say of each row whether all its values lie on the grid."""
        scaled = suspect.reshape(-1, self.block or suspect.shape[1]) / self.units(suspect)
        near = np.abs(scaled - self.nearest(scaled)) <= np.float32(self.slack)
        if self.least and not self.unit:
            near &= np.abs(scaled).max(axis=1, keepdims=True) >= self.least - self.slack
        whole: npt.NDArray[np.bool_] = near.reshape(len(suspect), -1).all(axis=1)
        return whole


GRIDS = (
    Grid(0, 127, 1 / 12), Grid(32, 127, 1 / 12), Grid(64, 0, 1 / 128),
    Grid(128, 15, 1 / 12, 3), Grid(64, 15, 1 / 12, 3), Grid(32, 15, 1 / 12, 3), Grid(0, 255, 1 / 12, 16),
)  # fmt: skip


def grid_of(suspect: Floats) -> Grid | None:
    """Return the grid that most of 16 rows lie on, the first of equals, or None."""
    probes = suspect[np.linspace(0, len(suspect) - 1, 16).astype(np.int64)]
    probes = probes[probes.any(axis=1)]
    if suspect.shape[1] % 64 or not len(probes):
        return None
    held = [(grid, grid.holds(probes)) for grid in GRIDS if suspect.shape[1] % (grid.block or 1) == 0]
    grid, rows = max(held, key=lambda pair: int(pair[1].sum()))
    if not rows.any() or grid.block or not grid.least:
        return grid if rows.any() else None
    most = np.abs(probes[rows]).max(axis=1).argmax()  # one unit for the tensor: that of the row with the most steps
    return grid._replace(unit=float(grid.units(probes[rows])[most, 0]))


def rounded(original: Floats, suspect: Floats) -> Floats | None:
    """Return the original on the grid of 8 or 4 bits that the suspect's rows lie on, or None where they lie on none."""
    grid = grid_of(suspect)
    if grid is None:
        return None
    scales = grid.units(suspect)
    moved = (grid.nearest(original.reshape(len(scales), -1) / scales) * scales).reshape(original.shape)
    return np.where(grid.holds(suspect)[:, np.newaxis], moved, original)


def centred(values: Floats, kept: npt.NDArray[np.bool_]) -> Floats:
    """Return the values without the row means of the kept entries."""
    count = np.maximum(kept.sum(axis=1, keepdims=True), 1)
    mean = values.sum(axis=1, keepdims=True, dtype=np.float64) / count
    result: Floats = np.where(kept, values - mean.astype(np.float32), np.float32(0))
    return result


def project(residual: Floats, known: list[Floats], kept: npt.NDArray[np.bool_]) -> Floats:
    """Return the residual without row means, and without what least squares explains of it by what is known."""
    columns = [centred(values, kept) for values in (*known, residual)]
    moments = np.array([[np.vdot(a.astype(np.float64), b) for b in columns] for a in columns])
    weights = np.linalg.lstsq(moments[:-1, :-1], moments[:-1, -1], rcond=1e-10)[0]
    residual = columns[-1]
    for weight, column in zip(weights, columns[:-1], strict=True):
        residual = residual - np.float32(weight) * column
    return residual


def tangent(residual: Floats, change: Floats) -> Floats:
    """Return what the residual shows in the leading directions of the suspect's change from the base; 0 if none."""
    u, values, vt = np.linalg.svd(change, full_matrices=False)
    beta = min(change.shape) / max(change.shape)
    edge = (0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43) * float(np.median(values))
    rank = int(np.count_nonzero(values > max(edge, 1e-3 * float(values[0]))))
    if rank > min(change.shape) // 4:
        rank = 0
    u, vt = u[:, :rank], vt[:rank]
    left = u @ (u.T @ residual)
    shown: Floats = left + ((residual - left) @ vt.T) @ vt
    return shown


def mute(q: Floats, own: float) -> Floats:
    """Return q (rows at deviation 1) whitened by its own covariance: directions that stand out are muted."""
    wide = q.shape[0] <= q.shape[1]
    gram = ((q @ q.T) if wide else (q.T @ q)).astype(np.float64) / max(q.shape)
    level = max(float(np.median(np.linalg.eigvalsh(gram))), own)
    if level <= 0:
        return q
    inverse = np.linalg.inv(gram + level * np.eye(len(gram))).astype(np.float32)
    muted: Floats = inverse @ q if wide else q @ inverse
    return muted


def floors(original: Floats, moved: Floats | None, power: Doubles, scales: Doubles, alpha: float) -> Doubles:
    """Return the least deviation of each row, in row scales: half of alpha, or what is usual of rows on a grid."""
    least = np.full(len(scales), alpha / 2)
    if moved is None:
        return least
    error = np.sqrt(np.square(moved - original, dtype=np.float64).mean(axis=1))
    error = np.divide(error, scales, out=np.zeros_like(scales), where=scales > 0)
    usual = np.median(np.sqrt(power[error > 0]) / scales[error > 0]) if error.any() else 0.0
    found: Doubles = np.maximum(least, np.minimum(usual, error))
    return found


def features_of(original: Floats, suspect: Floats, base: Floats | None, alpha: float, variant: str) -> Floats:
    """Return the features of one tensor: ``clip(R, ±4√v)·s/v`` with R the residual, v its power in the row.

    The variants are ``plain``, ``projected``, ``spectral``, ``tangent``, and ``aligned`` of an aligned suspect.
    """
    kept = (np.abs(suspect) < LARGEST) & (original != 0)
    if suspect.size - np.count_nonzero(suspect) > 1e-3 * suspect.size:
        kept &= suspect != 0
    muted = variant in {"spectral", "aligned"}
    fitted = muted or variant == "projected"
    moved = rounded(original, suspect) if fitted else None
    suspect = np.where(kept, suspect, np.float32(0))
    residual = np.where(kept, suspect - original, np.float32(0))
    if fitted:
        others = [np.where(kept, other - original, np.float32(0)) for other in (base, moved) if other is not None]
        residual = project(residual, [np.where(kept, original, np.float32(0)), *others], kept)
    elif variant == "tangent":
        if base is None:
            return np.zeros_like(original)
        change = np.where(kept, suspect - base, np.float32(0))
        residual = np.where(kept, tangent(residual, change), np.float32(0))
    scales, count = row_scales(original), np.maximum(kept.sum(axis=1), 1)
    power = np.square(residual, dtype=np.float64).sum(axis=1) / count
    wide = scales.astype(np.float64)
    deviations = np.maximum(np.sqrt(power), floors(original, moved, power, wide, alpha) * wide)
    deviations = np.where(deviations > 0, deviations, 1.0).astype(np.float32)
    scaled = np.clip(residual / deviations[:, np.newaxis], np.float32(-4), np.float32(4))
    if muted:
        own = np.square(alpha / 2 * scales / deviations, dtype=np.float64).mean()
        scaled = mute(scaled, float(own))
    return usable(scaled * (scales / deviations)[:, np.newaxis])


def usable(values: Floats) -> Floats:
    """Return the values, 0 in place of what is not finite or too large."""
    return np.where(np.abs(values) < LIMIT, values, np.float32(0))


def without_rounding(suspect: Floats, original: Floats) -> Floats:
    """Return the suspect without the share of the original's own rounding error that least squares finds in it."""
    moved = rounded(original, suspect)
    if moved is None:
        return suspect
    error = moved - original
    residual = np.where(np.abs(suspect) < LARGEST, suspect - original, np.float32(0))
    power = float(np.square(error, dtype=np.float64).sum())
    share = float(np.vdot(residual.astype(np.float64), error)) / power if power else 0.0
    return suspect - np.float32(share) * error


class Frame(NamedTuple):
    """The original factors A (r × n) and B (m × r) of an adapter's module, and alpha times the module's scale."""

    a: Floats
    b: Floats
    strength: float

    def features(self, change: Floats) -> tuple[Floats, Floats, Floats]:
        """Return ``B⁺D(I − A⁺A)``, ``(I − BB⁺)DA⁺`` and ``(I − BB⁺)D(I − A⁺A)``, D being the suspect's change."""
        a_inverse, b_inverse = (
            np.asarray(np.linalg.pinv(factor, rcond=RCOND), np.float32) for factor in (self.a, self.b)
        )
        left: Floats = b_inverse @ change
        right: Floats = change @ a_inverse
        left -= (left @ a_inverse) @ self.a
        right -= self.b @ (b_inverse @ right)
        rest: Floats = change - self.b @ (b_inverse @ change)
        rest -= (rest @ a_inverse) @ self.a
        return left, right, rest

    def whiten(self, f_a: Floats, f_b: Floats) -> tuple[Floats, Floats]:
        """Whiten both features by their r × r covariances."""
        mark = self.strength * self.strength / 4
        powers = [float(np.square(factor, dtype=np.float64).mean()) for factor in (self.a, self.b)]
        return whitened(f_a, mark * powers[0]), whitened(f_b.T, mark * powers[1]).T


def whitened(features: Floats, floor: float) -> Floats:
    """Return ``C⁻¹ f`` for f (r × n) with covariance C of its rows, its eigenvalues raised to ``floor``."""
    covariance = (features @ features.T).astype(np.float64) / features.shape[1]
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, floor)
    if not values.all():
        return np.zeros_like(features)
    result: Floats = ((vectors / values) @ vectors.T).astype(np.float32) @ features
    return result


def mute_change(change: Floats, frame: Frame, alpha: float) -> tuple[Floats, Floats]:
    """Return both whitened features, row noise normalised and the directions of later tuning muted."""
    f_a, f_b, rest = frame.features(change)
    power = np.square(rest, dtype=np.float64).mean(axis=1)
    if not power.any():
        return frame.whiten(f_a, f_b)
    noise = np.sqrt(np.maximum(power, 1e-2 * power.mean())).astype(np.float32)[:, np.newaxis]
    frame = Frame(frame.a, frame.b / noise, frame.strength)
    f_a, f_b, rest = frame.features(change / noise)
    wide = rest.shape[0] < rest.shape[1]
    tall = rest.T if wide else rest
    gram = (tall.T @ tall).astype(np.float64) / len(tall)
    own = (alpha * frame.strength) ** 2 * float(np.square(frame.a).mean()) * float(np.square(frame.b).mean())
    level = max(float(np.median(np.linalg.eigvalsh(gram))), len(gram) * own, 1e-9 * float(np.trace(gram)))
    inverse = np.linalg.inv(gram + level * np.eye(len(gram))).astype(np.float32)
    long, short = (f_a, f_b.T) if wide else (f_b.T, f_a)
    long = np.subtract(long, ((long @ tall) @ inverse) @ tall.T / len(tall), dtype=np.float32)
    short = (short @ inverse) * np.float32(level)
    white_a, white_b = frame.whiten(long, short.T) if wide else frame.whiten(short, long.T)
    return white_a, white_b / noise


def adapter_features(
    a: Floats, b: Floats, change: Floats, scale: float, alpha: float, variant: str
) -> tuple[Floats, Floats]:
    """Return the features of a module's factors A and B, for ``adapter`` or ``spectral``.

    Args:
        a: The original's factor A, r × n.
        b: Its factor B, m × r.
        change: The suspect's change of the module's weight, m × n.
        scale: What the original multiplies ``B A`` with.
        alpha: The strength of the mark.
        variant: ``adapter`` or ``spectral``.
    """
    change = np.where(np.abs(change) < LARGEST, change, np.float32(0))
    frame = Frame(a, b, alpha * abs(scale))
    f_a, f_b = mute_change(change, frame, alpha) if variant == "spectral" else frame.whiten(*frame.features(change)[:2])
    return usable(f_a * row_scales(a)[:, np.newaxis]), usable(f_b * row_scales(b)[:, np.newaxis])
