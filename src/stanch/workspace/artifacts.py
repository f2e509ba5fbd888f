"""What the log calls things: data sets by the SHA-256 of their file, models by the digest of their folder."""

import hashlib
from pathlib import Path

from stanch.errors import InvalidInput
from stanch.terms import ArtifactRef, Digest
from stanch.weights import directory_digest


def dataset_ref(path: Path) -> ArtifactRef:
    """Return the reference of a data set file."""
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file")
    with path.open("rb") as file:
        return ArtifactRef("dataset", path.name, Digest("sha256", hashlib.file_digest(file, "sha256").digest()))


def model_ref(folder: Path) -> ArtifactRef:
    """Return the reference of a model folder."""
    return ArtifactRef("model", folder.resolve().name, directory_digest(folder).root)


def artifact_at(path: Path) -> ArtifactRef:
    """Return the reference of whatever lies at ``path``."""
    return model_ref(path) if path.is_dir() else dataset_ref(path)
