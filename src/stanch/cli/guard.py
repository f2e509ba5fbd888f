"""``stanch guard``: filter what a model says."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from stanch.cli.answers import read_answers
from stanch.cli.frame import Frame, Group, Result, current
from stanch.cli.guard_conformance import conformance
from stanch.errors import NotFound
from stanch.terms import Finding, JsonValue

if TYPE_CHECKING:
    from stanch.config import GuardSettings
    from stanch.gateway.guarding import DescribedGuard
    from stanch.guard import Checked

IN = click.Path(path_type=Path, dir_okay=False)
PLACE = click.Path(path_type=Path)


@click.group(cls=Group)
def guard() -> None:
    """Filter what a model says."""


guard.add_command(conformance)


@guard.command("check")
@click.argument("source", metavar="FILE|-")
@click.option("--model", help="Guard as the settings say for this model; files that are named here replace its own.")
@click.option("--index", type=PLACE, help="The index of the training text, made by `stanch data index build`.")
@click.option("--canaries", type=IN, help="The canary plan, whose secrets are looked for.")
@click.option(
    "--dictionaries", type=IN, multiple=True, help="A file of own terms, as in the settings; may be repeated."
)
@click.option("--redact", "out", type=IN, help="Write the answers as the guard releases them; blocked ones are empty.")
def check(source: str, *, model: str | None, out: Path | None, **named: Any) -> Result:  # noqa: ANN401 - the files
    """Tell which answers in FILE the guard would end or redact: JSON objects with "text", or plain lines.

    FILE is read as JSONL if its first line that is not blank begins with a brace. No output holds a found value.
    """
    from stanch.cli.ground import open_input  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import write_atomic  # noqa: PLC0415 - same
    from stanch.guard import check_text  # noqa: PLC0415 - same

    with open_input(source) as file:  # before the guard is built: a wrong name is told at once
        settings, built = _guard(current(), model, named)
        judged, released = [], []
        for answer in read_answers(file, source):
            checked = check_text(built.guard, answer.text)
            judged.append(_Judged(answer.line, checked))
            released.append(answer.written(checked.text))
    if out is not None:
        write_atomic(out, b"".join(released))
    report = _Report(source, judged, looked_for_training_text=bool(settings.index))
    return Result(report.to_json() | {"guard": built.digest}, report.text(out), 1 if report.count("block") else 0)


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


def _guard(frame: Frame, model: str | None, named: dict[str, Any]) -> "tuple[GuardSettings, DescribedGuard]":
    """Build the guard of a model's settings, or of nothing but the named files; these take the place of its own."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.config import GuardSettings  # noqa: PLC0415 - same
    from stanch.gateway.guarding import build_guard  # noqa: PLC0415 - same

    given = {name: value for name, value in named.items() if value}
    if model is None and given.keys() <= {"canaries"}:  # these need no keys
        settings = _replaced(GuardSettings(), given, Path())
        return settings, build_guard(settings, Path(), None)
    with open_workspace(frame) as workspace:
        if model is None:
            settings = _replaced(GuardSettings(), given, Path())
            return settings, build_guard(settings, Path(), workspace.keys)
        sections = [one for one in workspace.config.gateway.models if one.name == model]
        if not sections:
            raise NotFound(
                f"the settings name no model {model[:80]!r}", next_step="see [[gateway.models]] in stanch.toml"
            )
        settings = _replaced(sections[0], given, Path.cwd())
        return settings, build_guard(settings, workspace.folder, workspace.keys)


def _replaced(settings: "GuardSettings", given: dict[str, Any], folder: Path) -> "GuardSettings":
    """Return the settings with the files that the command line names, which start at ``folder``."""
    paths = {
        name: tuple(str(folder / path) for path in value) if isinstance(value, tuple) else str(folder / value)
        for name, value in given.items()
    }
    return msgspec.structs.replace(settings, **paths)
