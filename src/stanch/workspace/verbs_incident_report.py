"""The verb that writes a report of an incident for an authority or a customer."""

import shutil
from pathlib import Path

from stanch.crypto import canonical_json
from stanch.errors import InvalidInput
from stanch.ledger import EntryQuery, LedgerReader
from stanch.terms import Digest, EntryRef, JsonValue
from stanch.trace.incident_page import render_incident
from stanch.trace.incident_report import Audience, Evidence, IncidentReport, report_incident
from stanch.watch.alert import Alert
from stanch.watch.book import load_alert
from stanch.watch.incident import Incident
from stanch.watch.incident_book import load_incident
from stanch.workspace.act import Done, Request
from stanch.workspace.exported import exporting
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref
from stanch.workspace.verbs_incident import checked_id, record_at

_TESTS = ("audit.run", "audit.gate")


def write_report(workspace: Workspace, key: str, audience: Audience, folder: Path) -> IncidentReport:
    """Write a report of an incident as JSON and as a page, with the inclusion proof of each entry beside.

    Raises:
        InvalidInput: The folder exists or cannot be made; nothing is left then.
        NotFound: There is no such incident.
    """
    if folder.exists():
        raise InvalidInput(f"{folder}: exists already", next_step="choose a new folder")

    def run(_ref: EntryRef) -> Done[IncidentReport]:
        report = report_incident(_evidence(workspace, key), audience)
        with exporting(folder) as proofs:
            _write(proofs, report)
        done: dict[str, JsonValue] = {"entries": len(report.records), "unknown": len(report.unknown)}
        return Done(report, done, undo=lambda: shutil.rmtree(folder, ignore_errors=True))

    payload: dict[str, JsonValue] = {"incident": checked_id(key), "audience": audience.value}
    return workspace.door.act(
        Request("watch.incident.report", "finding:read", workspace_ref(workspace), payload), run
    )  # fmt: skip


def _evidence(workspace: Workspace, key: str) -> Evidence:
    with workspace.tables.read() as connection:
        incident = load_incident(connection, key)
        alerts = tuple(load_alert(connection, one) for one in incident.alerts)
    checkpoint = workspace.ledger.publish().checkpoint
    reader = workspace.ledger.reader()
    indexes = sorted(index for index in _indexes(reader, incident, alerts) if index < checkpoint.size)
    return Evidence(
        incident=incident, alerts=alerts, records=tuple(record_at(reader, index) for index in indexes),
        log=workspace.ledger.origin, size=checkpoint.size, root=checkpoint.root.hex(),
    )  # fmt: skip


def _indexes(reader: LedgerReader, incident: Incident, alerts: tuple[Alert, ...]) -> set[int]:
    """Return the entries of the timeline, of the alerts, and of what was tested of the models before."""
    found = {*incident.entries, *(index for alert in alerts for index in alert.entries)}
    for model in incident.artifacts:
        for kind in _TESTS:
            asked = EntryQuery(
                kind=kind, phase="outcome", subject=Digest.parse(model), until_ms=incident.discovered_ms
            )  # fmt: skip
            found |= {ref.index for ref in reader.query(asked)}
    return found


def _write(proofs: Path, report: IncidentReport) -> None:
    (proofs.parent / "report.json").write_bytes(canonical_json(report.to_json()))
    (proofs.parent / "report.html").write_text(render_incident(report))
    for record in report.records:
        (proofs / f"{record.index}.tlog-proof").write_text(record.proof)
