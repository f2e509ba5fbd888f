"""The log against its limits and a peer, interleaved: hashing, durable appends, and a whole log checked again.

Hashing: the Merkle frontier against a bare hash chain (the least that any log must do) and pymerkle. Appends until they
are durable: 64 in flight and four such writers (threads; on SQLite also processes), against one commit an entry; on
SQLite (synchronous=FULL) and, in the same rounds, on PostgreSQL. `appends` are of whole OCSF events, some 630 bytes,
which the append encodes and checks; `commits` are of 300 bytes that are encoded already, which is the log alone.
Writes benchmarks/results/ledger.json: for each figure the median, the range and all rounds.
"""

import hashlib
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TypeVar

from pymerkle import InmemoryTree

from stanch.crypto import Frontier, SigningKey, leaf_hash
from stanch.ledger import Act, Entry, Ledger, LedgerParams, LogPlace, fsck, intent, new_act_id, outcome
from stanch.ledger.committer import Committer, PreparedEntry
from stanch.store import open_blobs, open_tables
from stanch.terms import EntryRef

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the server is started as the tests start it

import servers

OUT = Path(__file__).parent / "results" / "ledger.json"
ROUNDS, LEAVES, ENTRIES, SINGLE, IN_FLIGHT, WRITERS = 7, 50_000, 12_000, 60, 64, 4
CHECKED, CHECKS, PROCESSES = 1_000_000, 3, 2
PRINCIPAL = "p_aaaaaaaaaaaaaaaaaaaaaaaaaa"
ORIGIN = "bench.local/log"
Made = TypeVar("Made")
PROCESS = multiprocessing.get_context("spawn")
Submit = Callable[[Made], Future[EntryRef]]
Figures = defaultdict[str, list[float]]


@dataclass(frozen=True)
class Log:
    """A log whose rows are at ``uri`` and whose blobs are in ``folder``."""

    uri: str
    folder: Path
    seed: bytes

    @contextmanager
    def open(self, *, create: bool = False) -> Iterator[Ledger]:
        """Open it, or make it."""
        self.folder.mkdir(exist_ok=True)
        tables = open_tables(self.uri, base=self.folder, create=create)
        blobs = open_blobs("file:./blobs", base=self.folder)
        params = LedgerParams(highwater=self.folder / "highwater", checkpoint_seconds=0)
        key = SigningKey.from_seed(self.seed)
        if create:
            ledger = Ledger.create(tables, blobs, origin=ORIGIN, signer=key, params=params)
        else:
            ledger = Ledger.open(tables, blobs, origin=ORIGIN, keys=[key], params=params)
        with ledger:
            yield ledger
        tables.close()

    @contextmanager
    def committer(self) -> Iterator[Committer]:
        """Make it, and open no more than its committer."""
        with self.open(create=True):
            pass
        tables = open_tables(self.uri, base=self.folder)
        yield Committer(tables, ORIGIN)
        tables.close()

    def place(self, ledger: Ledger) -> LogPlace:
        """Say where worker processes find it."""
        return LogPlace(self.uri, "file:./blobs", self.folder, (ledger.verifier.vkey,))


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


