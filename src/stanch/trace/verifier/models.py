"""Read models and adapters in safetensors and GGUF files, as floats or in the integers of common quantisers.

Beside recompute.py; Python and numpy alone. Names that mean nothing are recognised by what they hold.
"""

import json
import math
import re
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

if __package__:
    from stanch.trace.verifier import gguf_files
    from stanch.trace.verifier.packed import FLOAT8, Parts, compressed, float8, fp4, gptq, powers
else:  # the files were taken out of a pack
    import gguf_files  # type: ignore[import-not-found,no-redef]  # beside this file
    from packed import (  # type: ignore[import-not-found,no-redef]  # beside this file
        FLOAT8,
        Parts,
        compressed,
        float8,
        fp4,
        gptq,
        powers,
    )

Floats = npt.NDArray[np.float32]
Json = dict[str, Any]
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
STATE = ".quant_state.bitsandbytes__"
PREFIXES = ("base_model.model.", "model.", "transformer.", "bert.")
CONFIG, ADAPTER, A, B = "adapter_config.json", "adapter_model.safetensors", ".lora_A.weight", ".lora_B.weight"
MODEL, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_SCALE, MAX_ALPHA = 1e6, 1e100
PACKED = ("qweight", "weight_packed")
PROBES, LEAST_COSINE, LARGEST = 16, 0.5, np.float32(1e12)
MAX_HEADER, MAX_STATE = 100 << 20, 4096
GGUF, PAIRED, IN_PAIRS = "GGUF", (".attn_q.weight", ".attn_k.weight"), " in pairs"

# What reading files that are no model's raises; that a file cannot be read says nothing about the pack.
MALFORMED = (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, zipfile.BadZipFile)


class Failed(Exception):
    """A step does not hold."""


class OtherVariant(Exception):
    """The features cannot be computed by this program."""


class BaseMissing(OtherVariant):
    """They cannot be computed without the base model."""


