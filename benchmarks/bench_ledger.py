"""The log against its limits and a peer, interleaved: hashing, durable appends, and a whole log checked again.

Hashing: the Merkle frontier against a bare hash chain (the least that any log must do) and pymerkle. Appends: 64 in
flight and four such writers, against one commit an entry; on SQLite (synchronous=FULL) and, in the same rounds, on
PostgreSQL.
Writes benchmarks/results/ledger.json: for each figure the median, the range and all rounds.
"""

import hashlib
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pymerkle import InmemoryTree

from stanch.crypto import Frontier, SigningKey, leaf_hash
from stanch.ledger import Act, Ledger, LedgerParams, LogPlace, fsck, intent, new_act_id
from stanch.store import open_blobs, open_tables
from stanch.terms import EntryRef

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the server is started as the tests start it

import servers

OUT = Path(__file__).parent / "results" / "ledger.json"
ROUNDS, LEAVES, ENTRIES, SINGLE, IN_FLIGHT, WRITERS = 7, 50_000, 12_000, 60, 64, 4
CHECKED, CHECKS, PROCESSES = 1_000_000, 3, 2
PRINCIPAL = "p_aaaaaaaaaaaaaaaaaaaaaaaaaa"
Figures = defaultdict[str, list[float]]


def seconds_of_merkle(entries: list[bytes]) -> float:
    """Hash the entries into a Merkle frontier."""
    start = time.perf_counter()
    Frontier().append(map(leaf_hash, entries)).root()
    return time.perf_counter() - start


def seconds_of_chain(entries: list[bytes]) -> float:
    """Hash the entries into a chain."""
    start = time.perf_counter()
    head = b""
    for entry in entries:
        head = hashlib.sha256(head + entry).digest()
    return time.perf_counter() - start


def seconds_of_pymerkle(entries: list[bytes]) -> float:
    """Append the entries to a tree of pymerkle in memory."""
    tree = InmemoryTree(algorithm="sha256")
    start = time.perf_counter()
    for entry in entries:
        tree.append_entry(entry)
    tree.get_root()
    return time.perf_counter() - start


def append(ledger: Ledger, count: int, in_flight: int) -> list[float]:
    """Append durable entries with ``in_flight`` waiting at once; return the seconds until each was seen durable."""
    waited: list[float] = []
    waiting: deque[tuple[float, Future[EntryRef]]] = deque()

    def settle() -> None:
        began, future = waiting.popleft()
        future.result()
        waited.append(time.perf_counter() - began)

    for _ in range(count):
        if len(waiting) == in_flight:
            settle()
        began = time.perf_counter()
        now = int(time.time() * 1000)
        act = Act(kind="tune.run", id=new_act_id(now), principal=PRINCIPAL)
        waiting.append((began, ledger.append_nowait(intent(act, time_ms=now))))
    while waiting:
        settle()
    return waited


def appended(ledger: Ledger, count: int, in_flight: int, writers: int) -> tuple[float, float]:
    """Return the entries a second of so many threads, and the 99th percentile of their waits in ms."""
    start = time.perf_counter()
    with ThreadPoolExecutor(writers) as pool:
        each = pool.map(lambda _: append(ledger, count // writers, in_flight), range(writers))
        waited = list(itertools.chain.from_iterable(each))
    return len(waited) / (time.perf_counter() - start), 1000 * statistics.quantiles(waited, n=100)[98]


def append_rates(ledger: Ledger, label: str, figures: Figures) -> None:
    """Measure one writer, four writers, and one entry at a time."""
    one, p99 = appended(ledger, ENTRIES, IN_FLIGHT, 1)
    figures[f"{label}_appends_per_second_64_in_flight"].append(one)
    figures[f"{label}_p99_ms_64_in_flight"].append(p99)
    four, p99 = appended(ledger, 2 * ENTRIES, IN_FLIGHT, WRITERS)
    figures[f"{label}_appends_per_second_four_writers"].append(four)
    figures[f"{label}_p99_ms_four_writers"].append(p99)
    figures[f"{label}_64_in_flight_over_one_by_one"].append(one / appended(ledger, SINGLE, 1, 1)[0])


@contextmanager
def opened(folder: Path, tables_uri: str) -> Iterator[tuple[Ledger, LogPlace]]:
    """Make a log whose rows are at ``tables_uri`` and whose blobs are in ``folder``."""
    folder.mkdir()
    tables = open_tables(tables_uri, base=folder, create=True)
    params = LedgerParams(highwater=folder / "highwater", checkpoint_seconds=0)
    key = SigningKey.generate("ed25519")
    blobs = open_blobs("file:./blobs", base=folder)
    with Ledger.create(tables, blobs, origin="bench.local/log", signer=key, params=params) as ledger:
        yield ledger, LogPlace(tables_uri, "file:./blobs", folder, ledger.verifier.vkey)
    tables.close()


def check_rates(ledger: Ledger, place: LogPlace, figures: Figures) -> None:
    """Fill the log up to a million entries and check all of it, by one process and by two."""
    append(ledger, CHECKED - ledger.reader().size(), 4096)
    ledger.publish()
    for _ in range(CHECKS):
        for jobs, label in ((1, "one_process"), (PROCESSES, "two_processes")):
            start = time.perf_counter()
            report = fsck(ledger.reader(), ledger.policy, place=place, jobs=jobs)
            figures[f"entries_checked_per_second_{label}"].append(report.size / (time.perf_counter() - start))


def summary(rounds: list[float]) -> dict[str, object]:
    """Median and range of the rounds."""
    return {"median": statistics.median(rounds), "low": min(rounds), "high": max(rounds), "rounds": rounds}


def main() -> None:
    """Measure and write."""
    load = os.getloadavg()[0]
    entries = [os.urandom(300) for _ in range(LEAVES)]
    figures: Figures = defaultdict(list)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        logs = {"sqlite": stack.enter_context(opened(Path(name, "sqlite"), "sqlite:./bench.db"))}
        if servers.postgresql_is_installed():
            uri = stack.enter_context(servers.postgresql_server()).database()
            logs["postgresql"] = stack.enter_context(opened(Path(name, "postgresql"), uri))
        for _ in range(ROUNDS):
            merkle = seconds_of_merkle(entries)
            figures["merkle_append_time_over_hash_chain"].append(merkle / seconds_of_chain(entries))
            figures["pymerkle_append_time_over_ours"].append(seconds_of_pymerkle(entries) / merkle)
            for label, (ledger, _) in logs.items():
                append_rates(ledger, label, figures)
        check_rates(*logs["sqlite"], figures)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {"machine": machine, "load": load} | {label: summary(rounds) for label, rounds in figures.items()}
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(machine, f"load {load:.1f} when it began")
    for label, rounds in figures.items():
        print(f"{label:<56} {statistics.median(rounds):.3g} [{min(rounds):.3g}, {max(rounds):.3g}]")


if __name__ == "__main__":
    main()
