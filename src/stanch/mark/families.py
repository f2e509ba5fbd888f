"""Families of models: where a layer's parts stand, and which changes of them leave the model as it is."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from stanch.mark.suspect import plain_name
from stanch.terms import JsonValue

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


class Stream(StrEnum):
    """What may happen to the residual stream without changing the model.

    ``rotated``: any rotation (RMSNorm before each part). ``rotated-centred``: rotations that leave the all-ones vector
    alone (LayerNorm before each part). ``permuted``: permutations and a common sign (LayerNorm after each part).
    """

    ROTATED = "rotated"
    CENTRED = "rotated-centred"
    PERMUTED = "permuted"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a matrix (outputs × inputs) stands.

    Attributes:
        name: The tensor's plain name.
        transposed: It is stored as inputs × outputs.
        part: Which part of the tensor's outputs it is.
        parts: How many parts the outputs have.
    """

    name: str
    transposed: bool = False
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class LayerPlaces:
    """One layer: attention, feed-forward part, and the gains that act on the inputs of each ("" for none)."""

    query: Place
    key: Place
    value: Place
    out: Place
    up: Place
    down: Place
    gate: Place | None = None
    attention_gain: str = ""
    feed_gain: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """A model's family and size.

    Attributes:
        stream: What may happen to the residual stream.
        rotary: Queries and keys are rotated by position, pair (j, j + half) by pair.
        embeddings: Plain names of tensors whose rows live in the stream; the first has a row a token.
        head: Plain name of the tensor that reads the stream's end, "" where it is an embedding.
        head_gain: Gain that acts on its inputs.
        layers: The layers.
        heads: Attention heads; 0 where unknown.
        groups: Heads of keys and values.
    """

    stream: Stream
    rotary: bool
    embeddings: tuple[str, ...]
    head: str
    head_gain: str
    layers: tuple[LayerPlaces, ...]
    heads: int
    groups: int


def layer_of(name: str) -> int | None:
    """Return the number of the layer that a tensor stands in; None where it stands in none."""
    found = _LAYER.search(name)
    return None if found is None else int(found[0])


def at_layer(name: str, number: int) -> str:
    """Return what a tensor is called in another layer."""
    return _LAYER.sub(str(number), name, count=1)


def find_family(names: Iterable[str], config: Mapping[str, JsonValue]) -> Family | None:
    """Return the family of a model with the given tensors, or None where it is none that is known.

    Args:
        names: Tensor names of the original.
        config: Its ``config.json``.
    """
    plain = {plain_name(name) for name in names}
    heads = _number(config, "num_attention_heads", "n_head")
    groups = _number(config, "num_key_value_heads") or heads
    for mark, make in (
        (r"layers\.(\d+)\.mlp\.gate_proj\.weight", _llama),
        (r"h\.(\d+)\.attn\.c_attn\.weight", _gpt2),
        (r"encoder\.layer\.(\d+)\.attention\.self\.query\.weight", _bert),
    ):
        numbers = sorted(int(found[1]) for name in plain if (found := re.fullmatch(mark, name)))
        if numbers:
            return make(numbers, plain, heads, groups)
    return None


def _number(config: Mapping[str, JsonValue], *names: str) -> int:
    found = next((config[name] for name in names if name in config), 0)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 0


def _llama(numbers: list[int], plain: set[str], heads: int, groups: int) -> Family:
    def layer(stem: str) -> LayerPlaces:
        return LayerPlaces(
            query=Place(f"{stem}.self_attn.q_proj.weight"),
            key=Place(f"{stem}.self_attn.k_proj.weight"),
            value=Place(f"{stem}.self_attn.v_proj.weight"),
            out=Place(f"{stem}.self_attn.o_proj.weight"),
            gate=Place(f"{stem}.mlp.gate_proj.weight"),
            up=Place(f"{stem}.mlp.up_proj.weight"),
            down=Place(f"{stem}.mlp.down_proj.weight"),
            attention_gain=f"{stem}.input_layernorm.weight",
            feed_gain=f"{stem}.post_attention_layernorm.weight",
        )

    head = "lm_head.weight" if "lm_head.weight" in plain else ""
    layers = tuple(layer(f"layers.{number}") for number in numbers)
    embeddings = ("embed_tokens.weight",)
    return Family(Stream.ROTATED, True, embeddings, head, "norm.weight", layers, heads, groups)


def _gpt2(numbers: list[int], plain: set[str], heads: int, groups: int) -> Family:
    def layer(stem: str) -> LayerPlaces:
        query, key, value = (Place(f"{stem}.attn.c_attn.weight", True, part, 3) for part in range(3))
        return LayerPlaces(
            query=query,
            key=key,
            value=value,
            out=Place(f"{stem}.attn.c_proj.weight", transposed=True),
            up=Place(f"{stem}.mlp.c_fc.weight", transposed=True),
            down=Place(f"{stem}.mlp.c_proj.weight", transposed=True),
            attention_gain=f"{stem}.ln_1.weight",
            feed_gain=f"{stem}.ln_2.weight",
        )

    head = "lm_head.weight" if "lm_head.weight" in plain else ""
    layers = tuple(layer(f"h.{number}") for number in numbers)
    return Family(Stream.CENTRED, False, ("wte.weight", "wpe.weight"), head, "ln_f.weight", layers, heads, groups)


def _bert(numbers: list[int], plain: set[str], heads: int, groups: int) -> Family:
    def layer(stem: str) -> LayerPlaces:
        return LayerPlaces(
            query=Place(f"{stem}.attention.self.query.weight"),
            key=Place(f"{stem}.attention.self.key.weight"),
            value=Place(f"{stem}.attention.self.value.weight"),
            out=Place(f"{stem}.attention.output.dense.weight"),
            up=Place(f"{stem}.intermediate.dense.weight"),
            down=Place(f"{stem}.output.dense.weight"),
        )

    kinds = ("word", "position", "token_type")
    embeddings = tuple(name for kind in kinds if (name := f"embeddings.{kind}_embeddings.weight") in plain)
    layers = tuple(layer(f"encoder.layer.{number}") for number in numbers)
    return Family(Stream.PERMUTED, False, embeddings, "", "", layers, heads, groups)
