"""GGUF suspects: a strict reader of the file's head; the ``gguf`` package de-quantises and knows the names.

The package's own reader builds one Python object for each element of each metadata array, so a hostile file could ask
for any amount of memory. Here the head is bounded before anything is read: version 2 or 3, little-endian.
"""

import math
import mmap
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput, MissingExtraError
from stanch.mark.weight import Floats, Rows, Weight
from stanch.weights import Adapter, LowRank, Tensor

MAGIC = b"GGUF"
_MAX_TENSORS = 1 << 16
_MAX_FIELDS = 1 << 16
_MAX_STRING = 1 << 24
_MAX_TOKENS = 1 << 21
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 16
_MAX_HEADS = 1 << 16
_MAX_ALPHA = 1e6
_MAX_BLOCKS = 1 << 12
_STRING, _ARRAY = 8, 9
_TOKENS = "tokenizer.ggml.tokens"
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_WRAPPERS = ("", "model.", "transformer.", "bert.")
_ROTATED = (".attn_q.weight", ".attn_k.weight")
_EXPERT = re.compile(r"\.experts\.(\d+)\.")
_MOST_EXPERTS = 1 << 12
_LORA = (".lora_a", ".lora_b")
OTHER_ORDER = " in another order"
"""What follows the name of a tensor that is offered in a second order of its rows: nothing tells which is right."""
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

    def texts(self) -> tuple[str, ...] | None:
        """Return an array of texts, of which not all need be UTF-8; None for any other array."""
        start, item, count = self.place, int(self.number("<I")), int(self.number("<Q"))
        if item != _STRING or count > _MAX_TOKENS:
            self.place = start
            self.value(_ARRAY)
            return None
        taken = (self.take(self.count("<Q", _MAX_STRING, "bytes in a string")) for _ in range(count))
        return tuple(token.decode(errors="surrogateescape") for token in taken)

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
    """Opened GGUF files.

    Attributes:
        weights: Their tensors by their GGUF names, in the order of rows and columns of the original model; those of
            queries and keys also with :data:`OTHER_ORDER`, and each expert of stacked ones as ``NAME[number]``.
        adapter: Their low-rank factors by the names of the changed tensors, if they are an adapter.
        tokens: The row of each token, as the tokenizer in the file says.
        rename: Gives the GGUF name of a name of the original model; None where there is none. Of an architecture that
            is not known no name has one.
    """

    weights: Mapping[str, Weight]
    adapter: Adapter | None
    tokens: Mapping[str, int]
    rename: Callable[[str], str | None] | None


def is_gguf(path: Path) -> bool:
    """Say whether the file begins as a GGUF file does."""
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def open_gguf(files: Sequence[Path]) -> GgufModel:
    """Map a GGUF file, or all parts of a split one; rows are de-quantised when they are read.

    Tensors of types that the ``gguf`` package cannot de-quantise are left out.

    Raises:
        InvalidInput: A file breaks a rule of the format.
        MissingExtraError: The ``gguf`` package is missing.
    """
    try:
        import gguf  # noqa: PLC0415 - an optional part
    except ImportError as error:
        raise MissingExtraError("gguf") from error
    parts = [_read_part(path) for path in files]
    fields = {name: value for part in reversed(parts) for name, value in part.fields.items()}
    arch = fields.get("general.architecture")
    weights: dict[str, Weight] = {}
    for part in parts:
        for name, shape, kind, offset in part.places:
            data = _tensor_bytes(part.data, shape, kind, part.start + offset)
            if data is not None:
                weight = Weight(shape, partial(_dequantised if shape[1:] else _elements, data, kind))
                weights |= dict(_in_original_order(weight, name, arch, fields))
                weights |= dict(_experts(data, kind, name, shape))
    known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    blocks = fields.get(f"{arch}.block_count", 0)
    if arch not in known or not isinstance(blocks, int) or not 0 <= blocks <= _MAX_BLOCKS:
        return GgufModel(weights, _adapter(weights, fields), _tokens(fields), None)
    names = gguf.get_tensor_name_map(known[arch], blocks)

    def rename(name: str) -> str | None:
        expert = _EXPERT.search(name)
        name = name if expert is None else name.replace(expert[0], ".experts.", 1)
        found = (names.get_name(wrapper + name, try_suffixes=(".weight",)) for wrapper in _WRAPPERS)
        own = next((str(name) for name in found if name), None)
        return own if own is None or expert is None else f"{own}[{expert[1]}]"

    return GgufModel(weights, _adapter(weights, fields), _tokens(fields), rename)


def _tokens(fields: Mapping[str, object]) -> Mapping[str, int]:
    found = fields.get(_TOKENS)
    return {token: row for row, token in enumerate(found)} if isinstance(found, tuple) else {}


