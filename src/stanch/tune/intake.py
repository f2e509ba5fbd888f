"""What a base model must be before it is loaded: safetensors, no code, no pickle, and the expected digest."""

import json
from pathlib import Path

from stanch.errors import InvalidInput, Tampered, UnsafeArtifact
from stanch.terms import Digest
from stanch.weights import directory_digest

_PICKLED = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
_CONFIGS = ("config.json", "tokenizer_config.json")


def check_base(path: Path, digest: str | None = None) -> Digest:
    """Return the digest of the base model's folder.

    Raises:
        InvalidInput: No folder, no configuration, no safetensors weights.
        UnsafeArtifact: Loading it could run code: Python files, a configuration that names code, pickled weights.
        Tampered: Its digest is not the expected one.
    """
    if not (path / "config.json").is_file():
        raise InvalidInput(
            f"{path}: expected a model folder with config.json", next_step="try: stanch tune fetch-model smollm2"
        )
    found = directory_digest(path)
    names = [Path(name) for name, _, _ in found.files]
    for name in names:
        if name.suffix in _PICKLED or name.suffix == ".py":
            raise UnsafeArtifact(
                f"{path}: {name} could run code when it is loaded",
                why="pickled weights and Python files are programs",
                next_step="convert the model to safetensors and remove the file",
            )
    for config in _CONFIGS:
        _check_config(path / config)
    if not any(name.suffix == ".safetensors" for name in names):
        raise InvalidInput(f"{path}: expected safetensors weights, found none", next_step="convert the model")
    if digest is not None and str(found.root) != digest:
        raise Tampered(
            f"{path}: expected digest {digest}, found {found.root}",
            why="the base model is not the one that the spec names",
        )
    return found.root


def _check_config(path: Path) -> None:
    if not path.is_file():
        return
    # Not our strict reader: tokenizers write 10^30 for "no limit". Here only a key's presence matters.
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: not valid JSON") from error
    if not isinstance(value, dict) or "auto_map" in value:
        raise UnsafeArtifact(
            f"{path}: names code that comes with the model",
            why="remote code is never trusted",
            next_step="use a model of a built-in architecture",
        )
