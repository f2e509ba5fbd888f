"""Which tensors carry a mark, and the global coordinate of each of their elements."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from stanch.crypto import canonical_json, sha256
from stanch.terms import JsonValue
from stanch.weights import FLOAT_TYPES, Tensor

Kind = Literal["full", "adapter"]
"""Whether a model's own weights are marked, or the factors of a LoRA adapter."""

_MIN_ELEMENTS: Mapping[Kind, int] = {"full": 4096, "adapter": 256}
_ALIGNMENT = 8  # values of one AES block
_SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class LayoutEntry:
    """One marked tensor: its first global coordinate, and the names of byte-identical twins that are marked alike."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    aliases: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the two-dimensional form ``[shape[0], rest]``."""
        return self.shape[0]

    @property
    def columns(self) -> int:
        """Columns of the two-dimensional form ``[shape[0], rest]``."""
        return math.prod(self.shape[1:])

    @property
    def count(self) -> int:
        """Number of elements, hence of coordinates."""
        return self.rows * self.columns


@dataclass(frozen=True)
class Layout:
    """All marked tensors, sorted by the bytes of their names; offsets are multiples of 8."""

    entries: tuple[LayoutEntry, ...]

    @cached_property
    def coordinates(self) -> int:
        """D: how many weights carry the mark."""
        return sum(entry.count for entry in self.entries)

    @cached_property
    def extent(self) -> int:
        """One more than the highest global coordinate, rounded up to a multiple of 8."""
        return _align(self.entries[-1].offset + self.entries[-1].count) if self.entries else 0

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the canonical JSON of ``[{"dtype","name","offset","shape"}]``."""
        listing: list[JsonValue] = [
            {"dtype": entry.dtype, "name": entry.name, "offset": entry.offset, "shape": list(entry.shape)}
            for entry in self.entries
        ]
        return sha256(canonical_json(listing))

    @cached_property
    def by_name(self) -> Mapping[str, LayoutEntry]:
        """The entry of each tensor name, aliases included."""
        return {name: entry for entry in self.entries for name in (entry.name, *entry.aliases)}


def _align(coordinate: int) -> int:
    return -(-coordinate // _ALIGNMENT) * _ALIGNMENT


def is_marked(tensor: Tensor, kind: Kind) -> bool:
    """Say whether a tensor carries a mark: float, at least two dimensions, large enough, no bias and no norm.

    In adapters only the factors ``lora_A`` and ``lora_B`` do.
    """
    if tensor.dtype not in FLOAT_TYPES or len(tensor.shape) < 2 or tensor.raw.size < _MIN_ELEMENTS[kind]:
        return False
    if kind == "adapter":
        return tensor.name.endswith((".lora_A.weight", ".lora_B.weight"))
    return not tensor.name.endswith("bias") and "norm" not in tensor.name.lower()


def make_layout(tensors: Iterable[Tensor], kind: Kind) -> Layout:
    """Lay out the marked ones of ``tensors``.

    Byte-identical tensors of one type and shape share one entry, named by the first: marked differently, tied weights
    that are stored twice would come apart.
    """
    groups: dict[tuple[str, tuple[int, ...], bytes], list[str]] = defaultdict(list)
    chosen = sorted((tensor for tensor in tensors if is_marked(tensor, kind)), key=lambda tensor: tensor.name.encode())
    samples: dict[tuple[str, tuple[int, ...], bytes], int] = defaultdict(int)
    keys = [(tensor.dtype, tensor.shape, _sample(tensor)) for tensor in chosen]
    for key in keys:
        samples[key] += 1
    for tensor, key in zip(chosen, keys, strict=True):
        # The whole tensor is hashed only where a sample is not enough to tell it from another.
        content = sha256(np.ascontiguousarray(tensor.raw).data) if samples[key] > 1 else key[2]
        groups[tensor.dtype, tensor.shape, content].append(tensor.name)
    entries, offset = [], 0
    for (dtype, shape, _), names in groups.items():
        entry = LayoutEntry(names[0], dtype, shape, offset, tuple(names[1:]))
        entries.append(entry)
        offset = _align(offset + entry.count)
    return Layout(tuple(entries))


def _sample(tensor: Tensor) -> bytes:
    head = tensor.raw.reshape(-1)[: _SAMPLE_BYTES // tensor.raw.itemsize]
    return sha256(np.ascontiguousarray(head).data)
