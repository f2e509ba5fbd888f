"""Incidents: the clock of 72 hours, the timeline, what was done, and the file that leaves."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from stanch.console.desk import Call
from stanch.console.pages.alerts import AlertRow, Reason, Time, rows_of, time_of
from stanch.console.pages.log import Row, rows_at
from stanch.console.pages.paging import Paged
from stanch.console.route import Nothing
from stanch.errors import NotFound
from stanch.terms import Digest
from stanch.trace.incident_report import Audience
from stanch.watch import Containment
from stanch.watch.book import load_alerts
from stanch.watch.incident import HOUR_MS, Incident, IncidentState, Matter, Told
from stanch.watch.incident_book import list_incidents as list_all
from stanch.watch.incident_book import load_incident
from stanch.workspace.verbs_casework import end_task, give_task, hand_evidence, note_notice, state_matter
from stanch.workspace.verbs_contain import ContainOrder, contain_incident
from stanch.workspace.verbs_incident import end_incident, export_incident, join_incident, open_incident
from stanch.workspace.verbs_incident_report import write_report

Word = Annotated[str, Meta(max_length=200)]
DigestText = Annotated[str, Meta(pattern=r"^(sha256|blake3):[0-9a-f]{64}\Z")]
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


class TaskRow(Struct, frozen=True):
    """A task: its number, what it is, who does it by when, and since when it is done (0: it is not)."""

    task: int
    what: str
    who: str
    name: str
    due_ms: int
    late: bool
    done_ms: int
    done_entry: int


class HoldingRow(Struct, frozen=True):
    """A link of a chain of custody: the evidence, who held it from when on, and whether somebody still does."""

    digest: str
    what: str
    holder: str
    name: str
    since_ms: int
    entry: int
    now: bool


class NoticeRow(Struct, frozen=True):
    """A notice: who was told when, why it came late (empty: it did not), and the entry that says so."""

    to: str
    at_ms: int
    late_because: str
    entry: int


class StatementRow(Struct, frozen=True):
    """What a person stated of a matter, and the entry that commits to it."""

    matter: str
    what: str
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
    tasks: tuple[TaskRow, ...]
    custody: tuple[HoldingRow, ...]
    notified_ms: int
    no_notice: str
    notices: tuple[NoticeRow, ...]
    statements: tuple[StatementRow, ...]
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


class Joining(Struct, frozen=True, forbid_unknown_fields=True):
    """The id of an alert that belongs to it."""

    alert: Annotated[str, Meta(min_length=1, max_length=200)]


class Telling(Struct, frozen=True, forbid_unknown_fields=True):
    """When they were told (UTC), who, and why not within 72 hours."""

    at: Time
    to: Literal["authority", "people"] = "authority"
    late_because: Annotated[str, Meta(max_length=2000)] = ""


class Stating(Struct, frozen=True, forbid_unknown_fields=True):
    """What is stated, and of which matter."""

    matter: Literal["nature", "data", "people", "contact", "consequences", "measures"]
    what: Reason


class ToDo(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be done, who does it (name or id), and by when (UTC)."""

    what: Reason
    who: Annotated[str, Meta(min_length=1, max_length=200)]
    due: Time


class HandOver(Struct, frozen=True, forbid_unknown_fields=True):
    """Which evidence (the digest of its bytes), what it is, who holds it (name or id), and since when (UTC)."""

    digest: DigestText
    what: Reason
    holder: Annotated[str, Meta(min_length=1, max_length=200)]
    since: Time


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
        tuple(Done(one.action.value, one.target, one.entry) for one in found.contained), _tasks(call, found),
        _custody(call, found), found.notified_ms or 0, found.no_notice,
        tuple(NoticeRow(one.to.value, one.at_ms, one.what, one.entry) for one in found.notices),
        tuple(StatementRow(one.matter.value, one.what, one.entry) for one in found.statements), len(found.entries),
        rows_at(call, found.entries[-_SHOWN_ENTRIES:]), found.reminded,
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


def join(call: Call, asked: Joining) -> IncidentRow:
    """Add an alert to an incident.

    Raises:
        NotFound: There is no such incident or alert.
    """
    return clock_of(call, join_incident(call.workspace, _key(call), (asked.alert,)))


def notify(call: Call, asked: Telling) -> IncidentRow:
    """Note that the authority or the people concerned were told; the first notice to the authority stops the clock."""
    told = note_notice(
        call.workspace, _key(call), time_of(asked.at), to=Told(asked.to), late_because=asked.late_because
    )  # fmt: skip
    return clock_of(call, told)


def state(call: Call, asked: Stating) -> IncidentRow:
    """State what no entry shows."""
    return clock_of(call, state_matter(call.workspace, _key(call), Matter(asked.matter), asked.what))


def add_task(call: Call, asked: ToDo) -> IncidentRow:
    """Give somebody a task."""
    done = give_task(call.workspace, _key(call), asked.what, who=asked.who, due_ms=time_of(asked.due))
    return clock_of(call, done)


def finish_task(call: Call, _asked: Nothing) -> IncidentRow:
    """Say that a task is done.

    Raises:
        NotFound: There is no such incident or task.
    """
    task = call.path["task"]
    if not task.isdecimal() or not task.isascii() or len(task) > 16:
        raise NotFound("there is no such task")
    return clock_of(call, end_task(call.workspace, _key(call), int(task)))


def hand_over(call: Call, asked: HandOver) -> IncidentRow:
    """State who holds a piece of evidence from a time on."""
    digest, since_ms = Digest.parse(asked.digest), time_of(asked.since)
    done = hand_evidence(
        call.workspace, _key(call), digest, asked.what, holder=asked.holder, since_ms=since_ms
    )  # fmt: skip
    return clock_of(call, done)


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


def _tasks(call: Call, incident: Incident) -> tuple[TaskRow, ...]:
    """Return the tasks, those that are not done first, each in the order of its day."""
    names = call.names(one.who for one in incident.tasks)
    return tuple(
        TaskRow(
            one.entry, one.what, one.who, names.get(one.who, one.who), one.due_ms,
            one.done_ms is None and one.due_ms < call.now_ms, one.done_ms or 0, one.done_entry or 0,
        )
        for one in sorted(incident.tasks, key=lambda one: (one.done_ms is not None, one.due_ms))
    )  # fmt: skip


def _custody(call: Call, incident: Incident) -> tuple[HoldingRow, ...]:
    names = call.names(one.holder for one in incident.custody)
    newest = {one.digest: one.entry for one in incident.custody}
    return tuple(
        HoldingRow(
            one.digest, one.what, one.holder, names.get(one.holder, one.holder), one.since_ms, one.entry,
            newest[one.digest] == one.entry,
        )
        for one in incident.custody
    )  # fmt: skip


def _key(call: Call) -> str:
    key = call.path["id"]
    if len(key) > 64 or not key.isascii() or not key.isprintable():
        raise NotFound("there is no such incident")
    return key
