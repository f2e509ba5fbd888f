"""``stanch incident``: alerts that belong together, with a clock of 72 hours."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Group, Result, current
from stanch.cli.watch_alerts import TIME, to_ms, to_text
from stanch.errors import printable

if TYPE_CHECKING:
    from stanch.watch.incident import Incident, Task


@click.group(cls=Group)
def incident() -> None:
    """Incidents: open, contain, notify, state, tasks, custody, report, export."""


@incident.command("open")
@click.option("--discovered-at", type=TIME, required=True, help="When it was discovered (UTC): the clock starts then.")
@click.option("--alert", "alerts", multiple=True, help="An alert that belongs to it; repeatable.")
def open_(discovered_at: datetime, alerts: tuple[str, ...]) -> Result:
    """Open an incident."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_incident import open_incident  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        made = open_incident(workspace, to_ms(discovered_at), alerts)
    return _result(made)


@incident.command("join")
@click.argument("incident_id", metavar="INCIDENT")
@click.argument("alerts", metavar="ALERT", nargs=-1, required=True)
def join(incident_id: str, alerts: tuple[str, ...]) -> Result:
    """Add each ALERT to INCIDENT, with whom, what and which entries it is about."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_incident import join_incident  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        done = join_incident(workspace, incident_id, alerts)
    return _result(done)


@incident.command("list")
def list_() -> Result:
    """List incidents, the newest first."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_incident import find_incidents  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        found = find_incidents(workspace)
    return Result({"incidents": [one.summary() for one in found]}, "\n".join(map(_line, found)) or "no incidents")


@incident.command("show")
@click.argument("incident_id", metavar="INCIDENT")
def show(incident_id: str) -> Result:
    """Show INCIDENT: its clock, its alerts, what was done."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_incident import show_incident  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        found = show_incident(workspace, incident_id)
    return _result(found)


@incident.command("contain")
@click.argument("incident_id", metavar="INCIDENT")
@click.argument(
    "action", type=click.Choice(["revoke_key", "quarantine_model", "lower_budget", "withdraw_release"])
)  # fmt: skip
@click.argument("target")
@click.option("--model", default="", help="For lower_budget: the model's sha256:HEX.")
@click.option("--requests", type=click.IntRange(0), default=0, help="For lower_budget: requests a minute.")
@click.option("--tokens", type=click.IntRange(0), default=0, help="For lower_budget: tokens a day.")
@click.option("--recipient", default="", help="For withdraw_release: the key id of whom it is taken back from.")
def contain(
    incident_id: str, action: str, target: str, *, model: str, requests: int, tokens: int, recipient: str
) -> Result:
    """Do ACTION to TARGET and note it in INCIDENT; each action asks for its own permission.

    TARGET is an API key's id, a model's sha256:HEX, a principal, or the URI of a delivered copy.
    """
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.watch import Containment  # noqa: PLC0415 - same
    from stanch.workspace.verbs_contain import ContainOrder, contain_incident  # noqa: PLC0415 - same

    order = ContainOrder(
        action=Containment(action), target=target, model=model, requests_per_minute=requests, tokens_per_day=tokens,
        recipient=recipient,
    )  # fmt: skip
    with open_workspace(current()) as workspace:
        done = contain_incident(workspace, incident_id, order)
    return _result(done)


@incident.command("notify")
@click.argument("incident_id", metavar="INCIDENT")
@click.option("--at", type=TIME, required=True, help="When they were told (UTC).")
@click.option("--to", type=click.Choice(["authority", "people"]), default="authority", help="Who was told.")
@click.option("--reason", default="", help="Why not within 72 hours. The log holds a commitment to it only.")
def notify(incident_id: str, at: datetime, to: str, reason: str) -> Result:
    """Note that the authority, or the people concerned, were told of INCIDENT.

    The first notice to the authority stops the clock; what is not known by then follows in further ones.
    """
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.watch.incident import Told  # noqa: PLC0415 - same
    from stanch.workspace.verbs_casework import note_notice  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        done = note_notice(workspace, incident_id, to_ms(at), to=Told(to), late_because=reason)
    return _result(done)


@incident.command("state")
@click.argument("incident_id", metavar="INCIDENT")
@click.argument(
    "matter", type=click.Choice(["nature", "data", "people", "contact", "consequences", "measures"])
)  # fmt: skip
@click.argument("what")
def state(incident_id: str, matter: str, what: str) -> Result:
    """State WHAT the readers of reports of INCIDENT ask and no entry shows. The log holds a commitment to the words."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.watch.incident import Matter  # noqa: PLC0415 - same
    from stanch.workspace.verbs_casework import state_matter  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        done = state_matter(workspace, incident_id, Matter(matter), what)
    return _result(done)


