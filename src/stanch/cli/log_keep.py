"""``stanch log export | anchor | erase | recover``: what keeps the log, and what leaves it."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.errors import InvalidInput
from stanch.terms import JsonValue


@click.command("export", cls=Leaf)
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--format", "form", type=click.Choice(["jsonl", "syslog"]), default="jsonl", help="OCSF lines, or RFC 5424."
)
@click.option("--start", type=click.IntRange(0), default=0, help="Index of the first entry.")
@click.option("--no-proofs", is_flag=True, help="Leave out the file with the proof of each entry.")
@click.option("--follow", is_flag=True, help="Write lines to standard output, and go on as the log grows.")
@click.option("--cursor", type=click.Path(path_type=Path, dir_okay=False), help="Remembers where --follow goes on.")
def export(
    folder: Path | None, form: Literal["jsonl", "syslog"], start: int, *, no_proofs: bool, follow: bool,
    cursor: Path | None,
) -> Result | None:  # fmt: skip
    """Write entries and their proofs into the new FOLDER; what comes later begins at the start that is named then.

    With --follow there is no folder: each entry is a line of JSON on standard output, with its index, event and proof.
    It ends at SIGTERM and when nobody reads any more, and goes on later where the file of --cursor says.
    """
    if follow:
        if folder is not None or form != "jsonl":
            raise InvalidInput("log export: --follow writes JSON lines to standard output, and into no folder")
        _follow(start, cursor, proofs=not no_proofs)
        return None
    if folder is None or cursor is not None:
        raise InvalidInput("log export: expected a folder, or --follow", next_step="see: stanch log export --help")
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_log import export_log  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        count = export_log(workspace, folder, form, start=start, proofs=not no_proofs)
    told = "" if no_proofs else " with their proofs"
    return Result(
        {"folder": str(folder), "entries": count, "next_start": start + count},
        f"exported   {count} entries{told} to {folder}\nlater      --start {start + count}",
    )


def _follow(start: int, cursor: Path | None, *, proofs: bool) -> None:
    """Write lines until told to end; what is said besides goes to standard error."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.log_follow import Pipe, read_cursor  # noqa: PLC0415 - same
    from stanch.cli.secrets import ask_passphrase  # noqa: PLC0415 - same
    from stanch.workspace.verbs_follow import Following, follow_log  # noqa: PLC0415 - same

    frame = current()
    with open_workspace(frame) as workspace:
        name, origin = workspace.people.name, workspace.ledger.origin
        found = None if cursor is None else read_cursor(cursor, origin)
        begin = start if found is None else found
        pipe = Pipe(sys.stdout.fileno(), begin, cursor, origin)
        pipe.heed_signals()
        renew = lambda: workspace.acting_as(name, unlock=lambda: ask_passphrase(frame.passphrase_file))  # noqa: E731 - short
        try:
            follow_log(workspace, Following(begin, proofs, renew), pipe)
        finally:
            end = pipe.end()
    if not frame.quiet:
        click.echo(f"ended      {end - begin} entries; later: --start {end}", err=True)


@click.command("anchor", cls=Leaf)
def anchor() -> Result:
    """Keep the latest checkpoint at every anchor now."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_log import anchor_log  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        size, uris = anchor_log(workspace)
        outside = any(kept.outside for kept in workspace.ledger.anchors.anchors)
    warnings = () if outside else ("no anchor lies on another device: whoever owns this disk can change them all",)
    return Result(
        {"size": size, "anchors": list(uris), "outside": outside},
        f"anchored   checkpoint of {size} entries at {', '.join(uris)}",
        warnings=warnings,
    )


@click.command("erase", cls=Leaf)
@click.option("--principal", "person", help="Everything personal that is known of this pseudonymous id.")
@click.option("--field", help="A field path, for example actor.user.email_addr; needs --before.")
@click.option("--before", type=click.DateTime(), help="Only in entries before this time (UTC).")
@click.option("--basis", required=True, help="Code of the legal basis, for example gdpr-17-1-b; it is recorded.")
def erase(person: str | None, field: str | None, before: datetime | None, basis: str) -> Result:
    """Erase personal data for good; the tree and every proof stay."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.ledger.erasure import Selection  # noqa: PLC0415 - same
    from stanch.workspace.verbs_log import erase_personal  # noqa: PLC0415 - same

    before_ms = None if before is None else int(before.replace(tzinfo=UTC).timestamp() * 1000)
    selection = Selection(person, field, before_ms)
    with open_workspace(current()) as workspace:
        erased = erase_personal(workspace, selection, basis)
    data: dict[str, JsonValue] = {**asdict(erased)}
    return Result(
        data,
        f"erased     {erased.openings} openings, {erased.columns} personal columns, {erased.payloads} payloads, "
        f"{erased.words} reasons and tasks\n"
        "left       the pseudonym, which links the acts to each other; what others wrote of the person; backups, "
        "exports and key files that others keep",
    )


@click.command("hold", cls=Leaf)
@click.argument("artifact")
@click.option("--lift", is_flag=True, help="Lift the hold.")
def hold(artifact: str, *, lift: bool) -> Result:
    """Put ARTIFACT (a path, or model:NAME@sha256:HEX) under legal hold: nobody who acted on it is erased meanwhile."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.named import resource_of  # noqa: PLC0415 - same
    from stanch.workspace.verbs_artifact import hold_artifact, lift_hold  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        ref = resource_of(workspace, artifact)
        (lift_hold if lift else hold_artifact)(workspace, ref)
    data: dict[str, JsonValue] = {"kind": ref.kind, "name": ref.name, "digest": str(ref.digest), "held": not lift}
    return Result(data, f"{'lifted' if lift else 'held':<10} {ref.kind} {ref.name} {ref.digest}")


@click.command("recover", cls=Leaf)
def recover() -> Result:
    """Rebuild the log's rows from its published tiles; nothing is discarded. Stop all writers before.

    It also lets a log go on whose last entry was made by a clock that was ahead.
    """
    from stanch.cli.secrets import ask_passphrase  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_log import recover_log  # noqa: PLC0415 - same

    frame = current()
    done = recover_log(frame.workspace, frame.principal, unlock=lambda: ask_passphrase(frame.passphrase_file))
    data: dict[str, JsonValue] = {**asdict(done)}
    aside = f"; {done.set_aside} other rows are kept in {done.kept_in}" if done.set_aside else ""
    if done.ahead_ms:
        aside += f"; the last entry's clock was {done.ahead_ms // 1000} s ahead, which binds nobody any more"
    return Result(
        data,
        f"recovered  {done.restored} rows by the checkpoint of {done.checkpoint} entries{aside}\n"
        "next       stanch log verify",
    )
