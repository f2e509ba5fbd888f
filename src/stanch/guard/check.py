"""A whole answer at once: the same stages, the same verdict."""

from dataclasses import dataclass, field

from stanch.guard.escape import BORDER
from stanch.guard.policy import TRAINING_TEXT, Action
from stanch.guard.stream import Guard
from stanch.scan import SpanIndex
from stanch.scan.fold import CodePoints
from stanch.terms import Finding, Severity


@dataclass(frozen=True, slots=True)
class Checked:
    """A checked answer.

    Attributes:
        texts: What may go out of each place; empty if the answer is blocked, since whole answers are judged before the
            first byte.
        action: The verdict; the one that a stream over the same text would end with.
        findings: Kinds and places, never values; a run of training text has its whole length.
        compared: As :attr:`stanch.guard.GuardStream.compared`.
    """

    texts: tuple[str, ...] = field(repr=False)
    action: Action
    findings: tuple[Finding, ...]
    compared: tuple[int, frozenset[bytes]] = field(default=(0, frozenset()), repr=False)

    @property
    def text(self) -> str:
        """What may go out of all places together."""
        return "".join(self.texts)


def check_text(guard: Guard, *texts: str) -> Checked:
    """Judge a whole answer before its first byte goes out.

    Args:
        guard: The guard.
        texts: The answer, or what it says in each of several places; see :meth:`GuardStream.border`.

    Raises:
        GuardError: Something failed inside; nothing is released.
    """
    stream = guard.open()
    steps = [stream.feed(texts[0])]
    for text in texts[1:]:
        steps += [stream.border(), stream.feed(text)]
    steps.append(stream.finish())
    findings = tuple(finding for step in steps for finding in step.findings)
    index = guard.policy.index
    if index is not None and any(finding.kind == TRAINING_TEXT for finding in findings):
        findings = _with_whole_runs(findings, index, BORDER.join(texts))
    places = [""]
    for step in steps:
        first, *others = step.places()
        places[-1] += first
        places += others
    places += [""] * (len(texts) - len(places))
    action = steps[-1].action
    kept = tuple(places) if action is not Action.BLOCK else ("",) * len(texts)
    return Checked(kept, action, findings, stream.compared)


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
