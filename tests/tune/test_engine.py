"""Clipped sums against an independent oracle: PEFT's own layers, one record at a time, ordinary autograd."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.nn import functional

from stanch.data import TokenRecord
from stanch.tune.chunks import cut_chunks
from stanch.tune.engine_torch import UnitGradients
from stanch.tune.model_torch import CausalModel
from stanch.tune.models_torch import tiny_llama
from stanch.tune.refusals import BatchAxisLost, UncoveredParameter
from stanch.tune.spec import MethodSpec

from .engine_models import BOUND, VOCABULARY, distance, make_units, norm_of, summed

METHOD = MethodSpec(rank=3, alpha=6)


def make_model(*, method=METHOD, layers=2, dtype=torch.float32, seed=0) -> CausalModel:
    model = CausalModel(tiny_llama(vocab=VOCABULARY, d=32, layers=layers, seed=seed).to(dtype), method)
    generator = torch.Generator().manual_seed(5)
    model.adapter.initialise(generator)
    with torch.no_grad():
        for layer in model.adapter.layers:
            layer.up.normal_(0, 0.1, generator=generator)
    return model


class Oracle:
    """The same model in PEFT's hands."""

    def __init__(self, model: CausalModel, **shape):
        names = [layer.name for layer in model.adapter.layers]
        config = LoraConfig(r=METHOD.rank, lora_alpha=METHOD.alpha, target_modules=names)
        self.net = get_peft_model(tiny_llama(vocab=VOCABULARY, d=32, **shape), config)
        self.parameters = {
            name.removeprefix("base_model.model.").replace(".default", ""): parameter
            for name, parameter in self.net.named_parameters()
            if parameter.requires_grad
        }
        assert sorted(self.parameters) == list(model.adapter.parameters())
        with torch.no_grad():
            for name, parameter in model.adapter.parameters().items():
                self.parameters[name].copy_(parameter)

    def unit_gradient(self, unit) -> dict[str, torch.Tensor]:
        self.net.zero_grad()
        for record in unit:
            ids = torch.tensor([record.ids])
            logits = self.net(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
            a, b = record.span
            (functional.cross_entropy(logits[a - 1 : b - 1], ids[0, a:b]) / len(unit)).backward()
        return {name: p.grad.double().clone() for name, p in self.parameters.items()}

    def clipped_sum(self, units, clip=lambda norm: min(1.0, BOUND / norm)) -> dict[str, torch.Tensor]:
        total = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in self.parameters.items()}
        for unit in units:
            gradient = self.unit_gradient(unit)
            factor = clip(norm_of(gradient))
            for name, part in gradient.items():
                total[name] += factor * part
        return total


SHAPES = {
    "one record each": make_units([12], [7], [30], [12]),
    "three records each": make_units([9, 12, 20], [5, 5, 5], [11, 30, 6]),
    "ragged": make_units([9], [12, 20], [5, 6, 7, 8], [30], [4, 31]),
    "one unit": make_units([17]),
    "one labelled token": [[TokenRecord("x", (5, 6, 7), (2, 3))], [TokenRecord("y", (5, 6), (1, 2))]],
}


@pytest.mark.parametrize("budget", [4096, 64, 20])
@pytest.mark.parametrize("units", SHAPES.values(), ids=SHAPES)
def test_clipped_sum_equals_one_unit_at_a_time(units, budget):
    model = make_model()
    assert distance(summed(model, units, budget=budget), Oracle(model).clipped_sum(units)) < 1e-5


def test_the_bound_clips_some_units_here():
    """Otherwise the tests above would not see clipping."""
    oracle = Oracle(make_model())
    norms = [norm_of(oracle.unit_gradient(unit)) for unit in SHAPES["one record each"]]
    assert min(norms) < BOUND < max(norms)


def test_automatic_clipping():
    model, units = make_model(), SHAPES["ragged"]
    expected = Oracle(model).clipped_sum(units, clip=lambda norm: BOUND / (norm + 0.01))
    assert distance(summed(model, units, clipping="automatic"), expected) < 1e-5


