"""What was found, in code points of the original text."""

from dataclasses import dataclass

from stanch.terms import Finding, Severity


@dataclass(frozen=True, slots=True)
class ScanFinding(Finding):
    """A finding with its score, the rule that made it, and a keyed fingerprint of the value (16 bytes in hex)."""

    score: float
    recogniser: str
    version: int
    fingerprint: str


@dataclass(slots=True, eq=False)
class Found:
    """A value on its way to a report: its span may still grow while ``open``.

    ``swallows`` says that the rule has no bound: the value is not known whole when its replacement is written.
    ``decoded`` says that the span encodes the value, so that the value itself cannot be given to an operator.
    """

    start: int
    end: int
    kind: str
    severity: Severity
    score: float
    recogniser: str
    version: int
    reason: str
    swallows: bool = False
    open: bool = False
    decoded: bool = False

    @property
    def order(self) -> tuple[int, int, float, str]:
        """Sorts findings so that the first of overlapping ones names their replacement.

        The earliest start, then the higher severity, the longer span (one without bound is longest), the smaller id.
        """
        length = float("inf") if self.swallows else self.end - self.start
        return self.start, -self.severity.rank, -length, self.recogniser

    @property
    def identity(self) -> tuple[str, int, int]:
        """What two rules that found the same thing agree on."""
        return self.kind, self.start, self.end

    @property
    def report_order(self) -> tuple[int, int, str, float, str]:
        """Sorts findings by place; of those with one identity the best comes first and is the one reported."""
        return self.start, self.end, self.kind, -self.score, self.recogniser

    def report(self, fingerprint: str) -> ScanFinding:
        """Return the finding as it is reported."""
        return ScanFinding(
            kind=self.kind,
            severity=self.severity,
            start=self.start,
            end=self.end,
            reason=self.reason,
            score=self.score,
            recogniser=self.recogniser,
            version=self.version,
            fingerprint=fingerprint,
        )


@dataclass(frozen=True, slots=True)
class Location:
    """Where a text comes from: the id of its record and the path of the field in it (``messages[1].content``).

    ``follows`` says that it answers the text before it, whose end then counts as what stands left of it.
    """

    record: str = ""
    field: str = ""
    follows: bool = False


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What was found in one text of ``size`` UTF-8 bytes; residuals are candidates below the policy's least score."""

    location: Location
    findings: tuple[ScanFinding, ...]
    residuals: tuple[ScanFinding, ...]
    size: int
