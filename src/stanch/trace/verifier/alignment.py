"""Undo what leaves a model as it is and moves its weights: section 9 of docs/spec/mark.md, with numpy alone.

Beside recompute.py. Everything follows from original and suspect; no key has a part in it.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

if __package__:
    from stanch.trace.verifier.families import Family, Layer, Place, family_of, read_tokens
    from stanch.trace.verifier.models import LARGEST, Model, Weights, plain_name
else:  # the files were taken out of a pack
    from families import (  # type: ignore[import-not-found,no-redef]  # beside this file
        Family,
        Layer,
        Place,
        family_of,
        read_tokens,
    )
    from models import (  # type: ignore[import-not-found,no-redef]  # beside this file
        LARGEST,
        Model,
        Weights,
        plain_name,
    )

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
TINY, PROBES, MOST, MOST_LAYERS = 1e-30, 16, 1e4, 1 << 9


class Pair(NamedTuple):
    """A matrix of the suspect and its counterpart in the original."""

    suspect: Floats
    original: Floats


class Turn(NamedTuple):
    """The map of the stream: columns ``order`` times signs, or a matrix; and the suspect's rows of our tokens."""

    their_width: int
    width: int
    rows: Ints | None = None
    matrix: Floats | None = None
    order: Ints | None = None
    signs: Floats | None = None
    misfit: float = 1.0

    def apply(self, values: Floats) -> Floats:
        """Map vectors of the stream, one a row."""
        if self.matrix is not None:
            return values @ self.matrix
        if self.order is not None and self.signs is not None:
            return values[:, self.order] * self.signs
        return values[:, : self.width]

    def rated(self, theirs: Floats, ours: Floats) -> "Turn":
        """Return the map with what it leaves unexplained of some rows."""
        error = np.square(self.apply(theirs) - ours, dtype=np.float64).sum()
        return self._replace(misfit=float(error / max(np.square(ours, dtype=np.float64).sum(), TINY)))


# --- assignments


def unit_rows(values: Floats) -> Floats:
    """Return the rows at length 1, what is not finite as 0."""
    clean = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    lengths = np.sqrt(np.square(clean, dtype=np.float64).sum(axis=1, keepdims=True))
    found: Floats = clean / np.maximum(lengths, TINY).astype(np.float32)
    return found


def cosines(pair: Pair) -> Floats:
    """Return the cosines of rows, original × suspect."""
    found: Floats = unit_rows(pair.original) @ unit_rows(pair.suspect).T
    return found


def assign(likeness: Floats) -> tuple[Ints, Ints]:
    """Return pairs (row, column) with the largest total: the best of each row where these differ, else by a search.

    The search is that of shortest augmenting paths (Jonker and Volgenant, 1987), one row after another.
    """
    best = likeness.argmax(axis=1)
    if len(np.unique(best)) == len(best):
        return np.arange(len(best)), best
    if likeness.shape[0] > likeness.shape[1]:
        columns, rows = assign(np.ascontiguousarray(likeness.T))
        order = np.argsort(rows)
        return rows[order], columns[order]
    cost = -likeness.astype(np.float64)
    count, width = cost.shape
    row_price, column_price, owner = np.zeros(count), np.zeros(width), np.full(width, -1)
    for start in range(count):
        reach, came, done = np.full(width, np.inf), np.full(width, -1), np.zeros(width, np.bool_)
        row, last, length = start, -1, 0.0
        while True:
            offer = length + cost[row] - row_price[row] - column_price
            closer = ~done & (offer < reach)
            reach[closer], came[closer] = offer[closer], last
            last = int(np.where(done, np.inf, reach).argmin())
            length, done[last] = float(reach[last]), True
            if owner[last] < 0:
                break
            row = int(owner[last])
        moved = np.flatnonzero(done)
        moved = moved[moved != last]
        row_price[start] += length
        row_price[owner[moved]] += length - reach[moved]
        column_price[moved] -= length - reach[moved]
        while last >= 0:
            owner[last] = start if came[last] < 0 else owner[came[last]]
            last = int(came[last])
    columns = np.flatnonzero(owner >= 0)
    order = np.argsort(owner[columns])
    return owner[columns][order], columns[order]


