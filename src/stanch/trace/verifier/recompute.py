# ruff: noqa: T201 - it is a program whose output is its answer
"""Compute the features of an evidence pack again from suspect and original, with Python and numpy alone.

    python recompute.py PACK.zip --suspect DIR --original DIR [--base DIR]

Run verify.py first: it shows that the pack is whole. This program shows that the features in it are the suspect's:

1. suspect     every file of DIR hashes to the suspect that the plan names
2. original    every file of DIR hashes to the original that the keys were committed with, and its layout is theirs and
               as long as the plan says; so do those of the base, where the plan names one
3. features    what is computed at the pack's coordinates equals what the pack says

The last step allows a difference that can move no score by more than 0.05. It computes every variant, of suspects in
safetensors and most GGUF files. What it does not compute (a GGUF file that was re-aligned, rare block formats, experts
of a mixture arranged anew) it names after the first two steps, as NOT DONE, and exits with 5; `stanch trace verify`
computes those too. Exit code 1: a step does not hold. The formulas are in features.py and alignment.py; models.py,
packed.py and gguf_files.py read the files.
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

if __package__:
    from stanch.trace.verifier.alignment import Aligner
    from stanch.trace.verifier.features import adapter_features, features_of, without_rounding
    from stanch.trace.verifier.models import (
        DTYPES,
        MALFORMED,
        A,
        B,
        BaseMissing,
        Failed,
        Model,
        Module,
        OtherVariant,
        Weights,
        choose,
        need,
        weight_of,
    )
else:  # the files were taken out of a pack
    sys.path.insert(0, str(Path(__file__).parent))
    from alignment import Aligner  # type: ignore[import-not-found,no-redef]  # beside this file
    from features import (  # type: ignore[import-not-found,no-redef]  # beside this file
        adapter_features,
        features_of,
        without_rounding,
    )
    from models import (  # type: ignore[import-not-found,no-redef]  # beside this file
        DTYPES,
        MALFORMED,
        A,
        B,
        BaseMissing,
        Failed,
        Model,
        Module,
        OtherVariant,
        Weights,
        choose,
        need,
        weight_of,
    )

Floats = npt.NDArray[np.float32]
VARIANTS = {
    "full": ("plain", "projected", "spectral", "tangent", "aligned"),
    "adapter": ("plain", "projected", "spectral", "adapter"),
}
MAX_PART = 1 << 31
EXPERTS = "experts"


class Place(NamedTuple):
    """A marked tensor: its name, its first global coordinate, and how many it has."""

    name: str
    offset: int
    size: int


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


def need_recognised(suspect: Model, name: str) -> None:
    """Raise OtherVariant where a weight of a GGUF file may have a name that is not known here."""
    if suspect.heads is not None:
        raise OtherVariant(f"{name} of the GGUF file is not known by what it holds")


def all_features(
    places: list[Place], models: tuple[Model, Model, Model | None], alpha: float, variant: str
) -> Iterator[tuple[Place, Floats]]:
    """Yield each matched tensor's place and features; ``models`` are original, suspect and perhaps base."""
    original, suspect, base = models
    if suspect.config is None:
        suspect = suspect.recognise({place.name: original.tensors[place.name] for place in places})
    if variant == "aligned" and suspect.heads is not None:
        raise OtherVariant("a GGUF file that was re-aligned")
    known = {place.name: place for place in places}
    read = Aligner(original, suspect).tensors() if variant == "aligned" else matched(places, original, suspect)
    for name, theirs in read:
        if name not in known or theirs.shape != (shown := original.tensors[name].floats()).shape:
            continue
        beside_name = None if base is None else base.own_name(name)
        other = None if base is None or beside_name is None else base.tensors[beside_name]
        fits = other is not None and other.shape == original.tensors[name].shape and other.dtype in DTYPES
        beside = other.floats() if other is not None and fits else None
        with np.errstate(all="ignore"):
            try:
                yield known[name], features_of(shown, theirs, beside, alpha, variant)
            except np.linalg.LinAlgError:
                continue  # such a tensor takes no part


def matched(places: list[Place], original: Model, suspect: Model) -> Iterator[tuple[str, Floats]]:
    """Yield the name of each marked tensor that the suspect has in its shape, and the suspect's values."""
    for place in places:
        theirs = weight_of(place.name, suspect)
        if theirs is not None and theirs[0] == original.tensors[place.name].shape:
            yield place.name, theirs[1]
            continue
        need_recognised(suspect, place.name)
        if EXPERTS in place.name and any(EXPERTS in name for name in suspect.tensors):
            raise OtherVariant("original and suspect arrange the experts of a mixture in different ways")


