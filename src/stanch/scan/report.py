"""Reports without values: counts, places, fingerprints; ``stanch/scan-report/v1``."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from stanch.scan.found import Location, ScanFinding, ScanResult
from stanch.scan.pack import pack_digest
from stanch.scan.policy import Policy
from stanch.terms import Digest, JsonValue, Severity

SCHEMA = "stanch/scan-report/v1"


@dataclass(frozen=True, slots=True)
class KindCount:
    """How often a kind was found, and in how many records."""

    kind: str
    severity: Severity
    findings: int
    records: int


@dataclass(frozen=True, slots=True)
class ResidualTarget:
    """Where something was left that was not sure enough to be a finding.

    An audit asks the model for such values: it finds them again in the rows that were tuned on, whose ids and places
    are others once they were redacted.
    """

    record: str
    field: str
    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan of many records found, without any value; ``dropped`` records were left out of the redacted copy."""

    pack: Digest
    policy: Digest
    records: int
    size: int
    counts: tuple[KindCount, ...]
    findings: tuple[tuple[Location, ScanFinding], ...]
    residual_targets: tuple[ResidualTarget, ...]
    skipped: tuple[str, ...]
    engine: str
    dropped: int = 0

    def worst(self) -> Severity | None:
        """Return the highest severity found."""
        return max((count.severity for count in self.counts), key=lambda severity: severity.rank, default=None)

    def at_or_above(self, severity: Severity) -> int:
        """Return the number of findings of that severity or a higher one."""
        return sum(finding.severity.rank >= severity.rank for _, finding in self.findings)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the report as JSON."""
        residuals = Counter(target.kind for target in self.residual_targets)
        return {
            "schema": SCHEMA,
            "pack": str(self.pack),
            "policy": str(self.policy),
            "engine": self.engine,
            "records": self.records,
            "bytes": self.size,
            "counts": [
                {"kind": c.kind, "severity": c.severity.value, "findings": c.findings, "records": c.records}
                for c in self.counts
            ],
            "findings": [_finding(location, finding) for location, finding in self.findings],
            "residuals": {kind: residuals[kind] for kind in sorted(residuals)},
            "skipped": list(self.skipped),
            "dropped": self.dropped,
        }


def _finding(location: Location, finding: ScanFinding) -> dict[str, JsonValue]:
    return {
        "kind": finding.kind,
        "severity": finding.severity.value,
        "score": finding.score,
        "record": location.record,
        "field": location.field,
        "start": finding.start,
        "end": finding.end,
        "fingerprint": finding.fingerprint,
        "recogniser": finding.recogniser,
        "version": finding.version,
    }


@dataclass
class ReportBuilder:
    """Collects results into a report; ``engine`` names what searched (:attr:`stanch.scan.Scanner.engine`)."""

    policy: Policy
    engine: str
    records: int = 0
    size: int = 0
    _findings: list[tuple[Location, ScanFinding]] = field(default_factory=list)
    _residuals: list[ResidualTarget] = field(default_factory=list)
    _skipped: list[str] = field(default_factory=list)

    def record(self, count: int = 1) -> None:
        """Count records; a record has one result for each of its fields."""
        self.records += count

    def add(self, result: ScanResult) -> None:
        """Take the result of one text."""
        self.size += result.size
        place = result.location
        self._findings += [(place, finding) for finding in result.findings]
        self._residuals += [ResidualTarget(place.record, place.field, f.start, f.end, f.kind) for f in result.residuals]

    def skip(self, reason: str) -> None:
        """Say that something was not scanned; the reason names the place and never its content."""
        self._skipped.append(reason)

    def build(self) -> ScanReport:
        """Return the report; the worst kinds come first."""
        return ScanReport(
            pack_digest(self.policy.active()),
            self.policy.digest(),
            self.records,
            self.size,
            _counts(self._findings),
            tuple(self._findings),
            tuple(self._residuals),
            tuple(self._skipped),
            self.engine,
        )


def _counts(findings: list[tuple[Location, ScanFinding]]) -> tuple[KindCount, ...]:
    number: Counter[str] = Counter()
    severity: dict[str, Severity] = {}
    records: Mapping[str, set[str]] = {finding.kind: set() for _, finding in findings}
    for location, finding in findings:
        number[finding.kind] += 1
        severity[finding.kind] = max(severity.get(finding.kind, Severity.INFO), finding.severity, key=lambda s: s.rank)
        records[finding.kind].add(location.record)
    counts = (KindCount(kind, severity[kind], number[kind], len(records[kind])) for kind in number)
    return tuple(sorted(counts, key=lambda count: (-count.severity.rank, count.kind)))