def entries(count: int) -> list[Entry]:
    """Make the intents and outcomes of so many entries' acts."""
    now = int(time.time() * 1000)
    acts = (Act(kind="tune.run", id=new_act_id(now), principal=PRINCIPAL) for _ in range(count // 2))
    return [entry for act in acts for entry in (intent(act, time_ms=now), outcome(act, time_ms=now))]


def encoded(count: int) -> list[PreparedEntry]:
    """Make entries of 300 bytes that need no encoding."""
    now = int(time.time() * 1000)
    return [PreparedEntry(data=os.urandom(300), act="act", principal=PRINCIPAL, time_ms=now) for _ in range(count)]


def append(submit: Submit[Made], made: list[Made], in_flight: int) -> list[float]:
    """Append with ``in_flight`` waiting at once; return the seconds until each entry was seen durable."""
    waited: list[float] = []
    waiting: deque[tuple[float, Future[EntryRef]]] = deque()

    def settle() -> None:
        began, future = waiting.popleft()
        future.result()
        waited.append(time.perf_counter() - began)

    for entry in made:
        if len(waiting) == in_flight:
            settle()
        waiting.append((time.perf_counter(), submit(entry)))
    while waiting:
        settle()
    return waited


def appended(
    submit: Callable[[Made], Future[EntryRef]],
    make: Callable[[int], list[Made]],
    count: int,
    in_flight: int,
    writers: int,
) -> tuple[float, float]:
    """Return the entries a second of so many threads, and the 99th percentile of their waits in ms."""
    made = [make(count // writers) for _ in range(writers)]
    start = time.perf_counter()
    with ThreadPoolExecutor(writers) as pool:
        waited = list(itertools.chain.from_iterable(pool.map(lambda own: append(submit, own, in_flight), made)))
    return len(waited) / (time.perf_counter() - start), p99(waited)


def p99(waited: list[float]) -> float:
    """Return the 99th percentile of waits, in ms."""
    return 1000 * statistics.quantiles(waited, n=100)[98]


def append_in_process(
    log: Log, count: int, barrier: Barrier, results: "Queue[tuple[float, float, list[float]]]"
) -> None:
    """Open the log in this process and append when all are ready; report when it began and ended, and the waits."""
    with log.open() as ledger, ThreadPoolExecutor(1) as pool:
        pool.submit(append, ledger.append_nowait, entries(IN_FLIGHT), IN_FLIGHT).result()
        made = entries(count)
        barrier.wait()
        start = time.perf_counter()
        waited = pool.submit(append, ledger.append_nowait, made, IN_FLIGHT).result()
        results.put((start, time.perf_counter(), waited))


def appended_by_processes(log: Log, count: int) -> tuple[float, float]:
    """Return the entries a second of processes that share the log, and the 99th percentile of their waits in ms."""
    barrier, results = PROCESS.Barrier(WRITERS), PROCESS.Queue()
    each = [
        PROCESS.Process(target=append_in_process, args=(log, count // WRITERS, barrier, results))
        for _ in range(WRITERS)
    ]
    for process in each:
        process.start()
    starts, ends, waited = zip(*(results.get() for _ in each), strict=True)
    for process in each:
        process.join()
    return count / (max(ends) - min(starts)), p99(list(itertools.chain.from_iterable(waited)))


def append_rates(log: Log, ledger: Ledger, label: str, figures: Figures) -> None:
    """Measure one writer, four writers, and one entry at a time."""
    submit = ledger.append_nowait
    one = note(figures, f"{label}_appends", "64_in_flight", appended(submit, entries, ENTRIES, IN_FLIGHT, 1))
    note(figures, f"{label}_appends", "four_writers", appended(submit, entries, 2 * ENTRIES, IN_FLIGHT, WRITERS))
    if label == "sqlite":
        note(figures, f"{label}_appends", "four_processes", appended_by_processes(log, 2 * ENTRIES))
    single, _ = appended(submit, entries, SINGLE, 1, 1)
    figures[f"{label}_64_in_flight_over_one_by_one"].append(one / single)


def commit_rates(committer: Committer, label: str, figures: Figures) -> None:
    """Measure one writer and four writers of entries that are encoded already."""
    submit = committer.submit
    note(figures, f"{label}_commits", "64_in_flight", appended(submit, encoded, ENTRIES, IN_FLIGHT, 1))
    note(figures, f"{label}_commits", "four_writers", appended(submit, encoded, 2 * ENTRIES, IN_FLIGHT, WRITERS))


def note(figures: Figures, what: str, writers: str, measured: tuple[float, float]) -> float:
    """Keep a rate and the 99th percentile of its waits; return the rate."""
    for unit, value in zip(("per_second", "p99_ms"), measured, strict=True):
        figures[f"{what}_{unit}_{writers}"].append(value)
    return measured[0]


def check_rates(log: Log, ledger: Ledger, figures: Figures) -> None:
    """Fill the log up to a million entries and check all of it, by one process and by two."""
    while missing := CHECKED - ledger.reader().size():
        append(ledger.append_nowait, entries(min(missing, 16_384)), 4096)
    ledger.publish()
    for _ in range(CHECKS):
        for jobs, label in ((1, "one_process"), (PROCESSES, "two_processes")):
            start = time.perf_counter()
            report = fsck(ledger.reader(), ledger.policy, place=log.place(ledger), jobs=jobs)
            figures[f"entries_checked_per_second_{label}"].append(report.size / (time.perf_counter() - start))


def summary(rounds: list[float]) -> dict[str, object]:
    """Median and range of the rounds."""
    return {"median": statistics.median(rounds), "low": min(rounds), "high": max(rounds), "rounds": rounds}


def main() -> None:
    """Measure and write."""
    load = os.getloadavg()[0]
    leaves = [os.urandom(300) for _ in range(LEAVES)]
    figures: Figures = defaultdict(list)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        uris = {"sqlite": ["sqlite:./bench.db"] * 2}
        if servers.postgresql_is_installed():
            server = stack.enter_context(servers.postgresql_server())
            uris["postgresql"] = [server.database(), server.database()]
        logs = {label: Log(uri, Path(name, label), os.urandom(32)) for label, (uri, _) in uris.items()}
        # Committers have logs of their own: no check could read what they write.
        others = {label: Log(uri, Path(name, f"{label}-commits"), os.urandom(32)) for label, (_, uri) in uris.items()}
        ledgers = {label: stack.enter_context(log.open(create=True)) for label, log in logs.items()}
        committers = {label: stack.enter_context(log.committer()) for label, log in others.items()}
        for _ in range(ROUNDS):
            merkle = seconds_of_merkle(leaves)
            figures["merkle_append_time_over_hash_chain"].append(merkle / seconds_of_chain(leaves))
            figures["pymerkle_append_time_over_ours"].append(seconds_of_pymerkle(leaves) / merkle)
            for label, log in logs.items():
                append_rates(log, ledgers[label], label, figures)
                commit_rates(committers[label], label, figures)
        check_rates(logs["sqlite"], ledgers["sqlite"], figures)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {"machine": machine, "load": load} | {label: summary(rounds) for label, rounds in figures.items()}
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(machine, f"load {load:.1f} when it began")
    for label, rounds in figures.items():
        print(f"{label:<56} {statistics.median(rounds):.3g} [{min(rounds):.3g}, {max(rounds):.3g}]")


if __name__ == "__main__":
    main()
