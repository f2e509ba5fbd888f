"""What copies of SmolLM2-135M-Instruct survive at the default strength, by the variant ``plain``.

Copies are marked, averaged and treated row by row, as ``stanch mark rehearse`` does it. Seeded: the same weights
give the same figures.

    python benchmarks/bench_mark_smollm.py

Writes a part of benchmarks/results/mark-robustness.json.
"""

import json

from bench_mark import SMOLLM, keep
from numpy.random import default_rng

from stanch.mark import ScorePlan, Treatment, plan_mark, rehearse

NAMES = (
    "bf16", "int8", "nf4", "int3", "prune50", "prune80", "prune50+nf4",
    "average:2", "average:4", "average:8", "average:8+int8", "average:2+nf4", "average:4+nf4", "average:8+nf4",
)  # fmt: skip


def main() -> None:
    """Rehearse each treatment."""
    plan = plan_mark(SMOLLM)
    tau, rows = ScorePlan.default("full", 10_000).threshold, []
    for name in NAMES:
        (found,) = rehearse(SMOLLM, plan, [Treatment.parse(name)], tau, rng=default_rng(1).bytes)
        rows.append({
            "treatment": name, "copies": found.copies, "least_z": round(found.least_z, 1),
            "release_z": round(found.release_z, 1), "needed": round(found.needed, 2),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    keep("smollm_plain", {"coordinates": plan.layout.coordinates, "alpha": plan.alpha, "rows": rows})


if __name__ == "__main__":
    main()