@incident.command("task")
@click.argument("incident_id", metavar="INCIDENT")
@click.argument("what")
@click.option("--who", required=True, help="Who does it: name or id.")
@click.option("--due", type=TIME, required=True, help="By when (UTC).")
def task(incident_id: str, what: str, who: str, due: datetime) -> Result:
    """Give somebody a task in INCIDENT: WHAT is to be done. The log holds a commitment to the words."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_casework import give_task  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        done = give_task(workspace, incident_id, what, who=who, due_ms=to_ms(due))
    return _result(done)


@incident.command("done")
@click.argument("incident_id", metavar="INCIDENT")
@click.argument("number", metavar="TASK", type=click.IntRange(0))
def done_(incident_id: str, number: int) -> Result:
    """Say that TASK of INCIDENT is done; a task's number is that of its entry in the log."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_casework import end_task  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        done = end_task(workspace, incident_id, number)
    return _result(done)


@incident.command("custody")
@click.argument("incident_id", metavar="INCIDENT")
@click.argument("evidence", type=click.Path(path_type=Path, exists=True))
@click.option("--what", required=True, help="What it is. The log holds a commitment to the words.")
@click.option("--holder", required=True, help="Who holds it from then on: name or id.")
@click.option("--since", type=TIME, required=True, help="From when on (UTC).")
def custody(incident_id: str, evidence: Path, what: str, holder: str, since: datetime) -> Result:
    """State in INCIDENT who holds EVIDENCE, a file or folder, from a time on; it is known by its SHA-256."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.artifacts import artifact_at  # noqa: PLC0415 - same
    from stanch.workspace.verbs_casework import hand_evidence  # noqa: PLC0415 - same

    digest = artifact_at(evidence).digest
    with open_workspace(current()) as workspace:
        done = hand_evidence(workspace, incident_id, digest, what, holder=holder, since_ms=to_ms(since))
    return _result(done)


@incident.command("close")
@click.argument("incident_id", metavar="INCIDENT")
@click.option("--no-notice", default="", help="Why nobody was told. The log holds a commitment to it only.")
def close(incident_id: str, no_notice: str) -> Result:
    """Close INCIDENT, whose authority was told or which has a reason for that nobody was."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_incident import end_incident  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        done = end_incident(workspace, incident_id, no_notice)
    return _result(done)


@incident.command("export")
@click.argument("incident_id", metavar="INCIDENT")
@click.argument("out", type=click.Path(path_type=Path))
def export(incident_id: str, out: Path) -> Result:
    """Write INCIDENT into the new folder OUT: JSON, a page, and the inclusion proof of each entry."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_incident import export_incident  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        done = export_incident(workspace, incident_id, out)
    text = f"exported   {done.id} with {len(done.entries)} entries to {out}"
    return Result({**done.summary(), "out": str(out)}, text)


@incident.command("report")
@click.argument("incident_id", metavar="INCIDENT")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--for", "audience", type=click.Choice(["authority", "customer"]), required=True, help="Who reads the report."
)
def report(incident_id: str, out: Path, audience: str) -> Result:
    """Write a report of INCIDENT into the new folder OUT: JSON, a page, and the inclusion proofs.

    Every sentence names the entries of the log that show it. What no entry shows is not said; a question that stays
    without an answer says that it is unknown.
    """
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.trace.incident_report import Audience  # noqa: PLC0415 - same
    from stanch.workspace.verbs_incident_report import write_report  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        done = write_report(workspace, incident_id, Audience(audience), out)
    count = len(done.answers)
    text = (
        f"written    {count - len(done.unknown)} of {count} questions answered from {len(done.records)} entries: {out}"
    )
    unknown = f"unknown    {', '.join(done.unknown)}"
    return Result({**done.to_json(), "unknown": [*done.unknown], "out": str(out)}, f"{text}\n{unknown}")


def _line(found: "Incident") -> str:
    clock = f"told by {to_text(found.deadline_ms)}" if found.ticking else "clock stopped"
    return f"{found.id}  {found.state:<9}  discovered {to_text(found.discovered_ms)}, {clock}"


def _by_when(task: "Task") -> str:
    return f"by {to_text(task.due_ms)}" if task.done_ms is None else f"done {to_text(task.done_ms)}"


def _result(found: "Incident") -> Result:
    lines = [_line(found), *(f"alert      {alert}" for alert in found.alerts)]
    lines += [f"contained  {one.action} {one.target} (entry {one.entry})" for one in found.contained]
    lines += [f"task       {one.entry} of {one.who}, {_by_when(one)}: {printable(one.what)}" for one in found.tasks]
    lines += [
        f"custody    {one.holder} holds {one.digest} since {to_text(one.since_ms)}: {printable(one.what)}"
        for one in found.custody
    ]
    lines += [f"told       {one.to} {to_text(one.at_ms)} (entry {one.entry})" for one in found.notices]
    lines += [f"stated     {one.matter}: {printable(one.what)}" for one in found.statements]
    lines.append(f"entries    {', '.join(map(str, found.entries))}")
    return Result(found.summary(), "\n".join(lines))
