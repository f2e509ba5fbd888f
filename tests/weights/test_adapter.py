import json

import numpy as np
import pytest

from stanch.errors import InvalidInput
from stanch.weights import Tensor, is_adapter, open_adapter, write_safetensors

STEM = "base_model.model.model.layers.0.self_attn.q_proj"


def adapter(folder, *, rank=4, b_rank=None, tensors=None, **config):
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(3)
    a = Tensor.from_float32(f"{STEM}.lora_A.weight", generator.normal(size=(rank, 6)).astype(np.float32))
    b = Tensor.from_float32(f"{STEM}.lora_B.weight", generator.normal(size=(5, b_rank or rank)).astype(np.float32))
    write_safetensors(folder / "adapter_model.safetensors", [a, b] if tensors is None else tensors)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 8, **config}))
    return folder, a.raw, b.raw


def test_the_delta_is_scale_times_b_a(tmp_path):
    folder, a, b = adapter(tmp_path)
    assert is_adapter(folder)
    (module,) = open_adapter(folder).modules.values()
    assert (module.module, module.rank, module.scale) == ("model.layers.0.self_attn.q_proj", 4, 2.0)
    np.testing.assert_allclose(module.delta(), 2 * b @ a, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"use_rslora": True}, 4.0),
        ({"alpha_pattern": {"q_proj": 16}}, 4.0),
        ({"alpha_pattern": {"model.layers.0.self_attn.q_proj": 4}}, 1.0),
        ({"alpha_pattern": {"_proj": 16, "k_proj": 16}}, 2.0),
    ],
)
def test_the_effective_scale_follows_the_configuration(tmp_path, config, scale):
    folder, _, _ = adapter(tmp_path, **config)
    (module,) = open_adapter(folder).modules.values()
    assert module.scale == scale


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "IA3"},
        {"use_dora": True},
        {"lora_alpha": None},
        {"lora_alpha": True},
        {"alpha_pattern": {"(a+)+$": 3}},
    ],
)
def test_what_is_not_scale_b_a_is_refused(tmp_path, config):
    folder, _, _ = adapter(tmp_path, **config)
    with pytest.raises(InvalidInput):
        open_adapter(folder)


def test_factors_must_fit_together(tmp_path):
    folder, _, _ = adapter(tmp_path, b_rank=3)
    with pytest.raises(InvalidInput, match="same rank"):
        open_adapter(folder)
    adapter(tmp_path, tensors=[Tensor.from_float32(f"{STEM}.lora_A.weight", np.zeros((2, 2), np.float32))])
    with pytest.raises(InvalidInput, match="no matching factor"):
        open_adapter(folder)
    adapter(tmp_path, tensors=[Tensor.from_float32("other", np.zeros((2, 2), np.float32))])
    with pytest.raises(InvalidInput, match="found none"):
        open_adapter(folder)


def test_missing_or_foreign_files_are_refused(tmp_path):
    folder, _, _ = adapter(tmp_path)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(InvalidInput, match="found none"):
        open_adapter(folder)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(InvalidInput, match="JSON object"):
        open_adapter(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(InvalidInput, match="cannot be read"):
        open_adapter(folder)


def test_a_model_directory_is_no_adapter(tmp_path):
    assert not is_adapter(tmp_path)


@pytest.mark.slow
def test_the_delta_is_the_one_that_peft_merges(tmp_path):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = torch.nn.Linear(6, 5)
            self.k_proj = torch.nn.Linear(6, 5)

        def forward(self, x):
            return self.q_proj(x) + self.k_proj(x)

    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "k_proj"], alpha_pattern={"k_proj": 3}, init_lora_weights=False
    )
    model = peft.get_peft_model(Net(), config)
    model.save_pretrained(tmp_path)
    before = {
        name: getattr(model.base_model.model, name).base_layer.weight.detach().clone() for name in ("q_proj", "k_proj")
    }
    merged = model.merge_and_unload()
    modules = open_adapter(tmp_path).modules
    assert sorted(modules) == ["k_proj", "q_proj"]
    for name, module in modules.items():
        change = (getattr(merged, name).weight.detach() - before[name]).numpy()
        np.testing.assert_allclose(module.delta(), change, atol=1e-6)
