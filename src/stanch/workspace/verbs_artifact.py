"""Verbs about what the workspace remembers of an artifact: how sensitive it is, its quarantine, its legal hold.

All of it follows the bytes, under whatever name they go.
"""

from stanch.access.principal import MAX_CLEARANCE
from stanch.errors import InvalidInput
from stanch.terms import ArtifactRef, Digest, JsonValue
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref


def classify_model(workspace: Workspace, model: Digest, sensitivity: int) -> None:
    """Ask of whoever uses a model a clearance of at least ``sensitivity`` from now on.

    It says who may use the model, so it needs the right to grant.

    Raises:
        InvalidInput: Not 0 to 100.
    """
    if not 0 <= sensitivity <= MAX_CLEARANCE:
        raise InvalidInput(f"sensitivity: expected 0 to {MAX_CLEARANCE}, found {sensitivity}")
    _remember(workspace, "access.classify", "access:grant", ArtifactRef("model", "model", model), {
        "sensitivity": sensitivity
    })  # fmt: skip


def restore_model(workspace: Workspace, model: Digest) -> None:
    """Lift the quarantine of a model.

    Quarantine takes rights away at once, and an analyst may; this gives them back, so it needs the right to grant.

    Raises:
        InvalidInput: It is not in quarantine.
    """
    ref = ArtifactRef("model", "model", model)
    if not workspace.people.resource_facts(ref).quarantined:
        raise InvalidInput(f"model {model}: is not in quarantine", next_step="compare the digest: sha256:HEX")
    _remember(workspace, "access.restore", "access:grant", ref, {"quarantined": 0})


def hold_artifact(workspace: Workspace, artifact: ArtifactRef, *, held: bool) -> None:
    """Put an artifact under legal hold, or lift it: nobody who acted on it is erased meanwhile.

    Raises:
        InvalidInput: It is to be lifted, and there is none.
    """
    if not held and not workspace.people.is_held(artifact):
        raise InvalidInput(f"{artifact.kind} {artifact.digest}: is not under legal hold")
    _remember(workspace, "log.hold" if held else "log.lift", "log:write", artifact, {"legal_hold": int(held)})


def _remember(workspace: Workspace, kind: str, action: str, artifact: ArtifactRef, facts: dict[str, int]) -> None:
    asked: dict[str, JsonValue] = {"of": artifact.kind, "digest": str(artifact.digest), **facts}

    def run(_ref: object) -> Done[None]:
        _, settle = workspace.people.rehearse(lambda on: on.remember_bytes(artifact, facts))
        return Done(None, asked, settle=settle)

    workspace.door.act(Request(kind, action, workspace_ref(workspace), asked), run)
