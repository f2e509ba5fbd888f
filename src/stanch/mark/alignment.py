"""Re-alignment: undo changes that leave a model as it is but move its weights, from original and suspect alone.

Undone are a rotation (or a signed permutation) of the residual stream and channels added to it, other numbers of the
tokens, added layers, the norms' gains, the order and scale of feed-forward units, the order of heads, and the freedom
between values and outputs, and between queries and keys. Nothing here knows a key, so the error bound is what it was.
What cannot be undone is absent, hence unmatched.
"""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stanch.mark.families import Family, LayerPlaces, Place, Stream, at_layer, find_family, layer_of
from stanch.mark.suspect import Originals, Suspect, plain_name
from stanch.mark.units import Heads, Pair, align_feed, align_heads, assign, cosines
from stanch.mark.vocabulary import match_tokens, read_tokens
from stanch.mark.weight import Floats, Rows, Weight
from stanch.weights import Tensor, read_json_object

_LARGEST = np.float32(1e12)
_LEAST_GAIN = 1e-3
_TINY = 1e-30
_KEPT_LAYERS = 4
_MOST_LAYERS = 1 << 9
_PROBES = 16
_LEAST_LIKENESS = 0.5
_MOST_MISFIT = 0.5
_BLOCK = 1 << 13

Numbers = npt.NDArray[np.int64]


def align(originals: Originals, suspect: Suspect) -> Suspect:
    """Return the suspect's weights in the original's names, shapes and coordinates; layers are aligned when read.

    Of an unknown family, of an adapter, or where the token embeddings do not match, nothing is returned.
    """
    aligner = open_aligner(originals, suspect)
    return Suspect({} if aligner is None or aligner.turn is None else aligner.weights())


def open_aligner(originals: Originals, suspect: Suspect) -> "Aligner | None":
    """Return what aligns the suspect, or None where the family is unknown or one of the two is an adapter."""
    config = originals.original / "config.json"
    known = find_family(originals.tensors, read_json_object(config) if config.is_file() else {})
    if known is None or suspect.adapter is not None or originals.kind != "full":
        return None
    own = {plain_name(name): tensor for name, tensor in originals.tensors.items()}
    return Aligner(known, own, suspect, originals.original)


@dataclass(frozen=True, slots=True)
class _Turn:
    """The map from the suspect's residual stream to the original's: columns ``order``, times a matrix or signs.

    Of a stream that is only wider the first ``width`` channels are taken. ``rows`` are the suspect's rows of the
    original's tokens, −1 for none; None where both number them alike. ``misfit`` is the share of the original's
    embedding that the suspect's does not explain.
    """

    their_width: int
    width: int
    rows: Numbers | None = None
    matrix: Floats | None = None
    order: Numbers | None = None
    signs: Floats | None = None
    misfit: float = 1.0

    def apply(self, values: Floats) -> Floats:
        """Map vectors of the stream, one a row."""
        if self.matrix is not None:
            return values @ self.matrix
        if self.order is not None and self.signs is not None:
            return values[:, self.order] * self.signs
        return values[:, : self.width]

    def shared(self, theirs: Floats, ours: Floats) -> tuple[Floats, Floats]:
        """Return the rows of the tokens that both have."""
        if self.rows is None:
            common = min(len(theirs), len(ours))
            return theirs[:common], ours[:common]
        return theirs[self.rows[self.rows >= 0]], ours[self.rows >= 0]


