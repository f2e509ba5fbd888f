"""Verbs about incidents: open, look, note what was done, remind, export."""

import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from msgspec.structs import replace
from sqlalchemy import Connection

from stanch.crypto import leaf_hash
from stanch.errors import InvalidInput, NotFound
from stanch.ledger import LedgerReader, Opening, decode_entry
from stanch.terms import EntryRef, JsonValue
from stanch.watch import Alarm, Severity
from stanch.watch.alert import Alert
from stanch.watch.book import load_alert
from stanch.watch.incident import (
    HOUR_MS,
    Incident,
    close_incident,
    extend,
    new_incident,
    reminders_due,
    waive_notice,
)
from stanch.watch.incident_book import add_incident, list_incidents, load_incident, save_incident
from stanch.watch.incident_export import Record, export_json
from stanch.watch.outbox import post_incident
from stanch.workspace.act import Done, Request
from stanch.workspace.alerting import sinks_of
from stanch.workspace.exported import exporting
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref
from stanch.workspace.verbs_alerts import raise_alarms

NO_NOTICE = "watch.incident.no_notice"
_ID = re.compile(r"i_[0-9a-f]{32}")


def open_incident(workspace: Workspace, discovered_ms: int, alerts: Iterable[str] = ()) -> Incident:
    """Open an incident that was discovered at a stated time; the clock of 72 hours runs from then.

    Raises:
        InvalidInput: It would have been discovered in the future.
        NotFound: There is no such alert.
    """
    by, at_ms, chosen = workspace.people.session.principal, _now(workspace), tuple(alerts)
    made, sinks = new_incident(discovered_ms, by=by, at_ms=at_ms), sinks_of(workspace)

    def run(ref: EntryRef) -> Done[Incident]:
        with workspace.tables.read() as connection:
            found = [load_alert(connection, key) for key in chosen]
        whole = _gather(made, found, ref.index)
        payload: dict[str, JsonValue] = {"incident": whole.id, "entries": len(whole.entries)}

        def settle(connection: Connection) -> None:
            add_incident(connection, whole)
            post_incident(connection, whole, "opened", sinks, at_ms)

        return Done(whole, payload, settle=settle)

    payload: dict[str, JsonValue] = {"incident": made.id, "discovered_ms": discovered_ms, "alerts": [*chosen]}
    return workspace.door.act(Request("watch.incident.open", "finding:act", workspace_ref(workspace), payload), run)


def find_incidents(workspace: Workspace) -> tuple[Incident, ...]:
    """Return all incidents, the newest first; the look is recorded."""

    def run(_ref: EntryRef) -> Done[tuple[Incident, ...]]:
        with workspace.tables.read() as connection:
            return Done(list_incidents(connection))

    return workspace.door.act(Request("watch.incident.read", "finding:read", workspace_ref(workspace)), run)


def show_incident(workspace: Workspace, key: str) -> Incident:
    """Return one incident; the look is recorded.

    Raises:
        NotFound: There is none.
    """

    def run(_ref: EntryRef) -> Done[Incident]:
        return Done(_load(workspace, key))

    return workspace.door.act(Request("watch.incident.read", "finding:read", workspace_ref(workspace)), run)


def update_incident(
    workspace: Workspace,
    key: str,
    what: str,
    change: Callable[[Incident, int], Incident],
    *,
    words: Opening | None = None,
    stated: Mapping[str, JsonValue] = MappingProxyType({}),
) -> Incident:
    """Change an incident; the entry of this act joins its timeline.

    Args:
        workspace: The workspace.
        key: The incident's id.
        what: What the change is called in the log.
        change: Given the incident and the index of this act's intent, returns what the incident then is.
        words: A person's words; the log holds a commitment to them.
        stated: What else the intent says of the change.
    """
    openings, sinks = (words,) if words is not None else (), sinks_of(workspace)

    def run(ref: EntryRef) -> Done[Incident]:
        before = _load(workspace, key)
        after = change(before, ref.index)
        after = replace(after, entries=tuple(sorted({*after.entries, ref.index})))
        payload: dict[str, JsonValue] = {"incident": after.id, "change": what, "state": after.state.value}

        def settle(connection: Connection) -> None:
            save_incident(connection, before, after)
            post_incident(connection, after, f"{what}-{ref.index}", sinks, _now(workspace))

        return Done(after, payload, settle=settle)

    payload: dict[str, JsonValue] = {"incident": checked_id(key), "change": what, **stated}
    request = Request("watch.incident.update", "finding:act", workspace_ref(workspace), payload, None, openings)
    return workspace.door.act(request, run)


