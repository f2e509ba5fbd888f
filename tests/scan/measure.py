"""What the labelled sets of :mod:`quality` say about a scanner: per kind, per style, and the figures of the goals."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from stanch.scan import Location, Scanner

UNSTRUCTURED = {"person", "postal-address", "username", "password"}


def _f1(right: int, wrong: int, missed: int) -> float:
    return round(2 * right / (2 * right + wrong + missed), 4) if right else 0.0


def personal_figures(scanner: Scanner, samples: Iterable[Any]) -> dict[str, Any]:
    """Return F1 of structured values, F1 of characters that belong to anyone, and both per kind and style."""
    samples = list(samples)
    results = scanner.scan_many((Location(str(n)), sample.text) for n, sample in enumerate(samples))
    planted, found, false = Counter(), Counter(), Counter()
    styles: dict[str, Counter[str]] = {}
    high = 0
    for sample, result in zip(samples, results, strict=True):
        style = styles.setdefault(sample.style, Counter())
        truth = {at for plant in sample.plants for at in range(plant.start, plant.end)}
        covered = {at for finding in result.findings for at in range(finding.start, finding.end)}
        style.update(both=len(truth & covered), truth=len(truth), covered=len(covered))
        for plant in sample.plants:
            planted[plant.kind] += 1
            found[plant.kind] += any(
                f.kind == plant.kind and f.start < plant.end and plant.start < f.end for f in result.findings
            )
        for finding in result.findings:
            if not any(plant.start < finding.end and finding.start < plant.end for plant in sample.plants):
                false[finding.kind] += 1
                high += finding.severity.rank >= 3
    exact = [kind for kind in planted if kind not in UNSTRUCTURED]
    right = sum(found[kind] for kind in exact)
    wrong = sum(number for kind, number in false.items() if kind not in UNSTRUCTURED)
    total = sum(styles.values(), Counter())
    return {
        "structured_f1": _f1(right, wrong, sum(planted[kind] for kind in exact) - right),
        "character_f1": round(2 * total["both"] / (total["truth"] + total["covered"]), 4),
        "high_false": high,
        "kinds": {k: {"planted": n, "found": found[k], "false": false[k]} for k, n in sorted(planted.items())},
        "other_false": {k: n for k, n in sorted(false.items()) if k not in planted},
        "styles": {
            s: round(2 * c["both"] / (c["truth"] + c["covered"]), 4) for s, c in sorted(styles.items()) if c["truth"]
        },
    }


def secret_figures(scanner: Scanner, lines: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """Return recall over lines with a secret and the share of the other lines that are reported."""
    families = {rule.kind for rule in scanner.policy.recognisers if rule.family == "secret"}
    lines = list(lines)
    results = scanner.scan_many((Location(), line) for line, _ in lines)
    counts: Counter[tuple[bool, bool]] = Counter()
    for (_, secret), result in zip(lines, results, strict=True):
        counts[secret, any(finding.kind in families for finding in result.findings)] += 1
    return {
        "recall": round(counts[True, True] / (counts[True, True] + counts[True, False]), 4),
        "false_positive_rate": round(counts[False, True] / (counts[False, True] + counts[False, False]), 4),
    }