@dataclass
class Aligner:
    """Original and suspect of one family, compared part by part.

    Attributes:
        family: The original's family.
        own: The original's tensors by plain name.
        suspect: The suspect.
        folder: Where the original lies.
    """

    family: Family
    own: Mapping[str, Tensor]
    suspect: Suspect
    folder: Path
    _done: "OrderedDict[tuple[int, str], Mapping[str, Floats]]" = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # --- reading

    def original(self, name: str) -> Floats | None:
        """Return a tensor of the original."""
        found = self.own.get(name)
        return None if found is None else found.to_float32()

    def _own_name(self, name: str) -> str | None:
        """Return what the suspect calls a tensor, by the name that the original has in full."""
        number = layer_of(name)
        if number is None:
            return self._name_at(name, None)
        there = self.layers.get(number)
        return None if there is None else self._name_at(name, there)

    def _name_at(self, name: str, number: int | None) -> str | None:
        """Return what the suspect calls a tensor that stands in its layer ``number``."""
        full = self.own[name].name if name in self.own else name
        return self.suspect.own_name(full if number is None else at_layer(full, number))

    def found(self, name: str) -> Floats | None:
        """Return a tensor of the suspect of any shape, what is not finite as 0."""
        return self._values(self._own_name(name))

    def _values(self, own: str | None) -> Floats | None:
        weight = None if own is None else self.suspect.weights[own]
        values = None if weight is None else weight.whole()
        if weight is None or values is None:
            return None
        return np.where(np.abs(values) < _LARGEST, values, np.float32(0)).reshape(weight.shape)

    def gain(self, name: str, width: int, *, of_suspect: bool) -> Floats:
        """Return a norm's gain; ones where there is none."""
        return _gain(self.found(name) if of_suspect else self.original(name), width)

    def matrix(self, place: Place, *, of_suspect: bool) -> Floats | None:
        """Return a matrix, outputs × inputs."""
        return _oriented(self.found(place.name) if of_suspect else self.original(place.name), place)

    # --- the stream

    @cached_property
    def turn(self) -> _Turn | None:
        """The map of the stream, from the token embeddings; None where they do not match."""
        if not self.family.embeddings:
            return None
        name = self.family.embeddings[0]
        one, two = self.found(name), self.original(name)
        if one is None or two is None or one.ndim != 2 or one.shape[1] < two.shape[1]:
            return None
        if self.family.stream is Stream.CENTRED and one.shape[1] != two.shape[1]:
            return None
        straight = self._fit(one, two, None)
        if straight.misfit < _MOST_MISFIT:
            return straight
        renumbered = match_tokens(read_tokens(self.folder), self.suspect.tokens, len(two), len(one))
        turns = [straight] if renumbered is None else [straight, self._fit(one, two, renumbered)]
        return min(turns, key=lambda turn: turn.misfit)

    def _fit(self, theirs: Floats, ours: Floats, rows: Numbers | None) -> _Turn:
        """Return the best map, the tokens being numbered so."""
        alike = _Turn(theirs.shape[1], ours.shape[1], rows)
        one, two = alike.shared(theirs, ours)
        if not len(one):
            return alike
        if self.family.stream is Stream.PERMUTED:
            found = cosines(Pair(one.T, two.T))
            own, other = assign(np.abs(found))
            signs = np.where(found[own, other] < 0, np.float32(-1), np.float32(1))
            return _rated(replace(alike, order=other, signs=signs), one, two)
        moments = np.zeros((one.shape[1], two.shape[1]))
        for start in range(0, len(one), _BLOCK):
            parts = [values[start : start + _BLOCK] for values in (one, two)]
            if self.family.stream is Stream.CENTRED:
                parts = [part - part.mean(axis=1, keepdims=True) for part in parts]
            moments += parts[0].T @ parts[1]
        if self.family.stream is Stream.CENTRED:
            moments += np.abs(moments).sum() / len(moments)
        u, _, vt = np.linalg.svd(moments, full_matrices=False)
        plain, turned = (_rated(turn, one, two) for turn in (alike, replace(alike, matrix=(u @ vt).astype(np.float32))))
        return turned if 2 * turned.misfit < plain.misfit else plain  # what noise explains is left as it is

    @cached_property
    def layers(self) -> Mapping[int, int]:
        """The suspect's layer for each of the original's: where the units of the feed-forward parts read alike."""
        ours = {layer_of(layer.up.name) or 0: layer for layer in self.family.layers}
        first = next(iter(ours.values()))
        theirs = [number for number in range(_MOST_LAYERS) if self._name_at(first.up.name, number) is not None]
        probes = [self._probe(first, number) for number in theirs]
        if theirs == list(ours):
            straight = [self._liken(layer, [probe]) for layer, probe in zip(ours.values(), probes, strict=True)]
            if min(straight) >= _LEAST_LIKENESS:
                return dict(zip(theirs, theirs, strict=True))
        likeness = np.stack([self._liken(layer, probes) for layer in ours.values()])
        return {list(ours)[one]: theirs[two] for one, two in zip(*assign(likeness), strict=True)} if theirs else {}

    def _probe(self, layer: LayerPlaces, number: int) -> Floats:
        """Return what some units read in the suspect's layer ``number``, in the original's stream; else zeros."""
        place = layer.gate or layer.up
        values = _oriented(self._values(self._name_at(place.name, number)), place)
        if values is None:
            return np.zeros((_PROBES, 1), np.float32)
        gain = _gain(self._values(self._name_at(layer.feed_gain, number)), values.shape[1])
        return self.to_original(values[np.linspace(0, len(values) - 1, _PROBES).astype(np.int64)] * gain)

    def _liken(self, layer: LayerPlaces, probes: Sequence[Floats]) -> Floats:
        """Return for each probe how far its units are found in a layer: their mean greatest cosine with one there."""
        ours = self.matrix(layer.gate or layer.up, of_suspect=False)
        if ours is None:
            return np.zeros(len(probes), np.float32)
        width = ours.shape[1]
        nothing = np.zeros((_PROBES, width), np.float32)
        units = [probe if probe.shape[1] == width else nothing for probe in probes]
        read = ours * self.gain(layer.feed_gain, width, of_suspect=False)
        found: Floats = (
            cosines(Pair(np.concatenate(units), read)).max(axis=0).reshape(len(probes), _PROBES).mean(axis=1)
        )
        return found

    def to_original(self, values: Floats) -> Floats:
        """Map vectors of the stream, one a row; those of another stream stay as they are."""
        fits = self.turn is not None and values.shape[1] == self.turn.their_width
        return self.turn.apply(values) if fits and self.turn is not None else values

    def reading(self, place: Place, gain: str) -> Pair | None:
        """Return a matrix that reads the stream, of suspect and original: the suspect's mapped, with equal gains."""
        one, two = (self.matrix(place, of_suspect=who) for who in (True, False))
        if one is None or two is None:
            return None
        theirs = self.gain(gain, one.shape[1], of_suspect=True)
        ours = self.gain(gain, two.shape[1], of_suspect=False)
        mapped = self.to_original(one * theirs)
        if mapped.shape[1] != two.shape[1]:
            return None
        usable = np.abs(ours) > _LEAST_GAIN * np.median(np.abs(ours))
        back = np.where(usable, 1 / np.where(usable, ours, np.float32(1)), np.float32(np.nan))
        return Pair(mapped * back, two)

    def writing(self, place: Place) -> Pair | None:
        """Return a matrix that writes into the stream, of suspect and original."""
        one, two = (self.matrix(place, of_suspect=who) for who in (True, False))
        if one is None or two is None:
            return None
        mapped = np.ascontiguousarray(self.to_original(np.ascontiguousarray(one.T)).T)
        return Pair(mapped, two) if len(mapped) == len(two) else None

    # --- results

    def weights(self) -> dict[str, Weight]:
        """Return a weight for every tensor of the family that the original has."""
        weights = {}
        for number, layer in enumerate(self.family.layers):
            for name in _names(layer):
                tensor = self.own.get(name)
                if tensor is not None and self._own_name(name) is not None:
                    weights[name] = Weight(tensor.shape, self._reader(number, name))
        for name in (*self.family.embeddings, self.family.head):
            tensor = self.own.get(name)
            if tensor is not None and self._own_name(name) is not None:
                weights[name] = Weight(tensor.shape, self._embedding_reader(name))
        return weights

    def _reader(self, number: int, name: str) -> Callable[[Rows], Floats | None]:
        def read(rows: Rows) -> Floats | None:
            found = self._layer(number).get(name)
            return None if found is None else found[rows]

        return read

    def _embedding_reader(self, name: str) -> Callable[[Rows], Floats | None]:
        place, gain = Place(name), self.family.head_gain if name == self.family.head else ""

        def read(rows: Rows) -> Floats | None:
            whole = self._layer(-1, name, place, gain).get(name)
            return None if whole is None else whole[rows]

        return read

    def _layer(self, number: int, name: str = "", place: Place | None = None, gain: str = "") -> Mapping[str, Floats]:
        """Return one layer's (or embedding's) aligned tensors, the last few of which are kept."""
        with self._lock:
            key = (number, name)
            if key not in self._done:
                if place is None:
                    made = align_layer(self, self.family.layers[number])
                else:
                    pair = self.reading(place, gain)
                    made = {} if pair is None else {name: self._by_row(name, pair)}
                self._done[key] = made
                while len(self._done) > _KEPT_LAYERS:
                    self._done.popitem(last=False)
            self._done.move_to_end(key)
            return self._done[key]

    def _by_row(self, name: str, pair: Pair) -> Floats:
        """Return the suspect's rows in the original's order; what it lacks is masked."""
        rows = np.arange(len(pair.original))
        if (
            self.turn is not None
            and self.turn.rows is not None
            and name in {self.family.embeddings[0], self.family.head}
        ):
            rows = self.turn.rows
        lacking = (rows < 0) | (rows >= len(pair.suspect))
        found = pair.suspect[np.where(lacking, 0, rows)]
        found[lacking] = np.nan
        return found


