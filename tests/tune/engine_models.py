"""Small random models of many families, units, and clipped sums one record at a time by ordinary autograd."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import transformers as hf
from torch import nn
from torch.nn import functional

from stanch.data import TokenRecord
from stanch.tune.gradient_torch import PrivateGradient
from stanch.tune.model_torch import CausalModel
from stanch.tune.noise import AesGaussian
from stanch.tune.plan import PrivacyPlan

BOUND = 0.5
VOCABULARY = 300
_SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama, tied": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_GROUPED, tie_word_embeddings=True)),
    "llama, biases": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_GROUPED, attention_bias=True, mlp_bias=True)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**_GROUPED, tie_word_embeddings=True)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**_GROUPED, head_dim=4, tie_word_embeddings=True)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**_GROUPED, sliding_window=8)),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**_GROUPED, head_dim=4)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(
        hf.Gemma2Config(**_GROUPED, head_dim=4, sliding_window=8, final_logit_softcapping=2.0)
    ),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**_GROUPED, head_dim=4, sliding_window=8)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
        )
    ),
    "gpt-neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**_SIZES)),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(
            vocab_size=VOCABULARY, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64, word_embed_proj_dim=16, pad_token_id=0,
        )
    ),
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**_SIZES)),
}  # fmt: skip


def make_net(family: str, *, seed: int = 0) -> Any:
    """Return a random model whose norms and biases are not 1 and 0; some biases stand among tiny gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = FAMILIES[family]().eval()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return net


def make_plan(model: CausalModel, **changes) -> PrivacyPlan:
    """Return a plan that was not calibrated: these tests are about sums."""
    plan = PrivacyPlan(
        unit="record", unit_rule="each record", units_digest="00", dataset_root="00", n_units=60, expected_batch=8,
        sampling_threshold=(8 << 64) // 60, neighboring_relation="ADD_OR_REMOVE_ONE", steps=4,
        sampler="poisson-units/v1", max_records_per_unit=8, max_grad_norm=BOUND, clipping="flat",
        loss="token-mean-per-record/v1", denominator=8, noise_multiplier=1.0, noise="aes256ctr-boxmuller-grid/v1",
        draws=2, slack=2.0**-10, epsilon=8.0, delta=1e-3, accountant="pld/dp-accounting", accountant_version="0.6.0",
        discretization=1e-4, method="lora", trainable=model.adapter.shapes(), excluded=(), guarantee="dp",
    )  # fmt: skip
    return replace(plan, **changes)


def make_record(name: str, length: int, *, prompt: int = 1, seed: int = 0) -> TokenRecord:
    generator = torch.Generator().manual_seed(hash((length, prompt, seed)) % 2**31)
    ids = tuple(torch.randint(3, VOCABULARY, (length,), generator=generator).tolist())
    return TokenRecord(name, ids, (min(prompt, length - 1), length))


def make_units(*lengths) -> list[list[TokenRecord]]:
    return [
        [make_record(f"{u}.{r}", n, prompt=1 + n // 3, seed=10 * u + r) for r, n in enumerate(unit)]
        for u, unit in enumerate(lengths)
    ]


def unit_gradient(net: Any, parameters: dict[str, nn.Parameter], unit: list[TokenRecord]) -> dict[str, torch.Tensor]:
    """Return a unit's gradient with its records one at a time, from the model's own logits."""
    for parameter in parameters.values():
        parameter.grad = None
    for record in unit:
        ids = torch.tensor([record.ids])
        logits = net(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
        a, b = record.span
        (functional.cross_entropy(logits[a - 1 : b - 1], ids[0, a:b]) / len(unit)).backward()
    found = {name: parameter.grad.double() for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    return found


def reference_sum(
    net: Any, parameters: dict[str, nn.Parameter], units: list[list[TokenRecord]], bound: float = BOUND
) -> dict[str, torch.Tensor]:
    """Return the sum of the clipped gradients of ``units``."""
    total = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in parameters.items()}
    for unit in units:
        gradient = unit_gradient(net, parameters, unit)
        factor = min(1.0, bound / norm_of(gradient))
        for name, part in gradient.items():
            total[name] += factor * part
    return total


def integers(source, step, parameter, count, scale) -> np.ndarray:
    """Return the noise of one parameter in one step."""
    found = np.empty(count)
    source.draw(step, parameter, count, scale, found.__setitem__)
    return found


def norm_of(parts) -> float:
    return float(torch.stack([part.double().square().sum() for part in parts.values()]).sum().sqrt())


def distance(one, other) -> float:
    return norm_of({name: one[name].double() - other[name].double() for name in one}) / norm_of(other)


def summed(model, units, *, budget=4096, **changes):
    """Return the engine's clipped sum, and leave the model to ordinary autograd."""
    gradient = PrivateGradient(model, make_plan(model, **changes), AesGaussian(bytes(32)), budget=budget)
    found = {name: part.clone() for name, part in gradient.sum_clipped(units).items()}
    model.adapter.collect(None)
    return found
