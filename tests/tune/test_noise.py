"""Noise on the grid: golden values, and the normal law (false alarm at most 1e-6 a test)."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, kstest, norm

from stanch.tune.boxmuller import Compiler, add_normals, compile_loop
from stanch.tune.grid import grid_exponent, quantise, release_into
from stanch.tune.noise import AesGaussian
from stanch.tune.sampler import StreamKeys, stream_words

from .engine_models import integers

GOLDEN = json.loads((Path(__file__).parents[1] / "vectors/tune/streams.json").read_text())
KEY = StreamKeys.fresh(lambda _: bytes.fromhex(GOLDEN["root"])).noise
COUNT = 100_000
FINE = 2.0**40
"""A scale that leaves the values themselves."""
# Two-sided quantile of the normal law for a false alarm of 1e-6.
FAR = norm.ppf(1 - 5e-7)


def normals(step, parameter, count, key=KEY) -> np.ndarray:
    return integers(AesGaussian(key), step, parameter, count, FINE) / FINE


@pytest.fixture(scope="module")
def loop():
    pytest.importorskip("numba")
    return compile_loop()


@pytest.fixture(params=["torch", "compiled"])
def way(request, monkeypatch):
    """Each way in which pairs are made."""
    compiler = Compiler(1 << 62)
    if request.param == "compiled":
        compiler._loop = request.getfixturevalue("loop")
    monkeypatch.setattr("stanch.tune.boxmuller.COMPILER", compiler)


def drawn(words):
    values = np.zeros(len(words))
    add_normals(words.copy(), values, 1.0, np.empty(len(words)))
    return values


def test_the_compiled_loop_makes_what_torch_makes(loop, monkeypatch):
    words = np.random.default_rng(7).integers(0, 2**64, 1 << 17, dtype=np.uint64)
    corners = [0, 1 << 12, (1 << 63) - 1, 1 << 63, 0x5A827999FCEF3242, 0xB504F333F9DE6484, (1 << 62) - 1, 2**64 - 1]
    words[:8] = words[1 << 16 : (1 << 16) + 8] = corners
    words[8:16], words[(1 << 16) + 8 : (1 << 16) + 16] = corners, corners[::-1]
    expected = drawn(words)
    monkeypatch.setattr("stanch.tune.boxmuller.COMPILER", compiler := Compiler(1 << 62))
    compiler._loop = loop
    cosines, sines = drawn(words).reshape(2, -1)
    radius = np.hypot(cosines, sines)
    for found, other in zip((cosines, sines), expected.reshape(2, -1), strict=True):
        assert (np.abs(found - other) < radius * 2.0**-49).all()


def test_it_compiles_once_it_is_worth_it():
    pytest.importorskip("numba")
    compiler = Compiler(100)
    assert compiler.loop(100) is None
    assert compiler.loop(1) is not None


@pytest.mark.usefixtures("way")
def test_one_draw_is_the_published_one():
    assert drawn(stream_words(KEY, 0, 0, 4)) == pytest.approx(GOLDEN["one_draw"], abs=1e-8)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("step", "parameter", "values"), GOLDEN["two_draws"])
def test_two_draws_are_the_published_ones(step, parameter, values):
    assert normals(step, parameter, 4) == pytest.approx(values, abs=1e-8)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("block", "threads", "count"), [(64, 1, 1001), (64, 3, 1000), (63, 2, 999), (1 << 15, 3, 200_001)]
)
def test_neither_blocks_nor_threads_change_the_noise(monkeypatch, block, threads, count):
    monkeypatch.setattr("stanch.tune.noise._BLOCK", 1 << 20)
    expected = normals(5, 2, count).tolist()
    monkeypatch.setattr("stanch.tune.noise._BLOCK", block)
    monkeypatch.setattr("stanch.tune.noise._threads", lambda: threads)
    assert normals(5, 2, count).tolist() == expected


@pytest.mark.usefixtures("way")
def test_integers_are_the_published_ones():
    case = GOLDEN["integers"]
    exponent = grid_exponent(case["max_grad_norm"], case["coordinates"])
    assert exponent == case["exponent"]
    scale = case["noise_multiplier"] * case["max_grad_norm"] * (1 + 2**-10) / 2.0**exponent
    assert integers(AesGaussian(KEY), 0, 0, 4, scale).tolist() == case["values"]


@pytest.mark.parametrize(("bound", "coordinates", "exponent"), GOLDEN["exponents"])
def test_grid_exponents_are_the_published_ones(bound, coordinates, exponent):
    assert grid_exponent(bound, coordinates) == exponent


@pytest.mark.usefixtures("way")
def test_an_odd_count_is_a_cut_of_the_even_one():
    assert normals(3, 1, 7).tolist() == normals(3, 1, 8)[:7].tolist()
    assert len(normals(3, 1, 0)) == 0


@pytest.mark.usefixtures("way")
def test_the_law_is_normal():
    values = normals(0, 0, COUNT)
    assert kstest(values, "norm").pvalue > 1e-6
    assert abs(values.mean()) * math.sqrt(COUNT) < FAR
    low, high = chi2.ppf([5e-7, 1 - 5e-7], COUNT)
    assert low < (values**2).sum() < high


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("lag", [1, 2, COUNT // 2, COUNT // 2 - 1])
def test_values_do_not_depend_on_each_other(lag):
    values = normals(0, 0, COUNT)
    product = values[lag:] * values[:-lag]
    assert abs(product.sum()) < FAR * math.sqrt(len(product)) * 1.01


def test_steps_parameters_and_processes_do_not_depend_on_each_other():
    one = normals(0, 0, COUNT)
    others = [
        normals(1, 0, COUNT),
        normals(0, 1, COUNT),
        normals(0, 0, COUNT, StreamKeys.fresh(lambda _: bytes(32)).noise),
    ]
    for other in others:
        assert abs((one * other).sum()) < FAR * math.sqrt(COUNT) * 1.01


@pytest.mark.usefixtures("way")
def test_extremes_of_the_uniform_are_finite():
    words = np.array([0, 2**64 - 1, 0, 2**64 - 1], dtype=np.uint64)
    assert np.isfinite(drawn(words)).all()


@given(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=20))
def test_quantisation_moves_by_half_a_step_at_most(values):
    exponent = -14
    rounded = np.ldexp(quantise(np.array(values), exponent).astype(float), exponent)
    assert np.abs(rounded - values).max() <= 2.0 ** (exponent - 1)


def test_released_values_are_integers_on_the_grid():
    whole = np.array([-5890.0, 3, 0])
    released = np.empty(3, dtype=np.float32)
    release_into(released, whole, -14, 8)
    assert (released.astype(float) * 8 * 2**14).tolist() == [-5890, 3, 0]
