"""Start-up of the command line against a bare interpreter, interleaved.

Writes benchmarks/results/startup.json: for each command the ratios of all rounds to the bare interpreter of the same
round, their median and their range. ``command --help`` stands for the start of a leaf command: its module is imported,
its work is not.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OUT = Path(__file__).parent / "results" / "startup.json"
ROUNDS = 15
COMMANDS = {
    "root --help": ["--help"],
    "leaf: key new --help": ["key", "new", "--help"],
    "leaf: release create --help": ["release", "create", "--help"],
    "leaf at work: config show": ["config", "show"],
}


def seconds(arguments: list[str], folder: str) -> float:
    """Return how long a process takes from start to end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=folder)
    return time.perf_counter() - start


def main() -> None:
    """Measure and write."""
    ratios: dict[str, list[float]] = {name: [] for name in COMMANDS}
    bare = []
    with tempfile.TemporaryDirectory() as folder:
        for words in COMMANDS.values():
            seconds(["-m", "stanch", *words], folder)  # writes the bytecode
        for _ in range(ROUNDS):
            bare.append(seconds(["-c", "pass"], folder))
            for name, words in COMMANDS.items():
                ratios[name].append(seconds(["-m", "stanch", *words], folder) / bare[-1])
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": os.getloadavg()[0],
        "bare_interpreter_seconds": statistics.median(bare),
        "time_over_bare_interpreter": {
            name: {"median": statistics.median(found), "low": min(found), "high": max(found), "rounds": found}
            for name, found in ratios.items()
        },
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    for name, found in ratios.items():
        print(f"{name:<32} {statistics.median(found):.2f} [{min(found):.2f}, {max(found):.2f}]")


if __name__ == "__main__":
    main()
