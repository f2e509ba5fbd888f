"""Count the findings of severity high and critical in ordinary code and prose found on this machine; not a timing.

Run with::

    python benchmarks/bench_scan_noise.py [SEED] [MEGABYTES]

Prints a line for each finding (rule, score, file, and what stands around the value, which is not shown) and, as JSON,
how many there are by rule. Which of them are true is for a reader to judge: documentation holds real-looking examples.
"""

import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from stanch.scan import Location, Policy, Scanner, load_pack
from stanch.terms import Severity

ROOTS = (Path(sys.prefix), Path("/usr/share"), Path("/usr/lib/python3"), Path("/usr/include"))
KINDS = {".c", ".cpp", ".css", ".go", ".h", ".hpp", ".html", ".js", ".md", ".pl", ".pm", ".py", ".pyi", ".rst", ".ts"}
LARGEST = 400_000
AROUND = 40


def sample(seed: int, size: int) -> Iterator[tuple[Location, bytes]]:
    """Yield texts in an order that the seed decides, up to a total size."""
    files = sorted(
        path
        for root in ROOTS
        for path in root.rglob("*")
        if path.suffix in KINDS and path.is_file() and not path.is_symlink() and path.stat().st_size < LARGEST
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
    rules, size = Counter[str](), 0
    for result in scanner.scan_many(sample(seed, megabytes * 1_000_000)):
        size += result.size
        for finding in result.findings:
            if finding.severity.rank < Severity.HIGH.rank:
                continue
            rules[finding.recogniser] += 1
            text = Path(result.location.record).read_bytes().decode("utf-8", "surrogateescape")
            before, after = text[max(0, finding.start - AROUND) : finding.start], text[finding.end :][:AROUND]
            sys.stdout.write(f"{finding.recogniser} {finding.score} {result.location.record}: {before!a} … {after!a}\n")
    table = {"schema": "stanch/scan-noise/v1", "seed": seed, "bytes": size, "rules": dict(rules.most_common())}
    sys.stdout.write(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
