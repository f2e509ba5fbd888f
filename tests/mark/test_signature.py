import json
import struct
from pathlib import Path
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.crypto import aes_ctr_into, sha256
from stanch.errors import StanchError
from stanch.mark import signature
from stanch.mark.signature import Draws, counter_blocks, gaussian_table, look_up, scattered_indexes, signature_values

GOLDENS = json.loads((Path(__file__).parents[1] / "vectors" / "mark" / "goldens.json").read_text())
TABLE, STREAM = GOLDENS["table"], GOLDENS["stream"]
KEY = bytes.fromhex(STREAM["key"])


def test_the_table_is_the_specified_one():
    table = gaussian_table()
    assert sha256(table[32768:].tobytes()).hex() == TABLE["sha256_upper_half"]
    assert sha256(table.tobytes()).hex() == TABLE["sha256_all"]
    for entry, bits in TABLE["bits"].items():
        assert struct.pack(">f", table[int(entry)]).hex() == bits
    for entry, value in TABLE["values"].items():
        assert table[int(entry)] == np.float32(value)
    assert np.square(table, dtype=np.float64).mean() == pytest.approx(TABLE["mean_square"], abs=1e-10)
    assert np.array_equal(table, -table[::-1])


def test_entries_are_bin_means_rounded_toward_zero():
    mpmath.mp.dps = 40
    root = mpmath.sqrt(2)

    def density_at(k):
        if k == 65536:
            return mpmath.mpf(0)
        q = mpmath.findroot(
            lambda x: mpmath.erfc(x / root) / 2 - mpmath.mpf(65536 - k) / 65536, 1.0 if k < 65000 else 3
        )
        return mpmath.npdf(q)

    for k in (32768, 32769, 40_000, 49_152, 60_001, 65_000, 65_533, 65_534, 65_535):
        mean = 65536 * (density_at(k) - density_at(k + 1))
        entry = gaussian_table()[k]
        assert mpmath.mpf(float(entry)) <= mean < mpmath.mpf(float(np.nextafter(entry, np.float32(9))))


def test_the_table_is_sub_gaussian():
    table = gaussian_table().astype(np.longdouble)
    for t in np.concatenate([np.logspace(-2, 1.3, 60), [40.0, 80.0]]):
        assert np.log(np.exp(np.longdouble(t) * table).mean()) <= np.longdouble(t) ** 2 / 2


def test_a_damaged_table_is_refused(monkeypatch):
    monkeypatch.setattr(signature, "_UPPER_HALF", bytes(32))
    with pytest.raises(StanchError, match="damaged"):
        gaussian_table.__wrapped__()


@pytest.mark.parametrize("start", STREAM["indexes"])
def test_the_key_stream_is_the_specified_one(start):
    indexes = np.empty(8, "<u2")
    aes_ctr_into(KEY, (int(start) // 8).to_bytes(16, "big"), indexes.data)
    assert indexes.tolist() == STREAM["indexes"][start]
    assert np.array_equal(signature_values(KEY, int(start), 8), gaussian_table()[indexes])


def test_draws_begin_at_the_first_coordinate_unless_told():
    draws = Draws(KEY)
    assert draws.take(8).tolist() == STREAM["indexes"]["0"]
    after = draws.take(5).tolist()
    draws.seek(8)
    assert draws.take(5).tolist() == after


def test_the_first_values_are_the_specified_ones():
    np.testing.assert_allclose(signature_values(KEY, 0, 8), STREAM["values_at_0"], atol=6e-7)


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, 2**45), count=st.integers(0, 70))
def test_random_access_equals_contiguous(start, count):
    group = start // 8
    around = signature_values(KEY, 8 * group, start - 8 * group + count)
    assert np.array_equal(signature_values(KEY, start, count), around[start - 8 * group :])
    groups = np.arange(group, group + 10)[::-3]
    expected = np.concatenate([signature_values(KEY, 8 * int(g), 8) for g in groups])
    assert np.array_equal(look_up(scattered_indexes(KEY, counter_blocks(groups))), expected)


def test_the_table_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        gaussian_table()[0] = 0


def test_compiled_loops_fill_the_same_array(monkeypatch):
    indexes, calls = np.arange(0, 1 << 16, 7, dtype=np.uint16), []

    def fill(given, table, out):
        calls.append(len(given))
        out[:] = table[given]

    monkeypatch.setattr(signature.COMPILER, "_loops", SimpleNamespace(look_up=fill))
    assert np.array_equal(look_up(indexes), gaussian_table()[indexes])
    assert calls == [len(indexes)]


def test_values_may_be_written_to_a_given_array():
    out = np.empty(1001, np.float32)
    assert signature_values(KEY, 13, 1001, out) is out
    assert np.array_equal(out, signature_values(KEY, 8, 1006)[5:])
