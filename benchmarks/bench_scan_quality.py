"""Measure what the shipped pack finds in the labelled sets of ``tests/scan/quality.py``; not a timing.

Run with::

    python benchmarks/bench_scan_quality.py [ROUNDS]

Writes ``benchmarks/results/scan-quality.json`` and prints it.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/scan"))

import measure  # noqa: E402 - beside the tests
import quality  # noqa: E402 - same

from stanch.scan import Policy, Scanner, load_pack, pack_digest  # noqa: E402 - after the path is set


def main() -> None:
    """Measure both halves and write the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    rules = load_pack()
    scanner = Scanner(Policy(recognisers=rules))
    table = {"schema": "stanch/scan-quality/v1", "pack": str(pack_digest(rules)), "rules": len(rules), "rounds": rounds}
    for half in ("tuned", "held-out"):
        figures = measure.personal_figures(scanner, quality.personal(half, rounds))
        table[half] = {**figures, "secrets": measure.secret_figures(scanner, quality.secrets(half, rounds))}
    text = json.dumps(table, indent=1) + "\n"
    (ROOT / "benchmarks/results/scan-quality.json").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
