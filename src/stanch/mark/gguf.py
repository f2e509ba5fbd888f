"""GGUF suspects: a strict reader of the file's head; the ``gguf`` package de-quantises and knows the names.

The package's own reader builds one Python object for each element of each metadata array, so a hostile file could ask
for any amount of memory. Here the head is bounded before anything is read: version 2 or 3, little-endian.
"""

import math
import mmap
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput, MissingExtraError
from stanch.mark.weight import Floats, Rows, Weight

MAGIC = b"GGUF"
_MAX_TENSORS = 1 << 16
_MAX_FIELDS = 1 << 16
_MAX_STRING = 1 << 24
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 16
_MAX_HEADS = 1 << 16
_MAX_BLOCKS = 1 << 12
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_WRAPPERS = ("", "model.", "transformer.", "bert.")
_ROTATED = (".attn_q.weight", ".attn_k.weight")
_CONV1D = (".attn_qkv.weight", ".attn_output.weight", ".ffn_up.weight", ".ffn_down.weight")


def _broken(what: str) -> InvalidInput:
    return InvalidInput(f"GGUF file: {what}", next_step="check that the file is whole")


class _Head:
    """A cursor over the file's bytes that never reads behind their end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.place = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.place:
            raise _broken("it ends before its head does")
        self.place += count
        return self.data[self.place - count : self.place]

    def number(self, form: str) -> int | float | bool:
        found: int | float | bool = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return found

    def count(self, form: str, most: int, what: str) -> int:
        found = int(self.number(form))
        if found > most:
            raise _broken(f"expected at most {most} {what}, found {found}")
        return found

    def text(self) -> str:
        try:
            return self.take(self.count("<Q", _MAX_STRING, "bytes in a string")).decode()
        except UnicodeDecodeError as error:
            raise _broken("a name is not UTF-8") from error

    def value(self, kind: int) -> int | float | bool | str | None:
        """Return a scalar or a text; arrays are passed over."""
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise _broken(f"metadata of the unknown type {kind}")
        item, count = int(self.number("<I")), int(self.number("<Q"))
        if item == _STRING:
            for _ in range(count):  # ends with the file at the latest: each string takes eight bytes or more
                self.take(self.count("<Q", _MAX_STRING, "bytes in a string"))
        elif item in _SCALARS:
            size = count * struct.calcsize(_SCALARS[item])
            if size > len(self.data) - self.place:
                raise _broken("it ends before its head does")
            self.place += size
        else:
            raise _broken(f"an array of the unknown type {item}")
        return None


@dataclass(frozen=True, slots=True)
class GgufModel:
    """An opened GGUF file.

    Attributes:
        weights: Its tensors by their GGUF names, in the order of rows and columns of the original model.
        rename: Gives the GGUF name of a name of the original model; None where there is none.
    """

    weights: Mapping[str, Weight]
    rename: Callable[[str], str | None]


def is_gguf(path: Path) -> bool:
    """Say whether the file begins as a GGUF file does."""
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def open_gguf(path: Path) -> GgufModel:
    """Map a GGUF file; rows are de-quantised when they are read.

    Tensors of types that the ``gguf`` package cannot de-quantise are left out.

    Raises:
        InvalidInput: The file breaks a rule of the format, or is of an unknown architecture.
        MissingExtraError: The ``gguf`` package is missing.
    """
    try:
        import gguf  # noqa: PLC0415 - an optional part
    except ImportError as error:
        raise MissingExtraError("gguf") from error
    with path.open("rb") as stream:
        if not os.fstat(stream.fileno()).st_size:
            raise _broken("it is empty")
        head = _Head(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    if head.take(4) != MAGIC or head.number("<I") not in {2, 3}:
        raise _broken("expected version 2 or 3, little-endian")
    tensors = head.count("<Q", _MAX_TENSORS, "tensors")
    fields = {}
    for _ in range(head.count("<Q", _MAX_FIELDS, "fields")):
        name = head.text()
        fields[name] = head.value(int(head.number("<I")))
    places = [_read_place(head) for _ in range(tensors)]
    alignment = _bounded(fields.get("general.alignment", 32), _MAX_ALIGNMENT)
    start = -(-head.place // alignment) * alignment
    known = {arch: number for number, arch in gguf.MODEL_ARCH_NAMES.items()}
    arch = fields.get("general.architecture")
    if arch not in known:
        raise _broken("its architecture is unknown")
    names = gguf.get_tensor_name_map(known[arch], _bounded(fields.get(f"{arch}.block_count"), _MAX_BLOCKS))

    def rename(name: str) -> str | None:
        found = (names.get_name(wrapper + name, try_suffixes=(".weight",)) for wrapper in _WRAPPERS)
        return next((str(name) for name in found if name), None)

    weights = {}
    for name, shape, kind, offset in places:
        data = _tensor_bytes(head.data, shape, kind, start + offset)
        if data is not None:
            weight = Weight(shape, partial(_dequantised, data, kind))
            weights[name] = _in_original_order(weight, name, arch, fields)
    return GgufModel(weights, rename)


def _read_place(head: _Head) -> tuple[str, tuple[int, ...], int, int]:
    name = head.text()
    dimensions = [int(head.number("<Q")) for _ in range(head.count("<I", _MAX_DIMENSIONS, "dimensions"))]
    if not all(0 < size <= len(head.data) * 16 for size in dimensions):
        raise _broken(f"tensor {name!r} has an impossible shape")
    return name, tuple(reversed(dimensions)), int(head.number("<I")), int(head.number("<Q"))


def _bounded(value: object, most: int) -> int:
    if not isinstance(value, int) or not 1 <= value <= most:
        raise _broken(f"expected a number from 1 to {most} in its metadata, found {str(value)[:40]}")
    return value


def _tensor_bytes(data: mmap.mmap, shape: tuple[int, ...], kind: int, start: int) -> npt.NDArray[np.uint8] | None:
    """Return the stored bytes, one line a row, or None where the type cannot be read."""
    import gguf  # noqa: PLC0415 - an optional part, checked by the caller

    sizes = {int(number): sizes for number, sizes in gguf.GGML_QUANT_SIZES.items()}
    if kind not in sizes or not shape:
        return None
    block, width = sizes[kind]
    if shape[-1] % block:
        raise _broken("a tensor's rows are not whole blocks")
    line, rows = shape[-1] // block * width, math.prod(shape[:-1])
    if start + rows * line > len(data):
        raise _broken("a tensor lies behind the end of the file")
    return np.frombuffer(data, np.uint8, count=rows * line, offset=start).reshape(rows, line)


def _dequantised(data: npt.NDArray[np.uint8], kind: int, rows: Rows) -> Floats | None:
    import gguf  # noqa: PLC0415 - an optional part, checked by the caller

    try:
        with np.errstate(all="ignore"):  # what is not finite is nothing found, whoever wrote it
            values = gguf.quants.dequantize(np.ascontiguousarray(data[rows]), gguf.GGMLQuantizationType(kind))
    except NotImplementedError:
        return None
    return np.asarray(values, np.float32)


def _in_original_order(weight: Weight, name: str, arch: object, fields: Mapping[str, object]) -> Weight:
    """Undo what llama.cpp's conversion does to the order of rows and columns."""
    if arch == "gpt2" and name.endswith(_CONV1D) and len(weight.shape) == 2:
        return weight.transposed()
    if arch == "llama" and name.endswith(_ROTATED):
        heads = _bounded(fields.get("llama.attention.head_count"), _MAX_HEADS)
        if name.endswith(_ROTATED[1]):
            heads = _bounded(fields.get("llama.attention.head_count_kv", heads), _MAX_HEADS)
        if weight.shape[0] % (2 * heads) == 0:
            half = weight.shape[0] // (2 * heads)
            # Stored are the pairs (j, j + half) of each head side by side.
            order = np.arange(weight.shape[0]).reshape(heads, half, 2).swapaxes(1, 2).reshape(-1)
            return weight.ordered(order)
    return weight
