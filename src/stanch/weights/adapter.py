"""LoRA adapters in PEFT's format: ``adapter_config.json`` and ``adapter_model.safetensors``."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput
from stanch.terms import JsonValue
from stanch.weights.floats import FLOAT_TYPES
from stanch.weights.json_file import read_json_object
from stanch.weights.tensors import Tensor, open_tensors

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.]+")
_FLOATS = {*FLOAT_TYPES, "F64"}
_MOST_SCALE = 1e6
_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """One adapted module: ``delta = scale · B A`` is added to its weight.

    Attributes:
        module: The module's name in the base model, for example ``model.layers.0.self_attn.q_proj``.
        a: The factor A, r × n (n = inputs).
        b: The factor B, m × r (m = outputs).
        scale: ``lora_alpha / r``, or ``lora_alpha / √r`` with rank-stabilised scaling.
        transposed: The base stores this weight as inputs × outputs (GPT-2's Conv1D).
    """

    module: str
    a: Tensor
    b: Tensor
    scale: float
    transposed: bool

    @property
    def rank(self) -> int:
        """The common dimension of the factors."""
        return self.a.shape[0]

    def delta(self) -> npt.NDArray[np.float32]:
        """Return ``scale · B A``, m × n, as float32."""
        product: npt.NDArray[np.float32] = self.b.to_float32() @ (np.float32(self.scale) * self.a.to_float32())
        return product


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter: its configuration, its modules by name, and every tensor of its file."""

    config: Mapping[str, JsonValue]
    modules: Mapping[str, LowRank]
    tensors: Mapping[str, Tensor]


def is_adapter(path: Path) -> bool:
    """Say whether the directory holds a PEFT adapter."""
    return (path / CONFIG_NAME).is_file()


def open_adapter(path: Path) -> Adapter:
    """Map the adapter in the directory ``path``.

    Raises:
        InvalidInput: Not a LoRA adapter, a variant that is more than ``scale · B A`` (DoRA), or factors that do not
            fit together.
        InvalidSafetensors: The weight file breaks a rule of the format.
    """
    config = read_json_object(path / CONFIG_NAME)
    if config.get("peft_type") != "LORA":
        raise InvalidInput(f"{CONFIG_NAME}: expected peft_type LORA, found another kind of adapter")
    if config.get("use_dora"):
        raise InvalidInput(f"{CONFIG_NAME}: DoRA adapters are not supported", why="their delta is not scale · B A")
    if not (path / WEIGHTS_NAME).is_file():
        raise InvalidInput(
            f"{path.name}: expected {WEIGHTS_NAME}, found none", next_step="pickled weights are never loaded"
        )
    tensors = open_tensors(path / WEIGHTS_NAME)
    modules = {}
    for stem, a, b in _pairs(tensors):
        if b is None:
            raise InvalidInput(f"{WEIGHTS_NAME}: {stem + _A!r} has no matching factor B of the same rank")
        module = stem.removeprefix(_PREFIX)
        scale = _scale(config, module, a.shape[0])
        modules[module] = LowRank(module, a, b, scale, bool(config.get("fan_in_fan_out")))
    if not modules:
        raise InvalidInput(f"{WEIGHTS_NAME}: expected lora_A and lora_B factors, found none")
    return Adapter(config, modules, tensors)


def read_factors(tensors: Mapping[str, Tensor], config: Mapping[str, JsonValue]) -> Adapter | None:
    """Return the LoRA factors of a hostile file, or None where it has none that fit together.

    No line of a configuration may hide them: its kind of adapter is not asked for; patterns that are no plain names
    match nothing; a scale that is no use is 1; what DoRA does to the sum afterwards is left out. Factors that do not
    fit take no part. The scale that such a change has is therefore not known; detection does not need it.
    """
    plain = {**config, "alpha_pattern": _plain_patterns(config)}
    modules = {}
    for stem, a, b in _pairs(tensors):
        if b is not None:
            module = stem.removeprefix(_PREFIX)
            modules[module] = LowRank(module, a, b, _scale_or_one(plain, module, a.shape[0]), transposed=False)
    return Adapter(config, modules, tensors) if modules else None


def is_factor(name: str) -> bool:
    """Say whether a tensor is called as the factors of an adapter are."""
    return name.endswith((_A, _B))


def _pairs(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Yield what the names of two factors begin with, A, and B where one fits to it."""
    for name, a in tensors.items():
        if name.endswith(_A):
            stem = name.removesuffix(_A)
            b = tensors.get(stem + _B)
            sound = b is not None and {a.dtype, b.dtype} <= _FLOATS and len(a.shape) == len(b.shape) == 2
            yield stem, a, b if sound and b is not None and a.shape[0] == b.shape[1] != 0 else None


def _plain_patterns(config: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    patterns = config.get("alpha_pattern")
    found = patterns if isinstance(patterns, dict) else {}
    return {key: value for key, value in found.items() if _PLAIN_NAME.fullmatch(key)}


def _scale_or_one(config: Mapping[str, JsonValue], module: str, rank: int) -> float:
    """Return a scale, 1 where there is none or one that would end below or above what float32 can square."""
    try:
        scale = _scale(config, module, rank)
    except (InvalidInput, OverflowError):
        return 1.0
    return scale if 1 / _MOST_SCALE < abs(scale) < _MOST_SCALE else 1.0


def _scale(config: Mapping[str, JsonValue], module: str, rank: int) -> float:
    """Return the effective scale of a module as PEFT computes it (LoraLayer.update_layer)."""
    alpha = config.get("lora_alpha")
    patterns = config.get("alpha_pattern") or {}
    if isinstance(patterns, dict):
        # PEFT reads these keys as regular expressions. One from a hostile suspect could run for ever, so only plain
        # names are taken; they match as PEFT's do: the whole name, or its end after a dot.
        if not all(_PLAIN_NAME.fullmatch(key) for key in patterns):
            raise InvalidInput(f"{CONFIG_NAME}: alpha_pattern holds a key that is not a plain module name")
        alpha = next((v for key, v in patterns.items() if module == key or module.endswith("." + key)), alpha)
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise InvalidInput(f"{CONFIG_NAME}: expected a number lora_alpha, found none")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
