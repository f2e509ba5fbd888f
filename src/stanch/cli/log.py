"""``stanch log``: the tamper-evident log."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from stanch.cli.frame import Group, Result, Stream, current
from stanch.cli.log_keep import anchor, erase, export, hold, recover
from stanch.cli.witness import witness
from stanch.terms import JsonValue

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.group(cls=Group)
def log() -> None:
    """The tamper-evident log of every act."""


for _command in (anchor, erase, export, hold, recover, witness):
    log.add_command(_command)


@log.command("verify")
@click.option(
    "--vkey",
    "vkeys",
    multiple=True,
    help="A key of the log as you noted it; without it the workspace's own copies are used.",
)
@click.option("--policy", type=_FILE, help="A trust policy (C2SP tlog-policy) in place of the one of the settings.")
@click.option("--note", "notes", type=_FILE, multiple=True, help="A checkpoint that you kept; may be repeated.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, help="How many processes share the work.")
def verify(vkeys: tuple[str, ...], policy: Path | None, notes: tuple[Path, ...], jobs: int) -> Result:
    """Recompute the whole log and compare it with its checkpoints, anchors and witnesses."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_log import Comparison, verify_log  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        report = verify_log(workspace, Comparison(vkeys, policy, notes, jobs))
    data: dict[str, JsonValue] = {
        "origin": report.origin,
        "size": report.size,
        "root": report.root,
        "checkpoints": report.checkpoints,
        "cosignatures": report.cosignatures,
        "witnesses": len(report.witnesses),
        "quorum": report.quorum,
        "openings": report.openings,
        "signed_acts": report.signed_acts,
        "intents_open": len(report.intents_open),
        "conclusion": report.conclusion,
    }
    text = (
        f"verified   {report.origin}: {report.size} entries, {report.checkpoints} signed checkpoints, "
        f"{len(report.intents_open)} intents without outcome\n"
        f"witnesses  {', '.join(report.witnesses) or 'none'}; quorum {report.quorum}\n"
        f"means      {report.conclusion}"
    )
    return Result(data, text)


@log.command("check")
@click.argument("entry", type=_FILE)
@click.argument("proof", type=_FILE)
@click.option("--policy", type=_FILE, required=True, help="Which logs and witnesses are trusted (C2SP tlog-policy).")
@click.option("--max-age", type=click.IntRange(1), help="Count only cosignatures of the last so many seconds.")
def check(entry: Path, proof: Path, policy: Path, max_age: int | None) -> Result:
    """Check offline that the entry in a file is in a trusted log; needs no workspace."""
    import time  # noqa: PLC0415 - of this command alone

    from stanch.ledger import TrustPolicy, verify_proof  # noqa: PLC0415 - keeps `stanch --help` light

    trusted = TrustPolicy.parse(policy.read_bytes())
    not_before_s = int(time.time()) - max_age if max_age else 0
    found = verify_proof(proof.read_bytes(), entry.read_bytes(), trusted, not_before_s=not_before_s)
    data: dict[str, JsonValue] = {
        "index": found.index, "leaf_hash": found.leaf_hash.hex(), "checkpoint_size": found.checkpoint_size,
    }  # fmt: skip
    return Result(data, f"proven     entry {found.index} is in the log of {found.checkpoint_size} entries")


@log.command("show", cls=Stream)
@click.option("--kind", help="Only acts of this kind, for example release.create.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, help="At most so many.")
def show(kind: str | None, limit: int) -> Result:
    """Show the latest entries."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.ledger import EntryQuery  # noqa: PLC0415 - same
    from stanch.workspace.verbs_log import list_entries  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        return _listed(list_entries(workspace, EntryQuery(kind=kind, limit=limit, newest_first=True)))


@log.command("query", cls=Stream)
@click.option("--act", help="All entries of one act, by its id.")
@click.option("--kind", help="Only acts of this kind.")
@click.option("--phase", type=click.Choice(["intent", "outcome", "denied", "note"]), help="Only this phase.")
@click.option("--principal", "person", help="Only acts of this pseudonymous id.")
@click.option("--subject", help="Only acts on the artifact with this digest (sha256:…).")
@click.option("--since", type=click.DateTime(), help="Not before (UTC).")
@click.option("--until", type=click.DateTime(), help="Before (UTC).")
@click.option("--limit", type=click.IntRange(1, 10_000), default=1000, help="At most so many.")
def query(since: datetime | None, until: datetime | None, **wanted: Any) -> Result:  # noqa: ANN401 - the options above
    """Show the entries that all given conditions hold for."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.ledger import EntryQuery  # noqa: PLC0415 - same
    from stanch.terms import Digest  # noqa: PLC0415 - same
    from stanch.workspace.verbs_log import list_entries  # noqa: PLC0415 - same

    subject, person = wanted.pop("subject"), wanted.pop("person")
    digest = None if subject is None else Digest.parse(subject)
    limit = wanted.pop("limit")
    asked = EntryQuery(
        since_ms=_ms(since), until_ms=_ms(until), subject=digest, principal=person, limit=limit + 1, **wanted
    )  # fmt: skip
    with open_workspace(current()) as workspace:
        found = list_entries(workspace, asked)
    cut = (f"only the first {limit} entries are shown: raise --limit, or ask for less",) if len(found) > limit else ()
    return _listed(found[:limit], cut)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.replace(tzinfo=UTC).timestamp() * 1000)


def _listed(entries: list[tuple[int, dict[str, Any]]], warnings: tuple[str, ...] = ()) -> Result:
    lines = [_line(index, event) for index, event in entries]
    rows: tuple[dict[str, JsonValue], ...] = tuple({"index": index, "event": event} for index, event in entries)
    return Result({"entries": list(rows)}, "\n".join(lines) or "no entries", rows=rows, warnings=warnings)


def _line(index: int, event: dict[str, Any]) -> str:
    ours = event["unmapped"]["stanch"]
    moment = datetime.fromtimestamp(event["time"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    subjects = ", ".join(subject["name"] for subject in ours.get("subject", ()))
    result = ours.get("result", "")
    return f"{index:>6}  {moment}  {ours['kind']:<18} {ours['phase']:<8} {result:<9} {subjects}".rstrip()


@log.command("prove")
@click.argument("index", type=click.IntRange(0))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write FILE and FILE.tlog-proof.")
def prove(index: int, out: Path | None) -> Result:
    """Print an entry and the proof that it is in the log (C2SP tlog-proof)."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import write_atomic  # noqa: PLC0415 - same
    from stanch.workspace.verbs_log import prove_entry  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        entry, proof = prove_entry(workspace, index)
    if out is not None:
        write_atomic(out, entry)
        write_atomic(out.with_name(f"{out.name}.tlog-proof"), proof)
    return Result(
        {"entry": json.loads(entry), "proof": proof.decode()}, f"{entry.decode()}\n\n{proof.decode()}".rstrip()
    )
