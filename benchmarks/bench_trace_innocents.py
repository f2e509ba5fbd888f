"""No innocent accused: innocent suspects × recipients and decoys on pathological residuals, against the stated bound.

    python benchmarks/bench_trace_innocents.py --size nightly --out innocents.json
    python benchmarks/bench_trace_innocents.py --size short

Nightly: 10,000 innocent suspects, every one with a residual of another kind and seed, each against 32 recipients and
with two rounds at ε = 0.05 so that false accusations would be seen; and 300,000 decoys on each of four residuals.
What must hold, or the run ends with exit code 1:

- the share of suspects for which anybody is accused is at most ε, plus three standard deviations of the count;
- for every τ the share of decoys beyond it is at most exp(−τ²/2) on either side, and exactly so by count where the
  bound allows none.

Seeded; the same size gives the same numbers whatever the number of threads.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stanch.mark import FeatureSet, Layout, LayoutEntry, Variant, score
from stanch.mark.bounds import decided, threshold
from stanch.mark.scoring import cancel

Floats = npt.NDArray[np.float64]
COORDINATES = 1024
RECIPIENTS = 32
ROUNDS = 2
EPSILON = 0.05
TAUS = (1.0, 2.0, 3.0, 4.0, 4.5, 5.0)
SIZES = {"short": (200, 20_000), "nightly": (10_000, 300_000)}


def spread(generator: np.random.Generator, values: Floats) -> Floats:
    """Put a few values at random places of an otherwise empty residual."""
    made = np.zeros(COORDINATES)
    made[generator.choice(COORDINATES, len(values), replace=False)] = values
    return made


RESIDUALS: dict[str, Callable[[np.random.Generator], Floats]] = {
    "gaussian": lambda g: g.normal(size=COORDINATES),
    "student-t 1.5": lambda g: g.standard_t(1.5, size=COORDINATES),
    "single spike": lambda g: spread(g, np.array([1e6])),
    "8-sparse": lambda g: spread(g, g.normal(size=8)),
    "cauchy": lambda g: g.standard_cauchy(size=COORDINATES).clip(-1e9, 1e9),
    "constant": lambda _: np.ones(COORDINATES),
    "alternating": lambda _: np.resize([1.0, -1.0], COORDINATES),
    "signs": lambda g: g.choice([-1.0, 1.0], COORDINATES),
    "two scales": lambda g: g.normal(size=COORDINATES) * np.where(g.random(COORDINATES) < 0.01, 1e4, 1.0),
    "ramp": lambda _: np.linspace(-1, 1, COORDINATES),
    "quantised": lambda g: np.round(g.normal(size=COORDINATES)),
    "pruned": lambda g: g.normal(size=COORDINATES) * (g.random(COORDINATES) < 0.05),
}
DECOY_RESIDUALS = ("gaussian", "student-t 1.5", "single spike", "8-sparse")


def features(values: Floats) -> FeatureSet:
    layout = Layout((LayoutEntry("w", "F32", (1, COORDINATES), 0),))
    return FeatureSet(Variant.PLAIN, values.astype(np.float32), layout, ())


def streams(seed: list[int], count: int) -> list[bytes]:
    return [row.tobytes() for row in np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)]


def accuse(values: Floats, keys: list[bytes], tau: float) -> int:
    """Return how many keys are accused, in rounds with cancellation as detection has them."""
    shown, left, accused = features(values), list(keys), 0
    for _ in range(ROUNDS):
        z = score(shown, left)
        found = [key for key, value in zip(left, z, strict=True) if decided(float(value)) >= tau]
        accused += len(found)
        left = [key for key in left if key not in found]
        if not found or not left:
            break
        cancel(shown, found)
    return accused


def run_suspects(count: int) -> dict[str, object]:
    """Compare ``count`` innocent suspects with recipients who never had a part in them."""
    tau, kinds = threshold(RECIPIENTS, ROUNDS, EPSILON), list(RESIDUALS)
    wrong = 0
    for number in range(count):
        residual = RESIDUALS[kinds[number % len(kinds)]](np.random.default_rng([1, number]))
        wrong += accuse(residual, streams([2, number], RECIPIENTS), tau) > 0
    allowed = count * EPSILON + 3 * math.sqrt(count * EPSILON)
    return {
        "suspects": count, "recipients": RECIPIENTS, "residuals": kinds, "tau": tau, "epsilon": EPSILON,
        "suspects_with_an_accusation": wrong, "allowed": allowed, "holds": wrong <= allowed,
    }  # fmt: skip


def run_decoys(count: int) -> list[dict[str, object]]:
    """Score ``count`` decoys on each of four residuals."""
    found: list[dict[str, object]] = []
    for place, name in enumerate(DECOY_RESIDUALS):
        shown = features(RESIDUALS[name](np.random.default_rng([3, place])))
        z = np.concatenate([score(shown, streams([4, place, part], 10_000)) for part in range(-(-count // 10_000))])[
            :count
        ]
        tails = {
            str(tau): {
                "above": float((z > tau).mean()), "below": float((z < -tau).mean()), "bound": math.exp(-tau * tau / 2),
            }
            for tau in TAUS
        }  # fmt: skip
        holds = all(max(tail["above"], tail["below"]) <= tail["bound"] for tail in tails.values())
        found.append({
            "residual": name, "decoys": count, "mean": round(float(z.mean()), 4), "sd": round(float(z.std()), 4),
            "highest": round(float(z.max()), 4), "tails": tails, "holds": holds,
        })  # fmt: skip
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="short")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    suspects, decoys = SIZES[options.size]
    start = time.process_time()
    result = {"size": options.size, "suspects": run_suspects(suspects), "decoys": run_decoys(decoys)}
    text = json.dumps(result, indent=2)
    print(text)
    print(f"{time.process_time() - start:.0f} CPU-seconds", file=sys.stderr)
    if options.out is not None:
        options.out.write_text(text + "\n")
    return 0 if result["suspects"]["holds"] and all(item["holds"] for item in result["decoys"]) else 1


if __name__ == "__main__":
    sys.exit(main())
