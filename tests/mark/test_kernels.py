import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

import numpy as np
import pytest
from mark_models import marked_rows, write_model

from stanch.errors import InvalidInput
from stanch.mark import (
    CopyKey,
    FeatureSet,
    Layout,
    LayoutEntry,
    Originals,
    Variant,
    extract,
    open_suspect,
    score,
)
from stanch.mark import kernels as kernels_module
from stanch.mark.embedding import RowBlock, row_scales
from stanch.mark.kernels import COMPILER, LANES, Compiler, Loops, compile_loops
from stanch.mark.scoring import correlate, draw_stratum, score_on
from stanch.mark.signature import gaussian_table, look_up
from stanch.terms import Digest
from stanch.weights import Tensor, from_float32, open_model

KEY = CopyKey("acme", 1, 0, 0.003, Digest.sha256(b""), bytes(32), bytes(range(32)), bytes(range(1, 33)))
SIZES = [(1, 1), (3, LANES - 1), (5, LANES), (7, LANES + 1), (2, 257), (3, 1000), (1, 5000), (64, 256)]
TYPES = ["BF16", "F16", "F32"]


@pytest.fixture(scope="module")
def loops():
    pytest.importorskip("numba")
    return compile_loops()


@pytest.fixture
def both(loops, monkeypatch):
    """Run an action in numpy and compiled, and return both results."""

    def run(action):
        results = []
        for way in (None, loops):
            monkeypatch.setattr(COMPILER, "_loops", way)
            monkeypatch.setattr(COMPILER, "_left", 1 << 62)
            results.append(action())
        return results

    return run


def weights_of(shape, seed):
    """Weights with zeros of both signs, denormals, and every magnitude that a plan takes."""
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal(shape, np.float32)
    kinds = generator.integers(0, 8, shape)
    weights[kinds == 0] = 0
    weights[kinds == 1] *= -0.0
    weights[kinds == 2] *= np.float32(1e-42)
    weights[kinds == 3] *= np.float32(1e-30)
    weights[kinds == 4] *= np.float32(300)
    return weights


def block_of(shape, dtype, offset=0, first=0):
    return RowBlock(LayoutEntry("w", dtype, shape, offset), first, shape[0] - first)


def same_bits(first, second):
    assert first.dtype == second.dtype
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SIZES)
def test_both_ways_mark_the_same_bytes(both, dtype, shape):
    raw = from_float32(weights_of(shape, 1), dtype)
    for offset, first in ((0, 0), (2**40, 0), (8, shape[0] - 1)):
        block = block_of(shape, dtype, offset, first)
        same_bits(*both(lambda block=block: marked_rows(raw[block.first :], block, 0.003, KEY)))


def test_every_bfloat16_is_marked_alike(both):
    numbers = np.arange(1 << 16, dtype=np.uint16)
    finite = numbers[(numbers & 0x7F80) != 0x7F80]
    for raw in (finite.reshape(8, -1), finite.reshape(-1, 1), finite.reshape(-1, 16)):
        with np.errstate(over="ignore"):  # The greatest may become infinite.
            same_bits(*both(lambda raw=raw: marked_rows(raw, block_of(raw.shape, "BF16"), 0.01, KEY)))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_both_ways_refuse_what_is_not_finite(both, dtype, bad):
    weights = weights_of((5, 70), 2)
    weights[3, 69] = bad
    raw = from_float32(weights, dtype)

    def refused():
        with pytest.raises(InvalidInput, match="finite"):
            marked_rows(raw, block_of(raw.shape, dtype), 0.003, KEY)

    both(refused)


@pytest.mark.parametrize("shape", SIZES)
def test_both_ways_sum_squares_in_one_order(both, shape):
    for seed in range(5):
        weights = weights_of(shape, seed) * np.float32(3e18 if seed == 4 else 1)
        same_bits(*both(lambda weights=weights: row_scales(weights)))
        same_bits(*both(lambda weights=weights: row_scales(weights[:, ::-1])))


def test_both_ways_look_up_the_same_values(both):
    indexes = np.arange(1 << 16, dtype=np.uint16)[::-1].copy()
    in_numpy, compiled = both(lambda: look_up(indexes))
    same_bits(in_numpy, compiled)
    same_bits(in_numpy, gaussian_table()[::-1].copy())


@pytest.mark.parametrize("count", [1, 8, LANES - 1, LANES, 257, 1000, 1 << 16])
def test_both_ways_correlate_the_same(both, count):
    generator = np.random.default_rng(count)
    indexes = generator.integers(0, 1 << 16, count, np.uint16)
    features = weights_of(count, count)
    in_numpy, compiled = both(lambda: correlate(features, indexes))
    assert in_numpy == compiled
    exact = float(np.dot(features.astype(np.float64), gaussian_table()[indexes].astype(np.float64)))
    assert in_numpy == pytest.approx(exact, abs=1e-6 * float(np.abs(features).sum()))


