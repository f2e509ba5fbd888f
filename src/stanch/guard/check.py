"""A whole answer at once: the same stages, the same verdict."""

from dataclasses import dataclass, field

from stanch.guard.policy import TRAINING_TEXT, Action
from stanch.guard.stream import Guard
from stanch.scan import SpanIndex
from stanch.scan.fold import CodePoints
from stanch.terms import Finding, Severity


@dataclass(frozen=True, slots=True)
class Checked:
    """A checked answer.

    Attributes:
        text: What may go out; empty if the answer is blocked, since whole answers are judged before the first byte.
        action: The verdict; the one that a stream over the same text would end with.
        findings: Kinds and places, never values; a run of training text has its whole length.
        counts: As :attr:`stanch.guard.GuardStream.counts`.
    """

    text: str = field(repr=False)
    action: Action
    findings: tuple[Finding, ...]
    counts: tuple[int, int] = (0, 0)


def check_text(guard: Guard, text: str) -> Checked:
    """Judge a whole answer before its first byte goes out.

    Raises:
        GuardError: Something failed inside; nothing is released.
    """
    stream = guard.open()
    first = stream.feed(text)
    last = stream.finish()
    findings = first.findings + last.findings
    index = guard.policy.index
    if index is not None and any(finding.kind == TRAINING_TEXT for finding in findings):
        findings = _with_whole_runs(findings, index, text)
    released = "" if last.action == Action.BLOCK else first.text + last.text
    return Checked(released, last.action, findings, stream.counts)


def _with_whole_runs(findings: tuple[Finding, ...], index: SpanIndex, text: str) -> tuple[Finding, ...]:
    """Replace the place where the stream cut by all that the index knows of the text."""
    points = CodePoints()
    limit = index.params.k + index.params.stride - 1
    runs = tuple(
        Finding(
            TRAINING_TEXT, Severity.CRITICAL, match.start, match.end,
            f"{match.folded_length} characters in one run (limit {limit})",
        )
        for match in index.query(points.push(text) + points.finish())
    )  # fmt: skip
    others = tuple(finding for finding in findings if finding.kind != TRAINING_TEXT)
    return others + runs if runs else findings
