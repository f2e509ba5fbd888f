"""The keys of a principal that were made here: API keys of services, and the local key of a person."""

from msgspec import Struct

from stanch.access.credential import local_keys
from stanch.console.desk import Call
from stanch.ledger import EntryQuery
from stanch.ledger.entry import read_event

LOOKED_THROUGH = 500
"""So many acts of the principal are looked through for the last use of each key, the newest first."""


class KeyRow(Struct, frozen=True):
    """A key that was made here: what it is good for, never its secret.

    Attributes:
        kind: ``api`` of a service, or ``local``: the key that a person signs in and approves with.
        created_ms: Since when it is good.
        expires_ms: Until when; 0: for good.
        used_ms: When the log last saw it; 0: not among the principal's last acts; None: the log is not shown to you.
        used_entry: The entry of that act; -1 without one.
        state: ``in force``, ``revoked`` or ``expired``.
    """

    id: str
    kind: str
    models: tuple[str, ...]
    networks: tuple[str, ...]
    actions: tuple[str, ...]
    created_ms: int
    expires_ms: int
    used_ms: int | None
    used_entry: int
    state: str


def keys_of(call: Call, principal: str) -> tuple[KeyRow, ...]:
    """Return every key of a principal; to whoever may not read the log nothing is said of their uses."""
    people = call.workspace.people
    with call.workspace.tables.read() as connection:
        local = local_keys(connection, principal)
    issued = people.api_keys.keys(principal)
    looked = call.may("log:read")
    used = _last_uses(call, principal) if looked and (local or issued) else {}
    never: tuple[int | None, int] = (0 if looked else None, -1)
    rows = [
        KeyRow(
            one.id, "api", one.models, one.networks, one.actions, one.not_before_ms, one.expires_ms,
            *used.get(one.id, never), _state(call, one.expires_ms, one.revoked_ms),
        )
        for one in issued
    ]  # fmt: skip
    rows += [
        KeyRow(
            one.id, "local", (), (), (), one.not_before_ms, one.expires_ms or 0, *used.get(one.id, never),
            _state(call, one.expires_ms, one.revoked_ms),
        )
        for one in local
    ]  # fmt: skip
    return tuple(rows)


def _last_uses(call: Call, principal: str) -> dict[str, tuple[int, int]]:
    """Return when each key was last used, and the entry."""
    reader = call.workspace.ledger.reader()
    newest = EntryQuery(principal=principal, phase="intent", newest_first=True, limit=LOOKED_THROUGH)
    found: dict[str, tuple[int, int]] = {}
    for index, data in reader.entries(ref.index for ref in reader.query(newest)).items():
        event = read_event(data)
        credential = event.unmapped.stanch.credential
        if credential and index > found.get(credential.key_id, (0, -1))[1]:
            found[credential.key_id] = (event.time, index)
    return found


def _state(call: Call, expires_ms: int | None, revoked_ms: int | None) -> str:
    if revoked_ms is not None:
        return "revoked"
    return "expired" if expires_ms is not None and expires_ms <= call.now_ms else "in force"
