"""All weights of a model: clipped sums of many families against one record at a time, and what is refused."""

from dataclasses import replace

import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional

from stanch.errors import InvalidInput
from stanch.tune import tune, verify_run
from stanch.tune.bookkeeping_torch import FullWeights
from stanch.tune.captures_torch import Captured, Grams
from stanch.tune.engine_torch import UnitGradients
from stanch.tune.gradient_torch import PlainGradient, PrivateGradient
from stanch.tune.model_torch import CausalModel
from stanch.tune.models_torch import tiny_llama
from stanch.tune.noise import AesGaussian
from stanch.tune.refusals import BatchAxisLost, UncoveredParameter, UnsupportedModule
from stanch.tune.spec import MethodSpec

from .engine_models import (
    BOUND,
    FAMILIES,
    VOCABULARY,
    distance,
    make_net,
    make_plan,
    make_units,
    norm_of,
    reference_sum,
    summed,
)

FULL = MethodSpec(kind="full")
LORA = MethodSpec(rank=2, alpha=4)
UNITS = make_units([9], [12, 20], [5, 6, 7, 8], [30], [4, 31], [3], [12])


def full_llama(**shape) -> CausalModel:
    return CausalModel(tiny_llama(vocab=VOCABULARY, d=16, heads=2, kv=1, **shape), FULL)


@pytest.mark.parametrize("family", FAMILIES)
def test_full_sums_equal_one_record_at_a_time(family):
    net = make_net(family)
    model = CausalModel(net, FULL)
    parameters = model.adapter.parameters()
    assert {id(p) for p in parameters.values()} == {id(p) for p in net.parameters()}
    expected = reference_sum(net, parameters, UNITS)
    assert distance(summed(model, UNITS), expected) < 1e-5
    model.checkpoint_layers()
    assert distance(summed(model, UNITS, budget=40), expected) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_adapter_sums_equal_one_record_at_a_time(family):
    model = CausalModel(make_net(family), LORA)
    generator = torch.Generator().manual_seed(5)
    model.adapter.initialise(generator)
    for layer in model.adapter.layers:
        nn.init.normal_(layer.up, 0, 0.1, generator=generator)
    names = [layer.name for layer in model.adapter.layers]
    config = LoraConfig(r=2, lora_alpha=4, target_modules=names, fan_in_fan_out=model.adapter.layers[0].transposed)
    peer = get_peft_model(make_net(family), config)
    parameters = {
        name.removeprefix("base_model.model.").replace(".default", ""): parameter
        for name, parameter in peer.named_parameters()
        if parameter.requires_grad
    }
    assert parameters.keys() == model.adapter.parameters().keys()
    with torch.no_grad():
        for name, parameter in model.adapter.parameters().items():
            parameters[name].copy_(parameter)
    expected = reference_sum(peer, parameters, UNITS)
    assert distance(summed(model, UNITS), expected) < 1e-5
    model.checkpoint_layers()
    assert distance(summed(model, UNITS, budget=40), expected) < 1e-5


def test_tied_weights_are_the_published_ones():
    """One unit: E² 21, H² 20.5, ⟨E, H⟩ -6, total 29.5; the guard adds 2^-17 of 21 + 20.5 + 12 and more."""
    ge = torch.tensor([[[1.0, 0], [0, 2], [3, -1]]])
    h = torch.tensor([[[1.0, 2], [0, 1], [-1, 1]]])
    gl = torch.tensor([[[0.5, 0, -0.5], [1, -1, 0], [0, 2, -2]]])
    rows, pair = (torch.tensor([[0, 2, 0]]), ge), (gl, h)
    assert float(Captured(rows=[rows]).square_norms(Grams())) == pytest.approx(21, rel=2e-5)
    assert float(Captured(pairs=[pair]).square_norms(Grams())) == pytest.approx(20.5, rel=5e-5)
    tied = Captured(pairs=[pair], rows=[rows])
    assert 29.5 < float(tied.square_norms(Grams())) < 29.5 * (1 + 1e-4)
    total = tied.clipped_sum(torch.ones(1), None, torch.Size([3, 2]))
    assert total.tolist() == [[4.5, 1], [-2, 1], [1.5, -1]]
    both = Captured(dense=torch.zeros(1, 3, 2), pairs=[pair], rows=[rows])
    both.join(torch.Size([3, 2]))
    assert both.dense is not None
    assert both.dense[0].tolist() == total.tolist()


