"""Appends as fast as it can and prints every acknowledged entry; its tests kill it.

Run by itself it is a nursery: for each line on its input (the number to start with) it forks a writer, says its process
id, and says ``dead`` when somebody has killed it. Forking spares each writer the time of its imports.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stanch.crypto import SigningKey
from stanch.ledger import Act, Ledger, LedgerParams, intent, new_act_id
from stanch.store import open_blobs, open_tables

ORIGIN = "example.com/stanch/log"
COUNT = 100_000


def write(folder: Path, tables_uri: str, blobs_uri: str, start: int, count: int = COUNT) -> None:
    tables = open_tables(tables_uri, base=folder)
    log = Ledger.open(
        tables,
        open_blobs(blobs_uri, base=folder),
        origin=ORIGIN,
        keys=[SigningKey.from_seed(bytes(range(32)))],
        params=LedgerParams(highwater=folder / "highwater", checkpoint_seconds=0.01),
    )

    def append(number: int) -> None:
        act = Act(kind="tune.run", id=new_act_id(number), principal="p_" + "a" * 26)
        ref = log.append(intent(act, time_ms=1_767_225_600_000, payload={"number": number}))
        say(f"{ref.index} {number} {ref.leaf_hash.hex()}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(append, range(start, start + count)))
    log.close()
    tables.close()


def say(line: str) -> None:
    # One write call, which a pipe takes whole: what the reader sees was said to its end.
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def main(folder: Path, tables_uri: str, blobs_uri: str) -> None:
    open_tables(tables_uri, base=folder).close()  # loads the database's driver, too
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            write(folder, tables_uri, blobs_uri, int(line))
            os._exit(0)
        say(f"pid {child}")
        os.waitpid(child, 0)
        say("dead")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        main(Path(sys.argv[1]), *sys.argv[2:])
    else:
        write(Path(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4]), int(sys.argv[5]))