def improves(fitted: Floats, plain: Floats, truth: Floats) -> bool:
    """Say whether a fit halves the squared difference."""
    before, after = (float(np.nansum(np.square(values - truth, dtype=np.float64))) for values in (plain, fitted))
    return 2 * after < before


# --- units and heads


def align_feed(up: Pair, down: Pair, gate: Pair | None) -> list[Floats]:
    """Return up, down and, where there is one, gate, units in the original's order and scale."""
    if gate is None:
        own, other = assign(cosines(up) + cosines(Pair(down.suspect.T, down.original.T)))
    else:
        own, other = assign(cosines(gate) + np.abs(cosines(up)))
    new_up, new_down = (np.full(pair.original.shape, np.nan, np.float32) for pair in (up, down))
    new_up[own], new_down[:, own] = up.suspect[other], down.suspect[:, other]
    if gate is None:
        return [new_up, new_down]
    new_gate = np.full(gate.original.shape, np.nan, np.float32)
    new_gate[own] = gate.suspect[other]
    truth = up.original
    power = np.nansum(np.square(new_up, dtype=np.float64), axis=1)
    scale = np.nansum(new_up * truth, axis=1, dtype=np.float64) / np.maximum(power, TINY)
    before = np.nansum(np.square(new_up - truth, dtype=np.float64), axis=1)
    after = np.nansum(np.square(scale[:, np.newaxis] * new_up - truth), axis=1)
    sound = (np.abs(scale) > 1 / MOST) & (np.abs(scale) < MOST) & (2 * after < before)
    scale = np.where(sound, scale, 1.0).astype(np.float32)
    return [new_up * scale[:, np.newaxis], new_down / scale, new_gate]


def overlap(pair: Pair) -> Floats:
    """Return how far heads span the same inputs, original × suspect."""
    bases = []
    for values in pair:
        flat = np.nan_to_num(values.reshape(-1, *values.shape[2:]))
        bases.append(np.linalg.qr(flat.swapaxes(1, 2))[0].swapaxes(1, 2))
    suspect, original = bases
    count, width, inputs = original.shape
    product = original.reshape(-1, inputs) @ suspect.reshape(-1, inputs).T
    found: Floats = np.square(product).reshape(count, width, len(suspect), -1).sum(axis=(1, 3)) / np.float32(width)
    return found


