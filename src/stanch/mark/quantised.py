"""Weights of safetensors files as float32: floats, and the integer forms that common quantisers write.

A form is recognised by the tensors that stand beside the integers, never by a file's claims about itself alone. What
does not fit together exactly is no weight: its tensor is unmatched.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from stanch.crypto import parse_json
from stanch.errors import InvalidInput
from stanch.mark.fp4 import read_fp4
from stanch.mark.packed import read_packed
from stanch.mark.weight import Floats, Rows, Weight
from stanch.weights import FLOAT8_TYPES, FLOAT_TYPES, Tensor, float8_to_float32

_FLOATS = ("F32", "F16", "BF16", "F64")
# 8-bit integers are understood where a scale a row stands beside them, and the value is integer × scale × unit.
_INT8_SCALES = {"weight_scale": 1.0, "SCB": 1.0 / 127.0}
_STATE = ".quant_state.bitsandbytes__"
_STATE_BYTES = 4096
_MOST = 1 << 40
_PACKED = frozenset({"U8", "I8", "I16", "U16", "I32", "U32", "I64", *FLOAT8_TYPES})
_BESIDE = ("bias", "scale", "scales", "scale_inv", "qzeros", "zero_point", "absmax", "g_idx", "SCB")
_LARGE = 1 << 16
_FP8_SCALES = ("weight_scale_inv", "weight_scale")
_FP8_BLOCK = 128

Numbers = npt.NDArray[np.generic]


def read_weights(tensors: Mapping[str, Tensor], *, zero_point: int = 1) -> dict[str, Weight]:
    """Return every tensor that can be read as float32, by its own name (packed: ``….weight`` for ``….qweight``).

    Args:
        tensors: Of a suspect.
        zero_point: What GPTQ's packed zero points lack: 1, or 0 in files of the format ``gptq_v2``.
    """
    weights = {}
    for name, tensor in tensors.items():
        found = _read(name, tensor, tensors)
        if found is not None:
            weights[name] = found
            continue
        packed = read_packed(name, tensors, zero_point=zero_point) or read_fp4(name, tensors)
        if packed is not None:
            weights.setdefault(*packed)
    return weights


def list_strange(tensors: Mapping[str, Tensor], weights: Mapping[str, Weight]) -> tuple[str, ...]:
    """Return the large tensors of integers or small floats that no weight explains, each with its type."""
    explained = {name.removesuffix(".weight") for name in weights}
    return tuple(
        f"{name!r}, a tensor of {tensor.dtype} in a form that is not known"
        for name, tensor in tensors.items()
        if tensor.dtype in _PACKED and len(tensor.shape) > 1 and tensor.raw.nbytes >= _LARGE
        and name not in weights and not name.endswith(_BESIDE)
        and name.rpartition(".")[0] not in explained and name.removesuffix("_blocks") not in explained
    )  # fmt: skip


def _read(name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> Weight | None:
    if not tensor.shape or not tensor.raw.size:
        return None
    if tensor.dtype in _FLOATS:
        return Weight(tensor.shape, partial(_float_rows, tensor), tensor if tensor.dtype in FLOAT_TYPES else None)
    if tensor.dtype == "I8":
        return _int8(name, tensor, tensors)
    if tensor.dtype == "U8":
        return _four_bit(name, tensor, tensors)
    if tensor.dtype in FLOAT8_TYPES:
        return _float8(name, tensor, tensors)
    return None


def _float_rows(tensor: Tensor, rows: Rows) -> Floats:
    raw = tensor.raw.reshape(tensor.shape[0], -1)[rows]
    return Tensor(tensor.name, tensor.dtype, raw).to_float32()


def _floats(tensors: Mapping[str, Tensor], name: str) -> Floats | None:
    """Return a float tensor flat, or None where there is no such one."""
    found = tensors.get(name)
    return found.to_float32().reshape(-1) if found is not None and found.dtype in _FLOATS else None


def _int8(name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> Weight | None:
    """8-bit integers with one scale a row or one in all (bitsandbytes' SCB, compressed-tensors' weight_scale)."""
    rows, stem = tensor.shape[0], name.rpartition(".")[0]
    for suffix, unit in _INT8_SCALES.items():
        scale = _floats(tensors, f"{stem}.{suffix}")
        if scale is not None and scale.size in {1, rows}:
            scales = np.broadcast_to(scale * np.float32(unit), (rows,))
            return Weight(tensor.shape, partial(_int8_rows, tensor.raw.reshape(rows, -1), scales))
    return None


def _int8_rows(raw: Numbers, scales: Floats, rows: Rows) -> Floats:
    return raw[rows].astype(np.float32) * scales[rows, np.newaxis]


def _float8(name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> Weight | None:
    """8-bit floats, times one scale in all, one a row, or one a block of 128 × 128; without any scale as they are."""
    rows, stem = tensor.shape[0], name.rpartition(".")[0]
    raw = tensor.raw.reshape(rows, -1)
    found = [tensors[f"{stem}.{suffix}"] for suffix in _FP8_SCALES if f"{stem}.{suffix}" in tensors]
    if any(scale.dtype not in _FLOATS for scale in found):
        return None
    scale = found[0].to_float32() if found else np.ones(1, np.float32)
    blocks = -(-rows // _FP8_BLOCK), -(-raw.shape[1] // _FP8_BLOCK)
    if scale.size in {1, rows}:
        scale = np.broadcast_to(scale.reshape(-1, 1), (rows, 1))
    elif scale.shape == blocks:
        scale = np.repeat(scale, _FP8_BLOCK, axis=0)[:rows]
    else:
        return None

    def read(chosen: Rows) -> Floats:
        factors = scale[chosen]
        if factors.shape[1] > 1:
            factors = np.repeat(factors, _FP8_BLOCK, axis=1)[:, : raw.shape[1]]
        return float8_to_float32(np.asarray(raw[chosen], np.uint8), tensor.dtype) * factors

    return Weight(tensor.shape, read)


@dataclass(frozen=True, slots=True)
class _State:
    """What bitsandbytes writes beside 4-bit values."""

    shape: tuple[int, ...]
    blocksize: int
    nested_blocksize: int
    nested_offset: float

    @classmethod
    def of(cls, tensor: Tensor) -> "_State | None":
        if tensor.dtype != "U8" or not 0 < tensor.raw.size <= _STATE_BYTES:
            return None
        try:
            document = parse_json(tensor.raw.astype(np.uint8).tobytes(), what="quant_state")
        except InvalidInput:
            return None
        match document:
            case {"shape": list(sizes), "blocksize": int(blocksize), **more}:
                shape = tuple(size for size in sizes if isinstance(size, int) and 0 < size < _MOST)
                nested = more.get("nested_blocksize", 256)
                offset = more.get("nested_offset", 0.0)
            case _:
                return None
        sound = len(shape) == len(sizes) and _positive(blocksize) and _positive(nested)
        if not shape or not sound or not isinstance(offset, int | float):
            return None
        return cls(shape, blocksize, int(str(nested)), float(offset))


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST


def _four_bit(name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> Weight | None:
    """Bitsandbytes NF4 and FP4: two values a byte, the first in the high half, times the largest magnitude a block."""
    found = next((tensors[key] for key in (f"{name}{_STATE}nf4", f"{name}{_STATE}fp4") if key in tensors), None)
    state = None if found is None else _State.of(found)
    code, scales = _floats(tensors, f"{name}.quant_map"), tensors.get(f"{name}.absmax")
    if state is None or code is None or code.size != 16 or scales is None:
        return None
    count = int(np.prod(state.shape, dtype=object))
    blocks = -(-count // state.blocksize)
    packed = tensor.raw.reshape(-1)
    largest = scales.to_float32().reshape(-1) if scales.dtype in _FLOATS else _nested(name, scales, tensors, state)
    if largest is None or largest.size != blocks or packed.size != -(-count // 2):
        return None
    columns = count // state.shape[0]

    def read(rows: Rows) -> Floats:
        places = np.arange(state.shape[0])[rows, np.newaxis] * columns + np.arange(columns)
        pairs = packed[places >> 1].astype(np.uint8)
        values = code[np.where(places & 1, pairs & 15, pairs >> 4)]
        result: Floats = values * largest[places // state.blocksize]
        return result

    return Weight(state.shape, read)


def _nested(name: str, scales: Tensor, tensors: Mapping[str, Tensor], state: _State) -> Floats | None:
    """Return block scales that were themselves quantised to 8 bits."""
    code = _floats(tensors, f"{name}.nested_quant_map")
    largest = _floats(tensors, f"{name}.nested_absmax")
    raw = scales.raw.reshape(-1)
    if scales.dtype != "U8" or code is None or largest is None or code.size != 256:
        return None
    if largest.size != -(-raw.size // state.nested_blocksize):
        return None
    factor = np.repeat(largest, state.nested_blocksize)[: raw.size] if largest.size > 1 else largest
    result: Floats = code[raw.astype(np.uint8)] * factor + np.float32(state.nested_offset)
    return result
