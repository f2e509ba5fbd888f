"""Features of an adapter's mark: found in the change of a module's weight, whatever became of the factors.

With the original factors A₀ (r × n) and B₀ (m × r), their pseudo-inverses, and the suspect's change ``D`` (m × n, its
own ``scale · B A`` or merged − base):

    f_A = B₀⁺ D (I − A₀⁺A₀)        f_B = (I − B₀B₀⁺) D A₀⁺

The original's own change falls out of both, and the marks of A and B remain. The features do not change under
A → GA, B → BG⁻¹, under merging, or under extraction of new factors, and only in scale under scaling. Each is whitened
by its r × r covariance. Of a merged model that was cut to 8 or 4 bits, the error of rounding base + B₀A₀ likewise is
subtracted first. ``spectral`` first divides D by the row noise of what neither factor explains, and whitens the
long side by it too: the change that later tuning adds has few directions, and these are muted.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput
from stanch.mark.embedding import row_scales
from stanch.mark.features import LARGEST, FeatureSet, Variant, drop_not_finite, match_each
from stanch.mark.rounding import without_rounding
from stanch.mark.scratch import Scratch
from stanch.mark.suspect import Originals, Suspect
from stanch.weights import LowRank

Floats = npt.NDArray[np.float32]


class BaseNeeded(InvalidInput):
    """A whole model is compared with the original of an adapter, and its base model was not given."""


_RCOND = 1e-6
_NOISE_FLOOR = 1e-2
_LEAST_LEVEL = 1e-9


@dataclass(frozen=True, slots=True)
class _Frame:
    """The original factors of one module, their pseudo-inverses, α, and α times the module's effective scale."""

    a: Floats
    b: Floats
    a_inverse: Floats
    b_inverse: Floats
    alpha: float
    strength: float

    @classmethod
    def of(cls, a: Floats, b: Floats, alpha: float, strength: float) -> "_Frame":
        """Make a frame."""
        return cls(a, b, np.linalg.pinv(a, rcond=_RCOND), np.linalg.pinv(b, rcond=_RCOND), alpha, strength)

    def features(self, change: Floats) -> tuple[Floats, Floats]:
        """Return f_A (r × n) and f_B (m × r), not yet whitened."""
        left: Floats = self.b_inverse @ change
        right: Floats = change @ self.a_inverse
        left -= (left @ self.a_inverse) @ self.a
        right -= self.b @ (self.b_inverse @ right)
        return left, right

    def unexplained(self, change: Floats) -> Floats:
        """Return (I − B₀B₀⁺) D (I − A₀⁺A₀): what holds no mark to first order."""
        rest: Floats = change - self.b @ (self.b_inverse @ change)
        rest -= (rest @ self.a_inverse) @ self.a
        return rest

    @property
    def product(self) -> float:
        """The variance that the product of both factors' marks has in an entry of ``unexplained``, a rank."""
        return (self.alpha * self.strength) ** 2 * float(np.square(self.a).mean()) * float(np.square(self.b).mean())

    def whiten(self, f_a: Floats, f_b: Floats) -> tuple[Floats, Floats]:
        """Whiten both features by their r × r covariances."""
        mark = self.strength * self.strength / 4
        return (
            whitened(f_a, mark * float(np.square(self.a, dtype=np.float64).mean())),
            whitened(f_b.T, mark * float(np.square(self.b, dtype=np.float64).mean())).T,
        )


def whitened(features: Floats, floor: float) -> Floats:
    """Return ``C⁻¹ f`` for f (r × n) with covariance C of its rows, its eigenvalues raised to ``floor``.

    The floor is a quarter of the mark's own variance: a direction that holds less than that, say of a module set back
    to the base, must not be amplified until it outweighs all others.
    """
    covariance = (features @ features.T).astype(np.float64) / features.shape[1]
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, floor)
    if not values.all():
        return np.zeros_like(features)
    inverse = ((vectors / values) @ vectors.T).astype(np.float32)
    result: Floats = inverse @ features
    return result


def _plain(change: Floats, frame: _Frame) -> tuple[Floats, Floats]:
    return frame.whiten(*frame.features(change))


