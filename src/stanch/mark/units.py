"""Feed-forward units and attention heads: their order and scale, undone by comparison with the original's.

Matrices are outputs × inputs. Each function is given pairs (suspect, original) whose residual streams agree already,
and returns the suspect's matrices. NaN marks what is masked; it takes no part in any comparison.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

_MOST_CONDITION = 1e4
_MOST_SCALE = 1e4
_TINY = 1e-30


class Pair(NamedTuple):
    """A matrix of the suspect and its counterpart in the original."""

    suspect: Floats
    original: Floats


def unit_rows(values: Floats) -> Floats:
    """Return the rows at length 1, what is not finite as 0."""
    clean = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    lengths = np.sqrt(np.square(clean, dtype=np.float64).sum(axis=1, keepdims=True))
    result: Floats = clean / np.maximum(lengths, _TINY).astype(np.float32)
    return result


def cosines(pair: Pair) -> Floats:
    """Return the cosines of rows, original × suspect."""
    result: Floats = unit_rows(pair.original) @ unit_rows(pair.suspect).T
    return result


def assign(similarity: Floats) -> tuple[Numbers, Numbers]:
    """Return pairs (original, suspect) with the largest total of ``similarity`` (original × suspect)."""
    best = similarity.argmax(axis=1)
    # Where every row's best is another column, no assignment can be better: it is found without a search.
    if len(np.unique(best)) == len(best):
        return np.arange(len(best)), best
    rows, columns = scipy.optimize.linear_sum_assignment(similarity, maximize=True)
    return rows, columns


def improves(fitted: Floats, plain: Floats, truth: Floats) -> bool:
    """Say whether a fit halves the squared difference. What noise alone explains is left as it is."""
    before, after = (float(np.nansum(np.square(values - truth, dtype=np.float64))) for values in (plain, fitted))
    return 2 * after < before


def align_feed(up: Pair, down: Pair, gate: Pair | None) -> tuple[Floats, Floats, Floats | None]:
    """Put feed-forward units into the original's order and, where a gate stands beside them, at its scale.

    Units that the suspect lacks are masked; units that it adds are dropped.
    """
    if gate is not None:
        similarity = cosines(gate) + np.abs(cosines(up))
    else:
        similarity = cosines(up) + cosines(Pair(down.suspect.T, down.original.T))
    own, other = assign(similarity)
    new_up, new_down = (np.full(pair.original.shape, np.nan, np.float32) for pair in (up, down))
    new_up[own] = up.suspect[other]
    new_down[:, own] = down.suspect[:, other]
    if gate is None:
        return new_up, new_down, None
    new_gate = np.full(gate.original.shape, np.nan, np.float32)
    new_gate[own] = gate.suspect[other]
    scale = _scales(new_up, up.original)
    return new_up * scale[:, np.newaxis], new_down / scale, new_gate


def _scales(values: Floats, truth: Floats) -> Floats:
    """Return each row's least-squares scale towards ``truth``, 1 where that does not halve the difference."""
    product = np.nansum(values * truth, axis=1, dtype=np.float64)
    power = np.nansum(np.square(values, dtype=np.float64), axis=1)
    scale = product / np.maximum(power, _TINY)
    before = np.nansum(np.square(values - truth, dtype=np.float64), axis=1)
    after = np.nansum(np.square(scale[:, np.newaxis] * values - truth), axis=1)
    sound = (np.abs(scale) > 1 / _MOST_SCALE) & (np.abs(scale) < _MOST_SCALE) & (2 * after < before)
    return np.where(sound, scale, 1.0).astype(np.float32)


class Heads(NamedTuple):
    """Queries, keys and values of a layer, and the output matrix that reads the heads."""

    query: Pair
    key: Pair
    value: Pair
    out: Pair