class Weights(NamedTuple):
    """One tensor of a safetensors file, not read yet."""

    dtype: str
    shape: tuple[int, ...]
    raw: npt.NDArray[np.generic]

    def floats(self) -> Floats:
        """Return it as float32, two-dimensional: ``[shape[0], rest]``."""
        with np.errstate(over="ignore"):
            if self.dtype == "BF16":
                values = (self.raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
            else:
                values = self.raw.astype(np.float32)
        return values.reshape(self.shape[0] if self.shape else 1, -1)

    def whole_numbers(self) -> npt.NDArray[np.int64]:
        """Return integers of 32 or 64 bits in their shape."""
        return self.raw.view({"I32": "<i4", "I64": "<i8"}[self.dtype]).reshape(self.shape).astype(np.int64)


@dataclass(frozen=True)
class Model:
    """A model or an adapter: its tensors by name, and its ``adapter_config.json``, if it has one.

    ``zero_point`` is what GPTQ's zero points lack; ``found`` says what tensors are called whose names mean nothing.
    ``heads`` says of a GGUF file's queries and keys in how many heads their rows stand: they may stand in pairs.
    """

    tensors: dict[str, Weights]
    config: Json | None
    zero_point: int = 1
    found: tuple[tuple[str, str], ...] = ()
    heads: Mapping[str, int] | None = None
    folder: Path = Path()

    @classmethod
    def open(cls, folder: Path) -> "Model":
        """Open a folder: its adapter, or where there is none, or a broken one beside a model, its model.

        Whatever an adapter's configuration says, the factors that fit together are read.
        """
        files, places = model_files(folder)
        try:
            config = dict(json.loads((folder / CONFIG).read_bytes()))
        except (*MALFORMED, OSError):
            config = {}
        if (folder / CONFIG).is_file() and (folder / ADAPTER).is_file():
            try:
                adapter = cls(read_weights([folder / ADAPTER], {}), config)
                if adapter.modules():
                    return adapter
            except (Failed, *MALFORMED, OSError):
                if not files:
                    raise
        if not files and any(folder.glob("*.gguf")):
            return cls.open_gguf(folder)
        model = cls(read_weights(files, places), config)
        alone = all(name.endswith((A, B)) for name, tensor in model.tensors.items() if len(tensor.shape) > 1)
        if alone and model.modules():
            return model
        try:
            form = json.loads((folder / "config.json").read_bytes())["quantization_config"]["checkpoint_format"]
        except (*MALFORMED, OSError):
            form = ""
        return cls(model.tensors, None, 0 if form == "gptq_v2" else 1, folder=folder)

    @classmethod
    def open_gguf(cls, folder: Path) -> "Model":
        """Open a GGUF file, or all parts of a split one."""
        tensors, heads = {}, {}
        for path in gguf_files.parts_of(folder):
            fields, stored = gguf_files.read_tensors(path)
            arch = fields.get("general.architecture")
            name = arch.decode() if isinstance(arch, bytes) else ""
            counts = [fields.get(f"{name}.attention.head_count{end}") for end in ("", "_kv")]
            for item in stored:
                if item.blocks is None or item.name.endswith((".lora_a", ".lora_b")):
                    raise OtherVariant(f"{path.name}: {item.name} is in a form of GGUF that is not read here")
                tensors[item.name] = Weights(f"{GGUF}{item.kind}", item.shape, item.blocks)
                count = counts[1] or counts[0] if item.name.endswith(PAIRED[1]) else counts[0]
                if (
                    item.name.endswith(PAIRED)
                    and isinstance(count, int)
                    and count > 0
                    and item.shape[0] % (2 * count) == 0
                ):
                    tensors[item.name + IN_PAIRS] = tensors[item.name]
                    heads[item.name + IN_PAIRS] = count
        return cls(tensors, None, heads=heads)

    @classmethod
    def open_original(cls, folder: Path) -> "Model":
        """Open the original: an adapter, or all safetensors files, since each of them was marked."""
        if (folder / CONFIG).is_file():
            return cls.open_adapter(folder)
        return cls(read_weights(sorted(folder.glob("*.safetensors")), {}), None, folder=folder)

    @classmethod
    def open_adapter(cls, folder: Path) -> "Model":
        """Open an adapter of which every factor A has its B."""
        config = json.loads((folder / CONFIG).read_bytes())
        need(config["peft_type"] == "LORA" and not config.get("use_dora"), f"{folder.name}: no LoRA adapter")
        adapter = cls(read_weights([folder / ADAPTER], {}), config)
        pairs = [(a.shape, adapter.tensors[name.removesuffix(A) + B].shape) for name, a in adapter.tensors.items()
                 if name.endswith(A)]  # fmt: skip
        need(pairs and all(0 < a[0] == b[1] for a, b in pairs) and config["lora_alpha"] + 0, "factors do not fit")
        return adapter

    def own_name(self, name: str) -> str | None:
        """Return what this model calls a tensor that the original calls ``name``."""
        own = dict(self.found).get(plain_name(name))
        return choose(name, self.names) if own is None else own

    @cached_property
    def names(self) -> list[str]:
        """The names of all tensors that can be read; of packed ones, what they stand for."""
        shown = [own for own, tensor in self.tensors.items() if tensor.shape and tensor.raw.size]
        stems = [own.rpartition(".") for own in shown]
        packed = [f"{stem}.weight" for stem, _, kind in stems if kind in PACKED]
        packed += [own.removesuffix("_blocks") for own in shown if own.endswith("_blocks")]
        floats = [own for own in shown if self.tensors[own].dtype in DTYPES or self.heads is not None]
        others = dict.fromkeys([own for own in [*shown, *packed] if own not in floats])
        return [*floats, *(own for own in others if self.values(own) is not None)]

    def recognise(self, wanted: "dict[str, Weights]") -> "Model":
        """Look for weights that have no name here, by what they hold: 16 rows, and a cosine of one half or more."""
        missing = [name for name in wanted if self.own_name(name) is None]
        claimed = {self.own_name(name) for name in wanted}
        free = [own for own in self.names if own not in claimed] if missing else []
        known = {own: (values[0], probe(values[1])) for own in free if (values := self.values(own)) is not None}
        found = []
        for name in missing:
            shape, ours = wanted[name].shape, probe(wanted[name].floats())
            likeness = {own: float(ours @ sample) for own, (size, sample) in known.items() if size == shape}
            best = max(likeness, key=likeness.__getitem__, default="")
            if best and likeness[best] >= LEAST_COSINE:
                found.append((plain_name(name), best))
                del known[best]
        return replace(self, found=tuple(found))

    def values(self, own: str) -> tuple[tuple[int, ...], Floats] | None:
        """Return a tensor's shape and values; None where its parts do not fit together, or nothing explains them."""
        tensor = self.tensors.get(own)
        if tensor is not None and tensor.dtype.startswith(GGUF):
            kind = int(tensor.dtype.removeprefix(GGUF))
            rows = gguf_files.dequantised(tensor.raw.view(np.uint8), kind).reshape(tensor.shape[0], -1)
            count = (self.heads or {}).get(own, 0)
            return tensor.shape, gguf_files.unpaired(rows, count) if count else rows
        try:
            if own in self.tensors and (found := values_of(own, self.tensors)) is not None:
                return found
            if (packed := fp4_of(own, self.tensors)) is not None:
                return fp4_values(own, packed, self.tensors)
            return packed_values(own.removesuffix("weight"), self.tensors, self.zero_point)
        except (KeyError, TypeError, ValueError):
            return None  # as for whoever made the pack: what does not fit together takes no part

    def modules(self) -> dict[str, "Module"]:
        """Return an adapter's modules by their names in the model, of those whose factors fit together."""
        config, found = self.config or {}, {}
        for name, a in self.tensors.items():
            stem = name.removesuffix(A)
            b = self.tensors.get(stem + B)
            if not name.endswith(A) or b is None or len(a.shape) != 2 or len(b.shape) != 2:
                continue
            if a.shape[0] == b.shape[1] != 0 and {a.dtype, b.dtype} <= DTYPES.keys():
                module = stem.removeprefix(PREFIXES[0])
                scale, turned = scale_of(config, module, a.shape[0]), bool(config.get("fan_in_fan_out"))
                found[module] = Module(stem, a.floats(), b.floats(), scale, turned)
        return found


class Module(NamedTuple):
    """A module: what its factors' names begin with, A (r × n), B (m × r), their scale, whether the base turns it."""

    stem: str
    a: Floats
    b: Floats
    scale: float
    turned: bool

    def change(self) -> Floats:
        """Return what it adds to the weight, m × n."""
        product: Floats = self.b @ (np.float32(self.scale) * self.a)
        return product


def scale_of(config: Json, module: str, rank: int) -> float:
    """Return the scale of an adapter's module; 1 where there is none that is of use. Patterns are names or ends."""
    patterns = config.get("alpha_pattern")
    ends = patterns.items() if isinstance(patterns, dict) else ()
    plain = [(end, value) for end, value in ends if re.fullmatch(r"[A-Za-z0-9_.]+", end)]
    chosen = (value for end, value in plain if module == end or module.endswith("." + end))
    alpha = next(chosen, config.get("lora_alpha"))
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not abs(alpha) < MAX_ALPHA:
        return 1.0
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return scale if 1 / MAX_SCALE < abs(scale) < MAX_SCALE else 1.0


def need(condition: object, text: str) -> None:
    """Raise :class:`Failed` with ``text`` unless ``condition`` holds."""
    if not condition:
        raise Failed(text)


def model_files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Return the safetensors files that are read: those that the index names, ``model.safetensors``, or all others.

    Also where the index says that each tensor is.
    """
    files = [path for path in sorted(folder.glob("*.safetensors")) if path.name != ADAPTER]
    try:
        index = json.loads((folder / INDEX).read_bytes())["weight_map"]
        places = {name: str(file) for name, file in index.items()}
    except (*MALFORMED, AttributeError, OSError):
        places = {}
    named = [path for path in files if path.name in places.values()]
    whole = [path for path in files if path.name == MODEL]
    return named or whole or files or sorted(folder.glob(ADAPTER)), places if named else {}


def read_weights(files: list[Path], places: dict[str, str]) -> dict[str, Weights]:
    """Map every tensor of some safetensors files by name; of one that stands twice, the first or where it is to be."""
    found: dict[str, Weights] = {}
    for path in files:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            need(length <= min(MAX_HEADER, size - 8), f"{path.name}: its header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, item in header.items():
            low, high = (8 + length + int(place) for place in item["data_offsets"])
            need(8 + length <= low <= high <= size, f"{path.name}: {name} lies outside the file")
            shape, dtype = tuple(int(n) for n in item["shape"]), np.dtype(DTYPES.get(item["dtype"], "u1"))
            raw = (
                np.memmap(path, dtype, "r", low, ((high - low) // dtype.itemsize,))
                if high > low
                else np.empty(0, dtype)
            )
            whole = item["dtype"] not in DTYPES or raw.size == math.prod(shape)
            need(whole, f"{path.name}: {name} is malformed")
            if name not in found or places.get(name) == path.name:
                found[name] = Weights(item["dtype"], shape, raw)
    return found


def choose(name: str, names: Collection[str]) -> str | None:
    """Return ``name`` if it is among ``names``, else the only one that differs in its prefixes alone."""
    if name in names:
        return name
    alike = [other for other in names if plain_name(other) == plain_name(name)]
    return alike[0] if len(alike) == 1 else None


def plain_name(name: str) -> str:
    """Return a tensor's name without the prefixes that wrappers put before it."""
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name


def values_of(name: str, tensors: dict[str, Weights]) -> tuple[tuple[int, ...], Floats] | None:
    """Return a tensor's shape and its values [shape[0], rest]; None where what stands beside integers is unknown."""
    tensor = tensors[name]
    if tensor.dtype in DTYPES:
        return tensor.shape, tensor.floats()
    if tensor.dtype == "I8":
        for suffix, unit in (("weight_scale", 1.0), ("SCB", 1.0 / 127.0)):
            scale = tensors.get(f"{name.rpartition('.')[0]}.{suffix}")
            if scale is not None and scale.raw.size in {1, tensor.shape[0]}:
                scales = np.broadcast_to(scale.floats().reshape(-1) * np.float32(unit), (tensor.shape[0],))
                whole = tensor.raw.view(np.int8).reshape(tensor.shape[0], -1).astype(np.float32)
                return tensor.shape, whole * scales[:, np.newaxis]
    if tensor.dtype in FLOAT8:
        beside = (f"{name.rpartition('.')[0]}.{ending}" for ending in ("weight_scale_inv", "weight_scale"))
        factor = next((need_floats(tensors[key]) for key in beside if key in tensors), None)
        return tensor.shape, float8(tensor.raw.view(np.uint8).reshape(tensor.shape[0], -1), tensor.dtype, factor)
    state = next((tensors[key] for key in (f"{name}{STATE}nf4", f"{name}{STATE}fp4") if key in tensors), None)
    if tensor.dtype != "U8" or state is None:
        return None
    return four_bits(name, tensors, json.loads(bytes(state.raw[:MAX_STATE])))


def four_bits(name: str, tensors: dict[str, Weights], state: Json) -> tuple[tuple[int, ...], Floats]:
    """Return what bitsandbytes stored in 4 bits: two values a byte, the first in the high half, times their block's.

    Raises ValueError or KeyError where the parts do not fit together.
    """
    shape, block, nested = tuple(state["shape"]), state["blocksize"], state.get("nested_blocksize", 256)
    packed, largest, count = tensors[name].raw, tensors[f"{name}.absmax"], math.prod(shape)
    code = tensors[f"{name}.quant_map"].floats().reshape(-1)
    fits = all(isinstance(number, int) and 0 < number < 1 << 40 for number in (*shape, block, nested))
    if not fits or packed.size != -(-count // 2) or largest.raw.size != -(-count // block) or code.size != 16:
        raise ValueError("its parts do not fit together")
    if largest.dtype == "U8":
        scale = tensors[f"{name}.nested_absmax"].floats().reshape(-1)
        codes = tensors[f"{name}.nested_quant_map"].floats().reshape(-1)
        if codes.size != 256 or scale.size not in {1, -(-largest.raw.size // nested)}:
            raise ValueError("its parts do not fit together")
        factor = np.repeat(scale, nested)[: largest.raw.size] if scale.size > 1 else scale
        blocks = codes[largest.raw] * factor + np.float32(state.get("nested_offset", 0.0))
    elif largest.dtype in DTYPES:
        blocks = largest.floats().reshape(-1)
    else:
        raise ValueError("its scales are of an unknown type")
    pairs = packed.astype(np.uint8)
    halves = np.stack([pairs >> 4, pairs & 15], axis=1).reshape(-1)[:count]
    values: Floats = (code[halves] * blocks[np.arange(count) // block]).reshape(shape[0], -1)
    return shape, values


def fp4_of(own: str, tensors: dict[str, Weights]) -> str | None:
    """Return which tensor holds the bytes of a weight in 4-bit floats, or None."""
    names = (name for name in (f"{own}_blocks", f"{own}_packed", own) if name in tensors)
    return next((name for name in names if tensors[name].dtype == "U8"), None)


def fp4_values(own: str, packed: str, tensors: dict[str, Weights]) -> tuple[tuple[int, ...], Floats]:
    """Return 4-bit floats with a scale a block; raises ValueError or KeyError where the parts do not fit together."""
    scale = tensors[f"{own}_scales" if packed == f"{own}_blocks" else f"{own}_scale"]
    sizes, shape, whole = {"F8_E4M3": 16, "U8": 32, "F8_E8M0": 32}, tensors[packed].shape, np.float32(1)
    factors = powers(scale.raw.view(np.uint8).reshape(scale.shape))
    if scale.dtype == "F8_E4M3":
        factors = float8(scale.raw.view(np.uint8).reshape(scale.shape), scale.dtype, None)
        beside = need_floats(tensors[f"{own}_global_scale" if packed == f"{own}_packed" else f"{own}_scale_2"])
        whole = np.float32(beside.item() if packed == own else 1 / beside.item())
        if not np.isfinite(whole):
            raise ValueError("its scale is no number")
    experts = packed == f"{own}_blocks"
    flat = (*shape[:-2], 2 * math.prod(shape[-2:])) if experts else (*shape[:-1], 2 * shape[-1])
    fits = len(shape) == (4 if experts else 2) and scale.shape == (*flat[:-1], flat[-1] // sizes[scale.dtype])
    if not fits or flat[-1] % sizes[scale.dtype] or (experts and (shape[-1] != 16 or scale.dtype == "F8_E4M3")):
        raise ValueError("its parts do not fit together")
    values = fp4(tensors[packed].raw.view(np.uint8).reshape(*flat[:-1], -1), factors * whole)
    if experts:  # outputs × inputs, where the model has inputs × outputs
        values = np.ascontiguousarray(values.swapaxes(1, 2))
    return values.shape, values.reshape(len(values), -1)


def packed_values(stem: str, tensors: dict[str, Weights], zero_point: int) -> tuple[tuple[int, ...], Floats]:
    """Return what packed integers hold; raises ValueError or KeyError where the parts do not fit together."""

    def words(name: str) -> npt.NDArray[np.int32]:
        return tensors[stem + name].whole_numbers().astype(np.int32)

    if f"{stem}qweight" in tensors:
        group = tensors[f"{stem}g_idx"].whole_numbers().reshape(-1) if f"{stem}g_idx" in tensors else None
        scales = need_floats(tensors[f"{stem}scales"])
        values = gptq(Parts(words("qweight"), scales, words("qzeros"), group), zero_point)
    else:
        shape = tuple(tensors[f"{stem}weight_shape"].whole_numbers().reshape(-1).tolist())
        zeros = words("weight_zero_point") if f"{stem}weight_zero_point" in tensors else None
        scales = need_floats(tensors[f"{stem}weight_scale"])
        values = compressed(Parts(words("weight_packed"), scales, zeros, None, shape))
    return values.shape, values


def need_floats(tensor: Weights) -> Floats:
    """Return a tensor of floats in its own shape; raises ValueError where it holds others."""
    if tensor.dtype not in DTYPES:
        raise ValueError("its scales are of an unknown type")
    return tensor.floats().reshape(tensor.shape)


def probe(values: Floats) -> Floats:
    """Return some rows as one vector of length 1, or of zeros."""
    rows = np.linspace(0, len(values) - 1, min(PROBES, len(values))).astype(np.int64)
    flat = np.where(np.abs(values[rows]) < LARGEST, values[rows], np.float32(0)).reshape(-1)
    length = np.linalg.norm(flat)
    unit: Floats = flat / length if length > 0 else flat
    return unit


def weight_of(name: str, model: Model) -> tuple[tuple[int, ...], Floats] | None:
    """Return what the original calls ``name``, its shape and values; None where the model has none that can be read."""
    own = model.own_name(name)
    return None if own is None else model.values(own)
