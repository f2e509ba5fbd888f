"""The first page: how the log, the models and the people stand. Each section names what it takes to see it."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import Struct
from sqlalchemy import func, select

from stanch.access.roll import count_principals
from stanch.console.charts import tell_activity
from stanch.console.counts import Day, count_days
from stanch.console.desk import Call
from stanch.console.pages.alerts import count_alerts, count_waiting
from stanch.console.pages.incidents import clocks_of
from stanch.console.pages.models import known_models
from stanch.console.pages.releases import load_releases
from stanch.console.pages.standing import standings_of
from stanch.console.route import Nothing
from stanch.errors import StanchError
from stanch.ledger import EntryQuery
from stanch.store.schema.workspace import resource
from stanch.terms import JsonValue
from stanch.watch import detectors
from stanch.watch.alert import AlertState
from stanch.watch.incident import IncidentState
from stanch.watch.incident_book import list_incidents
from stanch.watch.runner import progress
from stanch.workspace.copies import KeptCopy
from stanch.workspace.verbs_console import look
from stanch.workspace.verbs_glass import overdue_reviews

DAY_MS = 86_400_000
_SHOWN_DAYS = 28
_FRESH_MS = 60_000


class LogHealth(Struct, frozen=True):
    """How the log stands: its name, entries, how far it is published and since when, who watches it."""

    origin: str
    entries: int
    published: int
    published_ms: int
    witnesses: int
    anchors: int
    running: int
    abandoned: int


class Activity(Struct, frozen=True):
    """Acts of the last weeks: how many there were, and how many of them were refused or failed."""

    acts: int
    refused: int
    failed: int
    told: str
    days: tuple[Day, ...]


class Models(Struct, frozen=True):
    """The models and what the gate said of them."""

    passed: int
    failed: int
    unjudged: int
    quarantined: int


class Verdicts(Struct, frozen=True):
    """Models by the verdict of their leak certificate, or of their newest audit where no certificate is in use.

    ``none``: never audited; ``expired``: that was too long ago; ``unreadable``: the certificate does not verify.
    """

    proven: int = 0
    falsified: int = 0
    inconclusive: int = 0
    clean: int = 0
    none: int = 0
    expired: int = 0
    unreadable: int = 0


class Coverage(Struct, frozen=True):
    """Of so many models: how they were judged, and how many passed, have a certificate, marks, sealed copies."""

    models: int
    verdicts: Verdicts
    gate: int
    certificate: int
    marks: int
    sealed: int


class Reader(Struct, frozen=True):
    """A detector, and whether it runs: nothing that is older than a minute is unread."""

    name: str
    runs: bool
    behind: int


class Readers(Struct, frozen=True):
    """The detectors."""

    detectors: tuple[Reader, ...]


class Duties(Struct, frozen=True):
    """How many are registered, and what somebody has to do: reviews of emergency rights, and those overdue."""

    reviews: int
    overdue: int
    principals: int


class Waiting(Struct, frozen=True):
    """Alerts that nobody took on yet, by severity, and those that somebody looks into."""

    open: int
    critical: int
    high: int
    medium: int
    low: int
    taken: int


class Clocks(Struct, frozen=True):
    """Incidents that are not closed, those whose clock of 72 hours runs, and the one that ends first."""

    open: int
    ticking: int
    late: int
    first: str
    hours_left: int
    deadline_ms: int


class Part(Struct, frozen=True):
    """One section: its name, and what it holds."""

    name: str
    holds: Any


class Overview(Struct, frozen=True):
    """The sections that whoever asks may see."""

    parts: tuple[Part, ...]


class Section(NamedTuple):
    """A section of the overview: its name (and the name of its template), the Cedar action, and what reads it."""

    name: str
    action: str
    read: Callable[[Call], Struct]


def show_overview(call: Call, _asked: Nothing) -> Overview:
    """Show every section that whoever asks may see; each look is recorded as what its action permits."""
    parts = []
    for section in SECTIONS:
        if call.may(section.action):
            what: dict[str, JsonValue] = {"page": f"overview.{section.name}"}
            read = section.read
            held = look(call.workspace, section.action, what, lambda read=read: read(call))  # type: ignore[misc]  # bound now
            parts.append(Part(section.name, held))
    return Overview(tuple(parts))


def _alerts(call: Call) -> Waiting:
    counts = count_waiting(call)
    taken = sum(count_alerts(call, state) for state in (AlertState.ACKNOWLEDGED, AlertState.INVESTIGATING))
    return Waiting(sum(counts.values()), taken=taken, **counts)


def _clocks(call: Call) -> Clocks:
    with call.workspace.tables.read() as connection:
        running = [one for one in list_incidents(connection) if one.state is not IncidentState.CLOSED]
    rows = clocks_of(call, running)
    ticking = sorted((row for row in rows if row.ticking), key=lambda row: row.deadline_ms)
    late = sum(row.deadline_ms < call.now_ms for row in ticking)
    if not ticking:
        return Clocks(len(rows), 0, 0, "", 0, 0)
    return Clocks(len(rows), len(ticking), late, ticking[0].id, ticking[0].hours_left, ticking[0].deadline_ms)


def _log(call: Call) -> LogHealth:
    workspace = call.workspace
    reader, leases = workspace.ledger.reader(), workspace.leases
    published, when = 0, 0
    try:
        signed = reader.checkpoint()
    except StanchError:
        published = 0  # nothing was published yet, or it does not verify; `verify now` says which
    else:
        published = signed.checkpoint.size
        newest = reader.query(EntryQuery(limit=1, newest_first=True))
        when = next((_time_of(call, ref.index) for ref in newest), 0)
    return LogHealth(
        reader.origin, reader.size(), published, when, len(workspace.ledger.witnesses),
        len(workspace.config.ledger.anchors), len(leases.running()), len(leases.expired()),
    )  # fmt: skip


def _time_of(call: Call, index: int) -> int:
    with call.workspace.tables.read() as connection:
        found = connection.exec_driver_sql(
            "SELECT time_ms FROM ledger_index WHERE origin = ? AND idx = ?", (call.workspace.ledger.origin, index)
        ).scalar()
    return int(found or 0)


def _activity(call: Call) -> Activity:
    days = count_days(call, _SHOWN_DAYS)
    return Activity(
        sum(day.done + day.failed + day.refused for day in days), sum(day.refused for day in days),
        sum(day.failed for day in days), tell_activity(days), days,
    )  # fmt: skip


def _models(call: Call) -> Models:
    table = resource
    with call.workspace.tables.read() as connection:
        rows = connection.execute(
            select(table.c.gate, table.c.quarantined, func.count())
            .where(table.c.kind == "model")
            .group_by(table.c.gate, table.c.quarantined)
        ).all()
    counts = {name: sum(count for gate, _, count in rows if gate == name) for name in ("passed", "failed", "")}
    return Models(counts["passed"], counts["failed"], counts[""], sum(count for _, held, count in rows if held))


def _coverage(call: Call) -> Coverage:
    releases = load_releases(call)
    models = known_models(call, releases)
    standings = standings_of(call, models, releases)
    counts = Counter(one.verdict for one in standings.values())
    marked = {state.facts.digest for state in releases}
    sealed = {state.facts.digest for state in releases if KeptCopy.any_of(state.folder)}
    return Coverage(
        len(models), Verdicts(**counts), sum(row.gate == "passed" for row in models),
        sum(one.certified for one in standings.values()), len(marked), len(sealed),
    )  # fmt: skip


def _readers(call: Call) -> Readers:
    workspace = call.workspace
    reader = workspace.ledger.reader()
    size, found = reader.size(), []
    for one in progress(workspace.tables, reader.origin, detectors()):
        fresh = one.next_index >= size or _time_of(call, one.next_index) > call.now_ms - _FRESH_MS
        found.append(Reader(one.detector, fresh, size - one.next_index))
    return Readers(tuple(found))


def _duties(call: Call) -> Duties:
    people = call.workspace.people
    overdue = overdue_reviews(call.workspace)
    with call.workspace.tables.read() as connection:
        principals = count_principals(connection)
    return Duties(len(people.glasses.unreviewed()), len(overdue), principals)


SECTIONS: tuple[Section, ...] = (
    Section("alerts", "finding:read", _alerts),
    Section("clocks", "finding:read", _clocks),
    Section("log", "log:read", _log),
    Section("activity", "log:read", _activity),
    Section("models", "log:read", _models),
    Section("coverage", "log:read", _coverage),
    Section("detectors", "finding:read", _readers),
    Section("duties", "policy:read", _duties),
)
"""The sections, in their order; template ``sections/<name>.html`` shows each."""
