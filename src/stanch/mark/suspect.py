"""What detection reads: the suspect file or directory, and the originals it is compared with.

Suspects are hostile input. Safetensors and GGUF are read, pickles never; a tensor that is missing, of another shape, or
of a type that is not understood is *unmatched* and takes no part.
"""

import hashlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stanch.crypto import sha256
from stanch.errors import InvalidInput
from stanch.mark.experts import find_experts
from stanch.mark.gguf import OTHER_ORDER, open_gguf
from stanch.mark.layout import Kind, Layout, make_layout
from stanch.mark.quantised import list_strange, read_weights
from stanch.mark.suspect_files import find_weights
from stanch.mark.vocabulary import read_tokens
from stanch.mark.weight import Rows, Weight
from stanch.terms import JsonValue
from stanch.weights import Adapter, LowRank, Tensor, is_adapter, open_adapter, open_model, read_json_object

_PREFIXES = ("base_model.model.", "model.", "transformer.", "bert.")
_SAMPLE_ROWS = 16
_SECRET_ROWS = 64
_LEAST_COSINE = 0.5
_LARGEST = np.float32(1e12)


@dataclass(frozen=True)
class Originals:
    """The unmarked original, and the public base model where a merged suspect must be told from it.

    Attributes:
        original: Directory of the unmarked model or adapter.
        base: Directory of the base model that an adapter was tuned on; needed only for merged suspects, and to undo a
            merge of a full model with its base.
    """

    original: Path
    base: Path | None = None

    @cached_property
    def kind(self) -> Kind:
        """What the release was: ``adapter`` or ``full``."""
        return "adapter" if is_adapter(self.original) else "full"

    @cached_property
    def adapter(self) -> Adapter:
        """The original adapter (kind ``adapter``)."""
        return open_adapter(self.original)

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """The original's tensors."""
        return self.adapter.tensors if self.kind == "adapter" else open_model(self.original)

    @cached_property
    def layout(self) -> Layout:
        """The marked tensors and their coordinates."""
        return make_layout(self.tensors.values(), self.kind)

    @cached_property
    def references(self) -> Mapping[str, Weight]:
        """What a suspect's tensors are recognised by: the full original's marked weights, or the adapted base's."""
        if self.kind == "full":
            own = read_weights(self.tensors)
            return {entry.name: own[entry.name] for entry in self.layout.entries}
        names = [f"{module}.weight" for module in self.adapter.modules]
        weights = {} if self.base_weights is None else self.base_weights.weights
        own_names = {} if self.base_weights is None else {name: self.base_weights.own_name(name) for name in names}
        return {name: weights[own] for name, own in own_names.items() if own is not None}

    @cached_property
    def secret(self) -> bytes:
        """A digest that nobody can tell who has a copy alone."""
        heads = (self.tensors[entry.name].raw.reshape(-1)[:_SECRET_ROWS] for entry in self.layout.entries)
        return sha256(b"".join(np.ascontiguousarray(head).tobytes() for head in heads))

    @cached_property
    def base_weights(self) -> "Suspect | None":
        """The base model, read with the same tolerance for names as a suspect."""
        return None if self.base is None else open_suspect(self.base)


def plain_name(name: str) -> str:
    """Return a tensor's name without the prefixes that wrappers put before it."""
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name