def all_changes(models: tuple[Model, Model, Model | None]) -> Iterator[tuple[Module, Floats]]:
    """Yield each module of the original adapter, and the suspect's change of its weight."""
    original, suspect, base = models
    theirs = None if suspect.config is None else suspect.modules()
    if theirs is None and base is None:
        raise BaseMissing("the suspect is a whole model and the original an adapter: give --base")
    modules = original.modules()
    if theirs is None:
        theirs_of = {f"{name}.weight": base.own_name(f"{name}.weight") for name in modules} if base is not None else {}
        wanted = {name: base.tensors[own] for name, own in theirs_of.items() if base and own in base.tensors}
        suspect = suspect.recognise({name: weight for name, weight in wanted.items() if weight.dtype in DTYPES})
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
        if known is not None and found is None:
            need_recognised(suspect, name)
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


class Shown(NamedTuple):
    """What a pack says of the features in it."""

    plan: dict[str, Any]
    batch: dict[str, Any]
    variant: str
    coordinates: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    @property
    def kind(self) -> str:
        """Whether an adapter or a full model was released."""
        kind: str = self.plan["release"]["kind"]
        return kind

    @property
    def alpha(self) -> float:
        """The strength of the mark."""
        return float.fromhex(self.batch["alpha"])

    def compare(self, found: npt.NDArray[np.floating]) -> str:
        """Return how far features at the pack's coordinates are from the pack's, or raise where they are others."""
        difference = float(np.linalg.norm(found - self.values)) / max(float(np.linalg.norm(self.values)), 1e-30)
        # A difference of relative size d can move a score by d·√N at most.
        moved = difference * math.sqrt(len(self.values))
        need(moved <= 0.05, f"the features differ from the pack's by {difference:.2e}")
        return f"{len(self.values)} of variant {self.variant}, equal but for {difference:.1e}"


def read_shown(pack: Path) -> Shown:
    """Read what a pack says of its features."""
    with zipfile.ZipFile(pack) as archive:
        need(sum(item.file_size for item in archive.infolist()) <= MAX_PART, "the pack is too large")
        plan, batch, scores = (
            json.loads(archive.read(name)) for name in ("plan.json", "commitment/batch.json", "scores/scores.json")
        )
        coordinates = np.frombuffer(archive.read("features/coordinates.u64le"), "<u8").astype(np.int64)
        values = np.frombuffer(archive.read("features/values.f32le"), "<f4").astype(np.float64)
    return Shown(plan, batch, scores["variant"], coordinates, values)


def check_folders(
    shown: Shown, suspect: Path, original: Path, base: Path | None, say: Callable[[str], None]
) -> tuple[Model, list[Place]]:
    """Check that the folders are those of the case; return the original and its marked tensors."""
    need(folder_digest(suspect) == shown.plan["suspect"], "the folder is not the suspect that the plan names")
    say(f"suspect     ok  {shown.plan['suspect']}")
    need(folder_digest(original) == "sha256:" + shown.batch["original"], "the folder is not the original of these keys")
    named = shown.plan["release"]["base"]
    need(base is None or folder_digest(base) == named, "the folder is not the base that the plan names")
    model = Model.open_original(original)
    places, layout, extent = lay_out(model.tensors, shown.kind)
    need(layout == shown.batch["layout_digest"], "the original's layout is not that of the committed keys")
    need(extent == shown.plan["release"]["extent"], "the plan says that the layout is of another length")
    say(f"original    ok  {len(places)} marked tensors")
    if base is None and named is not None and shown.kind == "full" and shown.variant != "plain":
        raise BaseMissing("the examination used a base model: give --base")
    return model, places


def recompute(
    pack: Path, suspect: Path, original: Path, say: Callable[[str], None] = print, base: Path | None = None
) -> None:
    """Compare the features in the pack with those of the two folders, or raise at the first bad step."""
    shown = read_shown(pack)
    model, places = check_folders(shown, suspect, original, base, say)
    make = maker(shown.kind, shown.variant)
    models = model, Model.open(suspect), None if base is None else Model.open(base)
    found = np.zeros(len(shown.coordinates))
    for place, values in make(places, models, shown.alpha, shown.variant):
        low, high = np.searchsorted(shown.coordinates, (place.offset, place.offset + place.size))
        found[low:high] = values.reshape(-1)[shown.coordinates[low:high] - place.offset]
    say(f"features    ok  {shown.compare(found)}")


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
        print(f"NOT DONE    features: {error}")
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
