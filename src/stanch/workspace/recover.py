"""Acts whose process died: found by their expired lease when a workspace is opened, and recorded as abandoned."""

import contextlib
from collections.abc import Callable
from typing import Any, cast

from stanch.errors import StoreError
from stanch.ledger import Act, Credential, EntryQuery, Ledger, LedgerReader, decode_entry, outcome
from stanch.terms import ArtifactRef, Digest
from stanch.workspace.lease import Leases


def record_abandoned(ledger: Ledger, leases: Leases, clock: Callable[[], float]) -> tuple[str, ...]:
    """Record every act whose lease has expired as abandoned, and return their ids.

    Of all that try at once one wins: the lease is deleted in the transaction of the entry. A log that takes no entries
    now leaves the lease where it is, for whoever opens the workspace next.
    """
    found: list[str] = []
    for act_id in leases.expired():
        with contextlib.suppress(StoreError):
            act = _recorded_act(ledger.reader(), act_id)
            if act is None:
                continue
            entry = outcome(act, time_ms=int(clock() * 1000), result="abandoned")
            ledger.append(entry, within=lambda connection, act_id=act_id: leases.take(connection, act_id))  # type: ignore[misc]  # the default binds the loop's value
            found.append(act_id)
    return tuple(found)


def _recorded_act(reader: LedgerReader, act_id: str) -> Act | None:
    """Return an act as its intent recorded it; None for a lease that no act of ours wrote: one has both or neither."""
    ref = next(reader.query(EntryQuery(act=act_id, phase="intent", limit=1)), None)
    if ref is None:
        return None
    entry = decode_entry(reader.entry(ref.index))
    ours: dict[str, Any] = entry["unmapped"]["stanch"]
    return Act(
        kind=ours["kind"],
        id=act_id,
        principal=entry["actor"]["user"]["uid"],
        principal_kind="service" if entry["actor"]["user"]["type_id"] == 4 else "user",
        profile=cast("Any", ours["profile"]),
        subject=tuple(ArtifactRef(s["kind"], s["name"], Digest.parse(s["digest"])) for s in ours.get("subject", ())),
        policy=ours.get("policy", ""),
        decision=tuple(ours.get("decision", ())),
        glass=ours.get("glass", ""),
        credential=Credential(kind=ours["credential"]["kind"], key_id=ours["credential"]["key_id"]),
    )
