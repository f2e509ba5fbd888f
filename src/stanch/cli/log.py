"""``stanch log``: the tamper-evident log."""

import json
from datetime import UTC, datetime
from typing import Any

import click

from stanch.cli.frame import Group, Result, Stream, current
from stanch.terms import JsonValue


@click.group(cls=Group)
def log() -> None:
    """The tamper-evident log of every act."""


@log.command("verify")
@click.option("--vkey", help="The log's key as you noted it; without it the workspace's own copy is used.")
def verify(vkey: str | None) -> Result:
    """Recompute the whole log and compare it with its signed checkpoints."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_log import verify_log  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        report = verify_log(workspace, vkey)
    data: dict[str, JsonValue] = {
        "origin": report.origin,
        "size": report.size,
        "root": report.root,
        "checkpoints": len(report.compared),
        "intents_open": len(report.intents_open),
        "conclusion": report.conclusion,
    }
    text = (
        f"verified   {report.origin}: {report.size} entries, {len(report.compared)} signed checkpoints, "
        f"{len(report.intents_open)} intents without outcome\n"
        f"means      {report.conclusion}"
    )
    return Result(data, text)


@log.command("show", cls=Stream)
@click.option("--kind", help="Only acts of this kind, for example release.create.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, help="At most so many.")
def show(kind: str | None, limit: int) -> Result:
    """Show the latest entries."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_log import list_entries  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        entries = list_entries(workspace, kind, limit)
    lines = [_line(index, event) for index, event in entries]
    rows: tuple[dict[str, JsonValue], ...] = tuple({"index": index, "event": event} for index, event in entries)
    return Result({"entries": list(rows)}, "\n".join(lines), rows=rows)


def _line(index: int, event: dict[str, Any]) -> str:
    ours = event["unmapped"]["stanch"]
    moment = datetime.fromtimestamp(event["time"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    subjects = ", ".join(subject["name"] for subject in ours.get("subject", ()))
    result = ours.get("result", "")
    return f"{index:>6}  {moment}  {ours['kind']:<18} {ours['phase']:<8} {result:<9} {subjects}".rstrip()


@log.command("prove")
@click.argument("index", type=click.IntRange(0))
def prove(index: int) -> Result:
    """Print an entry and the proof that it is in the log (C2SP tlog-proof)."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_log import prove_entry  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        entry, proof = prove_entry(workspace, index)
    return Result(
        {"entry": json.loads(entry), "proof": proof.decode()}, f"{entry.decode()}\n\n{proof.decode()}".rstrip()
    )
