"""The physical batch: a line through probes, what free memory allows, and the real thing where there is a GPU."""

import pytest
import torch

from stanch.tune.engine_torch import UnitGradients
from stanch.tune.model_torch import CausalModel
from stanch.tune.models_torch import tiny_llama
from stanch.tune.physical_torch import CPU_TOKENS, choose_budget, fit_budget
from stanch.tune.spec import MethodSpec

FULL = MethodSpec(kind="full")


@pytest.mark.parametrize(("fixed", "each", "free"), [(100, 10, 10_000), (0, 7, 500), (5000, 1, 10_000)])
def test_what_is_chosen_fits_and_half_more_would_not(fixed, each, free):
    probed = []

    def measure(rows):
        probed.append(rows)
        assert fixed + each * rows <= free
        return fixed + each * rows

    rows = fit_budget(measure, free, 16) // 16
    assert fixed + each * rows <= 0.85 * free < fixed + each * (rows + 1)
    assert probed == sorted(probed)


def test_one_row_is_always_tried_and_no_more_where_it_fills_memory():
    assert fit_budget(lambda _: 900, 1000, 30) == 30

    def none(_rows):
        raise torch.OutOfMemoryError("no room")

    assert fit_budget(none, 1000, 30) == 30


def test_probes_that_run_out_stop():
    def measure(rows):
        if rows > 2:
            raise torch.OutOfMemoryError("no room")
        return rows

    assert fit_budget(measure, 100, 10) == 85 * 10


def test_a_processor_has_a_default():
    model = CausalModel(tiny_llama(), FULL)
    assert choose_budget(model, UnitGradients({}, 1.0, "flat"), 30) == CPU_TOKENS


if torch.cuda.is_available():  # a GPU is no part that can be installed, so where there is none this is no test

    def test_a_gpu_is_probed():
        model = CausalModel(tiny_llama().to("cuda"), FULL)
        gradients = UnitGradients(model.adapter.parameters(), 1.0, "flat")
        model.adapter.collect(gradients)
        assert choose_budget(model, gradients, 64) > 64
        assert all(not total.any() for total in gradients.total.values())
