"""What detection reads: the suspect file or directory, and the originals it is compared with.

Suspects are hostile input. Only safetensors is read; a tensor that is missing, of another shape, or of a type that is
not understood is *unmatched* and takes no part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput
from stanch.mark.layout import Kind, Layout, make_layout
from stanch.weights import Adapter, LowRank, Tensor, is_adapter, open_adapter, open_model

_PREFIXES = ("base_model.model.", "model.", "transformer.", "bert.")
_FLOATS = ("F32", "F16", "BF16", "F64")
# 8-bit integers are understood where a scale a row stands beside them, and the value is integer × scale × unit.
_INT8_SCALES = {"weight_scale": 1.0, "SCB": 1.0 / 127.0}


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
        tensors: Its tensors by their own names.
        adapter: The adapter, if it is one.
    """

    tensors: Mapping[str, Tensor]
    adapter: Adapter | None

    @cached_property
    def _by_plain_name(self) -> Mapping[str, Tensor]:
        return {plain_name(name): tensor for name, tensor in self.tensors.items()}

    @cached_property
    def _modules(self) -> Mapping[str, LowRank]:
        modules = {} if self.adapter is None else self.adapter.modules
        return {plain_name(name): module for name, module in modules.items()}

    def module(self, name: str) -> LowRank | None:
        """Return the adapted module that the original calls ``name``, if the suspect is an adapter that has it."""
        return self._modules.get(plain_name(name))

    def rows(self, name: str, shape: tuple[int, ...], rows: slice = slice(None)) -> npt.NDArray[np.float32] | None:
        """Return some rows of a tensor as float32, or None where it does not match.

        Args:
            name: The tensor's name in the original.
            shape: Its shape there; the result has the form ``[shape[0], rest]``.
            rows: Which rows.
        """
        tensor = self._by_plain_name.get(plain_name(name))
        if tensor is None or tensor.shape != shape:
            return None
        raw = tensor.raw.reshape(shape[0], -1)[rows]
        if tensor.dtype in _FLOATS:
            return Tensor(name, tensor.dtype, raw).to_float32()
        scale = self._row_scale(plain_name(name), shape[0]) if tensor.dtype == "I8" else None
        return None if scale is None else raw.astype(np.float32) * scale[rows, np.newaxis]

    def _row_scale(self, name: str, rows: int) -> npt.NDArray[np.float32] | None:
        stem = name.rpartition(".")[0]
        for suffix, unit in _INT8_SCALES.items():
            found = self._by_plain_name.get(f"{stem}.{suffix}")
            if found is not None and found.dtype in _FLOATS and found.raw.size in {1, rows}:
                return np.broadcast_to(found.to_float32().reshape(-1) * np.float32(unit), (rows,))
        return None


def open_suspect(path: Path) -> Suspect:
    """Open a suspect: a PEFT adapter directory, a model directory, or one safetensors file.

    Raises:
        InvalidInput: Nothing that can be read is there.
        InvalidSafetensors: A file breaks a rule of the format.
    """
    if not path.exists():
        raise InvalidInput(f"{path}: there is no such file or directory")
    if is_adapter(path):
        adapter = open_adapter(path)
        return Suspect(adapter.tensors, adapter)
    return Suspect(open_model(path), None)