@dataclass(frozen=True)
class Suspect:
    """An opened suspect.

    Attributes:
        weights: What can be read as float32, by its own names.
        adapter: The adapter, if it is one.
        rename: Gives the suspect's own name of a name of the original, where its format has other names.
        config: The model's ``config.json``; empty where there is none.
        folder: Where it lies, if that is a folder.
        gguf_tokens: The row of each token, of a GGUF file.
        found: Own names of weights that were recognised by their content, by the original's plain name.
        unread: What could hold weights and was not read; see :mod:`stanch.mark.suspect_files`.
    """

    weights: Mapping[str, Weight]
    adapter: Adapter | None = None
    rename: Callable[[str], str | None] | None = None
    config: Mapping[str, JsonValue] = field(default_factory=dict)
    folder: Path | None = None
    gguf_tokens: Mapping[str, int] = field(default_factory=dict)
    found: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def tokens(self) -> Mapping[str, int]:
        """The row of each token; nothing where it is not told."""
        return self.gguf_tokens if self.folder is None else read_tokens(self.folder)

    @cached_property
    def _by_plain_name(self) -> Mapping[str, Sequence[str]]:
        return _by_plain_name(self.weights)

    @cached_property
    def _modules(self) -> Mapping[str, Sequence[str]]:
        return _by_plain_name(() if self.adapter is None else self.adapter.modules)

    @cached_property
    def doubtful(self) -> tuple[str, ...]:
        """What could hold weights and takes no part: ``unread``, and names that differ in their prefixes alone.

        Which of these a loader would read, nobody can say: while there are some, *nothing found* means nothing.
        """
        alike = (names for names in self._by_plain_name.values() if len(names) > 1)
        return (*self.unread, *(f"one of {', '.join(map(repr, names))}" for names in alike))

    def module(self, name: str) -> LowRank | None:
        """Return the adapted module that the original calls ``name``, if the suspect is an adapter that has it."""
        modules = {} if self.adapter is None else self.adapter.modules
        own = _choose(name, modules, self._modules)
        if self.rename is not None:
            own = (self.rename(f"{plain_name(name)}.weight") or "").removesuffix(".weight")
        return None if own is None else modules.get(own)

    def own_name(self, name: str) -> str | None:
        """Return what the suspect calls the tensor that the original calls ``name``; None where it has none.

        That is ``name`` itself; else the only name that differs in its prefixes alone.
        """
        plain = plain_name(name)
        own = self.found.get(plain)
        if own is None:
            own = _choose(name, self.weights, self._by_plain_name) if self.rename is None else self.rename(plain)
        return own if own in self.weights else None

    def weight(self, name: str, shape: tuple[int, ...]) -> Weight | None:
        """Return the weight that the original calls ``name``, or None where there is none of its shape."""
        own = self.own_name(name)
        found = None if own is None else self.weights[own]
        return found if found is not None and found.shape == shape else None

    def rows(self, name: str, shape: tuple[int, ...], rows: Rows = slice(None)) -> npt.NDArray[np.float32] | None:
        """Return some rows of a tensor as float32, or None where it does not match.

        Args:
            name: The tensor's name in the original.
            shape: Its shape there; the result has the form ``[shape[0], rest]``.
            rows: Which rows.
        """
        found = self.weight(name, shape)
        return None if found is None else found.read(rows)