def test_both_ways_score_the_same_on_any_number_of_threads(both):
    layout = Layout((LayoutEntry("w", "F32", (300, 1000), 0),))
    features = FeatureSet(Variant.PLAIN, weights_of(300_000, 5), layout, ())
    streams = [bytes([number]) * 32 for number in range(20)]
    stratum = draw_stratum(bytes(32), 300_000, 100_000)
    for threads in (1, 3):
        same_bits(*both(lambda threads=threads: score(features, streams, threads=threads)))
        same_bits(*both(lambda threads=threads: score_on(features, streams, stratum, threads=threads)))


def prune(weights, generator):
    return np.where(generator.random(weights.shape) < 0.3, np.float32(0), weights)


def spoil(weights, generator):
    chosen = generator.integers(0, 9, weights.shape)
    return np.select([chosen == 0, chosen == 1, chosen == 2], [np.nan, np.inf, np.float32(1e20)], weights)


def shrink(weights, _generator):
    return weights * np.float32(1e-39)


@pytest.mark.parametrize("change", [lambda weights, _generator: weights, prune, spoil, shrink])
@pytest.mark.parametrize("variant", [Variant.PLAIN, Variant.PROJECTED, Variant.SPECTRAL, Variant.TANGENT])
def test_both_ways_make_the_same_features(both, full, tmp_path, variant, change):
    generator, changed = np.random.default_rng(6), {}
    for name, tensor in open_model(full.copy("r3")).items():
        values = change(tensor.to_float32(), generator).astype(np.float32)
        changed[name] = Tensor.from_float32(name, values, "F32")
    suspect = open_suspect(write_model(tmp_path / "suspect", changed))
    originals = Originals(full.original, full.base)
    in_numpy, compiled = both(lambda: extract(originals, suspect, variant, alpha=3e-3, threads=1))
    assert in_numpy.unmatched == compiled.unmatched
    same_bits(in_numpy.values, compiled.values)


@pytest.mark.parametrize("columns", [1, LANES + 1, 300, 4096])
@pytest.mark.parametrize("change", [lambda weights, _generator: weights, prune, spoil, shrink])
def test_both_ways_compare_bfloat16_alike(both, tmp_path, change, columns):
    original = Tensor.from_float32("w", weights_of((8192 // columns, columns), 7), "BF16")
    moved = original.to_float32() * (1 + np.float32(0.1) * weights_of(original.shape, 8))
    suspect = Tensor.from_float32("w", change(moved, np.random.default_rng(9)).astype(np.float32), "BF16")
    folders = [write_model(tmp_path / name, {"w": tensor}) for name, tensor in (("o", original), ("s", suspect))]
    opened, originals = open_suspect(folders[1]), Originals(folders[0])
    found = both(lambda: extract(originals, opened, Variant.PLAIN, alpha=3e-3).values)
    assert found[0].any()
    same_bits(*found)


def test_compiling_waits_until_it_is_worth_it_and_happens_once(monkeypatch):
    compiled = []
    made = Loops(*[print] * 8)
    monkeypatch.setattr(kernels_module, "compile_loops", lambda: compiled.append(1) or made)
    compiler = Compiler(100)
    assert [compiler.loops(50) for _ in range(4)] == [None, None, made, made]
    assert len(compiled) == 1


def test_while_one_thread_compiles_the_others_go_on_in_numpy(monkeypatch):
    started, go_on = threading.Event(), threading.Event()
    made = Loops(*[print] * 8)

    def compile_slowly():
        started.set()
        assert go_on.wait(60)
        return made

    monkeypatch.setattr(kernels_module, "compile_loops", compile_slowly)
    compiler = Compiler(0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(compiler.loops, 1)
        assert started.wait(60)
        assert compiler.loops(1) is None
        go_on.set()
        assert first.result() is made
    assert compiler.loops(1) is made


def test_without_numba_numpy_goes_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert compile_loops() is None
    compiler = Compiler(0)
    assert [compiler.loops(1), compiler.loops(1)] == [None, None]


def test_nothing_compiled_is_kept_on_a_disk(loops):
    for loop in astuple(loops):
        assert type(loop._cache).__name__ == "NullCache"


def test_numba_is_not_imported_before_it_is_worth_it():
    program = (
        "import sys, stanch.mark.scoring, stanch.mark.embedding as e; "
        "e.row_scales(e.np.ones((4, 4), 'f4')); sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