@pytest.mark.parametrize("places", [31, 32, 33, 64, 127, 150, 400])
def test_norms_of_long_rows_are_those_of_the_products(places):
    generator = torch.Generator().manual_seed(places)
    left, right = torch.randn(3, places, 6, generator=generator), torch.randn(3, places, 4, generator=generator)
    true = torch.bmm(left.transpose(1, 2).double(), right.double()).square().sum((1, 2))
    found = Captured(pairs=[(left, right)]).square_norms(Grams())
    assert torch.allclose(found, true, rtol=1e-3)
    assert (found >= true * (1 - 1e-6)).all()


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 12), st.booleans())
def test_every_form_has_the_norm_and_the_sum_of_the_dense_one(seed, units, places, repeated):
    generator = torch.Generator().manual_seed(seed)
    left, right, g = (torch.randn(units, places, n, generator=generator) for n in (7, 5, 5))
    ids = torch.randint(0, 7, (units, places), generator=generator)
    found = Captured(pairs=[(left, right)] * (1 + repeated), rows=[(ids, g)])
    dense = torch.bmm(left.transpose(1, 2), right) * (1 + repeated)
    dense = dense.scatter_add(1, ids[..., None].expand_as(g), g).double()
    found.join(torch.Size([7, 5]))
    norms = found.square_norms(Grams())
    size = left.square().sum() * right.square().sum() * 4 + g.square().sum() * places
    assert (norms - dense.square().sum((1, 2))).min() >= -1e-9 * size
    assert (norms - dense.square().sum((1, 2))).max() <= 1e-3 * size
    factors = torch.rand(units, generator=generator)
    total = found.clipped_sum(factors, None, torch.Size([7, 5]))
    assert torch.allclose(total.double(), (factors[:, None, None] * dense).sum(0), atol=1e-4)


def test_a_missing_cross_term_is_caught(monkeypatch):
    """Planted: E² + H² alone is too small wherever the two parts of a tied weight point the same way."""
    model = full_llama()
    with torch.no_grad():
        model.head.weight.mul_(20)
    expected = reference_sum(model.model, model.adapter.parameters(), UNITS)
    assert distance(summed(model, UNITS), expected) < 1e-5
    monkeypatch.setattr("stanch.tune.captures_torch._cross_terms", lambda ids, *_: (torch.zeros(len(ids)),) * 2)
    short = make_units([5], [6], [7])
    assert distance(summed(model, short), reference_sum(model.model, model.adapter.parameters(), short)) > 1e-5


def used_twice() -> CausalModel:
    model = full_llama()
    model.body.layers[1].mlp = model.body.layers[0].mlp
    model.body.layers[1].input_layernorm = model.body.layers[0].input_layernorm
    return CausalModel(model.model, FULL)


@pytest.mark.parametrize("width", [16, 80])
def test_a_module_used_twice_adds_before_the_norm(width):
    """With 80 channels its captures stay pairs, with 16 they are multiplied."""
    net = tiny_llama(vocab=VOCABULARY, d=width, heads=2, kv=1)
    net.model.layers[1].mlp = net.model.layers[0].mlp
    net.model.layers[1].input_layernorm = net.model.layers[0].input_layernorm
    model = CausalModel(net, FULL)
    expected = reference_sum(net, model.adapter.parameters(), UNITS)
    assert distance(summed(model, UNITS), expected) < 1e-5


def test_summed_parts_of_a_repeated_module_are_caught(monkeypatch):
    """Planted: the squared norms of the parts are added."""
    model = used_twice()

    def apart(self, gradient):
        self.dense = gradient if self.dense is None else torch.cat([self.dense, gradient], dim=-1)

    parameters = model.adapter.parameters()
    expected = reference_sum(model.model, parameters, UNITS)
    assert distance(summed(model, UNITS), expected) < 1e-5
    true, found = Captured(), Captured()
    for captured in (true, found):
        if captured is found:
            monkeypatch.setattr(Captured, "add_dense", apart)
        captured.add_dense(torch.ones(1, 2, 2))
        captured.add_dense(torch.ones(1, 2, 2))
    assert float(found.square_norms(Grams())) < float(true.square_norms(Grams())) * 0.6


def test_a_silently_frozen_norm_is_caught(monkeypatch):
    """Planted: a norm that keeps its weight to itself."""
    model = full_llama()
    monkeypatch.setattr("stanch.tune.bookkeeping_torch._spread", lambda vector, *_: vector.detach())
    with pytest.raises(UncoveredParameter, match="5 trainable parameters have no gradient"):
        summed(model, UNITS)


