"""``stanch scan``: find secrets and personal data, and write a clean copy."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.terms import Severity

if TYPE_CHECKING:
    from stanch.scan import ScanReport


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
@click.option("--skip-bad", is_flag=True, help="Leave out rows that cannot be read, and say which.")
@click.option("--processes", type=click.IntRange(1, 256), default=1, help="Processes that share the work.")
@click.option("--resume", type=click.Path(path_type=Path), help="Keep finished parts here, and go on from them.")
def scan(
    path: Path, out: Path | None, fail_on: str, min_score: float, *, skip_bad: bool, processes: int, resume: Path | None
) -> Result:
    """Find secrets and personal data in the data set PATH; no report ever holds a value."""
    from stanch.cli.ground import (  # noqa: PLC0415 - keeps `stanch --help` light
        open_dataset_of,
        open_workspace,
        report_key_of,
    )
    from stanch.data import Local, ScanPlan  # noqa: PLC0415 - same
    from stanch.scan import Policy, Scanner  # noqa: PLC0415 - same
    from stanch.workspace.verbs_data import scan_data  # noqa: PLC0415 - same

    frame = current()
    with open_workspace(frame) as workspace:
        dataset = open_dataset_of(workspace, path, skip_bad=skip_bad)
        scanner = Scanner(Policy(min_score=min_score, report_key=report_key_of(workspace)))
        plan = ScanPlan(Local(processes), resume)
        report = scan_data(workspace, dataset, scanner, out, plan=plan, progress=frame.progress())
    level = Severity(fail_on)
    found = report.at_or_above(level)
    passed = found == 0 or out is not None
    return Result(report.to_json(), _text(report, path, out, level), 0 if passed else 1)


def _text(report: "ScanReport", path: Path, out: Path | None, level: Severity) -> str:
    lines = [f"{path}  {report.records:,} records  {report.size / 1e6:.1f} MB"]
    if report.skipped:
        lines.append(f"  skipped   {len(report.skipped)} rows that cannot be read; the first: {report.skipped[0]}")
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
