"""What the detectors promise beside what they do: 1,000 principals × 90 days each, seeded.

    python benchmarks/bench_watch.py --out benchmarks/results/watch.json

D3 judges one day at a time and so needs days: 1,000 principals × 560 days beside the 90, and 150. The e-SR detectors
also run at a lower threshold, at which enough alarms fall to see the rate itself. Also the scenario `insider30d`. The
rate of reading entries is measured in CPU time and printed; it is no part of the file, which is the same wherever it is
made. With `--out` the scenario's picture in docs/pictures/ is drawn anew, too.

Exit code 1 if a promise is broken, an insider is not found, or fewer than 5,000 entries a second are read.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from stanch.cli.watch_plot import draw
from stanch.ledger import Act, intent, outcome
from stanch.terms import ArtifactRef, Digest
from stanch.watch import detectors
from stanch.watch.events import read_entries
from stanch.watch.insider import play_insiders
from stanch.watch.runner import BATCH
from stanch.watch.simulate import SimulationSpec, simulate

SEED = 1
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "insiders.svg"
LEAST_ENTRIES_A_SECOND = 5000
CASES = [
    ("D1", SimulationSpec(1000, 2160)),
    ("D2", SimulationSpec(1000, 2160)),
    ("D2", SimulationSpec(1000, 2160, threshold=1e3)),
    ("D2", SimulationSpec(1000, 2160, seasonal=True)),
    ("D2", SimulationSpec(1000, 2160, shift=1.5)),
    ("D2", SimulationSpec(1000, 2160, shift=4.0)),
    ("D2", SimulationSpec(20, 20_000, seasonal=True)),
    ("D3", SimulationSpec(1000, 2160)),
    ("D3", SimulationSpec(1000, 13_440)),
    ("D3", SimulationSpec(150, 13_440)),
    ("D4", SimulationSpec(1000, 2160)),
    ("D5", SimulationSpec(1000, 2160)),
    ("D5", SimulationSpec(1000, 2160, threshold=1e3)),
    ("D6", SimulationSpec(1000, 2160)),
    ("D7", SimulationSpec(1000, 2160)),
    ("D7", SimulationSpec(1000, 2160, threshold=1e3)),
]


def entries(count: int) -> list[tuple[int, bytes]]:
    """Return the entries of requests of 1,000 principals in ten hours."""
    generator, model = np.random.default_rng(SEED), ArtifactRef("model", "m", Digest.sha256(b"m"))
    names = ["p_" + "".join(generator.choice(list("abcdefgh234567"), 26)) for _ in range(1000)]
    found: list[bytes] = []
    for number in range(count // 2):
        who, ms = names[generator.integers(1000)], 1_767_225_600_000 + number * 72_000_000 // count
        act = Act(kind="gateway.infer", id=f"01900000-0000-7000-8000-{number:012x}", principal=who, subject=(model,))
        asked = {"dialect": "chat", "network": "10.0.0.0/24", "probe": {"quotes": False}}
        done = {"verdict": "allow", "released": 400, "prompt_tokens": 90, "completion_tokens": 100, "folded_chars": 390}
        found += [intent(act, time_ms=ms, payload=asked).encode("example.com/log")]
        found += [outcome(act, time_ms=ms + 900, payload=done).encode("example.com/log")]
    return list(enumerate(found))


def reading_rate(count: int = 40_000) -> float:
    """Return how many entries a second of CPU all detectors together take."""
    tail, states = entries(count), [b""] * len(detectors())
    start = time.process_time()
    for at in range(0, count, BATCH):
        events = list(read_entries(tail[at : at + BATCH]))
        states = [d.step(state, events)[0] for d, state in zip(detectors(), states, strict=True)]
    return count / (time.process_time() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for name, spec in CASES:
        found = simulate(name, spec, seed=SEED)
        size = {"principals": spec.principals, "hours": spec.hours, "seasonal": spec.seasonal, "shift": spec.shift}
        rows.append(found.to_json() | size)
        print(name, size, found.verdict, f"{found.observed:.3g} of {found.promised:.3g}", flush=True)
    scenario = play_insiders(1000, seed=SEED)
    text = json.dumps({"seed": SEED, "detectors": rows, "insider30d": scenario.to_json()}, indent=2)
    if options.out is not None:
        options.out.write_text(text + "\n")
        PICTURE.write_text(draw(scenario))
    rate = reading_rate()
    print(f"{rate:.0f} entries a second of CPU", file=sys.stderr)
    holds = all(row["verdict"] != "broken" for row in rows) and all(trace.is_found for trace in scenario.traces)
    return 0 if holds and rate >= LEAST_ENTRIES_A_SECOND else 1


if __name__ == "__main__":
    sys.exit(main())
