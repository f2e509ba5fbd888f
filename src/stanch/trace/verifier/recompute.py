# ruff: noqa: T201 - it is a program whose output is its answer
"""Compute the features of an evidence pack again from suspect and original, with Python and numpy alone.

    python recompute.py PACK.zip --suspect DIR --original DIR [--base DIR]

Run verify.py first: it shows that the pack is whole. This program shows that the features in it are the suspect's:

1. suspect     every file of DIR hashes to the suspect that the plan names
2. original    every file of DIR hashes to the original that the keys were committed with, and its layout is theirs
3. features    what is computed at the pack's coordinates equals what the pack says

The last step allows a difference that can move no score by more than 0.05. It computes the variants ``plain`` and
``projected``, of suspects stored as floats, in 8 bits (a scale a row) or in bitsandbytes' 4; for any other it says so
and exits with 5. Exit code 1: a step does not hold.
"""

import argparse
import hashlib
import json
import math
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Json = dict[str, Any]
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
STATE = ".quant_state.bitsandbytes__"
PREFIXES = ("base_model.model.", "model.", "transformer.", "bert.")
NF4 = np.array(
    [-1, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0,
     0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1], np.float32)  # fmt: skip
# Values in a block (0: a row), integers from −levels to levels (0: NF4), and how far a stored value may lie from these.
GRIDS = ((0, 127, 1 / 12), (32, 127, 1 / 12), (64, 0, 1 / 128))
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


class Place(NamedTuple):
    """A marked tensor: its name, its first global coordinate, and how many it has."""

    name: str
    offset: int
    size: int


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


def read_weights(folder: Path) -> dict[str, Weights]:
    """Map every tensor of the folder's safetensors files by name."""
    found: dict[str, Weights] = {}
    for path in sorted(folder.rglob("*.safetensors")):
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
            need(whole and name not in found, f"{path.name}: {name} is malformed or stands twice")
            found[name] = Weights(item["dtype"], shape, raw)
    return found


def lay_out(tensors: dict[str, Weights], kind: str) -> tuple[list[Place], str]:
    """Return the marked tensors with their coordinates, and the digest of the layout."""
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
    return places, hashlib.sha256(text.encode()).hexdigest()


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


def row_scales(weights: Floats) -> Floats:
    """Return each row's rms, rounded to bfloat16, to nearest even."""
    bits = np.sqrt(np.square(weights, dtype=np.float64).mean(axis=1)).astype(np.float32).view(np.uint32)
    kept = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(0xFFFF0000)
    scales: Floats = kept.view(np.float32)
    return scales


def nearest(scaled: Floats, levels: int) -> Floats:
    """Return the nearest whole number from −levels to levels, or the nearest value of NF4 where ``levels`` is 0."""
    if levels:
        return np.clip(np.rint(scaled), -levels, levels)
    return NF4[np.searchsorted((NF4[1:] + NF4[:-1]) / 2, scaled)]


def units(suspect: Floats, block: int, levels: int) -> Floats:
    """Return the unit of each block: its largest magnitude, divided by ``levels``; one line a block."""
    largest = np.abs(suspect.reshape(-1, block or suspect.shape[1])).max(axis=1, keepdims=True)
    scales: Floats = np.maximum(largest, np.float32(1e-30)) / np.float32(levels or 1)
    return scales


def on_grid(suspect: Floats, block: int, levels: int, slack: float) -> npt.NDArray[np.bool_]:
    """Say of each row whether all its values lie on the grid."""
    scaled = suspect.reshape(-1, block or suspect.shape[1]) / units(suspect, block, levels)
    near = np.abs(scaled - nearest(scaled, levels)) <= np.float32(slack)
    whole: npt.NDArray[np.bool_] = near.reshape(len(suspect), -1).all(axis=1)
    return whole


def rounded(original: Floats, suspect: Floats) -> Floats | None:
    """Return the original on the grid of 8 or 4 bits that the suspect's rows lie on, or None where they lie on none."""
    probes = suspect[np.linspace(0, len(suspect) - 1, 16).astype(np.int64)]
    probes = probes[probes.any(axis=1)]
    if suspect.shape[1] % 64 or not len(probes):
        return None
    for block, levels, slack in GRIDS:
        if on_grid(probes, block, levels, slack).any():
            scales = units(suspect, block, levels)
            moved = nearest(original.reshape(len(scales), -1) / scales, levels) * scales
            fits = on_grid(suspect, block, levels, slack)[:, np.newaxis]
            return np.where(fits, moved.reshape(original.shape), original)
    return None


def centred(values: Floats, kept: npt.NDArray[np.bool_]) -> Floats:
    """Return the values without the row means of the kept entries."""
    count = np.maximum(kept.sum(axis=1, keepdims=True), 1)
    mean = values.sum(axis=1, keepdims=True, dtype=np.float64) / count
    result: Floats = np.where(kept, values - mean.astype(np.float32), np.float32(0))
    return result