def align_heads(heads: Heads, count: int, groups: int, *, rotary: bool) -> tuple[Floats, Floats, Floats, Floats]:
    """Put heads into the original's order, and undo what leaves each head's products as they are.

    Args:
        heads: The matrices.
        count: Heads of queries.
        groups: Heads of keys and values; each serves ``count / groups`` heads of queries.
        rotary: Queries and keys are rotated by position.
    """
    each = count // groups
    query, out = (_split(pair, groups, each) for pair in (heads.query, _transposed(heads.out)))
    key, value = (_split(pair, groups, 1) for pair in (heads.key, heads.value))
    order = _head_order(query, key, value, out)
    q, o = (np.stack([pair.suspect[g][inner] for g, inner in order]) for pair in (query, out))
    k, v = (np.stack([pair.suspect[g] for g, _ in order]) for pair in (key, value))
    turn = _turn_rotary if rotary else _turn_freely
    for group in range(groups):
        q[group], k[group] = turn(q[group], k[group], query.original[group], key.original[group])
        v[group], o[group] = _turn_freely(v[group], o[group], value.original[group], out.original[group])
    return (
        q.reshape(heads.query.original.shape),
        k.reshape(heads.key.original.shape),
        v.reshape(heads.value.original.shape),
        np.ascontiguousarray(o.reshape(heads.out.original.shape[::-1]).T),
    )


def _transposed(pair: Pair) -> Pair:
    return Pair(np.ascontiguousarray(pair.suspect.T), np.ascontiguousarray(pair.original.T))


def _split(pair: Pair, groups: int, each: int) -> Pair:
    """Return both matrices as groups × heads × dimensions × inputs."""
    one, two = (values.reshape(groups, each, -1, values.shape[1]) for values in pair)
    return Pair(one, two)


def _overlap(pair: Pair) -> Floats:
    """Return how far heads span the same inputs (original × suspect): the same under any turn inside a head."""
    bases = []
    for values in pair:
        flat = np.nan_to_num(values.reshape(-1, *values.shape[2:]))
        bases.append(np.linalg.qr(flat.swapaxes(1, 2))[0].swapaxes(1, 2))
    suspect, original = bases
    count, width, inputs = original.shape
    product = original.reshape(-1, inputs) @ suspect.reshape(-1, inputs).T
    result: Floats = np.square(product).reshape(count, width, len(suspect), -1).sum(axis=(1, 3)) / np.float32(width)
    return result


def _head_order(query: Pair, key: Pair, value: Pair, out: Pair) -> list[tuple[int, Numbers]]:
    """Return for each group of the original the suspect's group, and its heads in order."""
    groups, each = query.original.shape[:2]
    inside = (_overlap(query) + _overlap(out)).reshape(groups, each, groups, each).swapaxes(1, 2)
    inner = [[assign(inside[one, two])[1] for two in range(groups)] for one in range(groups)]
    total = _overlap(key) + _overlap(value)
    for one in range(groups):
        for two in range(groups):
            total[one, two] += inside[one, two][np.arange(each), inner[one][two]].mean()
    _, chosen = assign(total)
    return [(int(two), inner[one][two]) for one, two in enumerate(chosen)]


def _turn_freely(first: Floats, second: Floats, truth: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Undo ``first ← G first``, ``second ← G⁻ᵀ second`` for one group (heads × dimensions × inputs)."""
    here, there = (_side_by_side(np.nan_to_num(values)) for values in (first, truth))
    g = here.astype(np.float64) @ np.linalg.pinv(there.astype(np.float64))
    if not np.isfinite(g).all() or np.linalg.cond(g) > _MOST_CONDITION:
        return first, second
    new_first = np.linalg.inv(g).astype(np.float32) @ first
    new_second = g.T.astype(np.float32) @ second
    if improves(new_first, first, truth) and improves(new_second, second, other):
        return new_first, new_second
    return first, second


def _side_by_side(values: Floats) -> Floats:
    return np.concatenate(list(values), axis=1)


def _turn_rotary(query: Floats, key: Floats, truth: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Undo one complex factor a rotary pair: ``query ← c query``, ``key ← key / conj(c)``."""
    here, there = (_complex(_side_by_side(np.nan_to_num(values))) for values in (query, truth))
    power = np.maximum(np.square(np.abs(here)).sum(axis=1), _TINY)
    c = (there * here.conj()).sum(axis=1) / power
    c = np.where((np.abs(c) > 1 / _MOST_SCALE) & (np.abs(c) < _MOST_SCALE), c, 1)[:, np.newaxis]
    new_query, new_key = _real(_complex(query) * c), _real(_complex(key) / c.conj())
    if improves(new_query, query, truth) and improves(new_key, key, other):
        return new_query, new_key
    return query, key


def _complex(values: Floats) -> npt.NDArray[np.complex64]:
    half = values.shape[-2] // 2
    return values[..., :half, :] + np.complex64(1j) * values[..., half:, :]


def _real(values: npt.NDArray[np.complexfloating]) -> Floats:
    return np.concatenate([values.real, values.imag], axis=-2).astype(np.float32)
