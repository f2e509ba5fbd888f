"""``stanch guard``: filter what a model says."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.answers import read_answers
from stanch.cli.frame import Frame, Group, Result, current
from stanch.cli.guard_conformance import conformance
from stanch.terms import Finding, JsonValue

if TYPE_CHECKING:
    from stanch.guard import Checked, Guard

IN = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Group)
def guard() -> None:
    """Filter what a model says."""


guard.add_command(conformance)


@guard.command("check")
@click.argument("source", metavar="FILE|-")
@click.option(
    "--index", "index_file", type=IN, help="The index of the training text, made by `stanch data index build`."
)
@click.option("--canaries", "plan_file", type=IN, help="The canary plan, whose secrets are looked for.")
@click.option("--redact", "out", type=IN, help="Write the answers as the guard releases them; blocked ones are empty.")
def check(source: str, index_file: Path | None, plan_file: Path | None, out: Path | None) -> Result:
    """Tell which answers in FILE the guard would end or redact: JSON objects with "text", or plain lines.

    FILE is read as JSONL if its first line that is not blank begins with a brace. No output holds a found value.
    """
    from stanch.cli.ground import open_input  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import write_atomic  # noqa: PLC0415 - same
    from stanch.guard import check_text  # noqa: PLC0415 - same

    with open_input(source) as file:  # before the guard is built: a wrong name is told at once
        built = _guard(current(), index_file, plan_file)
        judged, released = [], []
        for answer in read_answers(file, source):
            checked = check_text(built, answer.text)
            judged.append(_Judged(answer.line, checked))
            released.append(answer.written(checked.text))
    if out is not None:
        write_atomic(out, b"".join(released))
    report = _Report(source, judged, looked_for_training_text=index_file is not None)
    return Result(report.to_json(), report.text(out), 1 if report.count("block") else 0)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What was found in the answer of a line."""

    line: int
    checked: "Checked"


@dataclass(frozen=True, slots=True)
class _Report:
    """The verdicts of a file: line numbers, kinds and lengths, never text."""

    source: str
    judged: list[_Judged]
    looked_for_training_text: bool

    def count(self, action: str) -> int:
        """Return how many answers have this verdict."""
        return sum(entry.checked.action == action for entry in self.judged)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the report for machines: counts, and the lines in which something was found."""
        lines: list[JsonValue] = [
            {
                "line": entry.line,
                "verdict": str(entry.checked.action),
                "findings": [
                    {"kind": found.kind, "severity": str(found.severity), "start": found.start, "end": found.end}
                    for found in entry.checked.findings
                ],
            }
            for entry in self.judged
            if entry.checked.findings
        ]
        counts = {name: self.count(action) for name, action in _COUNTS.items()}
        return {"file": self.source, "answers": len(self.judged), **counts, "lines": lines}

    def text(self, out: Path | None) -> str:
        """Return the report for people."""
        blocked, redacted, clean = (self.count(action) for action in _COUNTS.values())
        lines = [f"{self.source}  {len(self.judged)} answers  {blocked} BLOCK  {redacted} REDACT  {clean} clean"]
        lines += [
            f"  line {entry.line:<6} {found.kind:<20} {_length(found)}"
            for entry in self.judged
            for found in entry.checked.findings
        ]
        if not self.looked_for_training_text:
            lines.append("note        training text was not looked for: no --index")
        if out is not None:
            lines.append(f"written     {out}: what the guard releases; {blocked} empty")
        if blocked:
            answers = "1 answer" if blocked == 1 else f"{blocked} answers"
            lines.append(f"LEAK FOUND  {answers} would have been blocked")
        else:
            lines.append("PASS        no answer would have been blocked")
        return "\n".join(lines)


def _length(found: Finding) -> str:
    return found.reason if found.kind == "training-text" else f"{found.end - found.start} characters"


_COUNTS = {"blocked": "block", "redacted": "redact", "clean": "allow"}


def _guard(frame: Frame, index_file: Path | None, plan_file: Path | None) -> "Guard":
    """Build the guard; the index is opened with the key of the workspace it was made in."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.data import CanaryPlan  # noqa: PLC0415 - same
    from stanch.guard import Guard, GuardPolicy  # noqa: PLC0415 - same
    from stanch.scan import SpanIndex  # noqa: PLC0415 - same

    secrets = CanaryPlan.load(plan_file).tripwires if plan_file is not None else ()
    if index_file is None:
        return Guard(GuardPolicy(canaries=secrets))
    with open_workspace(frame) as workspace:
        index = SpanIndex.open(index_file, workspace.keys.secret("index"))
    return Guard(GuardPolicy(index=index, canaries=secrets))
