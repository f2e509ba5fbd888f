"""Integers in 32-bit words, as GPTQ, AWQ and compressed-tensors write them, and floats of 8 and 4 bits.

Beside models.py; Python and numpy alone. A weight is ``(integer − zero point) · scale`` of its group and output.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
FLOAT8 = {"F8_E4M3": (3, 7), "F8_E5M2": (2, 15), "F8_E4M3FNUZ": (3, 8), "F8_E5M2FNUZ": (2, 16)}
AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]
BLOCK = 128
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


class Parts(NamedTuple):
    """What stands beside packed integers; None where it is not there, or not of its type."""

    packed: npt.NDArray[np.int32]
    scales: Floats
    zeros: npt.NDArray[np.int32] | None = None
    groups: Ints | None = None
    shape: tuple[int, ...] = ()


def fit(condition: object) -> None:
    """Raise ValueError unless ``condition`` holds."""
    if not condition:
        raise ValueError("its parts do not fit together")


def unpack(words: npt.NDArray[np.int32], bits: int, axis: int) -> Floats:
    """Return the values packed along an axis, bit after bit, the lowest first."""
    lines = np.ascontiguousarray(np.moveaxis(words, axis, -1), "<i4")
    stream = np.unpackbits(lines.view(np.uint8), axis=-1, bitorder="little").reshape(len(lines), -1, bits)
    values: Floats = np.asarray(stream @ (1 << np.arange(bits)).astype(np.float32), np.float32)
    return np.moveaxis(values, -1, axis)


def gptq(parts: Parts, zero_point: int) -> Floats:
    """Return outputs × inputs of GPTQ (packed along the inputs), or of AWQ (along the outputs)."""
    packed, scales, zeros, index, _ = parts
    fit(zeros is not None and packed.ndim == scales.ndim == 2 and scales.size and packed.size)
    if zeros is None:
        raise ValueError
    groups, outputs = scales.shape
    if packed.shape[1] * 8 == outputs and index is None:
        fit(zeros.shape == (groups, packed.shape[1]) and len(packed) % groups == 0)
        pair = [unpack(words, 4, 1).reshape(len(words), -1, 8)[:, :, AWQ_ORDER] for words in (packed, zeros)]
        values, offsets = (part.reshape(len(part), -1) for part in pair)
        group = np.arange(len(packed)) // (len(packed) // groups)
    else:
        bits = 32 * zeros.shape[1] // outputs
        fit(bits in {2, 3, 4, 8} and zeros.shape == (groups, bits * outputs // 32) and packed.shape[1] == outputs)
        fit(32 * zeros.shape[1] == bits * outputs and 32 * len(packed) % bits == 0)
        values, offsets = unpack(packed, bits, 0), unpack(zeros, bits, 1) + np.float32(zero_point)
        group = np.arange(len(values)) // -(-len(values) // groups) if index is None else index
        fit(group.size == len(values) and group.min() >= 0 and group.max() < groups)
    return np.ascontiguousarray(((values - offsets[group]) * scales[group]).T)


def compressed(parts: Parts) -> Floats:
    """Return outputs × inputs of compressed-tensors: packed along the inputs."""
    packed, scales, zeros, _, shape = parts
    fit(packed.ndim == scales.ndim == len(shape) == 2 and packed.size and scales.size)
    outputs, inputs = shape
    bits = next((bits for bits in (4, 8) if packed.shape == (outputs, -(-inputs * bits // 32))), 0)
    groups = scales.shape[1]
    fit(bits and len(scales) == outputs and inputs > 0 and inputs % groups == 0)
    offsets = np.full(scales.shape, 1 << bits - 1, np.float32)
    if zeros is not None:
        fit(zeros.shape == (-(-outputs * bits // 32), groups))
        offsets = unpack(zeros, bits, 0)[:outputs]
    values = unpack(packed, bits, 1)[:, :inputs].reshape(outputs, groups, -1)
    found: Floats = ((values - offsets[:, :, np.newaxis]) * scales[:, :, np.newaxis]).reshape(outputs, inputs)
    return found


def float8(raw: npt.NDArray[np.uint8], dtype: str, scale: Floats | None) -> Floats:
    """Return 8-bit floats (rows × columns) times one scale, one a row, or one a block of 128 × 128."""
    mantissa_bits, bias = FLOAT8[dtype]
    bits = np.arange(256)
    exponent, mantissa = (bits & 127) >> mantissa_bits, bits % (1 << mantissa_bits)
    whole = (mantissa + ((exponent > 0) << mantissa_bits)) * np.where(bits > 127, -1, 1)
    table = np.ldexp(whole.astype(np.float32), np.maximum(exponent, 1) - bias - mantissa_bits)
    unfit = {"F8_E4M3": (bits & 127) == 127, "F8_E5M2": exponent == 31}.get(dtype, bits == 128)
    values: Floats = np.where(unfit, np.nan, table).astype(np.float32)[raw]
    if scale is None:
        return values
    rows, columns = raw.shape
    if scale.size in {1, rows}:
        return values * scale.reshape(-1, 1)
    fit(scale.shape == (-(-rows // BLOCK), -(-columns // BLOCK)))
    return values * np.repeat(np.repeat(scale, BLOCK, axis=0)[:rows], BLOCK, axis=1)[:, :columns]


def fp4(raw: npt.NDArray[np.uint8], scales: Floats) -> Floats:
    """Return 4-bit floats, two a byte along the last axis, the first in the low half, times one scale a block."""
    halves = np.stack([raw & 15, raw >> 4], axis=-1).reshape(*raw.shape[:-1], -1)
    blocks = halves.reshape(*scales.shape, -1)
    values: Floats = E2M1[blocks] * scales[..., np.newaxis]
    return values.reshape(halves.shape)


def powers(raw: npt.NDArray[np.uint8]) -> Floats:
    """Return scales in E8M0: powers of two."""
    found: Floats = np.where(raw == 255, np.nan, np.ldexp(1.0, raw.astype(np.int64) - 127)).astype(np.float32)
    return found
