"""Appends as fast as it can and prints every acknowledged entry; run by test_crash, which kills it."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stanch.crypto import SigningKey
from stanch.ledger import Act, Ledger, LedgerParams, intent, new_act_id
from stanch.store import open_blobs, open_tables

ORIGIN = "example.com/stanch/log"


def main(folder: Path, start: int) -> None:
    tables = open_tables("sqlite:stanch.db", base=folder)
    log = Ledger.open(
        tables,
        open_blobs("file:blobs", base=folder),
        origin=ORIGIN,
        signer=SigningKey.from_seed(bytes(range(32))),
        params=LedgerParams(highwater=folder / "highwater", checkpoint_seconds=0.01),
    )

    def append(number: int) -> None:
        act = Act(kind="tune.run", id=new_act_id(number), principal="p_" + "a" * 26)
        ref = log.append(intent(act, time_ms=1_767_225_600_000, payload={"number": number}))
        # One write call a line: the parent reads whole lines only, and what it reads was acknowledged.
        sys.stdout.buffer.write(f"{ref.index} {number} {ref.leaf_hash.hex()}\n".encode())
        sys.stdout.buffer.flush()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(append, range(start, start + 100_000)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