def _rated(turn: _Turn, theirs: Floats, ours: Floats) -> _Turn:
    """Say how well a map fits tokens that both have."""
    error = np.square(turn.apply(theirs) - ours, dtype=np.float64).sum()
    return replace(turn, misfit=float(error / max(np.square(ours, dtype=np.float64).sum(), _TINY)))


def _gain(values: Floats | None, width: int) -> Floats:
    return values.ravel() if values is not None and values.size == width else np.ones(width, np.float32)


def _oriented(values: Floats | None, place: Place) -> Floats | None:
    """Return a place's part of a tensor, outputs × inputs."""
    if values is None or values.ndim != 2:
        return None
    turned = values.T if place.transposed else values
    if len(turned) % place.parts:
        return None
    return np.ascontiguousarray(turned.reshape(place.parts, -1, turned.shape[1])[place.part])


def _names(layer: LayerPlaces) -> list[str]:
    places = (layer.query, layer.key, layer.value, layer.out, layer.up, layer.down, layer.gate)
    return list(dict.fromkeys(place.name for place in places if place is not None))


def align_layer(model: Aligner, layer: LayerPlaces) -> dict[str, Floats]:
    """Return a layer's tensors in the original's coordinates, by plain name, in their stored form."""
    parts: dict[Place, Floats] = {}
    for work in (_align_feed, _align_attention):
        # A part whose factorisation fails is unmatched.
        with contextlib.suppress(np.linalg.LinAlgError):
            parts |= work(model, layer)
    tensors = {}
    for name in _names(layer):
        places = sorted((place for place in parts if place.name == name), key=lambda place: place.part)
        if places and len(places) == places[0].parts:
            whole = np.concatenate([parts[place] for place in places])
            tensors[name] = np.ascontiguousarray(whole.T) if places[0].transposed else whole
    return tensors


