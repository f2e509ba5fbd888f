"""``stanch trace``: from a copy that surfaced back to its recipient."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stanch.cli.frame import Group, Result, current
from stanch.cli.trace_case import cases, describe_trace, plan_data, show, trace_data
from stanch.cli.trace_hunt import hunt
from stanch.cli.trace_text import text, text_root
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.terms import JsonValue
    from stanch.workspace import Workspace
    from stanch.workspace.verbs_trace import Suspect

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
EXITS = {"accused": 1, "nothing": 0, "inconclusive": 5}


@click.group(cls=Group)
def trace() -> None:
    """From a copy that surfaced back to its recipient."""


trace.add_command(hunt)
trace.add_command(cases)
trace.add_command(show)
trace.add_command(text)
trace.add_command(text_root)


def _about(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take what is known of a suspect that arrives."""
    command = click.option("--received-from", help="From whom it was received.")(command)
    command = click.option("--description", help="What the suspect is, in plain words; by default its name.")(command)
    named = "Name of a new case; by default the date and the suspect's name."
    return click.option("--case", "case_id", help=named)(command)


@trace.command("open")
@click.argument("suspect", type=FOLDER)
@_about
def open_(suspect: Path, **about: str | None) -> Result:
    """Take SUSPECT into custody, and do nothing else with it yet."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_trace import take_suspect  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        case = take_suspect(workspace, _arrived(workspace, suspect, about))
    data: dict[str, JsonValue] = {"case": case.id, "suspect": str(case.suspect), "custody": case.custody().head}
    told = f"case       {case.id}\nsuspect    {case.suspect}, in custody\n"
    return Result(data, f"{told}next       stanch trace plan {case.id} --release NAME")


@trace.command("plan")
@click.argument("case_id", metavar="CASE")
@click.option("--release", "release_name", required=True, help="The release that the suspect may come from.")
def plan(case_id: str, release_name: str) -> Result:
    """Fix in the log what will be compared in CASE, before any score; the error probability is spent then."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.trace import error_sentence  # noqa: PLC0415 - same
    from stanch.workspace.verbs_trace import ready_case  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        planned = ready_case(workspace, case_id, release_name)[1]
    told = f"plan       entry {planned.entry.index}, {planned.plan.digest}\n{error_sentence(planned.plan)}"
    return Result(plan_data(planned), f"{told}\nnext       stanch trace run {case_id}")


@trace.command("run")
@click.argument("target", metavar="SUSPECT|CASE")
@click.option(
    "--release", "release_name", help="The release that the suspect may come from; a case that has a plan knows it."
)  # fmt: skip
@_about
def run(target: str, release_name: str | None, **about: str | None) -> Result:
    """Take SUSPECT into custody, fix the plan in the log, compare, decide. Exit 1 if somebody is accused.

    With the name of a CASE instead, go on with it where it stands, also after it was killed or failed; a plan that the
    log holds is taken as it is.
    """
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_trace import continue_case, find_case, trace_suspect  # noqa: PLC0415 - same

    frame = current()
    with open_workspace(frame) as workspace:
        if find_case(workspace, target) is None:
            suspect = _arrived(workspace, Path(target), about)
            if release_name is None:
                raise InvalidInput(f"{target}: --release is missing", next_step=f"or: stanch trace open {target}")
            traced = trace_suspect(workspace, suspect, release_name, progress=frame.progress())
        else:
            _refuse_other_meaning(target, about)
            traced = continue_case(workspace, target, release_name, progress=frame.progress())
    return Result(trace_data(traced), describe_trace(traced), EXITS[str(traced.decision.verdict)])


def _arrived(workspace: "Workspace", path: Path, about: dict[str, str | None]) -> "Suspect":
    """Return what is known of a suspect that arrives now."""
    from stanch.workspace.verbs_trace import Suspect  # noqa: PLC0415 - keeps `stanch --help` light

    if not path.exists():
        raise InvalidInput(f"{path}: no such file, folder or case", next_step="stanch trace cases")
    now = workspace.now()
    return Suspect(
        path=path, case=about["case_id"] or f"{now:%Y%m%d-%H%M%S}-{_plain(path.resolve().stem)}",
        description=about["description"] or path.name, received_from=about["received_from"] or "unknown",
        discovered=now,
    )  # fmt: skip


def _refuse_other_meaning(case: str, about: dict[str, str | None]) -> None:
    if Path(case).exists():
        raise InvalidInput(
            f"{case}: a case is called so, and a file or folder here",
            next_step=f"write ./{case} for the file, or go on with the case from another folder",
        )
    if given := [f"--{name.removesuffix('_id').replace('_', '-')}" for name, value in about.items() if value]:
        raise InvalidInput(f"case {case}: {', '.join(given)} cannot be given again", why="the case file has it already")


def _plain(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower()).strip("-")[:32] or "suspect"


