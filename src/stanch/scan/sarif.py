"""A report as SARIF 2.1.0 (OASIS standard), for the tools that read it; no value stands in it, only places.

A place is a record and a field (``logicalLocations``) with its code points in the properties ``start`` and ``end``: the
lines of the file are not what people edit here. Equal values have equal ``partialFingerprints``.
"""

from stanch import __version__
from stanch.scan.found import Location, ScanFinding
from stanch.scan.report import ScanReport
from stanch.terms import JsonValue, Severity

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {
    Severity.INFO: "note",
    Severity.LOW: "note",
    Severity.MEDIUM: "warning",
    Severity.HIGH: "error",
    Severity.CRITICAL: "error",
}
_RANKS = {Severity.INFO: 0.0, Severity.LOW: 25.0, Severity.MEDIUM: 50.0, Severity.HIGH: 75.0, Severity.CRITICAL: 100.0}


def to_sarif(report: ScanReport, uri: str) -> dict[str, JsonValue]:
    """Return the report as a SARIF log with one run; ``uri`` names the file that was scanned."""
    kinds = [count.kind for count in report.counts]
    rules: list[JsonValue] = [
        {
            "id": count.kind,
            "shortDescription": {"text": f"a value of the kind {count.kind}"},
            "defaultConfiguration": {"level": _LEVELS[count.severity], "rank": _RANKS[count.severity]},
        }
        for count in report.counts
    ]
    results: list[JsonValue] = [
        _result(location, finding, kinds.index(finding.kind), uri) for location, finding in report.findings
    ]
    skipped: list[JsonValue] = [{"level": "warning", "message": {"text": reason}} for reason in report.skipped]
    run: dict[str, JsonValue] = {
        "tool": {"driver": {"name": "stanch", "version": __version__, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "artifacts": [{"location": {"uri": uri}, "length": report.size}],
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": skipped}],
        "results": results,
        "properties": {"pack": str(report.pack), "policy": str(report.policy), "records": report.records},
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(location: Location, finding: ScanFinding, rule: int, uri: str) -> JsonValue:
    place = f"{location.record}/{location.field}"
    return {
        "ruleId": finding.kind,
        "ruleIndex": rule,
        "level": _LEVELS[finding.severity],
        "rank": _RANKS[finding.severity],
        "message": {"text": f"{finding.kind} in {place}: {finding.reason}"},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": uri, "index": 0}},
                "logicalLocations": [{"fullyQualifiedName": place, "kind": "element"}],
            }
        ],
        "partialFingerprints": {"stanchValue/v1": finding.fingerprint},
        "properties": {
            "start": finding.start,
            "end": finding.end,
            "score": finding.score,
            "recogniser": f"{finding.recogniser}/{finding.version}",
        },
    }