def features_of(original: Floats, suspect: Floats, base: Floats | None, alpha: float, variant: str) -> Floats:
    """Return the features of one tensor: ``clip(R, ±4√v)·s/v`` with R the residual, v its power in the row."""
    kept = (np.abs(suspect) < np.float32(1e12)) & (original != 0)
    if suspect.size - np.count_nonzero(suspect) > 1e-3 * suspect.size:
        kept &= suspect != 0
    moved = rounded(original, suspect) if variant == "projected" else None
    suspect = np.where(kept, suspect, np.float32(0))
    residual = np.where(kept, suspect - original, np.float32(0))
    if variant == "projected":
        known = [np.where(kept, original, np.float32(0))]
        known += [np.where(kept, other - original, np.float32(0)) for other in (base, moved) if other is not None]
        columns = [centred(values, kept) for values in (*known, residual)]
        moments = np.array([[np.vdot(a.astype(np.float64), b) for b in columns] for a in columns])
        weights = np.linalg.lstsq(moments[:-1, :-1], moments[:-1, -1], rcond=1e-10)[0]
        residual = columns[-1]
        for weight, column in zip(weights, columns[:-1], strict=True):
            residual = residual - np.float32(weight) * column
    scales, count = row_scales(original), np.maximum(kept.sum(axis=1), 1)
    power = np.square(residual, dtype=np.float64).sum(axis=1) / count
    wide, least = scales.astype(np.float64), np.full(len(scales), alpha / 2)
    if moved is not None:
        error = np.sqrt(np.square(moved - original, dtype=np.float64).mean(axis=1))
        error = np.divide(error, wide, out=np.zeros_like(wide), where=wide > 0)
        usual = np.median(np.sqrt(power[error > 0]) / wide[error > 0]) if error.any() else 0.0
        least = np.maximum(least, np.minimum(usual, error))
    deviations = np.maximum(np.sqrt(power), least * wide)
    deviations = np.where(deviations > 0, deviations, 1.0).astype(np.float32)
    scaled = np.clip(residual / deviations[:, np.newaxis], np.float32(-4), np.float32(4))
    values: Floats = scaled * (scales / deviations)[:, np.newaxis]
    values[~(np.abs(values) < np.float32(1e15))] = 0
    return values


def all_features(
    places: list[Place], tensors: tuple[dict[str, Weights], ...], alpha: float, variant: str
) -> Iterator[tuple[Place, Floats]]:
    """Yield each matched tensor's place and features; ``tensors`` are those of original, suspect and perhaps base."""
    original, *others = tensors
    suspect, base = ({plain_name(name): tensor for name, tensor in each.items()} for each in (*others, {})[:2])
    for place in places:
        mine, name = original[place.name], plain_name(place.name)
        if name not in suspect:
            if f"{name.removesuffix('weight')}qweight" in suspect:
                raise OtherVariant(f"the suspect stores {place.name} as packed integers")
            continue
        try:
            theirs, known = values_of(name, suspect), base.get(name)
        except (KeyError, TypeError, ValueError):
            continue  # as for whoever made the pack: what does not fit together takes no part
        if theirs is None:
            raise OtherVariant(f"the suspect stores {place.name} as {suspect[name].dtype}")
        shape, values = theirs
        if shape != mine.shape:
            continue
        beside = known.floats() if known is not None and known.shape == mine.shape and known.dtype in DTYPES else None
        with np.errstate(all="ignore"):
            yield place, features_of(mine.floats(), values, beside, alpha, variant)


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
    if scores["variant"] not in {"plain", "projected"}:
        raise OtherVariant(f"the pack shows the variant {scores['variant']!r}")
    need(folder_digest(suspect) == plan["suspect"], "the folder is not the suspect that the plan names")
    say(f"suspect     ok  {plan['suspect']}")
    need(folder_digest(original) == "sha256:" + batch["original"], "the folder is not the original of these keys")
    tensors = read_weights(original)
    places, layout = lay_out(tensors, plan["release"]["kind"])
    need(layout == batch["layout_digest"], "the original's layout is not the one that the keys were committed for")
    say(f"original    ok  {len(places)} marked tensors")
    found = np.zeros(len(coordinates))
    opened = (tensors, read_weights(suspect)) + (() if base is None else (read_weights(base),))
    for place, values in all_features(places, opened, float.fromhex(batch["alpha"]), scores["variant"]):
        low, high = np.searchsorted(coordinates, (place.offset, place.offset + place.size))
        found[low:high] = values.reshape(-1)[coordinates[low:high] - place.offset]
    # A difference of relative size d can move a score by d·√N at most.
    difference = float(np.linalg.norm(found - stated)) / max(float(np.linalg.norm(stated)), 1e-30)
    need(difference * math.sqrt(len(stated)) <= 0.05, f"the features differ from the pack's by {difference:.2e}")
    say(f"features    ok  {len(stated)} of variant {scores['variant']}, equal but for {difference:.1e}")


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
