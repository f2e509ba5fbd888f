"""Small models and adapters whose sizes relate to each other as those of real ones do."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stanch.mark import (
    CopyKey,
    MarkedCopy,
    MarkKeys,
    MarkParams,
    MarkPlan,
    MarkRoot,
    Originals,
    RecipientSlot,
    ScorePlan,
    Variant,
    commit,
    copy_key,
    detect,
    embed,
    extract,
    mark_keys,
    open_suspect,
    plan_mark,
)
from stanch.mark.embedding import RowBlock, Streams, mark_block
from stanch.trace.verifier import recompute
from stanch.weights import Tensor, open_adapter, open_model, write_safetensors

BEACON = bytes(range(100, 132))
ROOT = MarkRoot(bytes(range(32)))
RECIPIENTS = tuple(f"r{number}" for number in range(12))
SHAPES = {"self_attn.q_proj": (128, 128), "mlp.up_proj": (256, 128), "mlp.down_proj": (128, 256)}
LAYERS, RANK = 6, 16


def weight_names():
    return [(f"model.layers.{layer}.{name}.weight", shape) for layer in range(LAYERS) for name, shape in SHAPES.items()]


def marked_rows(raw, block: RowBlock, alpha: float, key: CopyKey):
    """Return rows marked for the holder of a key."""
    rows = np.array(raw)
    mark_block(rows, block, alpha, Streams(key))
    return rows


def make_model(folder: Path, seed: int, *, dtype: str = "BF16") -> Path:
    """Write a model with a tied embedding stored twice, norms, and linear weights with uneven rows."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = np.exp(generator.normal(scale=0.3, size=(256, 1))).astype(np.float32)
    tensors = {
        name: 0.02 * rows[: shape[0]] * generator.normal(size=shape).astype(np.float32)
        for name, shape in weight_names()
    }
    tensors["model.embed_tokens.weight"] = 0.03 * generator.normal(size=(200, 128)).astype(np.float32)
    tensors["model.embed_tokens.weight"][7] = 0
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.norm.weight"] = np.ones(128, np.float32)
    write_model(folder, {name: Tensor.from_float32(name, value, dtype) for name, value in tensors.items()})
    (folder / "config.json").write_text('{"model_type":"llama"}')
    return folder


def write_model(folder: Path, tensors) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", list(tensors.values()), metadata={"format": "pt"})
    return folder


def make_adapter(folder: Path, seed: int, *, size: float = 0.05, rank: int = RANK) -> Path:
    """Write an adapter whose change has ``size`` times the rms of the weights it changes."""
    generator = np.random.default_rng(seed)
    tensors = []
    for name, (outputs, inputs) in weight_names():
        stem = "base_model.model." + name.removesuffix(".weight")
        a = generator.uniform(-1, 1, size=(rank, inputs)) / np.sqrt(inputs)
        b = generator.normal(size=(outputs, rank)) * 0.02 * size * np.sqrt(3 * inputs / rank) / 2
        tensors.append(Tensor.from_float32(f"{stem}.lora_A.weight", a.astype(np.float32)))
        tensors.append(Tensor.from_float32(f"{stem}.lora_B.weight", b.astype(np.float32)))
    folder.mkdir(parents=True)
    write_safetensors(folder / "adapter_model.safetensors", tensors, metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def merge(folder: Path, base: Path, *adapters: Path, rounding=None, weight: float = 1.0) -> Path:
    """Write base + the adapters' changes, in the base's types, each changed weight rounded by ``rounding``."""
    tensors = dict(open_model(base))
    changed = set()
    for path in adapters:
        for module in open_adapter(path).modules.values():
            name = f"{module.module}.weight"
            tensors[name] = Tensor.from_float32(name, tensors[name].to_float32() + weight * module.delta())
            changed.add(name)
    for name in changed:
        values = tensors[name].to_float32()
        tensors[name] = Tensor.from_float32(name, values if rounding is None else rounding(values), "BF16")
    return write_model(folder, tensors)


def treat(folder: Path, source: Path, rounding) -> Path:
    """Write a copy of a model with every matrix changed by ``rounding``."""
    tensors = {
        name: Tensor.from_float32(name, rounding(tensor.to_float32())) if len(tensor.shape) == 2 else tensor
        for name, tensor in open_model(source).items()
    }
    return write_model(folder, tensors)


def combine(folder: Path, sources, rule) -> Path:
    """Write the combination of several copies, tensor by tensor, by ``rule`` over a stack of them."""
    opened = [open_model(source) for source in sources]
    tensors = {
        name: Tensor.from_float32(name, rule(np.stack([model[name].to_float32() for model in opened])))
        for name in opened[0]
    }
    return write_model(folder, tensors)


def int8(values):
    """Round each row to 8-bit integers times one scale, and back."""
    scale = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-30) / 127
    return (np.round(values / scale) * scale).astype(np.float32)


