"""Removing any unit moves the clipped sum by at most C(1 + 1e-5), whatever the batch; the batch-mean loss breaks it.

``STANCH_SENSITIVITY_BATCHES`` says how many batches; ``make nightly`` takes 10,000.
"""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stanch.data import TokenRecord
from stanch.tune.chunks import Row
from stanch.tune.gradient_torch import PrivateGradient
from stanch.tune.grid import grid_exponent, quantise
from stanch.tune.model_torch import CausalModel
from stanch.tune.models_torch import tiny_llama
from stanch.tune.noise import AesGaussian
from stanch.tune.spec import MethodSpec

from .engine_models import make_plan, norm_of

BATCHES = int(os.environ.get("STANCH_SENSITIVITY_BATCHES", "150"))
VOCABULARY = 40
PARTS = {"adapter": MethodSpec(rank=2, alpha=4), "all weights": MethodSpec(kind="full")}


def make_model(method: MethodSpec) -> CausalModel:
    model = CausalModel(tiny_llama(vocab=VOCABULARY, d=16, layers=1, heads=2, kv=1), method)
    generator = torch.Generator().manual_seed(5)
    model.adapter.initialise(generator)
    with torch.no_grad():
        for name, parameter in model.adapter.parameters().items():
            if name.endswith("lora_B.weight"):
                nn.init.normal_(parameter, 0, 0.3, generator=generator)
            if "embed" in name:
                # Large tied weights: both parts of their gradient count, and cancel or add.
                parameter.mul_(20)
    return model


MODELS = {name: make_model(method) for name, method in PARTS.items()}
lengths = st.one_of(st.integers(2, 6), st.integers(2, 40))


@st.composite
def records(draw) -> TokenRecord:
    """A record of random tokens, or of one token again and again, with few or many labels."""
    length = draw(lengths)
    tokens = draw(st.sampled_from([[5], [7, 8], list(range(VOCABULARY))]))
    seed = draw(st.integers(0, 999))
    ids = tuple(tokens[(seed * (n + 1) * 7919 + n * n) % len(tokens)] for n in range(length))
    return TokenRecord(f"{draw(st.integers(0, 2**60))}", ids, (draw(st.integers(1, length - 1)), length))


units = st.lists(st.lists(records(), min_size=1, max_size=3), min_size=2, max_size=6)
bounds = st.sampled_from([1e-4, 0.5, 3.0, 1e3])


def move(model, batch, gone, bound, *, budget=200) -> tuple[float, float]:
    """Return how far emptying one unit moves the sum, and the sum on the grid, in bounds."""
    plan = make_plan(model, max_grad_norm=bound)
    gradient = PrivateGradient(model, plan, AesGaussian(bytes(32)), budget=budget)
    exponent = grid_exponent(bound, plan.coordinates)
    rest = [[] if index == gone else unit for index, unit in enumerate(batch)]
    sums = [{name: part.clone() for name, part in gradient.sum_clipped(some).items()} for some in (batch, rest)]
    apart = {name: sums[0][name] - sums[1][name] for name in sums[0]}
    steps = {
        name: torch.from_numpy(quantise(sums[0][name].numpy(), exponent) - quantise(sums[1][name].numpy(), exponent))
        for name in apart
    }
    return norm_of(apart) / bound, norm_of(steps) * 2.0**exponent / bound


@pytest.mark.parametrize("part", PARTS)
@settings(max_examples=BATCHES, deadline=None)
@given(units, st.data(), bounds)
def test_removing_any_unit_moves_the_sum_by_at_most_the_bound(part, batch, data, bound):
    moved, on_grid = move(MODELS[part], batch, data.draw(st.integers(0, len(batch) - 1)), bound)
    assert moved <= 1 + 1e-5
    assert on_grid <= 1 + 2.0**-10


def test_a_part_of_a_joined_unit_moves_the_sum_by_more_than_the_bound_and_at_most_by_two():
    """What the statement says of joined units: the bound is that of a whole one."""
    model, bound = MODELS["adapter"], 1e-3
    gradient = PrivateGradient(model, make_plan(model, max_grad_norm=bound), AesGaussian(bytes(32)), budget=200)
    unit = [TokenRecord(f"r{n}", tuple((7 * n + k * k) % VOCABULARY for k in range(9)), (1, 9)) for n in range(8)]
    joined, rest = (
        {name: part.clone() for name, part in gradient.sum_clipped([one]).items()} for one in (unit, unit[:1])
    )
    assert bound < norm_of({name: part - rest[name] for name, part in joined.items()}) <= 2 * bound


@pytest.mark.parametrize("part", PARTS)
def test_the_same_harness_catches_the_batch_mean_loss(part, monkeypatch):
    """Libraries scale ``model.loss`` by the batch: a long record's removal changes what the short ones weigh."""
    model = MODELS[part]
    batch = [[TokenRecord(f"s{n}", (5, 6, 7, 8), (1, 4))] for n in range(30)]
    batch.append([TokenRecord("long", tuple(3 + n % 30 for n in range(400)), (1, 400))])
    bound = 1e3 * move(model, batch[:1], 0, 1e3)[0]
    assert move(model, batch, 30, bound)[0] <= 1 + 1e-5
    loss = model.loss

    def batch_mean(rows):
        labelled = sum(row.record.span[1] - row.record.span[0] for row in rows)
        return loss([Row(row.record, len(rows) / labelled) for row in rows])

    monkeypatch.setattr(model, "loss", batch_mean)
    assert move(model, batch, 30, bound, budget=10**6)[0] > 5
