"""kill -9 of a writing process at random points: what was acknowledged is there, and there is one history."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stanch.ledger import decode_entry, fsck

WRITER = Path(__file__).with_name("crash_writer.py")


def run_and_kill(nursery, start, seconds):
    """Let the nursery fork a writer, kill it ``seconds`` after its first acknowledgement, and return what it said."""
    nursery.stdin.write(f"{start}\n")
    nursery.stdin.flush()
    child = int(nursery.stdout.readline().removeprefix("pid "))
    said = []
    while (line := nursery.stdout.readline()) != "dead\n":
        assert line, "the nursery is gone"
        if not said:
            threading.Timer(seconds, os.kill, (child, signal.SIGKILL)).start()
        said.append(line.split())
    return said


def check(ground, acknowledged, notes):
    """Reopen the log as the next process would; everything acknowledged is there, and all continues one history."""
    tables = ground.open_tables()
    ground.tables = tables
    log = ground.open()
    reader = log.reader()
    for index, number, leaf in acknowledged:
        event = decode_entry(reader.entry(int(index)))
        assert event["unmapped"]["stanch"]["payload"] == {"number": int(number)}
        with tables.read() as connection:
            stored = connection.exec_driver_sql("SELECT leaf_hash FROM ledger_entry WHERE idx = ?", (int(index),))
            assert stored.scalar_one().hex() == leaf
    log.publish()
    size = reader.size()
    # Every checkpoint that was published before still is a checkpoint of this history.
    report = fsck(reader, ground.policy, anchors=notes)
    assert report.size == report.published == size
    notes.append(reader.checkpoint().note)
    log.close()
    tables.close()
    return size


@pytest.mark.parametrize(
    ("kills", "each"), [(10, 5), pytest.param(100, 25, marks=pytest.mark.slow)], ids=["ten", "hundred"]
)
def test_no_acknowledged_entry_is_lost_and_no_second_history_appears(either, kills, each):
    ground = either
    if ground.tables_uri.startswith("postgresql"):  # each kill there takes twice as long
        kills = min(kills, int(os.environ.get("STANCH_KILLS", "20")))
    ground.create().close()
    ground.tables.close()
    dice = random.Random(20260101)
    total, notes, recent = 0, [], []
    command = [sys.executable, str(WRITER), str(ground.folder), ground.tables_uri, ground.blobs_uri]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nursery:
        for turn in range(1, kills + 1):
            said = run_and_kill(nursery, turn * 100_000, dice.uniform(0.0, 0.2))
            assert said
            recent += said
            if turn % each == 0:
                total += len(recent)
                assert check(ground, recent, notes) >= total
                recent = []
        nursery.stdin.close()
