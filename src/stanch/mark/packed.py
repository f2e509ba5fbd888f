"""Integers packed into 32-bit words, as GPTQ, AWQ and compressed-tensors write them: scales and zero points by groups.

In each form a weight is ``(integer − zero point) · scale`` of its group of inputs and its output; they differ in which
way is packed, in the order of a word's values, and in what is left out of a zero point.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from stanch.mark.weight import Floats, Rows, Weight
from stanch.weights import FLOAT_TYPES, Tensor

_BITS = (2, 3, 4, 8)
_WORD = 32
_AWQ_BITS = 4
_AWQ_SHIFTS = np.array([0, 4, 1, 5, 2, 6, 3, 7], np.uint32) * np.uint32(_AWQ_BITS)
"""AWQ stores the outputs 0, 2, 4, 6, 1, 3, 5, 7 of eight, lowest bits first: where each of them lies."""

Numbers = npt.NDArray[np.generic]


def read_packed(name: str, tensors: Mapping[str, Tensor], *, zero_point: int) -> tuple[str, Weight] | None:
    """Return the weight that the packed integers ``name`` hold, and its name; None where the parts do not fit together.

    Args:
        name: Of a tensor.
        tensors: It, and those beside it.
        zero_point: What GPTQ's zero points lack.
    """
    stem, _, kind = name.rpartition(".")
    weight = None
    if kind == "qweight":
        weight = _gptq(f"{stem}.", tensors, zero_point) or _awq(f"{stem}.", tensors)
    elif kind == "weight_packed":
        weight = _compressed(f"{stem}.", tensors)
    return None if weight is None else (f"{stem}.weight", weight)


def _parts(tensors: Mapping[str, Tensor], *names: str) -> list[Tensor] | None:
    """Return matrices: integers, and a last one of floats; None where one is missing or of another kind."""
    found = [tensors[name] for name in names if name in tensors]
    if len(found) != len(names) or any(len(part.shape) != 2 or not part.raw.size for part in found):
        return None
    *integers, scales = found
    return found if scales.dtype in FLOAT_TYPES and all(part.dtype == "I32" for part in integers) else None


def _gptq(stem: str, tensors: Mapping[str, Tensor], zero_point: int) -> Weight | None:
    """GPTQ: packed along the inputs; zero points along the outputs."""
    parts = _parts(tensors, f"{stem}qweight", f"{stem}qzeros", f"{stem}scales")
    if parts is None:
        return None
    packed, zeros, scales = parts
    groups, outputs = scales.shape
    bits = _WORD * zeros.shape[1] // outputs
    fits = (
        bits in _BITS and zeros.shape == (groups, bits * outputs // _WORD) and _WORD * zeros.shape[1] == bits * outputs
    )
    if not fits or packed.shape[1] != outputs or _WORD * packed.shape[0] % bits:
        return None
    inputs = _WORD * packed.shape[0] // bits
    index = tensors.get(f"{stem}g_idx")
    group = np.arange(inputs) // -(-inputs // groups) if index is None else index.raw.reshape(-1).astype(np.int64)
    if group.size != inputs or group.min() < 0 or group.max() >= groups:
        return None
    offsets = _unpacked(zeros.raw, bits, axis=1) + np.float32(zero_point)
    factors = scales.to_float32()

    def read(rows: Rows) -> Floats:
        values = _unpacked(packed.raw[:, rows], bits, axis=0)
        values -= offsets[group][:, rows]
        values *= factors[group][:, rows]
        return np.ascontiguousarray(values.T)

    return Weight((outputs, inputs), read)


def _awq(stem: str, tensors: Mapping[str, Tensor]) -> Weight | None:
    """AWQ, 4 bits: integers (inputs × outputs) and zero points packed along the outputs."""
    parts = _parts(tensors, f"{stem}qweight", f"{stem}qzeros", f"{stem}scales")
    if parts is None:
        return None
    packed, zeros, scales = parts
    inputs, (groups, outputs) = packed.shape[0], scales.shape
    each = _WORD // _AWQ_BITS
    if (packed.shape[1] * each, *zeros.shape) != (outputs, groups, packed.shape[1]) or inputs % groups:
        return None
    group = np.arange(inputs) // (inputs // groups)
    factors = scales.to_float32()

    def unpack(words: Numbers, outputs: npt.NDArray[np.int64]) -> Floats:
        chosen = np.ascontiguousarray(words[:, outputs // each], np.int32).view(np.uint32)
        return (chosen >> _AWQ_SHIFTS[outputs % each] & np.uint32(15)).astype(np.float32)

    def read(rows: Rows) -> Floats:
        chosen = np.arange(outputs)[rows]
        values = unpack(packed.raw, chosen) - unpack(zeros.raw, chosen)[group]
        return np.ascontiguousarray((values * factors[:, chosen][group]).T)

    return Weight((outputs, inputs), read)


def _compressed(stem: str, tensors: Mapping[str, Tensor]) -> Weight | None:
    """compressed-tensors, 4 or 8 bits: packed along the inputs, zero points along the outputs or in the middle."""
    parts = _parts(tensors, f"{stem}weight_packed", f"{stem}weight_scale")
    shape = tensors.get(f"{stem}weight_shape")
    if parts is None or shape is None or shape.dtype not in {"I64", "I32"} or shape.raw.size != 2:
        return None
    packed, scales = parts
    outputs, inputs = (int(size) for size in shape.raw.reshape(-1).tolist())
    bits = next((bits for bits in (4, 8) if packed.shape == (outputs, -(-inputs * bits // _WORD))), 0)
    groups = scales.shape[1]
    if not bits or inputs < 1 or scales.shape[0] != outputs or inputs % groups:
        return None
    middle, zeros = np.float32(1 << bits - 1), tensors.get(f"{stem}weight_zero_point")
    factors = scales.to_float32()
    offsets = np.full((outputs, groups), middle, np.float32)
    if zeros is not None:
        if zeros.dtype != "I32" or zeros.shape != (-(-outputs * bits // _WORD), groups):
            return None
        offsets = _unpacked(zeros.raw, bits, axis=0)[:outputs]

    def read(rows: Rows) -> Floats:
        values = _unpacked(packed.raw[rows], bits, axis=1)[:, :inputs].reshape(-1, groups, inputs // groups)
        values = (values - offsets[rows][:, :, np.newaxis]) * factors[rows][:, :, np.newaxis]
        return values.reshape(-1, inputs)

    return Weight((outputs, inputs), read)


def _unpacked(words: Numbers, bits: int, *, axis: int) -> Floats:
    """Return the values packed into 32-bit words along ``axis``, lowest bits first; one may reach into the next."""
    lines = np.moveaxis(np.ascontiguousarray(words, np.int32).view(np.uint32), axis, 0)
    span = bits if _WORD % bits else 1  # words after which a value begins with a word again
    groups = lines.reshape(-1, span, lines.shape[1])
    starts = np.arange(0, _WORD * span, bits)
    places, shifts = starts // _WORD, (starts % _WORD).astype(np.uint32)[:, np.newaxis]
    values = groups[:, places] >> shifts
    if span > 1:
        # Shifted by 32 and more nothing is left; the first value of a word needs nothing of the next.
        rest = groups[:, np.minimum(places + 1, span - 1)].astype(np.uint64) << (np.uint64(_WORD) - shifts)
        values = values | rest.astype(np.uint32)
    values &= np.uint32((1 << bits) - 1)
    found = np.moveaxis(values.reshape(-1, lines.shape[1]), 0, axis)
    return np.ascontiguousarray(found, np.float32)