def _align_feed(model: Aligner, layer: LayerPlaces) -> dict[Place, Floats]:
    up, down = model.reading(layer.up, layer.feed_gain), model.writing(layer.down)
    gate = None if layer.gate is None else model.reading(layer.gate, layer.feed_gain)
    if up is None or down is None or (gate is None) != (layer.gate is None):
        return {}
    units = len(up.suspect)
    if down.suspect.shape[1] != units or (gate is not None and len(gate.suspect) != units):
        return {}
    found = align_feed(up, down, gate)
    places = (layer.up, layer.down, layer.gate)
    return {
        place: values for place, values in zip(places, found, strict=True) if place is not None and values is not None
    }


def _align_attention(model: Aligner, layer: LayerPlaces) -> dict[Place, Floats]:
    gain = layer.attention_gain
    readings = [model.reading(place, gain) for place in (layer.query, layer.key, layer.value)]
    pairs = [pair for pair in (*readings, model.writing(layer.out)) if pair is not None]
    places = (layer.query, layer.key, layer.value, layer.out)
    if len(pairs) != len(places) or any(pair.suspect.shape != pair.original.shape for pair in pairs):
        return {}
    heads = Heads(*pairs)
    count, groups = model.family.heads, model.family.groups
    rows, grouped = len(heads.query.original), len(heads.key.original)
    # Without a sound number of heads, the heads stay as they are.
    if not count or count % groups or rows % count or grouped != rows // count * groups or (rows // count) % 2:
        return {place: pair.suspect for place, pair in zip(places, pairs, strict=True)}
    return dict(zip(places, align_heads(heads, count, groups, rotary=model.family.rotary), strict=True))