class _Part(NamedTuple):
    """The head of one file: its metadata, where its tensors lie, and where their data begin."""

    data: mmap.mmap
    fields: Mapping[str, object]
    places: Sequence[tuple[str, tuple[int, ...], int, int]]
    start: int


def _read_part(path: Path) -> _Part:
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
        kind = int(head.number("<I"))
        fields[name] = head.texts() if name == _TOKENS and kind == _ARRAY else head.value(kind)
    places = [_read_place(head) for _ in range(tensors)]
    alignment = _bounded(fields.get("general.alignment", 32), _MAX_ALIGNMENT)
    return _Part(head.data, fields, places, -(-head.place // alignment) * alignment)


def _adapter(weights: dict[str, Weight], fields: Mapping[str, object]) -> Adapter | None:
    """Return what llama.cpp's conversion of an adapter holds: factors, named by the tensors that they change, alone."""
    alpha, modules = fields.get("adapter.lora.alpha"), {}
    if any(len(weight.shape) > 1 and _LORA[0][:-1] not in name for name, weight in weights.items()):
        return None
    for name in weights:
        a, b = (weights.get(name.removesuffix(_LORA[0]) + ending) for ending in _LORA)
        if not name.endswith(_LORA[0]) or a is None or b is None or len(a.shape) != 2 or len(b.shape) != 2:
            continue
        one, two = a.whole(), b.whole()
        if a.shape[0] == b.shape[1] and one is not None and two is not None:
            module = name.removesuffix(_LORA[0]).removesuffix(".weight")
            scale = alpha / a.shape[0] if isinstance(alpha, float) and 0 < abs(alpha) < _MAX_ALPHA else 1.0
            pair = Tensor(name, "F32", one), Tensor(name, "F32", two)
            modules[module] = LowRank(module, *pair, scale, transposed=False)
    return Adapter({}, modules, {}) if modules else None


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
    """Return the stored bytes, one line a row (of a vector in one line), or None where the type cannot be read."""
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
    found = np.frombuffer(data, np.uint8, count=rows * line, offset=start)
    return found.reshape(shape[0] if shape[1:] else 1, -1)


def _dequantised(data: npt.NDArray[np.uint8], kind: int, rows: Rows) -> Floats | None:
    import gguf  # noqa: PLC0415 - an optional part, checked by the caller

    try:
        with np.errstate(all="ignore"):  # what is not finite is nothing found, whoever wrote it
            values = gguf.quants.dequantize(np.ascontiguousarray(data[rows]), gguf.GGMLQuantizationType(kind))
    except NotImplementedError:
        return None
    return np.asarray(values, np.float32)


def _elements(data: npt.NDArray[np.uint8], kind: int, rows: Rows) -> Floats | None:
    """Return elements of a vector, one a row."""
    found = _dequantised(data, kind, slice(None))
    return None if found is None else found.reshape(-1, 1)[rows]


def _in_original_order(
    weight: Weight, name: str, arch: object, fields: Mapping[str, object]
) -> Iterator[tuple[str, Weight]]:
    """Undo what llama.cpp's conversion does to the order of rows and columns; where it may have, offer both orders.

    It puts the pairs (j, j + half) of each head of queries and keys side by side, for Llama and some of its relatives.
    """
    if arch == "gpt2" and name.endswith(_CONV1D) and len(weight.shape) == 2:
        yield name, weight.transposed()
        return
    base = name.removesuffix(_LORA[1])
    heads = fields.get(f"{arch}.attention.head_count")
    if base.endswith(_ROTATED[1]):
        heads = fields.get(f"{arch}.attention.head_count_kv", heads)
    count = heads if isinstance(heads, int) and 0 < heads <= _MAX_HEADS else 0
    if not count or not base.endswith(_ROTATED) or weight.shape[0] % (2 * count):
        yield name, weight
        return
    half = weight.shape[0] // (2 * count)
    order = np.arange(weight.shape[0]).reshape(count, half, 2).swapaxes(1, 2).reshape(-1)
    orders = (weight.ordered(order), weight) if arch == "llama" else (weight, weight.ordered(order))
    yield from zip((name, name + OTHER_ORDER), orders, strict=True)


def _experts(data: npt.NDArray[np.uint8], kind: int, name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Weight]]:
    """Yield each expert's matrix of those that were stacked."""
    if len(shape) == 3 and name.endswith("_exps.weight"):
        for number in range(min(shape[0], _MOST_EXPERTS)):
            lines = data[number].reshape(shape[1], -1)
            yield f"{name}[{number}]", Weight(shape[1:], partial(_dequantised, lines, kind))
