"""The short size of ``benchmarks/bench_trace_innocents.py``: no innocent accused beyond the bound, on any residual."""

import importlib.util
from pathlib import Path

import pytest

from stanch.mark.signature import signature_values


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).parents[2] / "benchmarks" / "bench_trace_innocents.py"
    spec = importlib.util.spec_from_file_location("bench_trace_innocents", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_innocent_suspects_are_accused_no_more_often_than_stated(bench):
    found = bench.run_suspects(bench.SIZES["short"][0])
    assert found["holds"], found


def test_decoys_stay_under_the_bound_on_every_residual(bench):
    for found in bench.run_decoys(bench.SIZES["short"][1]):
        assert found["holds"], found
        assert abs(found["sd"] - 1) < 0.03


def test_the_check_can_fail(bench):
    """A suspect that holds a key's own values is accused, so that a count of 0 means something."""
    key = bench.streams([9], 1)
    assert bench.accuse(signature_values(key[0], 0, bench.COORDINATES), key, bench.threshold(32, 2, 0.05)) == 1
