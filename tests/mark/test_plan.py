import json
import shutil

import numpy as np
import pytest
from mark_models import LAYERS, make_adapter, make_model, treat, write_model

from stanch.errors import InvalidInput
from stanch.mark import MarkParams, plan_mark
from stanch.terms import Digest
from stanch.weights import Tensor, directory_digest, open_adapter, open_model


def linear(name="layer.weight", shape=(128, 128), *, value=None):
    weights = np.random.default_rng(5).normal(size=shape).astype(np.float32) if value is None else value
    return Tensor.from_float32(name, weights)


def model(folder, *tensors):
    return write_model(folder, {tensor.name: tensor for tensor in tensors})


def test_a_model_is_planned_with_ties_and_without_small_or_flat_tensors(tmp_path):
    folder = make_model(tmp_path / "m", 1)
    plan = plan_mark(folder)
    names = plan.layout.by_name
    assert plan.kind == "full"
    assert names["lm_head.weight"] is names["model.embed_tokens.weight"]
    assert "model.norm.weight" not in names
    assert plan.layout.coordinates == LAYERS * (128 * 128 + 2 * 256 * 128) + 200 * 128
    assert plan.original == directory_digest(folder).root
    assert plan_mark(folder) == plan


def test_an_adapter_is_planned_by_its_factors(lora):
    plan = plan_mark(lora.original)
    assert (plan.kind, plan.alpha) == ("adapter", 2e-2)
    assert len(plan.layout.entries) == 6 * LAYERS
    assert all("lora_" in entry.name for entry in plan.layout.entries)


def test_offsets_are_groups_of_eight_in_the_order_of_names(tmp_path):
    folder = model(tmp_path / "m", linear("b", (67, 131)), linear("a", (70, 3, 41)), linear("c", (128, 128)))
    entries = plan_mark(folder).layout.entries
    assert [(entry.name, entry.offset) for entry in entries] == [("a", 0), ("b", 8616), ("c", 17400)]


def test_only_whole_equality_ties_tensors(tmp_path):
    first = linear("a").raw.copy()
    second = first.copy()
    second[-1, -1] += 1
    folder = model(tmp_path / "m", linear("a", value=first), linear("b", value=second), linear("c", value=first))
    entries = plan_mark(folder).layout.entries
    assert [(entry.name, entry.aliases) for entry in entries] == [("a", ("c",)), ("b", ())]


def test_the_plan_says_what_it_is(lora):
    document = json.loads(json.dumps(lora.plan.to_json()))
    assert document["schema"] == "stanch/mark-plan/v1"
    assert document["coordinates"] == lora.plan.layout.coordinates
    assert document["colluders"].keys() == {"bf16", "int8", "nf4"}


def test_a_digest_may_be_given(tmp_path):
    folder = model(tmp_path / "m", linear())
    digest = Digest.sha256(b"manifest")
    assert plan_mark(folder, digest=digest).original == digest


@pytest.mark.parametrize(
    "extra",
    [
        Tensor("layer.qweight", "I32", np.zeros((8, 8), np.int32)),
        Tensor("layer.SCB", "F32", np.zeros(8, np.float32)),
        Tensor("layer.weight.absmax", "F32", np.zeros(8, np.float32)),
        Tensor("layer.weight.quant_state.bitsandbytes__nf4", "U8", np.zeros(8, np.uint8)),
        Tensor("layer.weight_scale", "F32", np.zeros(8, np.float32)),
        Tensor("other.weight", "I8", np.zeros((64, 64), np.int8)),
        Tensor("other.weight", "F8_E4M3", np.zeros((64, 64), np.uint8)),
    ],
    ids=lambda tensor: f"{tensor.name}-{tensor.dtype}",
)
def test_quantised_models_are_refused(tmp_path, extra):
    folder = model(tmp_path / "m", linear(), extra)
    with pytest.raises(InvalidInput, match="quantised") as caught:
        plan_mark(folder)
    assert "float master" in caught.value.next_step


def test_a_quantisation_config_is_refused(tmp_path):
    folder = model(tmp_path / "m", linear())
    (folder / "config.json").write_text('{"quantization_config":{"quant_method":"gptq"}}')
    with pytest.raises(InvalidInput, match="quantised"):
        plan_mark(folder)


def test_integer_buffers_are_no_quantisation(tmp_path):
    positions = Tensor("embeddings.position_ids", "I64", np.arange(8192).reshape(1, 8192))
    mask = Tensor("h.0.attn.bias", "U8", np.zeros((1, 1, 64, 64), np.uint8))
    assert len(plan_mark(model(tmp_path / "m", linear(), positions, mask)).layout.entries) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e16])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    weights = np.zeros((128, 128), np.float32)
    weights[100, 3] = value
    with pytest.raises(InvalidInput, match="finite"):
        plan_mark(model(tmp_path / "m", linear(value=weights)))


def test_too_few_coordinates_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="10000"):
        plan_mark(model(tmp_path / "m", linear(shape=(96, 96))))


def test_strength_outside_the_tested_range_needs_a_word(tmp_path):
    folder = model(tmp_path / "m", linear())
    params = MarkParams(ceiling=0.2, floor=0.2)
    with pytest.raises(InvalidInput, match="within"):
        plan_mark(folder, params=params)
    assert plan_mark(folder, params=MarkParams(ceiling=0.2, floor=0.2, alpha_outside_tested_range=True)).alpha == 0.2
    with pytest.raises(InvalidInput, match="positive"):
        plan_mark(folder, params=MarkParams(ceiling=-1, floor=-2, alpha_outside_tested_range=True))


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_a_merged_adapter_is_refused_where_the_base_is_known(tmp_path, dtype):
    base = make_model(tmp_path / "base", 1, dtype=dtype)
    tensors = dict(open_model(base))
    for module in open_adapter(make_adapter(tmp_path / "lora", 2)).modules.values():
        name = f"{module.module}.weight"
        tensors[name] = Tensor.from_float32(name, tensors[name].to_float32() + module.delta(), dtype)
    merged = write_model(tmp_path / "merged", tensors)
    with pytest.raises(InvalidInput, match="merged adapter") as caught:
        plan_mark(merged, base=base)
    assert "factors first" in caught.value.next_step


def test_a_full_tuning_is_not_taken_for_a_merged_adapter(full):
    assert plan_mark(full.original, base=full.base).kind == "full"


def test_the_base_itself_is_not_taken_for_a_merged_adapter(tmp_path):
    base = make_model(tmp_path / "base", 1)
    shutil.copytree(base, tmp_path / "same")
    assert plan_mark(tmp_path / "same", base=base).kind == "full"


def test_zeros_are_no_obstacle(tmp_path, base):
    sparse = treat(tmp_path / "m", base, lambda w: np.where(np.abs(w) < 0.01, 0, w).astype(np.float32))
    assert plan_mark(sparse).kind == "full"
