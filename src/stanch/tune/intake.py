"""What a base model must be before it is loaded: safetensors, nothing that could run, and the expected digest."""

from pathlib import Path

from stanch.errors import InvalidInput, Tampered
from stanch.sign import inspect_model
from stanch.terms import Digest
from stanch.weights import directory_digest


def check_base(path: Path, digest: str | None = None) -> Digest:
    """Return the digest of the base model's folder.

    Raises:
        InvalidInput: No folder, no configuration, no safetensors weights.
        UnsafeArtifact: As :func:`stanch.sign.inspect_model`: loading it could run code.
        Tampered: Its digest is not the expected one.
    """
    if not (path / "config.json").is_file():
        raise InvalidInput(
            f"{path}: expected a model folder with config.json", next_step="try: stanch tune fetch-model smollm2"
        )
    inspect_model(path)
    found = directory_digest(path)
    if not any(name.endswith(".safetensors") for name, _, _ in found.files):
        raise InvalidInput(f"{path}: expected safetensors weights, found none", next_step="convert the model")
    if digest is not None and str(found.root) != digest:
        raise Tampered(
            f"{path}: expected digest {digest}, found {found.root}",
            why="the base model is not the one that the spec names",
        )
    return found.root