@trace.command("pack")
@click.argument("case_id", metavar="CASE")
@click.option("--out", type=FOLDER, required=True, help="The evidence, a zip file; with --to a sealed bundle.")
@click.option("--pdf", is_flag=True, help="Put the report in as PDF too.")
@click.option(
    "--to", "recipients", multiple=True, metavar="RECIPIENT",
    help="Seal the evidence to this key, so that nothing of it lies in plain; may be repeated.",
)  # fmt: skip
def pack(case_id: str, *, out: Path, pdf: bool, recipients: tuple[str, ...]) -> Result:
    """Pack the evidence of an accusation, with a verifier that needs Python and numpy alone."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.recipients import recipient_of  # noqa: PLC0415 - same
    from stanch.workspace.verbs_trace import load_case, pack_evidence  # noqa: PLC0415 - same

    providers = [recipient_of(recipient) for recipient in recipients]
    with open_workspace(current()) as workspace:
        pack_evidence(workspace, load_case(workspace, case_id), out, pdf=pdf, recipients=providers)
        key, vkey = workspace.keys.public_path("case"), workspace.ledger.verifier.vkey
    command = f"python verifier/verify.py {'evidence.zip' if recipients else out} --key {key} --log {vkey}"
    text = f"packed     {out}\nnext       unzip its folder verifier, then: {command}"
    if recipients:
        text = (
            f"sealed     {out}: for {len(providers)} recipients\n"
            f"next       they: stanch seal unseal-unsafe {out} --trust {key.name} --identity KEY --out DIR\n"
            f"           unzip its folder verifier, then: {command}"
        )
    data: dict[str, JsonValue] = {"path": str(out), "vkey": vkey, "key": str(key), "recipients": len(providers)}
    return Result(data, text)


@trace.command("report")
@click.argument("case_id", metavar="CASE")
@click.option("--out", type=FILE, required=True, help="The report, a new file; its name ends in .html, .json or .pdf.")
def report(case_id: str, out: Path) -> Result:
    """Write the report of a decided case, also of one that accuses nobody; no key is disclosed."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_trace import load_case, write_case_report  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        digest = write_case_report(workspace, load_case(workspace, case_id), out)
    return Result({"path": str(out), "digest": str(digest)}, f"report     {out}")


@trace.command("verify")
@click.argument("path", type=FILE)
@click.option("--key", "key_file", type=FILE, required=True, help="The case key's public half.")
@click.option("--log", "vkey", required=True, help="The log's key.")
@click.option(
    "--recipient", "recipients", multiple=True, metavar="NAME=KEY",
    help="A recipient's public key: its receipt must be in the pack and hold. May be repeated.",
)  # fmt: skip
@click.option("--suspect", type=FOLDER, help="With --original: the suspect's files; its features are computed again.")
@click.option("--original", type=FOLDER, help="With --suspect: the unmarked original.")
@click.option("--base", type=FOLDER, help="With both: the public base model, if the examination used one.")
def verify(path: Path, *, key_file: Path, vkey: str, recipients: tuple[str, ...], **folders: Path | None) -> Result:
    """Re-check an evidence pack; no workspace is needed."""
    from stanch.crypto import VerifyKey  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.trace import recompute_features, verify_pack  # noqa: PLC0415 - same

    pairs = _key_files(recipients)
    for file in (path, key_file, *pairs.values()):
        if not file.is_file():
            raise InvalidInput(f"{file}: no such file")
    suspect, original, base = (folders[name] for name in ("suspect", "original", "base"))
    if (suspect is None) != (original is None):
        raise InvalidInput("--suspect and --original go together", why="features come from their difference")
    if base is not None and original is None:
        raise InvalidInput("--base goes with --suspect and --original", why="features come from all three")
    key = VerifyKey.from_pem(key_file.read_bytes(), what=str(key_file))
    known = {name: VerifyKey.from_pem(file.read_bytes(), what=str(file)) for name, file in pairs.items()}
    found = verify_pack(path, key=key, vkey=vkey, recipients=known)
    steps = list(found.steps)
    if suspect is not None and original is not None:
        for folder in (suspect, original, base):
            if folder is not None and not folder.is_dir():
                raise InvalidInput(f"{folder}: no such folder")
        steps += recompute_features(path, suspect=suspect, original=original, base=base)
    data: dict[str, JsonValue] = {"path": str(path), "accused": dict(found.accused), "steps": list(steps)}
    return Result(data, "\n".join([*steps, f"verified   {path}: every step holds"]))


def _key_files(recipients: tuple[str, ...]) -> dict[str, Path]:
    pairs: dict[str, Path] = {}
    for given in recipients:
        name, _, file = given.partition("=")
        if not name or not file or name in pairs:
            raise InvalidInput(f"--recipient {given[:80]}: expected NAME=KEY, each name once")
        pairs[name] = Path(file)
    return pairs


DAY = click.DateTime(["%Y-%m-%d"])


@trace.command("transparency")
@click.option("--since", type=DAY, required=True, help="First day (UTC), for example 2027-01-01.")
@click.option("--until", type=DAY, required=True, help="The day after the last (UTC).")
@click.option("--out", type=FILE, required=True, help="The report, a new HTML file.")
@click.option("--band", is_flag=True, help="Show counts from 1 to 4 as a band, without their entries.")
def transparency(*, since: datetime, until: datetime, out: Path, band: bool) -> Result:
    """Report what the log holds of a period, in counts, without a name; the log is verified first."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.trace import Period, render_transparency  # noqa: PLC0415 - same
    from stanch.workspace.verbs_trace import count_period  # noqa: PLC0415 - same

    if out.exists():
        raise InvalidInput(f"{out}: exists already and is not replaced", next_step="choose another file name")
    period = Period(since.replace(tzinfo=UTC), until.replace(tzinfo=UTC))
    with open_workspace(current()) as workspace:
        report = count_period(workspace, period).to_json(banded=band)
    try:
        out.write_text(render_transparency(report), encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{out}: cannot be written", why=error.strerror or "") from error
    return Result(report | {"path": str(out)}, f"report     {out}")
