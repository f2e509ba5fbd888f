"""kill -9 of a writing process at random points: what was acknowledged is there, and there is one history."""

import random
import subprocess
import sys
import time
from pathlib import Path

from stanch.ledger import decode_entry, fsck

WRITER = Path(__file__).with_name("crash_writer.py")
ROUNDS = 6


def acknowledged(folder, start, seconds):
    """Run the writer for a while, kill it, and return its whole lines."""
    process = subprocess.Popen([sys.executable, str(WRITER), str(folder), str(start)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    rest, _ = process.communicate()
    return [line.split() for line in (first + rest).decode().rpartition("\n")[0].splitlines()]


def test_no_acknowledged_entry_is_lost_and_no_second_history_appears(ground):
    ground.create().close()
    dice = random.Random(20260101)
    notes = []
    total = 0
    for turn in range(ROUNDS):
        lines = acknowledged(ground.folder, turn * 100_000, dice.uniform(0.0, 0.5))
        assert lines
        total += len(lines)
        ground.tables.close()
        ground.tables = ground.open_tables()
        ground.clock.seconds = 1_767_225_600
        log = ground.open()
        reader = log.reader()
        size = reader.size()
        assert size >= total
        for index, number, leaf in lines:
            event = decode_entry(reader.entry(int(index)))
            assert event["unmapped"]["stanch"]["payload"] == {"number": int(number)}
            with ground.tables.read() as connection:
                stored = connection.exec_driver_sql("SELECT leaf_hash FROM ledger_entry WHERE idx = ?", (int(index),))
                assert stored.scalar_one().hex() == leaf
        # Every checkpoint of every earlier round still is a checkpoint of this history.
        log.publish()
        report = fsck(reader, ground.policy, anchors=notes)
        assert report.size == report.published == size
        notes.append(reader.checkpoint().note)
        log.close()
