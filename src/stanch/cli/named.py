"""How the words of a command name an artifact."""

from pathlib import Path
from typing import TYPE_CHECKING

from stanch.terms import ArtifactRef, Digest

if TYPE_CHECKING:
    from stanch.workspace import Workspace


def resource_of(workspace: "Workspace", text: str) -> ArtifactRef:
    """Return what a word names: the workspace, ``kind:name@digest``, or what lies at a path."""
    from stanch.workspace.artifacts import artifact_at  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_access import workspace_ref  # noqa: PLC0415 - same

    if text == "workspace":
        return workspace_ref(workspace)
    kind, separator, rest = text.partition(":")
    name, at, digest = rest.rpartition("@")
    if separator and at and kind in {"model", "dataset", "release", "run", "case"}:
        return ArtifactRef(kind, name, Digest.parse(digest))
    return artifact_at(Path(text))


def digest_of(text: str) -> Digest:
    """Return the digest that a word is, or that of the model folder at a path."""
    from stanch.workspace.artifacts import model_ref  # noqa: PLC0415 - keeps `stanch --help` light

    return Digest.parse(text) if text.startswith("sha256:") else model_ref(Path(text)).digest
