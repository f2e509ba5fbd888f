"""``stanch scan``: find secrets and personal data, and write a clean copy."""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stanch.cli.engines import engine_of, shared
from stanch.cli.frame import Leaf, Result, current
from stanch.errors import InvalidInput
from stanch.terms import Severity

if TYPE_CHECKING:
    from stanch.scan import ScanReport
    from stanch.scan.adapters import ForeignRules

FILE = click.Path(path_type=Path, dir_okay=False)
_OPERATORS = ("label", "numbered", "mask", "drop", "drop-record", "pseudonym", "fake", "vault")
_FIELDS_SHOWN = 3


@click.command(cls=Leaf)
@click.argument("path", metavar="PATH|-", type=click.Path(path_type=Path))
@click.option(
    "--redact", "out", type=click.Path(path_type=Path), help="Write the data set with every finding replaced."
)
@click.option("--policy", "policy_file", type=FILE, help="What to look for and what replaces it, as a TOML file.")
@click.option("--operator", type=click.Choice(_OPERATORS), help="What replaces kinds that the policy does not name.")
@click.option("--vault", type=FILE, help="The new file that keeps the values of the operator vault, sealed.")
@click.option("--vault-to", multiple=True, metavar="RECIPIENT", help="Who can open the vault; may be repeated.")
@click.option(
    "--fail-on", type=click.Choice([str(severity) for severity in Severity]), default="high",
    help="Exit 1 if something at least this bad was found.",
)  # fmt: skip
@click.option("--min-score", type=click.FloatRange(0.2, 1), help="How sure a finding must be; 0.5 by default.")
@click.option("--decode", is_flag=True, help="Also search what base64, hexadecimal, percent and JSON escapes say.")
@click.option("--sarif", type=FILE, help="Write the report as SARIF 2.1.0 too.")
@click.option("--rules", type=click.Path(path_type=Path), help="Also search by the rules of a gitleaks file (TOML).")
@click.option("--skip-bad", is_flag=True, help="Leave out rows that cannot be read, and say which.")
@shared
@click.option("--resume", type=click.Path(path_type=Path), help="Keep finished parts here, and go on from them.")
def scan(path: Path, *, out: Path | None, fail_on: str, sarif: Path | None, rules: Path | None, **more: Any) -> Result:  # noqa: ANN401 - options of the pass and of the policy
    """Find secrets and personal data in the data set PATH; no report ever holds a value.

    Standard input (-) is JSONL if it begins with a brace, and otherwise text; meanwhile it lies in a private file.
    """
    from stanch.cli.dataset import file_of, open_dataset_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.key_places import key_places  # noqa: PLC0415 - same
    from stanch.cli.scan_policy import Wanted, keys_of, policy_of  # noqa: PLC0415 - same
    from stanch.crypto import canonical_json, write_atomic  # noqa: PLC0415 - same
    from stanch.data import ScanPlan  # noqa: PLC0415 - same
    from stanch.scan import Scanner, to_sarif  # noqa: PLC0415 - same
    from stanch.scan.adapters import read_gitleaks  # noqa: PLC0415 - same
    from stanch.workspace.verbs_data import scan_data  # noqa: PLC0415 - same

    sharing = {name: more.pop(name) for name in ("engine", "processes")}
    skip_bad, resume = more.pop("skip_bad"), more.pop("resume")
    wanted = Wanted(**more)
    if wanted.vault is not None and out is None:
        raise InvalidInput("a vault is filled while a copy is written", next_step="give --redact FILE too")
    frame = current()
    foreign = None if rules is None else read_gitleaks(rules, scanned=str(path))
    with file_of(path) as file, open_workspace(frame) as workspace:
        policy = policy_of(workspace, wanted)
        if foreign is not None:
            policy = replace(policy, recognisers=policy.recognisers + foreign.recognisers)
        dataset = open_dataset_of(workspace, file, chat="any", skip_bad=skip_bad)
        plan = ScanPlan(engine_of(keys_of(key_places(frame), wanted, policy), **sharing), resume)
        report = scan_data(workspace, dataset, Scanner(policy), out, plan=plan, progress=frame.progress())
    if sarif is not None:
        write_atomic(sarif, canonical_json(to_sarif(report, file.name)) + b"\n")
    level = Severity(fail_on)
    passed = out is not None or report.at_or_above(level) == 0
    facts, text = report.to_json(), _text(report, path, out, level)
    if dataset.chat == "any":
        text = f"{text}\nread      every string of each record: they are no chat of a known form"
    if foreign is not None:
        facts, text = facts | {"foreign": foreign.to_json()}, f"{text}\n{_foreign_text(foreign)}"
    return Result(facts, text, 0 if passed else 1)


def _text(report: "ScanReport", path: Path, out: Path | None, level: Severity) -> str:
    lines = [f"{path}  {report.records:,} records  {report.size / 1e6:.1f} MB"]
    if report.skipped:
        lines.append(f"  skipped   {len(report.skipped)} rows that cannot be read; the first: {report.skipped[0]}")
    lines += [
        f"  {count.severity:<9} {count.kind:<22} findings {count.findings:<6} records {count.records:<6} "
        f"{_fields(report, count.kind)}".rstrip()
        for count in report.counts
    ]
    found = report.at_or_above(level)
    if out is not None:
        lines.append(f"CLEAN     {out}: {len(report.findings)} findings replaced; scanned again, nothing is left")
        if report.dropped:
            lines.append(f"dropped   {report.dropped} records, as the policy says")
        lines.append("note      what no recogniser knows (facts told in plain words) stays")
    elif found:
        lines.append(f"FAIL      {found} findings at or above {level}; nothing was written")
        lines.append(f"next      stanch scan {path} --redact clean.jsonl")
    else:
        lines.append(f"PASS      no finding at or above {level}")
    return "\n".join(lines)


def _fields(report: "ScanReport", kind: str) -> str:
    """Return in which fields a kind was found, places in lists aside; the first few of them."""
    fields = dict.fromkeys(
        re.sub(r"\[[0-9]+\]", "[]", place.field) for place, finding in report.findings if finding.kind == kind
    )
    more = f" and {len(fields) - _FIELDS_SHOWN} more" if len(fields) > _FIELDS_SHOWN else ""
    return " ".join(list(fields)[:_FIELDS_SHOWN]) + more


def _foreign_text(foreign: "ForeignRules") -> str:
    lines = [
        f"rules     {len(foreign.recognisers)} of {foreign.origin}, unverified: nobody has tried them on examples here"
    ]
    if foreign.whole_only:
        lines.append(f"          {len(foreign.whole_only)} search whole texts only: {', '.join(foreign.whole_only)}")
    lines += [f"          not used: {name} ({reason})" for name, reason in foreign.skipped]
    return "\n".join(lines)