def test_a_weight_that_is_used_outside_its_module_is_caught():
    model = full_llama()
    loss = model.loss
    model.loss = lambda rows: loss(rows) + model.body.norm.weight.sum()
    with pytest.raises(UncoveredParameter, match=r"outside their modules, among them \['model.norm.weight'\]"):
        summed(model, UNITS)


def test_clipping_a_whole_chunk_is_caught():
    """Planted: per-batch clipping moves by far less than the sum of units, and depends on the others."""
    model = full_llama()
    ours = summed(model, UNITS, max_grad_norm=1e-3)
    parameters = model.adapter.parameters()
    whole = reference_sum(model.model, parameters, UNITS, bound=1e9)
    per_batch = {name: part * (1e-3 / norm_of(whole)) for name, part in whole.items()}
    assert distance(ours, reference_sum(model.model, parameters, UNITS, bound=1e-3)) < 1e-5
    assert distance(per_batch, ours) > 0.1


def test_a_unit_with_nan_counts_as_zero():
    model = full_llama()
    plain = summed(model, UNITS[1:])
    loss = model.loss
    model.loss = lambda rows: loss(
        [replace(row, weight=float("nan")) if row.record.id == "0.0" else row for row in rows]
    )
    found = summed(model, UNITS)
    assert all(torch.isfinite(part).all() for part in found.values())
    assert distance(found, plain) < 1e-6


def test_the_engine_lets_go():
    """After a private run, ordinary autograd gives the same as a model that never had one."""
    model = full_llama()
    summed(model, UNITS)
    plain = PlainGradient(model, 8, budget=64)
    plain.fill(0, UNITS)
    ours = {name: parameter.grad.clone() for name, parameter in model.adapter.parameters().items()}
    expected = reference_sum(model.model, model.adapter.parameters(), UNITS, bound=1e9)
    assert distance(ours, {name: part / 8 for name, part in expected.items()}) < 1e-5


def test_each_unit_stays_within_the_bound_under_autocast():
    model = CausalModel(tiny_llama(vocab=VOCABULARY, d=16, heads=2, kv=1), FULL, autocast=torch.bfloat16)
    for unit in UNITS:
        assert norm_of(summed(model, [unit])) <= BOUND * (1 + 1e-6)
    assert distance(summed(model, UNITS), summed(full_llama(), UNITS)) < 0.05


def test_memory_that_runs_out_halves_the_chunk(monkeypatch):
    model = full_llama()
    gradient = PrivateGradient(model, make_plan(model), AesGaussian(bytes(32)), budget=4096)
    expected = {name: part.clone() for name, part in gradient.sum_clipped(UNITS).items()}
    loss, passes = model.loss, []

    def narrow(rows):
        passes.append(len(rows))
        value = loss(rows)
        if len(rows) > 2:
            value.backward()
            raise torch.OutOfMemoryError("no room")
        return value

    monkeypatch.setattr(model, "loss", narrow)
    assert distance(gradient.sum_clipped(UNITS), expected) < 1e-6
    first = len(passes)
    gradient.sum_clipped(UNITS)
    assert max(passes[first:]) <= 2

    def none(_rows):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(model, "loss", none)
    with pytest.raises(torch.OutOfMemoryError):
        gradient.sum_clipped(UNITS)


@pytest.mark.parametrize("method", [FULL, LORA], ids=["full", "lora"])
def test_memory_that_runs_out_between_two_parameters_counts_nobody_twice(monkeypatch, method):
    model = CausalModel(tiny_llama(vocab=VOCABULARY, d=16, heads=2, kv=1), method)
    if method is LORA:
        model.adapter.initialise(torch.Generator().manual_seed(5))
    gradient = PrivateGradient(model, make_plan(model), AesGaussian(bytes(32)), budget=4096)
    expected = {name: part.clone() for name, part in gradient.sum_clipped(UNITS).items()}
    loss, clipped_sum, calls = gradient.mean_loss, Captured.clipped_sum, []

    def narrow(self, *given):
        calls.append(self)
        # The second chunk's last parameter: one chunk is whole by then, the others of this one are added.
        if len(calls) == 2 * len(expected):
            raise torch.OutOfMemoryError("no room")
        return clipped_sum(self, *given)

    monkeypatch.setattr(Captured, "clipped_sum", narrow)
    assert distance(gradient.sum_clipped(UNITS), expected) < 1e-6
    assert gradient.mean_loss == pytest.approx(loss)
    assert len(calls) > 3 * len(expected)


