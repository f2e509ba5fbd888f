"""Two processes against one, interleaved, in wall time; and the most memory of passes over small and large inputs.

Each run is a child process of its own that opens a generated file of chats (`tests/scan/chat_corpus.py`), makes one
pass over it, and says how long that took, what share of it this process alone worked, and how much memory it had at
most. `speedup` is the wall time with one process over that with two, of a round; `serial` the processor time of the
process that leads, over the wall time with one: what more processes cannot take away. A machine that is busy otherwise
shows less than there is.

Memory: the same passes, with one process, over files of which the larger is the smaller one many times over with other
numbers in it, and in which equally many rows hold a finding. The report of a scan grows by what was found, so both have
the same findings. `growth` is the larger peak over the smaller.
Writes benchmarks/results/scale.json. STANCH_BENCH_MB sets the size of the file for time, STANCH_BENCH_MEMORY_MB the
sizes for memory.
"""

import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from stanch.data import build_index, find_near_duplicates, open_dataset, scan_dataset
from stanch.data.engines import Local
from stanch.data.scanning import ScanPlan
from stanch.scan import Policy, Scanner

OUT = Path(__file__).parent / "results" / "scale.json"
MEGABYTES = int(os.environ.get("STANCH_BENCH_MB", "60"))
SMALL, LARGE = (int(size) for size in os.environ.get("STANCH_BENCH_MEMORY_MB", "20,200").split(","))
ROUNDS, FINDINGS, KEY = 5, 200, bytes(32)
PASSES = ("scan", "redact", "dedup", "index")


def scanner() -> Scanner:
    """Return one of the plain policy."""
    return Scanner(Policy(report_key=KEY))


def make_pass(name: str, path: Path, processes: int) -> None:
    """Make one pass."""
    dataset, engine = open_dataset(path, key=KEY), Local(processes)
    passes: dict[str, Callable[[], object]] = {
        "scan": lambda: scan_dataset(dataset, scanner(), plan=ScanPlan(engine)),
        "redact": lambda: scan_dataset(dataset, scanner(), out=path.with_suffix(".out.jsonl"), plan=ScanPlan(engine)),
        "dedup": lambda: find_near_duplicates(dataset, engine=engine),
        "index": lambda: build_index(dataset, key=KEY, engine=engine),
    }
    passes[name]()


def work(name: str, path: Path, processes: int) -> None:
    """Make one pass and say what it took."""
    wall, own = time.perf_counter(), time.process_time()
    make_pass(name, path, processes)
    said = {"wall": time.perf_counter() - wall, "own": time.process_time() - own}
    print(json.dumps(said | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def run(name: str, path: Path, processes: int) -> dict[str, float]:
    """Make one pass in a child process."""
    command = [sys.executable, __file__, name, str(path), str(processes)]
    said: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return said


def write_chats(path: Path) -> None:
    """Write the file for time."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "scan"))
    from chat_corpus import ChatMaker  # noqa: PLC0415 - beside the tests

    with path.open("wb") as file:
        file.writelines(ChatMaker(1).lines(MEGABYTES * 1_000_000))


def write_plain(path: Path, megabytes: float) -> None:
    """Write a file for memory: rows of other words, of which the first few hold a finding."""
    rng = random.Random(megabytes)  # noqa: S311 - seeded text
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(20_000)]
    size = number = 0
    with path.open("w") as file:
        while size < megabytes * 1_000_000:
            mail = f" to ana{number}@works.io" if number < FINDINGS else ""
            size += file.write(json.dumps({"text": " ".join(rng.choices(words, k=150)) + mail}) + "\n")
            number += 1


def times(folder: Path, figures: defaultdict[str, list[float]]) -> None:
    """Measure two processes against one."""
    write_chats(path := folder / "chats.jsonl")
    for number in range(ROUNDS):
        for name in PASSES:
            order = (1, 2) if number % 2 else (2, 1)
            said = {processes: run(name, path, processes) for processes in order}
            figures[f"{name}_speedup"].append(said[1]["wall"] / said[2]["wall"])
            figures[f"{name}_serial"].append(said[2]["own"] / said[1]["wall"])


def memory(folder: Path, figures: defaultdict[str, list[float]]) -> None:
    """Measure peaks."""
    for label, megabytes in (("small", SMALL), ("large", LARGE)):
        write_plain(path := folder / f"{label}.jsonl", megabytes)
        for name in PASSES:
            figures[f"{name}_peak_mb_{label}"].append(run(name, path, 1)["peak_mb"])
    for name in PASSES:
        figures[f"{name}_growth"].append(figures[f"{name}_peak_mb_large"][0] / figures[f"{name}_peak_mb_small"][0])


def main() -> None:
    """Measure and write."""
    load, figures = os.getloadavg()[0], defaultdict[str, list[float]](list)
    with tempfile.TemporaryDirectory() as folder:
        times(Path(folder), figures)
        memory(Path(folder), figures)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {"machine": machine, "load": load, "megabytes": MEGABYTES, "memory_megabytes": [SMALL, LARGE]}
    result |= {
        label: {"median": statistics.median(rounds), "range": [min(rounds), max(rounds)], "rounds": rounds}
        for label, rounds in figures.items()
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    for label, rounds in figures.items():
        print(f"{label:<24} {statistics.median(rounds):.3g} [{min(rounds):.3g}, {max(rounds):.3g}]")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
