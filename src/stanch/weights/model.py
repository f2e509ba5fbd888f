"""The weight files of a model directory: one file, several, or shards with an index."""

from pathlib import Path

from stanch.errors import InvalidInput
from stanch.weights.json_file import read_json_object
from stanch.weights.tensors import Tensor, open_tensors

INDEX_NAME = "model.safetensors.index.json"


def weight_files(path: Path) -> tuple[Path, ...]:
    """Return the safetensors files of a model: ``path`` itself, or those directly in the directory, sorted by name.

    Raises:
        InvalidInput: There is none, or the index names a file that is missing or not a plain name.
    """
    if path.is_file():
        return (path,)
    files = tuple(sorted(path.glob("*.safetensors"))) if path.is_dir() else ()
    if not files:
        raise InvalidInput(
            f"{path.name}: expected a safetensors file or a directory that holds one, found none",
            next_step="give the model's directory; pickled weights are never loaded",
        )
    index = path / INDEX_NAME
    if index.is_file():
        missing = set(_weight_map(index).values()) - {file.name for file in files}
        if missing:
            raise InvalidInput(f"{INDEX_NAME}: it names {min(missing)!r}, which is not in the directory")
    return files


def _weight_map(index: Path) -> dict[str, str]:
    """Return tensor name → file name, as a sharded index says."""
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise InvalidInput(f"{index.name}: expected a weight_map object, found none")
    return {name: str(file) for name, file in weight_map.items()}


def open_model(path: Path) -> dict[str, Tensor]:
    """Map all weight files of a model and return its tensors by name.

    Raises:
        InvalidInput: No weight file, a tensor in two files, or an index that disagrees with the files.
        InvalidSafetensors: A file breaks a rule of the format.
    """
    tensors: dict[str, Tensor] = {}
    places: dict[str, str] = {}
    for file in weight_files(path):
        for name, tensor in open_tensors(file).items():
            if name in tensors:
                raise InvalidInput(f"{file.name}: tensor {name!r} is also in {places[name]}")
            tensors[name], places[name] = tensor, file.name
    index = path / INDEX_NAME
    if index.is_file():
        for name, place in _weight_map(index).items():
            if places.get(name) != place:
                raise InvalidInput(f"{INDEX_NAME}: it puts tensor {name!r} into {place!r}, where it is not")
    return tensors
