"""Incidents: the clock of 72 hours, the timeline, what was done, and the file that leaves."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from stanch.console.desk import Call
from stanch.console.pages.alerts import AlertRow, Time, rows_of, time_of
from stanch.console.pages.log import Row, rows_at
from stanch.console.pages.paging import Paged
from stanch.console.route import Nothing
from stanch.errors import NotFound
from stanch.trace.incident_report import Audience
from stanch.watch import Containment
from stanch.watch.book import load_alerts
from stanch.watch.incident import HOUR_MS, Incident, IncidentState
from stanch.watch.incident_book import list_incidents as list_all
from stanch.watch.incident_book import load_incident
from stanch.workspace.verbs_contain import ContainOrder, contain_incident
from stanch.workspace.verbs_incident import end_incident, export_incident, notify_incident, open_incident
from stanch.workspace.verbs_incident_report import write_report

Word = Annotated[str, Meta(max_length=200)]
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_SHOWN_ENTRIES = 200
_NEEDED = {"quarantine_model": "finding:act", "revoke_key": "access:grant", "lower_budget": "finding:act"}
"""What each act of containment needs in the workspace; whether a model may be quarantined is decided with the model."""


class IncidentRow(Struct, frozen=True):
    """An incident and its clock: whether it runs, when it ends, and how many hours are left (negative: late)."""

    id: str
    state: str
    discovered_ms: int
    opened_ms: int
    opened_by: str
    deadline_ms: int
    ticking: bool
    hours_left: int
    alerts: int
    contained: int


class IncidentList(Struct, frozen=True):
    """Incidents, the newest first, where the next part begins, and whether whoever asks may act."""

    incidents: tuple[IncidentRow, ...]
    next: str
    may_act: bool


class Done(Struct, frozen=True):
    """An act of containment, and the entry that recorded it."""

    action: str
    target: str
    entry: int


class IncidentView(Struct, frozen=True):
    """One incident: its clock, its alerts, whom and what it is about, what was done, its timeline.

    ``acts`` are the acts of containment that whoever asks may do; a closed incident has none.
    """

    incident: IncidentRow
    alerts: tuple[AlertRow, ...]
    principals: tuple[str, ...]
    models: tuple[str, ...]
    contained: tuple[Done, ...]
    notified_ms: int
    no_notice: str
    entries: int
    timeline: tuple[Row, ...]
    reminded: int
    may_act: bool
    acts: tuple[str, ...]


class Opening(Struct, frozen=True, forbid_unknown_fields=True):
    """When it was discovered (UTC), and the id of an alert that belongs to it."""

    discovered: Time
    alert: Word = ""


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    """What is done to what: a key's id, a model's digest, or a principal with the limits that then hold."""

    action: Literal["revoke_key", "quarantine_model", "lower_budget"]
    target: Annotated[str, Meta(min_length=1, max_length=200)]
    model: Word = ""
    requests: _Count = 0
    tokens: _Count = 0


class Notice(Struct, frozen=True, forbid_unknown_fields=True):
    """When the authority was told (UTC)."""

    at: Time


class Closing(Struct, frozen=True, forbid_unknown_fields=True):
    """Why nobody was told; empty where somebody was."""

    no_notice: Annotated[str, Meta(max_length=2000)] = ""


class Reader(Struct, frozen=True, forbid_unknown_fields=True):
    """Who reads a report."""

    audience: Literal["authority", "customer"]


class File(Struct, frozen=True):
    """One file of an export."""

    path: str
    text: str


class Export(Struct, frozen=True):
    """What leaves of an incident: JSON, a page, and the inclusion proof of each entry that they name."""

    name: str
    files: tuple[File, ...]


def list_incidents(call: Call, asked: Paged) -> IncidentList:
    """Show all incidents, the newest first."""
    with call.workspace.tables.read() as connection:
        found = list_all(connection)
    ids = [one.id for one in found]
    start = ids.index(asked.after) + 1 if asked.after in ids else len(ids) if asked.after else 0
    shown = found[start : start + asked.limit]
    after = shown[-1].id if len(found) > start + len(shown) else ""
    return IncidentList(clocks_of(call, shown), after, call.could("finding:act"))


def show_incident(call: Call, _asked: Nothing) -> IncidentView:
    """Show one incident with its clock and its timeline.

    Raises:
        NotFound: There is none.
    """
    with call.workspace.tables.read() as connection:
        found = load_incident(connection, _key(call))
        about = load_alerts(connection, found.alerts)
    alerts, may_act = rows_of(call, about), found.state is not IncidentState.CLOSED and call.could("finding:act")
    acts = tuple(act for act, needed in _NEEDED.items() if call.could(needed)) if may_act else ()
    return IncidentView(
        clock_of(call, found), alerts, found.principals, found.artifacts,
        tuple(Done(one.action.value, one.target, one.entry) for one in found.contained), found.notified_ms or 0,
        found.no_notice, len(found.entries), rows_at(call, found.entries[-_SHOWN_ENTRIES:]), found.reminded,
        may_act, acts,
    )  # fmt: skip


def open_one(call: Call, asked: Opening) -> IncidentRow:
    """Open an incident; its clock starts when it was discovered."""
    chosen = (asked.alert,) if asked.alert else ()
    return clock_of(call, open_incident(call.workspace, time_of(asked.discovered), chosen))


def contain(call: Call, asked: Order) -> IncidentRow:
    """Contain an incident; each act asks for its own permission."""
    order = ContainOrder(
        action=Containment(asked.action), target=asked.target, model=asked.model, requests_per_minute=asked.requests,
        tokens_per_day=asked.tokens,
    )  # fmt: skip
    return clock_of(call, contain_incident(call.workspace, _key(call), order))


def notify(call: Call, asked: Notice) -> IncidentRow:
    """Note that the authority was told; the clock stops."""
    return clock_of(call, notify_incident(call.workspace, _key(call), time_of(asked.at)))


def close(call: Call, asked: Closing) -> IncidentRow:
    """Close an incident whose authority was told, or say why nobody was."""
    return clock_of(call, end_incident(call.workspace, _key(call), asked.no_notice))


def export(call: Call, _asked: Nothing) -> Export:
    """Export an incident: facts, timeline, and the proof that each entry of it is in the log."""
    key = _key(call)
    return _written(key, lambda out: export_incident(call.workspace, key, out))


def report(call: Call, asked: Reader) -> Export:
    """Write a report for an authority or a customer; each sentence names the entries that show it."""
    key, audience = _key(call), Audience(asked.audience)
    return _written(f"{key}-{audience}", lambda out: write_report(call.workspace, key, audience, out))


def _written(name: str, write: Callable[[Path], object]) -> Export:
    """Return the files that ``write`` puts into a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        write(out)
        paths = sorted(path for path in out.rglob("*") if path.is_file())
        files = tuple(File(path.relative_to(out).as_posix(), path.read_text()) for path in paths)
    return Export(name, files)


def clock_of(call: Call, incident: Incident) -> IncidentRow:
    """Return how an incident stands now."""
    return clocks_of(call, [incident])[0]


def clocks_of(call: Call, incidents: Sequence[Incident]) -> tuple[IncidentRow, ...]:
    """Return how incidents stand now."""
    names = call.names(one.opened_by for one in incidents)
    return tuple(
        IncidentRow(
            one.id, one.state.value, one.discovered_ms, one.opened_ms, names.get(one.opened_by, one.opened_by),
            one.deadline_ms, one.ticking and one.state is not IncidentState.CLOSED,
            (one.deadline_ms - call.now_ms) // HOUR_MS, len(one.alerts), len(one.contained),
        )
        for one in incidents
    )  # fmt: skip


def _key(call: Call) -> str:
    key = call.path["id"]
    if len(key) > 64 or not key.isascii() or not key.isprintable():
        raise NotFound("there is no such incident")
    return key
