"""Reports that were edited and re-hashed, ours and memaudit's: who notices? Not a timing.

Run with::

    python benchmarks/bench_audit_peers.py [PYTHON]

PYTHON is the interpreter of an environment with ``memaudit`` 0.2.0; its own ``demo`` makes the report, its own
``verify`` judges it. Without it only ours is judged. In each report one figure is made to look better, and everything
that a forger can compute without a key is computed again. Prints one JSON object.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from stanch.audit import Report, ScoreTable, audit_scores, check_report, recompute
from stanch.audit.params import TESTED_SCORES
from stanch.errors import StanchError

# Runs in the other environment: edits the rate of secrets that come out and lets the tool write the report again.
FORGE = """
import json, sys
from pathlib import Path
from memaudit.report import write_report
path = Path(sys.argv[1])
report = json.loads(path.read_text())
report["membership"]["tpr_at_1pct_fpr"] = 0.0
write_report(report, path)
"""


def main() -> None:
    """Forge both reports and ask both tools."""
    found = {"stanch": forge_ours()}
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as folder:
            found["memaudit 0.2.0"] = forge_theirs(Path(sys.argv[1]), Path(folder))
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def forge_theirs(python: Path, folder: Path) -> dict[str, Any]:
    """Return what ``memaudit verify`` says before and after."""
    subprocess.run([python, "-m", "memaudit", "demo", "--output-dir", folder], check=True, capture_output=True)
    path = next(path for path in sorted(folder.rglob("*.json")) if "report_sha256" in json.loads(path.read_text()))
    found = json.loads(path.read_text())["membership"]["tpr_at_1pct_fpr"]
    before = subprocess.run([python, "-m", "memaudit", "verify", path], check=False, capture_output=True, text=True)
    subprocess.run([python, "-c", FORGE, path], check=True)
    after = subprocess.run([python, "-m", "memaudit", "verify", path], check=False, capture_output=True, text=True)
    return {
        "figure": f"TPR at 1 % FPR: {found:.2f} made 0",
        "true": {"exit": before.returncode},
        "forged": {"exit": after.returncode, "says": after.stdout.strip().splitlines()[0]},
    }


def forge_ours() -> dict[str, Any]:
    """Return what ``stanch audit verify`` says; our report's digest is computed from its content, so it is new too."""
    rng = np.random.default_rng(0)
    coins = rng.random(512) < 0.5
    table = ScoreTable(
        ids=tuple(f"c{i}" for i in range(512)),
        kinds=("secret",) * 512,
        tiers=("1",) * 512,
        member=coins,
        copies=np.ones(512, dtype=np.int64),
        scores={name: rng.normal(size=512) + 2 * coins for name in TESTED_SCORES},
    )
    report = audit_scores(table, coins=True, now=datetime(2026, 1, 1, tzinfo=UTC))
    if report.epsilon is None:
        raise RuntimeError("an audit with coins has an epsilon")
    forged = replace(report, epsilon=replace(report.epsilon, lower=0.1, per_record=0.1))
    verdict = replace(report, verdict="NO LEAK DETECTED")
    return {
        "figure": f"epsilon lower bound: {report.epsilon.lower:.2f} made 0.1; then the verdict",
        "true": judge(report, table),
        "forged": judge(forged, table),
        "forged_verdict": judge(verdict, None),
    }


def judge(report: Report, table: ScoreTable | None) -> dict[str, Any]:
    """Read the report back from its bytes and check it, against its scores where they are given."""
    again = Report.parse(report.to_bytes(), what="report")
    try:
        check_report(again) if table is None else recompute(again, table)
    except StanchError as error:
        return {"exit": error.exit_code, "says": error.what}
    return {"exit": 0}


if __name__ == "__main__":
    main()
