"""Floats of 4 bits in blocks, each with a scale of 8 bits: NVFP4 and MXFP4, as common quantisers write them.

A value is one of the 16 of E2M1 (OCP Microscaling Formats 1.0, section 5.3.3), two a byte, the first in the low half.
NVFP4 has blocks of 16 with scales in E4M3, and one more scale for the tensor; MXFP4 blocks of 32 with powers of two.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from stanch.mark.weight import Floats, Rows, Weight
from stanch.weights import FLOAT8_TYPES, FLOAT_TYPES, Tensor, float8_to_float32

_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_VALUES = np.array([*_MAGNITUDES, *(-value for value in _MAGNITUDES)], np.float32)
_BLOCKS = {"F8_E4M3": 16, "U8": 32, "F8_E8M0": 32}
"""Inputs that one scale is for, by the type of the scales."""
_BIAS = 127

Bytes = npt.NDArray[np.uint8]


def read_fp4(name: str, tensors: Mapping[str, Tensor]) -> tuple[str, Weight] | None:
    """Return the weight that the tensor ``name`` holds in 4-bit floats, and its name; None where parts do not fit.

    Known are ``weight_packed`` with ``weight_scale`` and ``weight_global_scale`` (compressed-tensors), ``weight`` with
    ``weight_scale`` and ``weight_scale_2`` (ModelOpt), and ``NAME_blocks`` with ``NAME_scales`` (gpt-oss), which holds
    experts as outputs × inputs where the model has inputs × outputs.
    """
    stem, _, kind = name.rpartition(".")
    if tensors[name].dtype != "U8":
        return None
    if name.endswith("_blocks"):
        weight = _experts(tensors[name], tensors.get(f"{name.removesuffix('_blocks')}_scales"))
        return None if weight is None else (name.removesuffix("_blocks"), weight)
    scales = tensors.get(f"{stem}.weight_scale")
    if kind not in {"weight", "weight_packed"} or scales is None:
        return None
    tensor_scale = _tensor_scale(f"{stem}.", kind, scales, tensors)
    weight = None if tensor_scale is None else _matrix(tensors[name], scales, tensor_scale)
    return None if weight is None else (f"{stem}.weight", weight)


def _tensor_scale(stem: str, kind: str, scales: Tensor, tensors: Mapping[str, Tensor]) -> float | None:
    """Return what all scales are multiplied with: 1 of MXFP4; None where it is missing or no number."""
    if scales.dtype != "F8_E4M3":
        return 1.0
    found = tensors.get(f"{stem}weight_global_scale" if kind == "weight_packed" else f"{stem}weight_scale_2")
    if found is None or found.dtype not in FLOAT_TYPES or found.raw.size != 1:
        return None
    value = float(found.to_float32().reshape(-1)[0])
    if kind == "weight_packed":  # compressed-tensors keeps what the scales were multiplied with
        value = 1 / value if value else math.inf
    return value if math.isfinite(value) else None


def _matrix(packed: Tensor, scales: Tensor, tensor_scale: float) -> Weight | None:
    block = _BLOCKS.get(scales.dtype)
    if block is None or len(packed.shape) != 2 or not packed.raw.size:
        return None
    outputs, inputs = packed.shape[0], 2 * packed.shape[1]
    if inputs % block or scales.shape != (outputs, inputs // block):
        return None

    def read(rows: Rows) -> Floats:
        values = _unpacked(np.asarray(packed.raw[rows], np.uint8)).reshape(-1, inputs // block, block)
        factors = _scales(np.asarray(scales.raw[rows], np.uint8), scales.dtype) * np.float32(tensor_scale)
        return (values * factors[:, :, np.newaxis]).reshape(-1, inputs)

    return Weight((outputs, inputs), read)


def _experts(packed: Tensor, scales: Tensor | None) -> Weight | None:
    block = _BLOCKS["U8"]
    if scales is None or scales.dtype not in {"U8", "F8_E8M0"} or len(packed.shape) != 4 or not packed.raw.size:
        return None
    if packed.shape[:3] != scales.shape or 2 * packed.shape[3] != block:
        return None
    count, outputs, blocks = scales.shape
    shape = (count, blocks * block, outputs)

    def read(rows: Rows) -> Floats:
        values = _unpacked(np.asarray(packed.raw[rows], np.uint8))
        factors = _scales(np.asarray(scales.raw[rows], np.uint8), scales.dtype)
        whole = (values * factors[..., np.newaxis]).reshape(-1, outputs, blocks * block)
        return np.ascontiguousarray(whole.swapaxes(1, 2)).reshape(len(whole), -1)

    return Weight(shape, read)


def _unpacked(raw: Bytes) -> Floats:
    """Return the values of packed bytes; the last axis becomes twice as long."""
    halves = np.stack([raw & 15, raw >> 4], axis=-1)
    return _VALUES[halves.reshape(*raw.shape[:-1], -1)]


def _scales(raw: Bytes, dtype: str) -> Floats:
    """Return scales in E4M3, or the powers of two of E8M0; NaN for what is no number."""
    if dtype in FLOAT8_TYPES:
        return float8_to_float32(raw, dtype)
    powers = np.ldexp(np.float32(1), raw.astype(np.int32) - _BIAS)
    return np.where(raw == 255, np.float32(np.nan), powers).astype(np.float32)
