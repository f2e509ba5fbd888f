"""Start-up of the command line against a bare interpreter, interleaved, in processor time.

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
from pathlib import Path

OUT = Path(__file__).parent / "results" / "startup.json"
ROUNDS = 25
START = ["-c", "from stanch.cli import main; main()"]  # what the installed script does
COMMANDS = {
    "click alone, imported": ["-c", "import click"],
    "root --help": [*START, "--help"],
    "leaf: key new --help": [*START, "key", "new", "--help"],
    "leaf: release create --help": [*START, "release", "create", "--help"],
    "leaf at work: config show": [*START, "config", "show"],
}


def seconds(arguments: list[str], folder: str) -> float:
    """Return the processor time of a process, user and system: what else runs on the machine matters least to it."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, *arguments], stdout=quiet, stderr=quiet, cwd=folder)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and write."""
    ratios: dict[str, list[float]] = {name: [] for name in COMMANDS}
    bare = []
    with tempfile.TemporaryDirectory() as folder:
        for words in COMMANDS.values():
            seconds(words, folder)  # writes the bytecode
        for _ in range(ROUNDS):
            bare.append(seconds(["-c", "pass"], folder))
            for name, words in COMMANDS.items():
                ratios[name].append(seconds(words, folder) / bare[-1])
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": os.getloadavg()[0],
        "bare_interpreter_processor_seconds": statistics.median(bare),
        "processor_time_over_bare_interpreter": {
            name: {"median": statistics.median(found), "low": min(found), "high": max(found), "rounds": found}
            for name, found in ratios.items()
        },
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    for name, found in ratios.items():
        print(f"{name:<32} {statistics.median(found):.2f} [{min(found):.2f}, {max(found):.2f}]")


if __name__ == "__main__":
    main()
