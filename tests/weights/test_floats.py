import math
from fractions import Fraction

import numpy as np
import pytest

from stanch.errors import InvalidInput
from stanch.weights import Tensor, bf16_to_float32, float8_to_float32, float32_to_bf16, from_float32, to_float32

PATTERNS = np.arange(65_536, dtype=np.uint16)
FINITE = PATTERNS[(PATTERNS & 0x7F80) != 0x7F80]


def exact(bits: int, exponent_bits: int, mantissa_bits: int) -> Fraction:
    """The value of an IEEE pattern as an exact fraction, from the standard's definition."""
    sign = -1 if bits >> (exponent_bits + mantissa_bits) else 1
    exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = bits & ((1 << mantissa_bits) - 1)
    bias = (1 << (exponent_bits - 1)) - 1
    if exponent:
        return sign * Fraction(2) ** (exponent - bias) * (1 + Fraction(mantissa, 1 << mantissa_bits))
    return sign * Fraction(2) ** (1 - bias) * Fraction(mantissa, 1 << mantissa_bits)


def test_every_bf16_value_is_read_exactly_and_survives_the_round_trip():
    wide = bf16_to_float32(FINITE)
    assert np.array_equal(float32_to_bf16(wide), FINITE)
    assert np.array_equal(bf16_to_float32(FINITE, np.full(FINITE.shape, 7, np.float32)), wide)
    assert all(Fraction(float(wide[i])) == exact(int(FINITE[i]), 8, 7) for i in range(0, len(FINITE), 7))


def test_rounding_equals_the_exact_oracle_around_every_bf16_value():
    # Between a pattern and its successor: just below the middle, the middle (to even), just above.
    low = FINITE[(FINITE & 0x7FFF) < 0x7F7F]
    for step, rounds_up in ((0x0000, 0), (0x0001, 0), (0x7FFF, 0), (0x8000, None), (0x8001, 1), (0xFFFF, 1)):
        bits = (low.astype(np.uint32) << 16) | np.uint32(step)
        expected = low + (low & 1 if rounds_up is None else np.uint16(rounds_up))
        values = bits.view(np.float32)
        assert np.array_equal(float32_to_bf16(values), expected)
        assert np.array_equal(float32_to_bf16(values, np.full(bits.shape, 7, np.uint32)), expected)
        assert np.array_equal(values.view(np.uint32), bits)


def test_the_oracle_for_the_middle_is_right():
    generator = np.random.default_rng(1)
    for bits in generator.integers(0, 0x7F7F, 300):
        below, above = exact(int(bits), 8, 7), exact(int(bits) + 1, 8, 7)
        value = np.array([(int(bits) << 16) | int(generator.integers(0, 0x10000))], np.uint32)
        found = exact(int(float32_to_bf16(value.view(np.float32))[0]), 8, 7)
        true = exact(int(value[0]), 8, 23)
        assert abs(found - true) == min(true - below, above - true)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_stored_types_round_to_nearest(dtype):
    values = np.random.default_rng(2).normal(size=1000).astype(np.float32)
    back = to_float32(from_float32(values, dtype), dtype)
    assert np.abs(back - values).max() <= {"F32": 0, "F16": 2e-3, "BF16": 1.6e-2}[dtype]
    assert np.array_equal(to_float32(from_float32(back, dtype), dtype), back)


def test_other_types_are_refused():
    with pytest.raises(InvalidInput, match="float tensor"):
        Tensor("a", "I8", np.zeros(1, np.int8)).to_float32()
    with pytest.raises(InvalidInput, match="float type"):
        from_float32(np.zeros(1, np.float32), "I8")


@pytest.mark.parametrize(
    ("dtype", "known"),
    [
        ("F8_E4M3", {0x38: 1, 0x7E: 448, 0x01: 2**-9, 0x08: 2**-6, 0xB8: -1, 0x7F: math.nan, 0xFF: math.nan}),
        ("F8_E5M2", {0x3C: 1, 0x7B: 57344, 0x01: 2**-16, 0xBC: -1, 0x7C: math.nan, 0x7F: math.nan}),
        ("F8_E4M3FNUZ", {0x40: 1, 0x7F: 240, 0x01: 2**-10, 0x80: math.nan}),
        ("F8_E5M2FNUZ", {0x40: 1, 0x7F: 57344, 0x01: 2**-17, 0x80: math.nan}),
    ],
)
def test_floats_of_eight_bits_have_the_values_of_their_standard(dtype, known):
    """OCP 8-bit Floating Point Specification; Noune et al. (2022) for those without a negative zero."""
    found = float8_to_float32(np.array(list(known), np.uint8), dtype)
    np.testing.assert_array_equal(found, np.array(list(known.values()), np.float32))