def join_incident(workspace: Workspace, key: str, alerts: Iterable[str]) -> Incident:
    """Add alerts to an open incident, with whom, what and which entries they are about.

    Raises:
        InvalidInput: It is closed.
        NotFound: There is no such incident or alert.
    """
    chosen = tuple(alerts)

    def change(one: Incident, entry: int) -> Incident:
        with workspace.tables.read() as connection:
            return _gather(one, [load_alert(connection, alert) for alert in chosen], entry)

    return update_incident(workspace, key, "join", change, stated={"alerts": [*chosen]})


def end_incident(workspace: Workspace, key: str, no_notice: str = "") -> Incident:
    """Close an incident, whose authority was told or which has a reason for that nobody was."""

    def change(one: Incident, _entry: int) -> Incident:
        return close_incident(waive_notice(one, no_notice) if no_notice else one)

    words = Opening.make(NO_NOTICE, no_notice) if no_notice else None
    return update_incident(workspace, key, "close", change, words=words)


def remind_incidents(workspace: Workspace) -> tuple[Alert, ...]:
    """Raise an alert for every reminder that is due at 24, 48 and 66 hours, each once."""
    at_ms = _now(workspace)
    raised: list[Alert] = []
    with workspace.tables.read() as connection:
        known = list_incidents(connection)
    for incident in known:
        due = reminders_due(incident, at_ms)
        if not due:
            continue
        alarm = Alarm(
            detector=f"incident:{incident.id}", signal=f"{due[-1]}-hours", principal=None, model=None,
            window_start=(incident.discovered_ms + due[-1] * HOUR_MS) // 1000, at=at_ms // 1000,
            severity=Severity.HIGH, statistic=float(due[-1]), threshold=72.0, entries=incident.entries,
        )  # fmt: skip
        after = replace(incident, reminded=incident.reminded + len(due))
        raised += raise_alarms(
            workspace, [alarm],
            within=partial(save_incident, before=incident, after=after),
        )  # fmt: skip
    return tuple(raised)


def export_incident(workspace: Workspace, key: str, folder: Path) -> Incident:
    """Write an incident as JSON and as a page, with the inclusion proof of each entry beside.

    Raises:
        InvalidInput: The folder exists or cannot be made; nothing is left then.
        NotFound: There is no such incident.
    """
    if folder.exists():
        raise InvalidInput(f"{folder}: exists already", next_step="choose a new folder")

    def run(_ref: EntryRef) -> Done[Incident]:
        incident = _load(workspace, key)
        workspace.ledger.publish()
        reader = workspace.ledger.reader()
        records = [record_at(reader, index) for index in incident.entries]
        with exporting(folder) as proofs:
            _write(proofs, incident, records, workspace.ledger.origin)
        payload: dict[str, JsonValue] = {"incident": incident.id, "entries": len(records)}
        return Done(incident, payload, undo=lambda: shutil.rmtree(folder, ignore_errors=True))

    return workspace.door.act(Request("watch.incident.export", "finding:read", workspace_ref(workspace)), run)


def _gather(made: Incident, alerts: Iterable[Alert], entry: int) -> Incident:
    """Return the incident with what its alerts name."""
    for alert in alerts:
        made = extend(
            made, alerts=[alert.id], entries=alert.entries,
            principals=[alert.principal] if alert.principal else [], artifacts=[alert.model] if alert.model else [],
        )  # fmt: skip
    return extend(made, entries=[entry])


def checked_id(key: str) -> str:
    """Return an incident's id, which then may stand in the log.

    Raises:
        NotFound: It is none.
    """
    if not _ID.fullmatch(key):
        raise NotFound(f"there is no incident {key[:40]!r}", next_step="stanch incident list")
    return key


def _load(workspace: Workspace, key: str) -> Incident:
    with workspace.tables.read() as connection:
        return load_incident(connection, key)


def record_at(reader: LedgerReader, index: int) -> Record:
    """Return an entry by reference, with what it says."""
    data = reader.entry(index)
    entry = decode_entry(data)
    ours = entry["unmapped"]["stanch"]
    return Record(
        index, ours["kind"], ours["phase"], entry["time"], entry["actor"]["user"]["uid"], leaf_hash(data).hex(),
        reader.prove(index).decode(), tuple(str(one["digest"]) for one in ours.get("subject", ())),
        ours.get("result", ""), ours.get("payload", {}),
    )  # fmt: skip


def _write(proofs: Path, incident: Incident, records: list[Record], origin: str) -> None:
    from stanch.trace.incident_page import render_export  # noqa: PLC0415 - the watch needs no page, and tracing is heavy

    (proofs.parent / "incident.json").write_bytes(export_json(incident, records, origin))
    (proofs.parent / "incident.html").write_text(render_export(incident, records, origin), encoding="utf-8")
    for record in records:
        (proofs / f"{record.index}.tlog-proof").write_text(record.proof)


def _now(workspace: Workspace) -> int:
    return int(workspace.door.clock() * 1000)