NF4 = np.array(
    [-1, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0,
     0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1], np.float32)  # fmt: skip


def nf4(values):
    """Round blocks of 64 to the 16 values of NF4 times the block's largest magnitude, and back."""
    blocks = values.reshape(-1, 64)
    scale = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), 1e-30)
    nearest = np.searchsorted((NF4[1:] + NF4[:-1]) / 2, blocks / scale)
    return (NF4[nearest] * scale).reshape(values.shape)


def u8(name, values):
    return Tensor(name, "U8", np.asarray(values, np.uint8))


def f32(name, values):
    return Tensor.from_float32(name, np.asarray(values, np.float32))


def four_bit(name, values, *, nested):
    """Return the tensors that bitsandbytes writes for one matrix in NF4."""
    blocks = values.reshape(-1, 64)
    scale = np.abs(blocks).max(axis=1)
    codes = np.searchsorted((NF4[1:] + NF4[:-1]) / 2, blocks / scale[:, None]).reshape(-1).astype(np.uint8)
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(values.shape)}
    tensors = [u8(name, ((codes[::2] << 4) | codes[1::2])[:, None]), f32(f"{name}.quant_map", NF4)]
    if nested:
        code = np.linspace(-1, 1, 256)
        offset = float(scale.mean())
        centred = np.pad(scale - offset, (0, -len(scale) % 256)).reshape(-1, 256)
        largest = np.abs(centred).max(axis=1)
        index = np.rint((centred / largest[:, None] + 1) * 127.5).reshape(-1)[: len(scale)]
        tensors += [u8(f"{name}.absmax", index), f32(f"{name}.nested_absmax", largest)]
        tensors.append(f32(f"{name}.nested_quant_map", code))
        state |= {"nested_blocksize": 256, "nested_offset": offset, "nested_dtype": "float32"}
    else:
        tensors.append(f32(f"{name}.absmax", scale))
    data = np.frombuffer(json.dumps(state).encode(), np.uint8)
    return [*tensors, u8(f"{name}.quant_state.bitsandbytes__nf4", data)]


@dataclass(frozen=True)
class Release:
    """A release with all its keys, and the helpers that tests need of it."""

    original: Path
    base: Path | None
    plan: MarkPlan
    keys: MarkKeys
    folder: Path

    def key(self, recipient: str) -> CopyKey:
        return next(key for key in self.keys.copies if key.recipient == recipient)

    def copy(self, recipient: str) -> Path:
        out = self.folder / f"copy-{recipient}"
        return out if out.exists() else self.embed(recipient, out).path

    def embed(self, recipient: str, out: Path, **options) -> MarkedCopy:
        return embed(self.original, out, self.plan, self.key(recipient), **options)

    def detect(self, suspect: Path, *, variants=None, **options):
        default = ScorePlan.default(self.plan.kind, n=10_000)
        plan = replace(default, decoy_coordinates=1 << 15, variants=variants or default.variants)
        return detect(Originals(self.original, self.base), suspect, self.keys, plan, threads=1, **options)

    def accused(self, suspect: Path):
        return sorted(score.recipient for score in self.detect(suspect).accused)

    def distance(self, suspect: Path, variant: Variant) -> float:
        """Return how far a score could move with the features that the evidence pack's own program makes."""
        originals = Originals(self.original, self.base)
        features = extract(originals, open_suspect(suspect), variant, alpha=self.plan.alpha).values
        base = None if self.base is None else recompute.Model.open(self.base)
        models = (recompute.Model.open_original(self.original), recompute.Model.open(suspect), base)
        found = np.zeros_like(features)
        places, _, _ = recompute.lay_out(models[0].tensors, originals.kind)
        make = recompute.maker(originals.kind, str(variant))
        for place, values in make(places, models, self.plan.alpha, str(variant)):
            found[place.offset : place.offset + place.size] = values.reshape(-1)
        assert features.any()
        return float(np.linalg.norm(found - features) / np.linalg.norm(features)) * math.sqrt(len(features))


def make_release(folder: Path, original: Path, base: Path | None, params: MarkParams | None = None) -> Release:
    plan = plan_mark(original, params=params)
    batch = commit(plan, ROOT, [RecipientSlot(name) for name in RECIPIENTS], decoys=200)
    assert copy_key(batch, "r1", beacon=BEACON).recipient == "r1"
    return Release(original, base, plan, mark_keys([(batch, BEACON)], ROOT), folder)
