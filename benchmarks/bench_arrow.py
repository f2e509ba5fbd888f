"""The scan of tables against that of JSON lines with the same rows, interleaved, in processor time.

Each round takes its own part of a generated corpus (`tests/scan/chat_corpus.py`) as chats, and as one text a row, and
scans it as JSONL, as an Arrow file and as Parquet. `planted` is that corpus, with a planted value or a hard negative in
every twelfth turn; `quiet` has neither. Writes benchmarks/results/arrow.json: for each figure the median, the range and
all rounds of the ratio to JSONL. STANCH_BENCH_MB sets the size of a round.
"""

import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from stanch.data import open_dataset, scan_dataset
from stanch.scan import Policy, Scanner

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "scan"))
import chat_corpus

OUT = Path(__file__).parent / "results" / "arrow.json"
MEGABYTES, ROUNDS = int(os.environ.get("STANCH_BENCH_MB", "20")), 5


def corpora(seed: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the rows of a round by the name of their corpus."""
    for name in ("planted", "quiet"):
        shares = chat_corpus.PLANTED, chat_corpus.NEGATIVE
        if name == "quiet":
            chat_corpus.PLANTED = chat_corpus.NEGATIVE = 0
        chats = [orjson.loads(line) for line in chat_corpus.ChatMaker(seed).lines(MEGABYTES * 1_000_000)]
        chat_corpus.PLANTED, chat_corpus.NEGATIVE = shares
        yield f"{name}_chats", chats
        yield f"{name}_texts", [{"text": turn["content"]} for chat in chats for turn in chat["messages"]]


def write(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """Write the rows in each format."""
    paths = [folder / f"rows.{ending}" for ending in ("jsonl", "arrow", "parquet")]
    paths[0].write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(paths[1], table.schema) as file:
        file.write_table(table, max_chunksize=1024)
    pq.write_table(table, paths[2])
    return paths


def main() -> None:
    """Measure and write."""
    load, figures, scanner = os.getloadavg()[0], defaultdict[str, list[float]](list), Scanner(Policy())
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            for name, rows in corpora(number):
                times, reports = [], []
                for path in write(Path(folder), rows):
                    dataset = open_dataset(path)
                    gc.collect()
                    start = time.process_time()
                    reports.append(scan_dataset(dataset, scanner).findings)
                    times.append(time.process_time() - start)
                if reports[0] != reports[1] or reports[0] != reports[2]:
                    sys.exit(f"{name}: the formats differ in what was found")
                figures[f"{name}_arrow_over_jsonl"].append(times[0] / times[1])
                figures[f"{name}_parquet_over_jsonl"].append(times[0] / times[2])
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result: dict[str, object] = {"machine": machine, "load": load, "megabytes": MEGABYTES}
    result |= {
        label: {"median": statistics.median(rounds), "range": [min(rounds), max(rounds)], "rounds": rounds}
        for label, rounds in figures.items()
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    for label, rounds in figures.items():
        print(f"{label:<40} {statistics.median(rounds):.3g} [{min(rounds):.3g}, {max(rounds):.3g}]")


if __name__ == "__main__":
    main()