def turn_freely(first: Floats, second: Floats, truth: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Undo a matrix between two factors of a group of heads."""
    here, there = (np.concatenate(list(np.nan_to_num(values)), axis=1) for values in (first, truth))
    g = here.astype(np.float64) @ np.linalg.pinv(there.astype(np.float64))
    if not np.isfinite(g).all() or np.linalg.cond(g) > MOST:
        return first, second
    pair = np.linalg.inv(g).astype(np.float32) @ first, g.T.astype(np.float32) @ second
    return pair if improves(pair[0], first, truth) and improves(pair[1], second, other) else (first, second)


def turn_rotary(query: Floats, key: Floats, truth: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Undo one complex factor a rotary pair."""

    def paired(values: Floats) -> npt.NDArray[np.complex64]:
        half = values.shape[-2] // 2
        return values[..., :half, :] + np.complex64(1j) * values[..., half:, :]

    def parted(values: npt.NDArray[np.complexfloating]) -> Floats:
        return np.concatenate([values.real, values.imag], axis=-2).astype(np.float32)

    here, there = (paired(np.concatenate(list(np.nan_to_num(values)), axis=1)) for values in (query, truth))
    c = (there * here.conj()).sum(axis=1) / np.maximum(np.square(np.abs(here)).sum(axis=1), TINY)
    c = np.where((np.abs(c) > 1 / MOST) & (np.abs(c) < MOST), c, 1)[:, np.newaxis]
    pair = parted(paired(query) * c), parted(paired(key) / c.conj())
    return pair if improves(pair[0], query, truth) and improves(pair[1], key, other) else (query, key)


def align_heads(pairs: Sequence[Pair], count: int, groups: int, *, rotary: bool) -> list[Floats]:
    """Return queries, keys, values and outputs with heads in the original's order, each head turned back."""
    each = count // groups

    def split(pair: Pair, parts: int) -> Pair:
        one, two = (values.reshape(groups, parts, -1, values.shape[1]) for values in pair)
        return Pair(one, two)

    turned = Pair(*(np.ascontiguousarray(values.T) for values in pairs[3]))
    query, out, key, value = split(pairs[0], each), split(turned, each), split(pairs[1], 1), split(pairs[2], 1)
    inside = (overlap(query) + overlap(out)).reshape(groups, each, groups, each).swapaxes(1, 2)
    inner = [[assign(inside[one, two])[1] for two in range(groups)] for one in range(groups)]
    total = overlap(key) + overlap(value)
    for one in range(groups):
        for two in range(groups):
            total[one, two] += inside[one, two][np.arange(each), inner[one][two]].mean()
    order = [(int(two), inner[one][two]) for one, two in enumerate(assign(total)[1])]
    q, o = (np.stack([pair.suspect[g][heads] for g, heads in order]) for pair in (query, out))
    k, v = (np.stack([pair.suspect[g] for g, _ in order]) for pair in (key, value))
    turn = turn_rotary if rotary else turn_freely
    for group in range(groups):
        q[group], k[group] = turn(q[group], k[group], query.original[group], key.original[group])
        v[group], o[group] = turn_freely(v[group], o[group], value.original[group], out.original[group])
    shapes = [pair.original.shape for pair in pairs]
    flat = [part.reshape(shape) for part, shape in zip((q, k, v), shapes[:3], strict=True)]
    return [*flat, np.ascontiguousarray(o.reshape(shapes[3][::-1]).T)]


# --- the whole


class Aligner:
    """Original and suspect of one family."""

    def __init__(self, original: Model, suspect: Model) -> None:
        try:
            config = dict(json.loads((original.folder / "config.json").read_bytes()))
        except OSError:
            config = {}
        self.family = family_of(list(original.tensors), config)
        named = original.tensors.items()
        self.own: dict[str, tuple[str, Weights]] = {plain_name(name): (name, tensor) for name, tensor in named}
        self.suspect, self.folders = suspect, (original.folder, suspect.folder)

    def tensors(self) -> Iterator[tuple[str, Floats]]:
        """Yield the full name of each tensor that can be put back, and its values in the original's form."""
        family = self.family
        if family is None or self.turn is None:
            return
        for name in filter(None, (*family.embeddings, family.head)):
            pair = self.reading(Place(name), family.head_gain if name == family.head else "")
            if name in self.own and pair is not None:
                yield self.own[name][0], self.by_row(name, pair)
        for layer in family.layers.values():
            parts: dict[Place, Floats] = {}
            for work in (self.feed, self.attention):
                try:
                    parts |= work(family, layer)
                except np.linalg.LinAlgError:
                    continue  # such a part takes no part
            for name in dict.fromkeys(place.name for place in parts):
                found = sorted((place for place in parts if place.name == name), key=lambda place: place.part)
                if len(found) == found[0].parts:
                    whole = np.concatenate([parts[place] for place in found])
                    yield self.own[name][0], np.ascontiguousarray(whole.T) if found[0].turned else whole

    def our(self, name: str) -> Floats | None:
        """Return a tensor of the original, two-dimensional."""
        found = self.own.get(name)
        return None if found is None else found[1].floats()

    def at(self, name: str, number: int | None) -> Floats | None:
        """Return a tensor of the suspect that the original has so, or in the suspect's layer ``number``."""
        full = self.own[name][0] if name in self.own else name
        own = self.suspect.own_name(full if number is None else NUMBER.sub(str(number), full, count=1))
        found = None if own is None else self.suspect.values(own)
        return None if found is None else np.where(np.abs(found[1]) < LARGEST, found[1], np.float32(0))

    def their(self, name: str) -> Floats | None:
        """Return a tensor of the suspect by its name in the original."""
        number = NUMBER.search(name)
        if number is None:
            return self.at(name, None)
        there = self.layers.get(int(number[0]))
        return None if there is None else self.at(name, there)

    @cached_property
    def turn(self) -> Turn | None:
        """The map of the stream, from the token embeddings; None where they do not match."""
        if self.family is None or not self.family.embeddings:
            return None
        one, two = self.their(self.family.embeddings[0]), self.our(self.family.embeddings[0])
        if one is None or two is None or one.shape[1] < two.shape[1]:
            return None
        if self.family.stream == "centred" and one.shape[1] != two.shape[1]:
            return None
        straight = self.fit(one, two, None)
        if straight.misfit < 0.5:
            return straight
        ours, theirs = (read_tokens(folder) for folder in self.folders)
        rows = np.full(len(two), -1)
        for token, row in ours.items():
            other = theirs.get(token, len(one))
            if row < len(two) and other < len(one):
                rows[row] = other
        shared = np.flatnonzero(rows >= 0)
        turns = [straight] if np.array_equal(rows[shared], shared) else [straight, self.fit(one, two, rows)]
        return min(turns, key=lambda turn: turn.misfit)

    def fit(self, theirs: Floats, ours: Floats, rows: Ints | None) -> Turn:
        """Return the best map, the tokens being numbered so."""
        alike, stream = Turn(theirs.shape[1], ours.shape[1], rows), "" if self.family is None else self.family.stream
        common = min(len(theirs), len(ours))
        one, two = (theirs[:common], ours[:common]) if rows is None else (theirs[rows[rows >= 0]], ours[rows >= 0])
        if not len(one):
            return alike
        if stream == "permuted":
            found = cosines(Pair(one.T, two.T))
            own, other = assign(np.abs(found))
            signs = np.where(found[own, other] < 0, np.float32(-1), np.float32(1))
            return alike._replace(order=other, signs=signs).rated(one, two)
        moments = np.zeros((one.shape[1], two.shape[1]))
        for start in range(0, len(one), 1 << 13):
            parts = [values[start : start + (1 << 13)] for values in (one, two)]
            if stream == "centred":
                parts = [part - part.mean(axis=1, keepdims=True) for part in parts]
            moments += parts[0].T @ parts[1]
        if stream == "centred":
            moments += np.abs(moments).sum() / len(moments)
        u, _, vt = np.linalg.svd(moments, full_matrices=False)
        plain = alike.rated(one, two)
        turned = alike._replace(matrix=(u @ vt).astype(np.float32)).rated(one, two)
        return turned if 2 * turned.misfit < plain.misfit else plain

    def mapped(self, values: Floats) -> Floats:
        """Map vectors of the stream, one a row; those of another stream stay as they are."""
        return self.turn.apply(values) if self.turn is not None and values.shape[1] == self.turn.their_width else values

    @cached_property
    def layers(self) -> dict[int, int]:
        """The suspect's layer for each of the original's."""
        ours = {} if self.family is None else self.family.layers
        first = next(iter(ours.values()))
        own = self.own[first.up.name][0]
        there = [n for n in range(MOST_LAYERS) if self.suspect.own_name(NUMBER.sub(str(n), own, count=1)) is not None]
        probes = [self.probe(first, number) for number in there]
        if there == list(ours):
            straight = [self.liken(layer, [probe]) for layer, probe in zip(ours.values(), probes, strict=True)]
            if min(straight) >= 0.5:
                return dict(zip(there, there, strict=True))
        if not there:
            return {}
        found = np.stack([self.liken(layer, probes) for layer in ours.values()])
        return {list(ours)[one]: there[two] for one, two in zip(*assign(found), strict=True)}

    def probe(self, layer: Layer, number: int) -> Floats:
        """Return what some units read in the suspect's layer ``number``."""
        place = layer.gate or layer.up
        values = oriented(self.at(place.name, number), place)
        if values is None:
            return np.zeros((PROBES, 1), np.float32)
        gain = gain_of(self.at(layer.feed_gain, number), values.shape[1])
        return self.mapped(values[np.linspace(0, len(values) - 1, PROBES).astype(np.int64)] * gain)

    def liken(self, layer: Layer, probes: Sequence[Floats]) -> Floats:
        """Return for each probe the mean greatest cosine of its units with one of a layer's."""
        place = layer.gate or layer.up
        ours = oriented(self.our(place.name), place)
        if ours is None:
            return np.zeros(len(probes), np.float32)
        width, nothing = ours.shape[1], np.zeros((PROBES, ours.shape[1]), np.float32)
        units = [probe if probe.shape[1] == width else nothing for probe in probes]
        read = ours * gain_of(self.our(layer.feed_gain), width)
        found = cosines(Pair(np.concatenate(units), read)).max(axis=0)
        likeness: Floats = found.reshape(len(probes), PROBES).mean(axis=1)
        return likeness

    def reading(self, place: Place, gain: str) -> Pair | None:
        """Return a matrix that reads the stream: the suspect's mapped, with equal gains."""
        one, two = oriented(self.their(place.name), place), oriented(self.our(place.name), place)
        if one is None or two is None:
            return None
        theirs, ours = gain_of(self.their(gain), one.shape[1]), gain_of(self.our(gain), two.shape[1])
        mapped = self.mapped(one * theirs)
        if mapped.shape[1] != two.shape[1]:
            return None
        usable = np.abs(ours) > 1e-3 * np.median(np.abs(ours))
        back = np.where(usable, 1 / np.where(usable, ours, np.float32(1)), np.float32(np.nan))
        return Pair(mapped * back, two)

    def writing(self, place: Place) -> Pair | None:
        """Return a matrix that writes into the stream: the suspect's mapped."""
        one, two = oriented(self.their(place.name), place), oriented(self.our(place.name), place)
        if one is None or two is None:
            return None
        mapped = np.ascontiguousarray(self.mapped(np.ascontiguousarray(one.T)).T)
        return Pair(mapped, two) if len(mapped) == len(two) else None

    def feed(self, _family: Family, layer: Layer) -> dict[Place, Floats]:
        """Return a layer's feed-forward matrices."""
        up, down = self.reading(layer.up, layer.feed_gain), self.writing(layer.down)
        gate = None if layer.gate is None else self.reading(layer.gate, layer.feed_gain)
        if up is None or down is None or (gate is None) != (layer.gate is None):
            return {}
        units = len(up.suspect)
        if down.suspect.shape[1] != units or (gate is not None and len(gate.suspect) != units):
            return {}
        places = [place for place in (layer.up, layer.down, layer.gate) if place is not None]
        return dict(zip(places, align_feed(up, down, gate), strict=True))

    def attention(self, family: Family, layer: Layer) -> dict[Place, Floats]:
        """Return a layer's attention matrices."""
        places = layer.query, layer.key, layer.value, layer.out
        found = [*(self.reading(place, layer.attention_gain) for place in places[:3]), self.writing(layer.out)]
        pairs = [pair for pair in found if pair is not None]
        if len(pairs) != len(places) or any(pair.suspect.shape != pair.original.shape for pair in pairs):
            return {}
        count, groups = family.heads, family.groups
        rows, grouped = len(pairs[0].original), len(pairs[1].original)
        if not count or count % groups or rows % count or grouped != rows // count * groups or (rows // count) % 2:
            return {place: pair.suspect for place, pair in zip(places, pairs, strict=True)}
        return dict(zip(places, align_heads(pairs, count, groups, rotary=family.rotary), strict=True))

    def by_row(self, name: str, pair: Pair) -> Floats:
        """Return the suspect's rows in the original's order; what it lacks is masked."""
        rows, family = np.arange(len(pair.original)), self.family
        tokens = family is not None and name in {family.embeddings[0], family.head}
        if tokens and self.turn is not None and self.turn.rows is not None:
            rows = self.turn.rows
        lacking = (rows < 0) | (rows >= len(pair.suspect))
        found = pair.suspect[np.where(lacking, 0, rows)]
        found[lacking] = np.nan
        return found


def gain_of(values: Floats | None, width: int) -> Floats:
    """Return a norm's gain; ones where there is none."""
    return values.ravel() if values is not None and values.size == width else np.ones(width, np.float32)


def oriented(values: Floats | None, place: Place) -> Floats | None:
    """Return a place's part of a tensor, outputs × inputs."""
    turned = values.T if place.turned and values is not None else values
    if turned is None or len(turned) % place.parts:
        return None
    return np.ascontiguousarray(turned.reshape(place.parts, -1, turned.shape[1])[place.part])
