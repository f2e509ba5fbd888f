"""What of severity high and critical is found in the code and documentation of installed packages; not a timing.

Run with::

    python benchmarks/bench_scan_noise.py

Reads every text file of the packages beside this Python, which ``constraints.txt`` pins. Whether a finding is what its
rule says was judged by a reader: ``scan_noise.toml`` names each that is, and why. All others count as false and are
printed (rule, score, file, and what stands around the value, which is not shown). Packages that make up such values, or
document them, are in it like all others, so most findings are examples: no scanner can tell them from somebody's.
"""

import json
import sysconfig
import tomllib
from collections import Counter
from importlib.metadata import distributions
from pathlib import Path

from stanch.scan import Location, Policy, Scanner, load_pack
from stanch.terms import Severity

HERE = Path(__file__).resolve().parent
ROOT = Path(sysconfig.get_path("purelib"))
KINDS = """
.c .cc .cpp .css .h .hpp .html .java .js .json .md .mjs .py .pyi .rst .sh .toml .ts .txt .xml .yaml .yml
"""
LARGEST = 400_000
AROUND = 40


def main() -> None:
    """Scan, hold the findings against the reader's list, and write the result."""
    kinds = frozenset(KINDS.split())
    files = sorted(path for path in ROOT.rglob("*") if path.suffix in kinds and path.is_file())
    files = [path for path in files if not path.is_symlink() and path.stat().st_size < LARGEST]
    judged = {
        (one["rule"], file): count
        for one in tomllib.loads((HERE / "scan_noise.toml").read_text())["of_its_kind"]
        for file, count in one["files"].items()
    }
    loud = tuple(rule for rule in load_pack() if rule.severity.rank >= Severity.HIGH.rank)
    scanner = Scanner(Policy(recognisers=loud))
    found, false, size = Counter[str](), Counter[str](), 0
    for result in scanner.scan_many((Location(str(path)), path.read_bytes()) for path in files):
        size += result.size
        file = Path(result.location.record).relative_to(ROOT).as_posix()
        for finding in result.findings:
            if finding.severity.rank < Severity.HIGH.rank:
                continue
            found[finding.recogniser] += 1
            if left := judged.get((finding.recogniser, file), 0):
                judged[finding.recogniser, file] = left - 1
                continue
            false[finding.recogniser] += 1
            text = Path(result.location.record).read_bytes().decode("utf-8", "surrogateescape")
            before, after = text[max(0, finding.start - AROUND) : finding.start], text[finding.end :][:AROUND]
            print(f"{finding.recogniser} {finding.score} {file}: {before!a} … {after!a}")
    table = {
        "schema": "stanch/scan-noise/v1",
        "packages": len({one.name for one in distributions()}),
        "files": len(files),
        "bytes": size,
        "in_10_mb": round(found.total() / size * 10_000_000, 2),
        "false_in_10_mb": round(false.total() / size * 10_000_000, 2),
        "found": dict(found.most_common()),
        "false": dict(false.most_common()),
    }
    (HERE / "results" / "scan-noise.json").write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
