"""The verb that states what a model was made from, where no run of ours made it: merged, quantised, converted."""

from pathlib import Path
from typing import Literal, TypeAlias

from stanch.errors import InvalidInput
from stanch.terms import ArtifactRef, EntryRef, JsonValue
from stanch.workspace.act import Done, Request
from stanch.workspace.artifacts import model_ref
from stanch.workspace.opening import Workspace

How: TypeAlias = Literal["merged", "quantised", "converted"]


def state_origin(workspace: Workspace, model: Path, source: Path, how: How) -> ArtifactRef:
    """State in the log that ``model`` was made from ``source``; both are known by the digests of their folders.

    It is a statement of whoever acts, and no test: ``stanch mark lineage`` tests it.

    Raises:
        InvalidInput: They are the same model.
    """
    made, origin = model_ref(model), model_ref(source)
    if made.digest == origin.digest:
        raise InvalidInput(f"{model}: is the same model as {source}")
    stated: dict[str, JsonValue] = {"source": str(origin.digest), "name": origin.name, "how": how}

    def run(_ref: EntryRef) -> Done[ArtifactRef]:
        return _stated(made, stated)

    return workspace.door.act(Request("model.derive", "model:audit", made, stated), run)


def _stated(made: ArtifactRef, stated: dict[str, JsonValue]) -> Done[ArtifactRef]:
    return Done(made, stated)
