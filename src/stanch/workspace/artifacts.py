"""What the log calls things: data sets by the SHA-256 of their file, models by the digest of their folder."""

from pathlib import Path

from stanch.data.provenance import file_digest
from stanch.errors import InvalidInput
from stanch.terms import ArtifactRef, Digest
from stanch.weights import directory_digest


def dataset_ref(path: Path) -> ArtifactRef:
    """Return the reference of a data set file, or of a folder that holds one."""
    if not path.exists():
        raise InvalidInput(f"{path}: no such file")
    return ArtifactRef("dataset", path.name, Digest("sha256", bytes.fromhex(file_digest(path))))


def model_ref(folder: Path) -> ArtifactRef:
    """Return the reference of a model folder."""
    return ArtifactRef("model", folder.resolve().name, directory_digest(folder).root)


def artifact_at(path: Path) -> ArtifactRef:
    """Return the reference of whatever lies at ``path``."""
    return model_ref(path) if path.is_dir() else dataset_ref(path)
