"""Something that happened, recorded at once: no act of somebody, so nothing is decided."""

from collections.abc import Mapping

from stanch.ledger import Act, Credential, new_act_id, noted
from stanch.terms import ArtifactRef, JsonValue
from stanch.workspace.opening import Workspace


def note(workspace: Workspace, kind: str, payload: Mapping[str, JsonValue], *subject: ArtifactRef) -> None:
    """Record something that happened, in the name of whoever serves.

    Raises:
        LedgerUnavailable: The log cannot be written.
    """
    door = workspace.door
    now_ms = int(door.clock() * 1000)
    act = Act(
        kind=kind, id=new_act_id(now_ms), principal=door.who.principal, subject=subject,
        profile="team" if door.profile == "team" else "solo",
        credential=Credential(kind=door.who.kind, key_id=door.who.key_id),
    )  # fmt: skip
    workspace.ledger.append(noted(act, time_ms=now_ms, payload=payload))
