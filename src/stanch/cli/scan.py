"""``stanch scan``: find secrets and personal data, and write a clean copy."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.terms import Severity

if TYPE_CHECKING:
    from stanch.scan import ScanReport
    from stanch.scan.adapters import ForeignRules


@click.command(cls=Leaf)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--redact", "out", type=click.Path(path_type=Path), help="Write the data set with every finding replaced."
)
@click.option(
    "--fail-on", type=click.Choice([str(severity) for severity in Severity]), default="high",
    help="Exit 1 if something at least this bad was found.",
)  # fmt: skip
@click.option("--min-score", type=click.FloatRange(0, 1), default=0.5, help="How sure a finding must be.")
@click.option("--rules", type=click.Path(path_type=Path), help="Also search by the rules of a gitleaks file (TOML).")
def scan(path: Path, out: Path | None, fail_on: str, min_score: float, rules: Path | None) -> Result:
    """Find secrets and personal data in the JSONL data set PATH; no report ever holds a value."""
    from stanch.cli.ground import open_dataset_of, open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.scan import Policy, Scanner, load_pack  # noqa: PLC0415 - same
    from stanch.scan.adapters import read_gitleaks  # noqa: PLC0415 - same
    from stanch.workspace.verbs_data import scan_data  # noqa: PLC0415 - same

    frame = current()
    foreign = None if rules is None else read_gitleaks(rules, scanned=str(path))
    policy = Policy(recognisers=load_pack() + (foreign.recognisers if foreign else ()), min_score=min_score)
    with open_workspace(frame) as workspace:
        dataset = open_dataset_of(workspace, path)
        report = scan_data(workspace, dataset, Scanner(policy), out, progress=frame.progress())
    level = Severity(fail_on)
    found = report.at_or_above(level)
    passed = found == 0 or out is not None
    facts, text = report.to_json(), _text(report, path, out, level)
    if foreign is not None:
        facts, text = facts | {"foreign": foreign.to_json()}, f"{text}\n{_foreign_text(foreign)}"
    return Result(facts, text, 0 if passed else 1)


def _text(report: "ScanReport", path: Path, out: Path | None, level: Severity) -> str:
    lines = [f"{path}  {report.records:,} records  {report.size / 1e6:.1f} MB"]
    lines += [
        f"  {count.severity:<9} {count.kind:<22} findings {count.findings:<6} records {count.records}"
        for count in report.counts
    ]
    found = report.at_or_above(level)
    if out is not None:
        lines.append(f"CLEAN     {out}: {len(report.findings)} findings replaced; scanned again, nothing is left")
        lines.append("note      what no recogniser knows (facts told in plain words) stays")
    elif found:
        lines.append(f"FAIL      {found} findings at or above {level}; nothing was written")
        lines.append(f"next      stanch scan {path} --redact clean.jsonl")
    else:
        lines.append(f"PASS      no finding at or above {level}")
    return "\n".join(lines)


def _foreign_text(foreign: "ForeignRules") -> str:
    lines = [
        f"rules     {len(foreign.recognisers)} of {foreign.origin}, unverified: nobody has tried them on examples here"
    ]
    if foreign.whole_only:
        lines.append(f"          {len(foreign.whole_only)} search whole texts only: {', '.join(foreign.whole_only)}")
    lines += [f"          not used: {name} ({reason})" for name, reason in foreign.skipped]
    return "\n".join(lines)