def _muted(change: Floats, frame: _Frame) -> tuple[Floats, Floats]:
    """Return the features with row noise normalised and the directions of later tuning muted."""
    power = np.square(frame.unexplained(change), dtype=np.float64).mean(axis=1)
    if not power.any():
        return _plain(change, frame)
    noise = np.sqrt(np.maximum(power, _NOISE_FLOOR * power.mean())).astype(np.float32)[:, np.newaxis]
    frame = _Frame.of(frame.a, frame.b / noise, frame.alpha, frame.strength)
    change = change / noise
    f_a, f_b = frame.features(change)
    rest = frame.unexplained(change)
    # Both sides are whitened through the smaller Gram matrix K: the short one by (K + λ)⁻¹, the long one by Woodbury.
    wide = rest.shape[0] < rest.shape[1]
    tall = rest.T if wide else rest
    gram = (tall.T @ tall).astype(np.float64) / len(tall)
    # The product of the marks lies in the directions of the marks themselves: what is no larger must not be muted.
    level = max(float(np.median(np.linalg.eigvalsh(gram))), len(gram) * frame.product, _LEAST_LEVEL * np.trace(gram))
    inverse = np.linalg.inv(gram + level * np.eye(len(gram))).astype(np.float32)
    long, short = (f_a, f_b.T) if wide else (f_b.T, f_a)
    long_muted: Floats = np.subtract(long, ((long @ tall) @ inverse) @ tall.T / len(tall), dtype=np.float32)
    short_muted: Floats = (short @ inverse) * level
    pair = (long_muted, short_muted.T) if wide else (short_muted, long_muted.T)
    white_a, white_b = frame.whiten(*pair)
    return white_a, white_b / noise


def _change(module: LowRank, originals: Originals, suspect: Suspect) -> Floats | None:
    """Return the suspect's change of a module's weight, outputs × inputs, or None where it does not match."""
    outputs, inputs = module.b.shape[0], module.a.shape[1]
    if suspect.adapter is not None:
        found = suspect.module(module.module)
        fits = found is not None and (found.b.shape[0], found.a.shape[1]) == (outputs, inputs)
        return found.delta() if found is not None and fits else None
    base = originals.base_weights
    if base is None:
        raise BaseNeeded(
            "the suspect is a whole model and the original an adapter: the base model is needed to compare them",
            next_step="give the directory of the base model that the adapter was tuned on: --base DIR",
        )
    shape = (inputs, outputs) if module.transposed else (outputs, inputs)
    before, after = (model.rows(f"{module.module}.weight", shape) for model in (base, suspect))
    if before is None or after is None:
        return None
    change = module.delta()
    after = without_rounding(after, before + (change.T if module.transposed else change), float(LARGEST))
    return (after - before).T if module.transposed else after - before


def compare_adapters(
    originals: Originals, suspect: Suspect, variant: Variant, *, alpha: float, threads: int = 1
) -> FeatureSet:
    """Make the features of ``adapter``, or of ``spectral`` for an adapter.

    Args:
        originals: The unmarked adapter, and the base where the suspect is a merged model.
        suspect: An adapter or a merged model.
        variant: ``adapter`` or ``spectral``.
        alpha: Strength of the mark, which sets the floor of the noise.
        threads: Modules worked on at a time.

    Raises:
        BaseNeeded: The base is needed and was not given.
    """
    layout = originals.layout
    places = {entry.name: entry for entry in layout.entries}
    make = _muted if variant is Variant.SPECTRAL else _plain

    def work(module: LowRank) -> bool:
        change = _change(module, originals, suspect)
        if change is None:
            return False
        change = np.where(np.abs(change) < LARGEST, change, np.float32(0))
        factors = (module.a, module.b)
        frame = _Frame.of(module.a.to_float32(), module.b.to_float32(), alpha, alpha * abs(module.scale))
        features = make(change, frame)
        for factor, found in zip(factors, features, strict=True):
            if factor.name in places:
                scaled = found * row_scales(factor.to_float32())[:, np.newaxis]
                scratch.write(places[factor.name].offset, drop_not_finite(scaled))
        return True

    modules = list(originals.adapter.modules.values())
    with Scratch(layout.extent) as scratch:
        hits = match_each(work, modules, threads)
        values = scratch.values()
    missed = {
        factor.name for module, hit in zip(modules, hits, strict=True) if not hit for factor in (module.a, module.b)
    }
    return FeatureSet(variant, values, layout, tuple(name for name in places if name in missed))