def _by_plain_name(names: Iterable[str]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(plain_name(name), []).append(name)
    return found


def _choose(name: str, names: Container[str], by_plain_name: Mapping[str, Sequence[str]]) -> str | None:
    """Return ``name`` if it is there, else the only one that differs in its prefixes alone."""
    alike = by_plain_name.get(plain_name(name), ())
    if name in names:
        return name
    return alike[0] if len(alike) == 1 else None


def open_suspect(path: Path) -> Suspect:
    """Open a suspect: a PEFT adapter directory, a model directory, one safetensors file, or a GGUF file.

    Raises:
        InvalidInput: Nothing that can be read is there, or a GGUF file is broken.
        InvalidSafetensors: A file breaks a rule of the format.
        MissingExtraError: A GGUF file, and the extra ``gguf`` is missing.
    """
    if not path.exists():
        raise InvalidInput(f"{path}: there is no such file or directory")
    files = find_weights(path)
    if files.adapter is not None:
        return Suspect(read_weights(files.tensors), files.adapter, unread=files.unread)
    if files.gguf:
        opened = open_gguf(files.gguf)
        return Suspect(
            opened.weights, opened.adapter, rename=opened.rename, gguf_tokens=opened.tokens, unread=files.unread
        )
    config = path / "config.json"
    read = read_json_object(config) if config.is_file() else {}
    match read.get("quantization_config"):
        case {"checkpoint_format": "gptq_v2"}:
            zero_point = 0
        case _:
            zero_point = 1
    weights = read_weights(files.tensors, zero_point=zero_point)
    unread = (*files.unread, *list_strange(files.tensors, weights))
    return Suspect(weights, config=read, folder=path, unread=unread)


def match_renamed(suspect: Suspect, references: Mapping[str, Weight]) -> Suspect:
    """Recognise tensors whose names mean nothing by what they hold: same shape, and a cosine of one half or more.

    So is chosen between two orders of rows, where a file does not tell which is the original's.

    Args:
        suspect: The suspect.
        references: The original's or the base's weights by name.
    """
    suspect = _arrange_experts(_choose_orders(suspect, references), references)
    missing = {name: weight for name, weight in references.items() if suspect.own_name(name) is None}
    taken = {suspect.own_name(name) for name in references}
    free = [name for name in suspect.weights if name not in taken]
    if not missing or not free:
        return suspect
    samples = {name: _sample(suspect.weights[name]) for name in free}
    found = dict(suspect.found)
    for name, weight in missing.items():
        own = _sample(weight)
        cosines = {
            other: float(own @ sample)
            for other, sample in samples.items()
            if own is not None and sample is not None and suspect.weights[other].shape == weight.shape
        }
        best = max(cosines, key=cosines.__getitem__, default=None)
        if best is not None and cosines[best] >= _LEAST_COSINE:
            found[plain_name(name)] = best
            del samples[best]
    return replace(suspect, found=found)


def _arrange_experts(suspect: Suspect, references: Mapping[str, Weight]) -> Suspect:
    """Add the experts that the suspect holds in another arrangement than the original."""
    missing = {name: weight for name, weight in references.items() if suspect.weight(name, weight.shape) is None}
    made = {f"{name} of experts": weight for name, weight in find_experts(suspect.weights, missing).items()}
    found = {plain_name(name.removesuffix(" of experts")): name for name in made}
    return replace(suspect, weights={**suspect.weights, **made}, found={**suspect.found, **found}) if made else suspect


def _choose_orders(suspect: Suspect, references: Mapping[str, Weight]) -> Suspect:
    """Take the second order of a tensor's rows where it is more like the original than the first."""
    found = dict(suspect.found)
    for name, weight in references.items():
        first = suspect.own_name(name)
        second = f"{first}{OTHER_ORDER}"
        if first is None or second not in suspect.weights or suspect.weights[second].shape != weight.shape:
            continue
        ours, *samples = (_sample(shown) for shown in (weight, suspect.weights[first], suspect.weights[second]))
        likeness = [-1.0 if ours is None or sample is None else float(ours @ sample) for sample in samples]
        if likeness[1] > max(likeness[0], _LEAST_COSINE):
            found[plain_name(name)] = second
    return replace(suspect, found=found)


def is_recognised(originals: Originals, suspect: Suspect, name: str) -> bool:
    """Say whether a suspect's weight is the original's, or the adapted base's, by what it holds: a cosine of one half.

    A name and a shape show nothing: rows, layers or a whole stream may have been rearranged. Looked at are rows that
    follow from the original's own values, so that whoever has a copy alone cannot spare them. An adapter is taken as
    it is: it works on the base that it was made for, and its factors may be turned as one likes.
    """
    if suspect.adapter is not None and originals.kind == "adapter":
        return True
    ours = originals.references.get(name)
    theirs = None if ours is None else suspect.weight(name, ours.shape)
    if ours is None or theirs is None:
        return False
    drawn = hashlib.shake_256(originals.secret + name.encode()).digest(8 * _SECRET_ROWS)
    rows = (np.frombuffer(drawn, "<u8") % np.uint64(ours.shape[0])).astype(np.int64)
    found = [values for values in (ours.read(rows), theirs.read(rows)) if values is not None]
    if len(found) < 2:
        return False
    one, two = (np.where(np.abs(values) < _LARGEST, values, 0).astype(np.float64) for values in found)
    powers = np.vdot(one, one), np.vdot(two, two)
    # Rows of zeros carry no mark.
    return powers[0] == 0 or bool(powers[1] > 0 and np.vdot(one, two) >= _LEAST_COSINE * np.sqrt(powers[0] * powers[1]))


def _sample(weight: Weight) -> npt.NDArray[np.float32] | None:
    """Return some rows as one vector of length 1, or None where they hold nothing finite."""
    values = weight.read(np.linspace(0, weight.shape[0] - 1, min(_SAMPLE_ROWS, weight.shape[0])).astype(np.int64))
    if values is None:
        return None
    flat = np.where(np.abs(values) < _LARGEST, values, np.float32(0)).reshape(-1)
    length = np.linalg.norm(flat)
    return flat / length if length > 0 else None
