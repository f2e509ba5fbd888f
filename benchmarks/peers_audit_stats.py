"""What other tools say about the scores that ``bench_audit_stats.py`` wrote; runs in an environment of theirs.

Arguments: the file of scores and the file to write. It imports nothing of stanch. A tool that is not installed is left
out of the answer.
"""

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

ALPHA, DELTA = 0.05, 1e-12  # the tool wants a delta above 0; this one moves no bound by a thousandth
MULTI_SPLIT_RUNS = 20
"""How many runs of each setting the hundredfold split gets: it is that much slower than the others."""


def main(scores: Path, out: Path) -> None:
    """Read the scores, ask every tool, write its answers."""
    with np.load(scores, allow_pickle=False) as arrays:
        found = {}
        if importlib.util.find_spec("jax_privacy"):
            found["jax_privacy"] = {"version": importlib.metadata.version("jax_privacy"), **ask_jax_privacy(arrays)}
        if importlib.util.find_spec("memaudit"):
            found["memaudit"] = {"version": importlib.metadata.version("memaudit"), **ask_memaudit(arrays)}
    out.write_text(json.dumps(found))


def ask_jax_privacy(arrays: "np.lib.npyio.NpzFile") -> dict[str, object]:
    """Return its one-run bounds; first those of its own test, which show that it is called as its authors call it."""
    from jax_privacy import auditing  # noqa: PLC0415 - only where it is installed
    from scipy.stats import norm  # noqa: PLC0415 - same

    def bound(inside: np.ndarray, outside: np.ndarray, strategy: object, delta: float = DELTA) -> float:
        auditor = auditing.CanaryScoreAuditor(inside, outside)
        return float(auditor.epsilon_one_run(ALPHA, delta, threshold_strategy=strategy))

    normal = norm.ppf((np.arange(10_000) + 0.5) / 10_000)
    own = {str(shift): bound(normal + shift, normal, auditing.Bonferroni(), 1e-6) for shift in (1, 2)}
    strategies = {
        "bonferroni": lambda _run: auditing.Bonferroni(),
        "split": lambda run: auditing.Split(seed=run),
        "multi_split": lambda run: auditing.MultiSplit(seed=run),
    }
    bounds: dict[str, dict[str, list[float]]] = {}
    for setting in sorted(
        {name.rsplit("/", 1)[0] for name in arrays.files if name.startswith(("null/", "rr/", "gauss/"))}
    ):
        values, coins = arrays[f"{setting}/scores"], arrays[f"{setting}/coins"]
        for name, strategy in strategies.items():
            if name == "multi_split" and not setting.startswith("gauss/"):
                continue
            runs = min(len(values), MULTI_SPLIT_RUNS) if name == "multi_split" else len(values)
            bounds.setdefault(setting, {})[name] = [
                bound(values[run][coins[run]], values[run][~coins[run]], strategy(run)) for run in range(runs)
            ]
    return {"own_test": own, "bounds": bounds}


def ask_memaudit(arrays: "np.lib.npyio.NpzFile") -> dict[str, object]:
    """Return the lower bound that it gives for the rate of members found at 1 % false alarms."""
    from memaudit.stats import tpr_at_fpr  # noqa: PLC0415 - only where it is installed

    ask: Callable[[np.ndarray, np.ndarray], dict[str, float]] = tpr_at_fpr
    lower = {}
    for setting in sorted(name.rsplit("/", 1)[0] for name in arrays.files if name.startswith("tpr/")):
        values, coins = arrays[f"{setting}/scores"], arrays[f"{setting}/coins"]
        lower[setting] = [
            ask(values[run][coins[run]], values[run][~coins[run]])["ci_low"] for run in range(len(values))
        ]
    return {"tpr_lower": lower}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
