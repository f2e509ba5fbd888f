"""Which files of a suspect are read as its weights, and which could hold weights and are not.

A thief adds files as he likes: none may end an examination, and none that was left out may pass for one that was read.
What is read is what common loaders read; ``recompute.py`` in evidence packs follows the same rule.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stanch.errors import InvalidInput
from stanch.mark.gguf import is_gguf
from stanch.terms import JsonValue
from stanch.weights import (
    INDEX_NAME,
    Adapter,
    Tensor,
    is_adapter,
    is_factor,
    list_files,
    open_tensors,
    read_factors,
    read_json_object,
)
from stanch.weights.adapter import CONFIG_NAME, WEIGHTS_NAME

MODEL_NAME = "model.safetensors"

_SPLIT = re.compile(r"(.*)-\d{5}-of-(\d{5})\.gguf")
_LEAST_BYTES = 1 << 16
"""Smaller files, such as saved arguments and states of generators, hold too little to be traced."""
_COULD_HOLD = frozenset({
    ".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npz", ".npy", ".h5", ".msgpack",
    ".onnx",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class SuspectFiles:
    """The weights of a suspect, as they lie in its files.

    Attributes:
        tensors: By name; empty for a GGUF file.
        adapter: The adapter, if it is one.
        gguf: The GGUF file, or all parts of a split one, if it is one.
        unread: Files that could hold weights, and tensors that stand in two files: what was not read.
    """

    tensors: Mapping[str, Tensor]
    adapter: Adapter | None = None
    gguf: tuple[Path, ...] = ()
    unread: tuple[str, ...] = ()


def find_weights(path: Path) -> SuspectFiles:
    """Open what is read of a file or a folder.

    A folder's adapter comes first; then the files that its index names, ``model.safetensors``, all other safetensors
    files, or the first GGUF file with all parts of its split. Files that hold the factors of an adapter alone are one,
    whatever they are called.

    Raises:
        InvalidInput: Nothing that can be read is there.
        InvalidSafetensors: A file that is read breaks a rule of the format.
    """
    if path.is_file():
        return SuspectFiles({}, gguf=(path,)) if is_gguf(path) else _sort(open_tensors(path), {})
    adapter = _find_adapter(path)
    if adapter is not None:
        return SuspectFiles(adapter.tensors, adapter, unread=_others(path, (path / WEIGHTS_NAME,)))
    files, places = _model_files(path)
    parts = () if files else _first_gguf(path)
    if parts:
        return SuspectFiles({}, gguf=parts, unread=_others(path, parts))
    if not files:
        raise InvalidInput(
            f"{path.name}: expected safetensors files, or a GGUF file, found none",
            next_step="give the model's folder; pickled weights are never loaded",
        )
    tensors: dict[str, Tensor] = {}
    twice = []
    for file in files:
        for name, tensor in open_tensors(file).items():
            if name in tensors:
                twice.append(f"{name!r} stands in two files")
            if name not in tensors or places.get(name) == file.name:
                tensors[name] = tensor
    return _sort(tensors, _config(path), unread=(*_others(path, files), *twice))


def _sort(tensors: Mapping[str, Tensor], config: Mapping[str, JsonValue], unread: tuple[str, ...] = ()) -> SuspectFiles:
    """Tell an adapter from a model: it holds factors, and no other matrix."""
    alone = all(is_factor(name) for name, tensor in tensors.items() if len(tensor.shape) > 1)
    return SuspectFiles(tensors, read_factors(tensors, config) if alone else None, unread=unread)


def _first_gguf(path: Path) -> tuple[Path, ...]:
    """Return the first GGUF file of a folder, and with it all others of its split ``NAME-00001-of-00003.gguf``."""
    files = [file for file in sorted(path.glob("*.gguf")) if file.is_file() and is_gguf(file)]
    split = _SPLIT.fullmatch(files[0].name) if files else None
    if split is None:
        return tuple(files[:1])
    beside = ((file, _SPLIT.fullmatch(file.name)) for file in files)
    return tuple(file for file, found in beside if found is not None and found.groups() == split.groups())


def _find_adapter(path: Path) -> Adapter | None:
    """Open the adapter; None where there is none, or a broken one lies beside a model."""
    if not is_adapter(path) or not (path / WEIGHTS_NAME).is_file():
        return None
    try:
        return read_factors(open_tensors(path / WEIGHTS_NAME), _config(path))
    except InvalidInput:
        if _model_files(path)[0]:
            return None
        raise


def _config(path: Path) -> Mapping[str, JsonValue]:
    """Return what the adapter's configuration says; nothing where it cannot be read."""
    try:
        return read_json_object(path / CONFIG_NAME)
    except InvalidInput:
        return {}


def _model_files(path: Path) -> tuple[list[Path], Mapping[str, str]]:
    """Return the safetensors files of a model, and where its index says that each tensor is."""
    files = [file for file in sorted(path.glob("*.safetensors")) if file.name != WEIGHTS_NAME]
    try:
        index = read_json_object(path / INDEX_NAME).get("weight_map")
    except InvalidInput:
        index = None
    places = {name: str(file) for name, file in index.items()} if isinstance(index, dict) else {}
    named = [file for file in files if file.name in places.values()]
    whole = [file for file in files if file.name == MODEL_NAME]
    return named or whole or files or sorted(path.glob(WEIGHTS_NAME)), places if named else {}


def _others(path: Path, read: list[Path] | tuple[Path, ...]) -> tuple[str, ...]:
    """Return the names of all files below ``path`` that could hold weights and are not among those that are read."""
    listing = list_files(path)
    found = sorted(path / name for name in (*listing.files, *listing.others))
    names = (file for file in found if file.suffix.lower() in _COULD_HOLD and file not in read)
    large = (file for file in names if file.is_file() and file.stat().st_size >= _LEAST_BYTES)
    return tuple(file.relative_to(path).as_posix() for file in large)
