"""Verbs about what the workspace remembers of an artifact: how sensitive it is, its quarantine, its legal hold.

All of it follows the bytes, under whatever name they go.
"""

from collections.abc import Callable

from stanch.access.principal import MAX_CLEARANCE
from stanch.errors import InvalidInput
from stanch.terms import ArtifactRef, Digest, JsonValue
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.people import People
from stanch.workspace.verbs_access import workspace_ref


def classify_model(workspace: Workspace, model: Digest, sensitivity: int) -> None:
    """Ask of whoever uses a model a clearance of at least ``sensitivity`` from now on.

    It says who may use the model, so it needs the right to grant.

    Raises:
        InvalidInput: Not 0 to 100.
    """
    if not 0 <= sensitivity <= MAX_CLEARANCE:
        raise InvalidInput(f"sensitivity: expected 0 to {MAX_CLEARANCE}, found {sensitivity}")
    ref = ArtifactRef("model", "model", model)
    asked = _described(ref) | {"sensitivity": sensitivity}
    request = Request("access.classify", "access:grant", workspace_ref(workspace), asked)
    workspace.door.act(
        request, lambda _ref: _done(workspace, lambda on: on.remember_bytes(ref, {"sensitivity": sensitivity}), asked)
    )


def restore_model(workspace: Workspace, model: Digest) -> None:
    """Lift the quarantine of a model.

    Quarantine takes rights away at once, and an analyst may; this gives them back, so it needs the right to grant.

    Raises:
        InvalidInput: It is not in quarantine.
    """
    ref = ArtifactRef("model", "model", model)
    asked = _described(ref)

    def restore(on: People) -> None:
        if not on.resource_facts(ref).quarantined:
            raise InvalidInput(f"model {model}: is not in quarantine", next_step="compare the digest: sha256:HEX")
        on.remember_bytes(ref, {"quarantined": 0})

    request = Request("access.restore", "access:grant", workspace_ref(workspace), asked)
    workspace.door.act(request, lambda _ref: _done(workspace, restore, asked))


def hold_artifact(workspace: Workspace, artifact: ArtifactRef) -> None:
    """Put an artifact under legal hold: nobody who acted on it or tuned it is erased until it is lifted."""
    asked = _described(artifact)
    request = Request("log.hold", "log:write", workspace_ref(workspace), asked)
    workspace.door.act(
        request, lambda _ref: _done(workspace, lambda on: on.remember_bytes(artifact, {"legal_hold": 1}), asked)
    )


def lift_hold(workspace: Workspace, artifact: ArtifactRef) -> None:
    """Lift a legal hold.

    Raises:
        InvalidInput: There is none.
    """
    asked = _described(artifact)

    def lift(on: People) -> None:
        if not on.is_held(artifact):
            raise InvalidInput(f"{artifact.kind} {artifact.digest}: is not under legal hold")
        on.remember_bytes(artifact, {"legal_hold": 0})

    request = Request("log.lift", "log:write", workspace_ref(workspace), asked)
    workspace.door.act(request, lambda _ref: _done(workspace, lift, asked))


def _described(artifact: ArtifactRef) -> dict[str, JsonValue]:
    return {"of": artifact.kind, "digest": str(artifact.digest)}


def _done(workspace: Workspace, step: Callable[[People], None], asked: dict[str, JsonValue]) -> Done[None]:
    """Do a step in the transaction of the outcome; what it checks is checked there as well."""
    _, settle = workspace.people.rehearse(step)
    return Done(None, asked, settle=settle)
