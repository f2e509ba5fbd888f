"""What a plain and a sealed index cost each process that opens it: memory of its own, shared memory, time.

Writes benchmarks/results/index-memory.json. The filter is random bits of the size of an index of about 800 MB of text;
every page of it is read once, as the check of its code does when it is opened. Two processes hold it at a time.
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

import numpy as np
from msgspec import structs

from stanch.config import algorithms
from stanch.scan import FINE, SpanIndex
from stanch.scan.spans.bloom import BlockedBloom
from stanch.scan.spans.index_file import IndexContent
from stanch.workspace import Keyring
from stanch.workspace.indexes import Sealed, open_index, save_index

OUT = Path(__file__).parent / "results" / "index-memory.json"
BLOCKS, PROCESSES, ROUNDS = 1 << 20, 2, 5  # 64 MiB


def hold(folder: Path, name: str) -> None:
    """Open an index, tell what that cost, and hold it until told to end."""
    keys = Keyring(folder / "keys")
    open_index(keys, folder / "small.index")
    open_index(keys, folder / "small.sealed")  # so that what is imported counts for neither
    before, start = memory(), time.process_time()
    index, _ = open_index(keys, folder / name)
    seconds = time.process_time() - start
    sys.stdout.write("open\n")
    sys.stdout.flush()
    sys.stdin.readline()  # until all processes hold it
    now = memory()
    told = {kind: (now[kind] - before[kind]) / 1024 for kind in ("Pss", "Pss_Anon", "Rss")}
    sys.stdout.write(json.dumps(told | {"seconds": seconds, "keys": index.header.keys}) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()


def memory() -> dict[str, int]:
    """Return the process's memory in KiB, as the kernel counts it."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def round_of(folder: Path, name: str) -> list[dict[str, float]]:
    """Return what each of the processes tells that hold an index at a time."""
    command = [sys.executable, __file__, str(folder), name]
    held = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    for word in ("open", "told"):
        told = [process.stdout.readline() for process in held if process.stdout is not None]
        for process in held:
            if process.stdin is not None:
                process.stdin.write(word + "\n")
                process.stdin.flush()
    for process in held:
        process.wait()
    return [json.loads(line) for line in told]


def main() -> None:
    """Measure and write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = Keyring.create(folder / "keys", algorithms("2026"))
        small = SpanIndex.build(
            ["a text of some length that is longer than a window"], key=keys.secret("index"), params=FINE
        )
        words = np.random.default_rng(7).integers(0, 1 << 63, size=(BLOCKS, 8), dtype="<u8")
        large = SpanIndex(
            IndexContent(structs.replace(small.header, blocks=BLOCKS), BlockedBloom(words)),
            keys.secret("index"),
        )
        for index, stem in ((small, "small"), (large, "large")):
            save_index(keys, index, folder / f"{stem}.index")
            save_index(keys, index, Sealed(folder / f"{stem}.sealed"))
        rounds: dict[str, list[dict[str, float]]] = {"plain": [], "sealed": []}
        for _ in range(ROUNDS):
            rounds["plain"] += round_of(folder, "large.index")
            rounds["sealed"] += round_of(folder, "large.sealed")
    figures = {
        kind: {name: statistics.median(one[name] for one in all_) for name in ("Pss", "Pss_Anon", "Rss", "seconds")}
        for kind, all_ in rounds.items()
    }
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    document = {
        "machine": machine,
        "MiB": BLOCKS * 64 / 2**20,
        "processes": PROCESSES,
        "median": figures,
        "rounds": rounds,
    }
    OUT.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        hold(Path(sys.argv[1]), sys.argv[2])
    else:
        main()
