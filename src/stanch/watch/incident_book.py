"""The book of incidents: one row each. Every function runs inside a transaction of the caller's."""

import msgspec
from sqlalchemy import Connection, insert, select, update

from stanch.errors import Conflict, NotFound
from stanch.store.schema.alerts import incident as incidents
from stanch.watch.incident import Incident

_DECODER = msgspec.json.Decoder(Incident)


def add_incident(connection: Connection, made: Incident) -> None:
    """Keep a new incident."""
    connection.execute(insert(incidents).values(id=made.id, **_row(made)))


def load_incident(connection: Connection, key: str) -> Incident:
    """Return an incident.

    Raises:
        NotFound: There is none.
    """
    row = connection.execute(select(incidents).where(incidents.c.id == key)).one_or_none()
    if row is None:
        raise NotFound(f"there is no incident {key[:40]!r}", next_step="stanch incident list")
    return _DECODER.decode(row.document)


def list_incidents(connection: Connection) -> tuple[Incident, ...]:
    """Return all incidents, the newest first."""
    rows = connection.execute(select(incidents).order_by(incidents.c.opened_ms.desc(), incidents.c.id))
    return tuple(_DECODER.decode(row.document) for row in rows)


def save_incident(connection: Connection, before: Incident, after: Incident) -> None:
    """Replace an incident.

    Raises:
        Conflict: It is no longer what ``before`` says; nothing was changed.
    """
    mine = incidents.c.id == before.id
    kept = connection.execute(select(incidents.c.document).where(mine)).scalar()
    # Compared as it is read: an older release wrote the same incident with fewer fields.
    same = kept is not None and _DECODER.decode(kept) == before
    changing = update(incidents).where(mine, incidents.c.document == kept).values(**_row(after))
    if not same or not connection.execute(changing).rowcount:
        raise Conflict(f"incident {before.id}: changed meanwhile", next_step="look at it again")


def _row(incident: Incident) -> dict[str, str | int | bytes]:
    return {
        "state": incident.state.value, "discovered_ms": incident.discovered_ms, "opened_ms": incident.opened_ms,
        "document": msgspec.json.encode(incident),
    }  # fmt: skip
