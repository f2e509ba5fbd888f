# ruff: noqa: T201 - it is a program whose output is its answer
"""Compute the features of an evidence pack again from suspect and original, with Python and numpy alone.

    python recompute.py PACK.zip --suspect DIR --original DIR [--base DIR]

Run verify.py first: it shows that the pack is whole. This program shows that the features in it are the suspect's:

1. suspect     every file of DIR hashes to the suspect that the plan names
2. original    every file of DIR hashes to the original that the keys were committed with, and its layout is theirs and
               as long as the plan says; so do those of the base, where the plan names one
3. features    what is computed at the pack's coordinates equals what the pack says

The last step allows a difference that can move no score by more than 0.05. It computes every variant but ``aligned``,
of suspects in safetensors files, stored as floats, in 8 bits (a scale a row) or in bitsandbytes' 4; of any other, of
GGUF, and of names that mean nothing, it says so and exits with 5. Exit code 1: a step does not hold. The formulas are
in features.py.
"""

import argparse
import hashlib
import json
import math
import re
import sys
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

if __package__:
    from stanch.trace.verifier.features import adapter_features, features_of, without_rounding
else:  # both files were taken out of a pack
    sys.path.insert(0, str(Path(__file__).parent))
    from features import (  # type: ignore[import-not-found,no-redef]  # beside this file
        adapter_features,
        features_of,
        without_rounding,
    )

Floats = npt.NDArray[np.float32]
Json = dict[str, Any]
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
STATE = ".quant_state.bitsandbytes__"
PREFIXES = ("base_model.model.", "model.", "transformer.", "bert.")
VARIANTS = {
    "full": ("plain", "projected", "spectral", "tangent"),
    "adapter": ("plain", "projected", "spectral", "adapter"),
}
CONFIG, ADAPTER, A, B = "adapter_config.json", "adapter_model.safetensors", ".lora_A.weight", ".lora_B.weight"
MODEL, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_SCALE, MAX_ALPHA = 1e6, 1e100
MAX_HEADER, MAX_PART, MAX_STATE = 100 << 20, 1 << 31, 4096

# What reading files that are no model's raises; that a file cannot be read says nothing about the pack.
MALFORMED = (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, zipfile.BadZipFile)


class Failed(Exception):
    """A step does not hold."""


class OtherVariant(Exception):
    """The features cannot be computed by this program."""


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
        return values.reshape(self.shape[0], -1)


class Model(NamedTuple):
    """A model or an adapter: its tensors by name, and its ``adapter_config.json``, if it has one."""

    tensors: dict[str, Weights]
    config: Json | None

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
            raise OtherVariant(f"{folder.name} is a GGUF file")
        model = cls(read_weights(files, places), config)
        alone = all(name.endswith((A, B)) for name, tensor in model.tensors.items() if len(tensor.shape) > 1)
        return model if alone and model.modules() else cls(model.tensors, None)

    @classmethod
    def open_original(cls, folder: Path) -> "Model":
        """Open the original: an adapter, or all safetensors files, since each of them was marked."""
        if (folder / CONFIG).is_file():
            return cls.open_adapter(folder)
        return cls(read_weights(sorted(folder.glob("*.safetensors")), {}), None)

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
        return choose(name, [own for own, tensor in self.tensors.items() if tensor.shape and tensor.raw.size])

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


class Place(NamedTuple):
    """A marked tensor: its name, its first global coordinate, and how many it has."""

    name: str
    offset: int
    size: int


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


def folder_digest(folder: Path) -> str:
    """Return ``sha256:`` and the SHA-256 of the canonical JSON of all files' names, digests and sizes."""
    items = []
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            items.append({"name": path.relative_to(folder).as_posix(), "sha256": digest, "size": path.stat().st_size})
    items.sort(key=lambda item: str(item["name"]).encode())
    listing = json.dumps(items, ensure_ascii=False, separators=(",", ":")).encode()
    return "sha256:" + hashlib.sha256(listing).hexdigest()


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


