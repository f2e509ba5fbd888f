"""Between the stored float types and float32, by integer views: numpy has no bfloat16."""

from functools import cache

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput

FLOAT_TYPES = ("F32", "F16", "BF16")
"""Stored types that are read as float32 without loss and can be written back."""

FLOAT8_TYPES = {"F8_E4M3": (3, 7), "F8_E5M2": (2, 15), "F8_E4M3FNUZ": (3, 8), "F8_E5M2FNUZ": (2, 16)}
"""8-bit float types: the bits of their mantissa, and what their exponent exceeds the power of two by."""

_BIAS = np.uint32(0x7FFF)
_HALF = np.uint32(16)
_ONE = np.uint32(1)


def bf16_to_float32(raw: npt.NDArray[np.uint16], out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float32]:
    """Return the exact float32 values of bfloat16 bit patterns, in ``out`` if it is given."""
    values = np.empty(raw.shape, np.float32) if out is None else out
    wide = values.view(np.uint32)
    wide[...] = raw
    wide <<= _HALF
    return values


def float32_to_bf16(
    values: npt.NDArray[np.float32], scratch: npt.NDArray[np.uint32] | None = None
) -> npt.NDArray[np.uint16]:
    """Round to bfloat16, to nearest and ties to even. NaN is not supported: callers refuse it before."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    odd = np.right_shift(bits, _HALF, out=scratch)
    odd &= _ONE
    odd += bits
    odd += _BIAS
    odd >>= _HALF
    return odd.astype(np.uint16)


def float8_to_float32(raw: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[np.float32]:
    """Return the exact float32 values of 8-bit floats of one of :data:`FLOAT8_TYPES`; NaN for what is no number."""
    return _float8_values(dtype)[raw]


@cache
def _float8_values(dtype: str) -> npt.NDArray[np.float32]:
    """Return the values of all 256 bit patterns (OCP OFP8; FNUZ: without a negative zero or infinity)."""
    mantissa_bits, bias = FLOAT8_TYPES[dtype]
    bits = np.arange(256)
    exponent, mantissa = (bits & 127) >> mantissa_bits, bits & ((1 << mantissa_bits) - 1)
    normal = np.where(exponent > 0, 1 << mantissa_bits, 0) + mantissa
    values = np.ldexp(normal.astype(np.float32), np.maximum(exponent, 1) - bias - mantissa_bits)
    values[bits > 127] *= -1
    unfit = {"F8_E4M3": (bits & 127) == 127, "F8_E5M2": exponent == 31}.get(dtype, bits == 128)
    values[unfit] = np.nan
    found: npt.NDArray[np.float32] = values.astype(np.float32)
    return found


def to_float32(
    raw: npt.NDArray[np.generic], dtype: str, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """Return stored elements as float32.

    Args:
        raw: The raw view, as :class:`stanch.weights.Tensor` holds it.
        dtype: Its safetensors type: F32, F16, BF16 or F64 (which is rounded).
        out: Where to write them, of the same shape and C-contiguous; by default a new array.

    Raises:
        InvalidInput: Another type.
    """
    if dtype == "BF16":
        return bf16_to_float32(np.asarray(raw, np.uint16), out)
    if dtype in {"F32", "F16", "F64"}:
        values = np.empty(raw.shape, np.float32) if out is None else out
        values[...] = raw
        return values
    raise InvalidInput(f"expected a float tensor (F32, F16, BF16 or F64), found {dtype}")


def from_float32(
    values: npt.NDArray[np.float32], dtype: str, scratch: npt.NDArray[np.uint32] | None = None
) -> npt.NDArray[np.generic]:
    """Round float32 values to a stored type (to nearest, ties to even) and return the raw elements, a new array.

    Args:
        values: What to round.
        dtype: One of :data:`FLOAT_TYPES`.
        scratch: Room of the values' shape that may be overwritten; by default new room.

    Raises:
        InvalidInput: A type outside :data:`FLOAT_TYPES`.
    """
    if dtype == "BF16":
        return float32_to_bf16(values, scratch)
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    if dtype == "F32":
        return values.astype(np.float32)
    raise InvalidInput(f"expected a float type ({', '.join(FLOAT_TYPES)}), found {dtype}")
