"""Between the stored float types and float32, by integer views: numpy has no bfloat16."""

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput

FLOAT_TYPES = ("F32", "F16", "BF16")
"""Stored types that are read as float32 without loss and can be written back."""

_BIAS = np.uint32(0x7FFF)
_HALF = np.uint32(16)
_ONE = np.uint32(1)


def bf16_to_float32(raw: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Return the exact float32 values of bfloat16 bit patterns."""
    wide = raw.astype(np.uint32)
    wide <<= _HALF
    return wide.view(np.float32)


def float32_to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round to bfloat16, to nearest and ties to even. NaN is not supported: callers refuse it before."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    odd = bits >> _HALF
    odd &= _ONE
    odd += bits
    odd += _BIAS
    odd >>= _HALF
    return odd.astype(np.uint16)


def to_float32(raw: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.float32]:
    """Return stored elements as a new float32 array.

    Args:
        raw: The raw view, as :class:`stanch.weights.Tensor` holds it.
        dtype: Its safetensors type: F32, F16, BF16 or F64 (which is rounded).

    Raises:
        InvalidInput: Another type.
    """
    if dtype == "BF16":
        return bf16_to_float32(np.asarray(raw, np.uint16))
    if dtype in {"F32", "F16", "F64"}:
        return raw.astype(np.float32)
    raise InvalidInput(f"expected a float tensor (F32, F16, BF16 or F64), found {dtype}")


def from_float32(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.generic]:
    """Round float32 values to a stored type (to nearest, ties to even) and return the raw elements.

    Raises:
        InvalidInput: A type outside :data:`FLOAT_TYPES`.
    """
    if dtype == "BF16":
        return float32_to_bf16(values)
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    if dtype == "F32":
        return values.astype(np.float32)
    raise InvalidInput(f"expected a float type ({', '.join(FLOAT_TYPES)}), found {dtype}")