def lay_out(tensors: dict[str, Weights], kind: str) -> tuple[list[Place], str, int]:
    """Return the marked tensors with their coordinates, the digest of the layout, and how far it reaches."""
    places, listing, seen, offset = [], [], set(), 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[0].encode()):
        large = tensor.raw.size >= (256 if kind == "adapter" else 4096) and len(tensor.shape) >= 2
        factor = name.endswith((".lora_A.weight", ".lora_B.weight"))
        whole = not name.endswith("bias") and "norm" not in name.lower()
        if tensor.dtype not in {"F32", "F16", "BF16"} or not large or not (factor if kind == "adapter" else whole):
            continue
        content = tensor.dtype, tensor.shape, hashlib.sha256(tensor.raw.tobytes()).digest()
        if content in seen:
            continue
        seen.add(content)
        places.append(Place(name, offset, tensor.raw.size))
        listing.append({"dtype": tensor.dtype, "name": name, "offset": offset, "shape": list(tensor.shape)})
        offset = -(-(offset + tensor.raw.size) // 8) * 8
    text = json.dumps(listing, ensure_ascii=False, separators=(",", ":"))
    return places, hashlib.sha256(text.encode()).hexdigest(), offset


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


def need_names(model: Model, wanted: dict[str, tuple[int, ...]]) -> None:
    """Raise OtherVariant where a wanted weight has no name and a tensor without a use could be it, by its contents."""
    claimed = {name: model.own_name(name) for name in wanted}
    free = {tensor.shape for own, tensor in model.tensors.items() if own not in claimed.values()}
    for name, own in claimed.items():
        if own is None and wanted[name] in free:
            raise OtherVariant(f"the suspect has no one tensor of the name {name}, and others of its shape")


def weight_of(name: str, model: Model) -> tuple[tuple[int, ...], Floats] | None:
    """Return what the original calls ``name``; None where the model has none, or its parts do not fit together.

    Raises OtherVariant where there may be a weight that this program does not read.
    """
    own, tensors = model.own_name(name), model.tensors
    if own is None:
        stem = name.removesuffix("weight")
        if any(choose(stem + kind, tensors) is not None for kind in ("qweight", "weight_packed")):
            raise OtherVariant(f"{name} is stored as packed integers")
        return None
    try:
        found = values_of(own, tensors)
    except (KeyError, TypeError, ValueError):
        return None  # as for whoever made the pack: what does not fit together takes no part
    if found is None:
        raise OtherVariant(f"{name} is stored as {tensors[own].dtype}")
    return found


def all_features(
    places: list[Place], models: tuple[Model, Model, Model | None], alpha: float, variant: str
) -> Iterator[tuple[Place, Floats]]:
    """Yield each matched tensor's place and features; ``models`` are original, suspect and perhaps base."""
    original, suspect, base = models
    if suspect.config is None:
        need_names(suspect, {place.name: original.tensors[place.name].shape for place in places})
    for place in places:
        mine = original.tensors[place.name]
        theirs = weight_of(place.name, suspect)
        if theirs is None or theirs[0] != mine.shape:
            continue
        beside_name = None if base is None else base.own_name(place.name)
        known = None if base is None or beside_name is None else base.tensors[beside_name]
        beside = known.floats() if known is not None and known.shape == mine.shape and known.dtype in DTYPES else None
        with np.errstate(all="ignore"):
            try:
                yield place, features_of(mine.floats(), theirs[1], beside, alpha, variant)
            except np.linalg.LinAlgError:
                continue  # such a tensor takes no part


def all_changes(models: tuple[Model, Model, Model | None]) -> Iterator[tuple[Module, Floats]]:
    """Yield each module of the original adapter, and the suspect's change of its weight."""
    original, suspect, base = models
    theirs = None if suspect.config is None else suspect.modules()
    if theirs is None and base is None:
        raise OtherVariant("the suspect is a whole model and the original an adapter: give --base")
    modules = original.modules()
    if theirs is None:
        shapes = {name: (module.b.shape[0], module.a.shape[1]) for name, module in modules.items()}
        turned = {name: shape[::-1] if modules[name].turned else shape for name, shape in shapes.items()}
        need_names(suspect, {f"{name}.weight": shape for name, shape in turned.items()})
    for name, module in modules.items():
        own = module.change()
        if theirs is not None:
            chosen = choose(name, theirs)
            if chosen is not None and (change := theirs[chosen].change()).shape == own.shape:
                yield module, change
            continue
        own = own.T if module.turned else own
        pair = [weight_of(f"{name}.weight", model) for model in (base, suspect) if model is not None]
        known, found = (values if values is None or values[0] == own.shape else None for values in pair)
        if known is not None and found is not None:
            with np.errstate(all="ignore"):
                change = without_rounding(found[1], known[1] + own) - known[1]
            yield module, change.T if module.turned else change


def all_factors(
    places: list[Place], models: tuple[Model, Model, Model | None], alpha: float, variant: str
) -> Iterator[tuple[Place, Floats]]:
    """Yield the place and the features of each factor of an adapter whose module is matched."""
    known = {place.name: place for place in places}
    for module, change in all_changes(models):
        with np.errstate(all="ignore"):
            try:
                pair = adapter_features(module.a, module.b, change, module.scale, alpha, variant)
            except np.linalg.LinAlgError:
                continue
        for name, values in zip((module.stem + A, module.stem + B), pair, strict=True):
            if name in known:
                yield known[name], values


def maker(kind: str, variant: str) -> Callable[..., Iterator[tuple[Place, Floats]]]:
    """Return what makes the features of a variant for a kind of release, or raise OtherVariant."""
    if variant not in VARIANTS[kind]:
        raise OtherVariant(f"the pack shows the variant {variant!r}")
    return all_factors if kind == "adapter" and variant in {"spectral", "adapter"} else all_features


def recompute(
    pack: Path, suspect: Path, original: Path, say: Callable[[str], None] = print, base: Path | None = None
) -> None:
    """Compare the features in the pack with those of the two folders, or raise at the first bad step."""
    with zipfile.ZipFile(pack) as archive:
        need(sum(item.file_size for item in archive.infolist()) <= MAX_PART, "the pack is too large")
        plan, batch, scores = (
            json.loads(archive.read(name)) for name in ("plan.json", "commitment/batch.json", "scores/scores.json")
        )
        coordinates = np.frombuffer(archive.read("features/coordinates.u64le"), "<u8").astype(np.int64)
        stated = np.frombuffer(archive.read("features/values.f32le"), "<f4").astype(np.float64)
    kind, variant = plan["release"]["kind"], scores["variant"]
    make = maker(kind, variant)
    need(folder_digest(suspect) == plan["suspect"], "the folder is not the suspect that the plan names")
    say(f"suspect     ok  {plan['suspect']}")
    need(folder_digest(original) == "sha256:" + batch["original"], "the folder is not the original of these keys")
    named = plan["release"]["base"]
    need(base is None or folder_digest(base) == named, "the folder is not the base that the plan names")
    if base is None and named is not None and kind == "full" and variant != "plain":
        raise OtherVariant("the examination used a base model: give --base")
    models = Model.open_original(original), Model.open(suspect), None if base is None else Model.open(base)
    places, layout, extent = lay_out(models[0].tensors, kind)
    need(layout == batch["layout_digest"], "the original's layout is not the one that the keys were committed for")
    need(extent == plan["release"]["extent"], "the plan says that the layout is of another length")
    say(f"original    ok  {len(places)} marked tensors")
    found = np.zeros(len(coordinates))
    for place, values in make(places, models, float.fromhex(batch["alpha"]), variant):
        low, high = np.searchsorted(coordinates, (place.offset, place.offset + place.size))
        found[low:high] = values.reshape(-1)[coordinates[low:high] - place.offset]
    # A difference of relative size d can move a score by d·√N at most.
    difference = float(np.linalg.norm(found - stated)) / max(float(np.linalg.norm(stated)), 1e-30)
    need(difference * math.sqrt(len(stated)) <= 0.05, f"the features differ from the pack's by {difference:.2e}")
    say(f"features    ok  {len(stated)} of variant {variant}, equal but for {difference:.1e}")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Compute the features of an evidence pack again.")
    parser.add_argument("pack", type=Path)
    parser.add_argument("--suspect", type=Path, required=True, help="folder with the suspect's files")
    parser.add_argument("--original", type=Path, required=True, help="folder with the unmarked original")
    parser.add_argument("--base", type=Path, help="folder with the public base model, if one was used")
    options = parser.parse_args()
    try:
        recompute(options.pack, options.suspect, options.original, base=options.base)
    except Failed as error:
        print(f"FAILED      {error}")
        return 1
    except OtherVariant as error:
        print(f"NOT DONE    {error}")
        return 5
    except MALFORMED as error:
        print(f"FAILED      malformed: {type(error).__name__}")
        return 1
    except OSError as error:
        print(f"NOT DONE    cannot read {error.filename}: {error.strerror}")
        return 5
    return 0


if __name__ == "__main__":
    sys.exit(main())
