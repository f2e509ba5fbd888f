"""Families of models: where a layer's matrices stand, and which tokens an embedding's rows are of.

Beside alignment.py; Python alone.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

if __package__:
    from stanch.trace.verifier.models import MALFORMED, plain_name
else:  # the files were taken out of a pack
    from models import MALFORMED, plain_name  # type: ignore[import-not-found,no-redef]  # beside this file


class Place(NamedTuple):
    """Where a matrix stands: the tensor's plain name, whether it is stored turned, which of how many parts it is."""

    name: str
    turned: bool = False
    part: int = 0
    parts: int = 1


class Layer(NamedTuple):
    """The places of a layer's matrices, and the gains of the norms before attention and feed-forward part."""

    query: Place
    key: Place
    value: Place
    out: Place
    up: Place
    down: Place
    gate: Place | None = None
    attention_gain: str = ""
    feed_gain: str = ""


class Family(NamedTuple):
    """Which symmetries a model has: ``stream`` is rotated, centred or permuted."""

    stream: str
    rotary: bool
    embeddings: tuple[str, ...]
    head: str
    head_gain: str
    layers: dict[int, Layer]
    heads: int
    groups: int


def family_of(names: Sequence[str], config: dict[str, object]) -> Family | None:
    """Return the family of a model, or None where it is none that is known."""
    plain = {plain_name(name) for name in names}

    def count(*keys: str) -> int:
        found = next((config[key] for key in keys if key in config), 0)
        return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 0

    heads = count("num_attention_heads", "n_head")
    groups, head = count("num_key_value_heads") or heads, "lm_head.weight" if "lm_head.weight" in plain else ""

    def numbers(form: str) -> list[int]:
        return sorted(int(found[1]) for name in plain if (found := re.fullmatch(form, name)))

    def made(stem: str, parts: Sequence[str]) -> list[Place]:
        return [Place(f"{stem}.{part}.weight") for part in parts]

    layers: dict[int, Layer] = {}
    for number in numbers(r"layers\.(\d+)\.mlp\.gate_proj\.weight"):
        stem = f"layers.{number}"
        q, k, v, o, up, down, gate = made(stem, [
            *(f"self_attn.{part}_proj" for part in "qkvo"), "mlp.up_proj", "mlp.down_proj", "mlp.gate_proj",
        ])  # fmt: skip
        gains = f"{stem}.input_layernorm.weight", f"{stem}.post_attention_layernorm.weight"
        layers[number] = Layer(q, k, v, o, up, down, gate, *gains)
    if layers:
        return Family("rotated", True, ("embed_tokens.weight",), head, "norm.weight", layers, heads, groups)
    for number in numbers(r"h\.(\d+)\.attn\.c_attn\.weight"):
        stem = f"h.{number}"
        q, k, v = (Place(f"{stem}.attn.c_attn.weight", True, part, 3) for part in range(3))
        o, up, down = (Place(f"{stem}.{part}.weight", True) for part in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj"))
        layers[number] = Layer(q, k, v, o, up, down, None, f"{stem}.ln_1.weight", f"{stem}.ln_2.weight")
    if layers:
        return Family("centred", False, ("wte.weight", "wpe.weight"), head, "ln_f.weight", layers, heads, groups)
    for number in numbers(r"encoder\.layer\.(\d+)\.attention\.self\.query\.weight"):
        q, k, v, o, up, down = made(f"encoder.layer.{number}", [
            *(f"attention.self.{part}" for part in ("query", "key", "value")), "attention.output.dense",
            "intermediate.dense", "output.dense",
        ])  # fmt: skip
        layers[number] = Layer(q, k, v, o, up, down)
    kinds = (f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type"))
    named = tuple(name for name in kinds if name in plain)
    return Family("permuted", False, named, "", "", layers, heads, groups) if layers else None


def read_tokens(folder: Path) -> dict[str, int]:
    """Return the row of each token by ``tokenizer.json``; nothing where none can be read."""
    try:
        document = json.loads((folder / "tokenizer.json").read_bytes())
        rows = document["model"]["vocab"]
        listed = list(rows.items()) if isinstance(rows, dict) else [
            (piece[0], row) for row, piece in enumerate(rows) if isinstance(piece, list) and piece
        ]  # fmt: skip
        added = document.get("added_tokens")
        listed += [(item.get("content"), item.get("id")) for item in added or () if isinstance(item, dict)]
    except (*MALFORMED, AttributeError, OSError):
        return {}
    return {token: row for token, row in listed if isinstance(token, str) and isinstance(row, int) and row >= 0}