def test_norms_and_sums_are_multiplied_in_float32_whatever_was_chosen(monkeypatch):
    kinds = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    seen = []
    for name in ("join", "square_norms", "clipped_sum"):
        real = getattr(Captured, name)

        def watched(self, *given, real=real):
            seen.append({kind.fp32_precision for kind in kinds})
            return real(self, *given)

        monkeypatch.setattr(Captured, name, watched)
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind, chosen in zip(kinds, ("tf32", "bf16"), strict=True):
            kind.fp32_precision = chosen
        summed(full_llama(), UNITS)
        assert [kind.fp32_precision for kind in kinds] == ["tf32", "bf16"]
    finally:
        for kind, chosen in zip(kinds, before, strict=True):
            kind.fp32_precision = chosen
    assert seen
    assert all(found == {"ieee"} for found in seen)


def test_a_masked_language_model_by_its_own_loop():
    """BERT: learned positions, token types and a tied decoder with a bias; rows of one length, losses per record."""
    config = hf.BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = hf.BertForMaskedLM(config).eval()
    weights = FullWeights(net)
    ids = torch.randint(5, 60, (4, 9), generator=torch.Generator().manual_seed(1))
    ids[0, 6:] = 0

    def losses(rows):
        given = {"input_ids": rows, "attention_mask": rows.ne(0), "position_ids": torch.arange(9).expand_as(rows)}
        logits = net(**given).logits
        return functional.cross_entropy(logits[:, :4].flatten(0, 1), rows[:, :4].flatten(), reduction="none")

    parameters = weights.parameters()
    expected = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in parameters.items()}
    for row in ids:
        parts = dict(
            zip(parameters, torch.autograd.grad(losses(row[None]).sum(), list(parameters.values())), strict=True)
        )
        factor = min(1.0, BOUND / norm_of(parts))
        for name, part in parts.items():
            expected[name] += factor * part
    gradients = UnitGradients(parameters, BOUND, "flat")
    weights.collect(gradients)
    gradients.expect(4, 4)
    losses(ids).sum().backward()
    gradients.add_clipped()
    assert distance(gradients.total, expected) < 1e-5
    weights.collect(None)
    gradients.reset()
    weights.collect(gradients)
    gradients.expect(4, 4)
    with pytest.raises(BatchAxisLost, match="position_embeddings"):
        net(input_ids=ids).logits.sum().backward()


def test_what_is_not_covered_is_refused_by_name():
    sizes = {
        "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 2, "pad_token_id": 0,
    }  # fmt: skip
    with pytest.raises(UnsupportedModule, match=r"layers\.0\.mlp\.gate: MixtralTopKRouter"):
        CausalModel(hf.MixtralForCausalLM(hf.MixtralConfig(**sizes)), FULL)
    with pytest.raises(UnsupportedModule, match="0: Conv1d"):
        FullWeights(nn.Sequential(nn.Conv1d(2, 2, 1)))
    with pytest.raises(UnsupportedModule, match="Embedding"):
        FullWeights(nn.Sequential(nn.Embedding(4, 2, max_norm=1.0)))
    with pytest.raises(UnsupportedModule, match="BertLMHeadModel"):
        CausalModel(hf.BertLMHeadModel(hf.BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1,
                    num_attention_heads=2, intermediate_size=24, is_decoder=True)), FULL)  # fmt: skip
    with pytest.raises(InvalidInput, match="float32"):
        CausalModel(tiny_llama().to(torch.bfloat16), FULL)


def test_a_norm_that_mixes_rows_is_refused():
    class OddRMSNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return x * self.weight.mean()

    weights = FullWeights(nn.Sequential(OddRMSNorm()))
    with pytest.raises(UnsupportedModule, match="OddRMSNorm"):
        weights.collect(UnitGradients(weights.parameters(), BOUND, "flat"))


def test_a_whole_run_tunes_all_weights(make_spec, chats):
    """From spec to a verified statement; the output is a model of its own, reloaded and compared at the end."""
    train = 'steps = 4\nbatch = 8\ndtype = "float32"\ncheckpoint_every = 0\ngradient_checkpointing = true'
    tuned = tune(make_spec(method='kind = "full"', privacy="epsilon = 1.0", train=train), dataset=chats)
    verified = verify_run(tuned.path)
    assert verified.plan is not None
    assert verified.plan.method == "full"
    assert (tuned.path / "model.safetensors").is_file()
    assert not (tuned.path / "adapter_config.json").exists()