def test_only_the_last_layers():
    method = MethodSpec(rank=3, alpha=6, layers=(2, 3), targets=("q_proj", "down_proj"))
    model = make_model(method=method, layers=4)
    assert model._prefix is not None
    units = SHAPES["ragged"]
    expected = Oracle(model, layers=4).clipped_sum(units)
    for budget in (4096, 64):
        assert distance(summed(model, units, budget=budget), expected) < 1e-5


def test_a_module_used_twice_adds_before_the_norm():
    model = make_model()
    body, oracle = model.body, Oracle(model)
    inner = oracle.net.base_model.model.model
    for one in (body, inner):
        one.layers[1] = one.layers[0]
    names = [name for name in model.adapter.parameters() if ".layers.0." in name]
    model.adapter = replace(model.adapter, layers=tuple(x for x in model.adapter.layers if ".layers.0." in x.name))
    oracle.parameters = {name: oracle.parameters[name] for name in names}
    units = SHAPES["ragged"]
    assert distance(summed(model, units), oracle.clipped_sum(units)) < 1e-5


def test_a_unit_with_nan_counts_as_zero():
    units = SHAPES["one record each"]
    model = make_model()
    plain = summed(model, units[1:])
    loss = model.loss

    def poisoned(rows):
        rows = [replace(row, weight=float("nan")) if row.record.id == "0.0" else row for row in rows]
        return loss(rows)

    model.loss = poisoned
    found = summed(model, units)
    assert all(torch.isfinite(part).all() for part in found.values())
    assert distance(found, plain) < 1e-6


def test_no_units_give_zero():
    assert norm_of(summed(make_model(), [])) == 0
    assert norm_of(summed(make_model(), [[], []])) == 0


def test_each_unit_stays_within_the_bound_in_bfloat16():
    model = make_model(dtype=torch.bfloat16)
    for unit in SHAPES["ragged"]:
        assert norm_of(summed(model, [unit])) <= BOUND * (1 + 1e-6)


def test_bfloat16_is_near_float32():
    units = SHAPES["ragged"]
    assert distance(summed(make_model(dtype=torch.bfloat16), units), summed(make_model(), units)) < 0.05


record_lengths = st.lists(st.lists(st.integers(2, 40), min_size=1, max_size=3), min_size=2, max_size=6)


def test_a_lost_batch_axis_is_seen():
    model = make_model()
    layer = model.adapter.layers[0]
    forward = layer.forward
    layer.forward = lambda x: forward(x.reshape(1, -1, x.shape[-1])).reshape(*x.shape[:-1], -1)
    with pytest.raises(BatchAxisLost, match=r"layers\.0"):
        summed(model, make_units([5], [5]))


def test_an_unused_parameter_is_seen():
    model = make_model()
    model.adapter.layers[0].forward = lambda x: functional.linear(x, model.adapter.layers[0].weight)
    with pytest.raises(UncoveredParameter, match="2 trainable parameters"):
        summed(model, make_units([5], [5]))


def test_the_order_of_units_and_chunks_does_not_matter():
    model, units = make_model(), SHAPES["ragged"]
    assert distance(summed(model, units), summed(model, units[::-1], budget=40)) < 1e-6


def test_passes_of_a_chunk_hold_the_same_units():
    gradients = UnitGradients({}, BOUND, "flat")
    gradients.expect(2, 4)
    gradients.store("a", torch.zeros(2, 1))
    with pytest.raises(BatchAxisLost):
        gradients.expect(3, 3)


@given(record_lengths, st.integers(1, 200))
def test_chunks_hold_every_record_once_within_the_budget(lengths, budget):
    units = make_units(*lengths)
    chunks = list(cut_chunks([*units, []], budget))
    rows = [row for chunk in chunks for one in chunk.passes for row in one]
    assert sorted(row.record.id for row in rows) == sorted(record.id for unit in units for record in unit)
    assert sum(chunk.units for chunk in chunks) == len(units)
    for chunk in chunks:
        for one in chunk.passes:
            assert len(one) == 1 or len(one) * max(len(row.record.ids) for row in one) <= budget
            assert chunk.units == 1 or len({row.record.id.partition(".")[0] for row in one}) == chunk.units
    for unit in units:
        weights = [row.weight * (row.record.span[1] - row.record.span[0]) for row in rows if row.record in unit]
        assert sum(weights) == pytest.approx(1)
