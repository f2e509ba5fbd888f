"""Count the findings of severity high and critical in ordinary code and prose found on this machine; not a timing.

Run with::

    python benchmarks/bench_scan_noise.py [SEED] [MEGABYTES]

Prints a line for each finding (rule, score, file, and what stands around the value, which is not shown) and, as JSON,
how many there are by rule and in 10 MB, once more without the files of tests, whose keys are made to be found. Which of
them are true is for a reader to judge: documentation holds real-looking examples.
"""

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from stanch.scan import Location, Policy, Scanner, load_pack
from stanch.terms import Severity

ROOTS = (
    Path(sys.prefix),
    Path(__file__).resolve().parents[1] / "tests/access/oidc/node_modules",
    *map(Path, ("/usr/share", "/usr/include", "/usr/lib/go", "/usr/lib/node_modules", "/usr/lib/python3")),
)
KINDS = """
.c .cc .cjs .conf .cpp .css .go .h .hpp .html .java .js .json .md .mjs .pl .pm .py .pyi .rb .rs .rst .sh .toml .ts .tsx
.txt .xml .yaml .yml
"""
TESTS = re.compile(r"(?i)/(?:tests?|testdata|testing|fixtures|spec)/|[/_.](?:test|spec)s?[_.]")
LARGEST = 400_000
AROUND = 40


def sample(seed: int, size: int) -> Iterator[tuple[Location, bytes]]:
    """Yield texts in an order that the seed decides, up to a total size."""
    kinds = frozenset(KINDS.split())
    files = sorted(
        path
        for root in ROOTS
        for path in root.rglob("*")
        if path.suffix in kinds and path.is_file() and not path.is_symlink() and path.stat().st_size < LARGEST
    )
    random.Random(seed).shuffle(files)  # noqa: S311 - a sample
    for path in files:
        data = path.read_bytes()
        yield Location(str(path)), data
        size -= len(data)
        if size <= 0:
            return


def main() -> None:
    """Scan a sample and print what was found."""
    seed, megabytes = (int(sys.argv[place]) if len(sys.argv) > place else least for place, least in ((1, 5), (2, 60)))
    loud = tuple(rule for rule in load_pack() if rule.severity.rank >= Severity.HIGH.rank)
    scanner = Scanner(Policy(recognisers=loud))
    rules, outside, size = Counter[str](), Counter[str](), 0
    for result in scanner.scan_many(sample(seed, megabytes * 1_000_000)):
        size += result.size
        for finding in result.findings:
            if finding.severity.rank < Severity.HIGH.rank:
                continue
            rules[finding.recogniser] += 1
            outside[finding.recogniser] += TESTS.search(result.location.record) is None
            text = Path(result.location.record).read_bytes().decode("utf-8", "surrogateescape")
            before, after = text[max(0, finding.start - AROUND) : finding.start], text[finding.end :][:AROUND]
            sys.stdout.write(f"{finding.recogniser} {finding.score} {result.location.record}: {before!a} … {after!a}\n")
    table = {
        "schema": "stanch/scan-noise/v1",
        "seed": seed,
        "bytes": size,
        "in_10_mb": round(rules.total() / size * 10_000_000, 2),
        "in_10_mb_outside_tests": round(outside.total() / size * 10_000_000, 2),
        "rules": dict(rules.most_common()),
        "rules_outside_tests": dict((+outside).most_common()),
    }
    sys.stdout.write(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
