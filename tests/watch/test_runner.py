"""The runner over a real log: places, restarts, kills, and two databases."""

import itertools
import os
import signal
import threading
from dataclasses import dataclass

import pytest
from watching import START, infer_entries, refusal, who

from stanch.crypto import SigningKey
from stanch.errors import InvalidInput
from stanch.ledger import Ledger, LedgerParams, LedgerReader, NoteVerifier
from stanch.store import Tables, open_blobs, open_tables
from stanch.watch import runner
from stanch.watch.counts import HOUR
from stanch.watch.esr import rate_detector
from stanch.watch.leak import FindingDetector, LeakCapDetector
from stanch.watch.probe import probe_detector

ORIGIN = "example.com/stanch/log"
KEY = SigningKey.from_seed(bytes(range(32)))


@dataclass
class World:
    """A log, and who delivers what was raised."""

    log: Ledger
    tables: Tables
    reader: LedgerReader

    def append(self, entries):
        for future in [self.log.append_nowait(entry) for entry in entries]:
            future.result(30)

    def catch_up(self, detectors, deliver=lambda _alarms: None):
        return runner.catch_up(self.reader, self.tables, detectors, deliver=within(self.tables, deliver))


def within(tables, deliver):
    """Return a receiver whose transaction holds nothing but what the runner saves."""

    def take(alarms, save):
        with tables.write() as connection:
            save(connection)
            deliver(alarms)

    return take


@pytest.fixture(params=["sqlite", "postgresql"])
def world(tmp_path, request):
    uri = "sqlite:stanch.db"
    if request.param == "postgresql":
        uri = request.getfixturevalue("postgresql").database()
    tables, blobs = open_tables(uri, base=tmp_path, create=True), open_blobs("file:blobs", base=tmp_path)
    params = LedgerParams(highwater=tmp_path / "highwater", checkpoint_seconds=0)
    log = Ledger.create(tables, blobs, origin=ORIGIN, signer=KEY, params=params, clock=lambda: float(START))
    yield World(log, tables, log.reader())
    log.close()
    tables.close()


def traffic(hours, start=0):
    """Return the entries of some hours: a request each, a canary every seventh, a refusal every fifth."""
    for hour in range(start, start + hours):
        done = {"verdict": "allow", "released": 10, "drawn": 3} | ({"findings": {"canary": 1}} if hour % 7 == 0 else {})
        yield from infer_entries(hour, START + hour * HOUR, None, done)
        if hour % 5 == 0:
            yield refusal(hour + 5000, START + hour * HOUR, principal=who(3))


DETECTORS = (FindingDetector(), LeakCapDetector(cap=30), rate_detector())


def test_each_detector_goes_on_where_it_stopped(world):
    world.append(traffic(20))
    assert world.catch_up(DETECTORS[:1]) == 3
    assert world.catch_up(DETECTORS[:1]) == 0
    world.append(traffic(10, start=20))
    assert world.catch_up(DETECTORS) == 5
    new = probe_detector()  # a detector of a later release begins at the first entry
    assert world.catch_up([*DETECTORS, new]) == 0
    size = world.reader.size()
    found = runner.progress(world.tables, ORIGIN, [*DETECTORS, new])
    assert [(p.detector, p.next_index, p.alarms) for p in found] == [
        ("D1", size, 5), ("D5-cap", size, 3), ("D2", size, 0), ("D6", size, 0),
    ]  # fmt: skip
    assert found[0].last_at == START + 28 * HOUR
    assert found[2].state_bytes > 100


def test_the_alarms_do_not_depend_on_batches_or_restarts(world, monkeypatch):
    world.append(traffic(40))
    world.catch_up(DETECTORS)
    whole = runner.alarms_of(world.tables, ORIGIN)
    with world.tables.write() as connection:
        connection.exec_driver_sql("DELETE FROM watch_state")
        connection.exec_driver_sql("DELETE FROM watch_alarm")
    monkeypatch.setattr(runner, "BATCH", 7)
    world.catch_up(DETECTORS[:2])
    world.catch_up(DETECTORS)
    assert runner.alarms_of(world.tables, ORIGIN) == whole
    assert len(whole) == 9


def test_a_receiver_that_fails_undoes_the_batch_and_gets_it_again(world, monkeypatch):
    monkeypatch.setattr(runner, "BATCH", 16)
    world.append(traffic(30))
    delivered, failures = [], itertools.count()

    def deliver(alarms):
        if next(failures) % 2 == 0:
            raise RuntimeError("no place to put it")
        delivered.extend(alarms)

    for _ in range(20):
        try:
            world.catch_up(DETECTORS, deliver)
            break
        except RuntimeError:
            continue
    assert sorted(delivered, key=repr) == sorted(runner.alarms_of(world.tables, ORIGIN), key=repr)
    assert len(delivered) == 8


def test_a_kill_repeats_nothing_and_loses_nothing(tmp_path, monkeypatch):
    """A child watches and dies at every place in turn: before, inside and after each of its transactions."""
    monkeypatch.setattr(runner, "BATCH", 16)
    tables, blobs = open_tables("sqlite:stanch.db", base=tmp_path, create=True), open_blobs("file:b", base=tmp_path)
    params = LedgerParams(highwater=tmp_path / "highwater", checkpoint_seconds=0)
    with Ledger.create(tables, blobs, origin=ORIGIN, signer=KEY, params=params, clock=lambda: float(START)) as log:
        World(log, tables, log.reader()).append(traffic(60))
        vkey = log.reader().verifiers[0].vkey
    tables.close()
    kills = 0
    for number in range(100):
        pid = os.fork()
        if pid == 0:
            watch_and_die(tmp_path, vkey, number % 9)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1
    assert kills >= 8
    tables = open_tables("sqlite:stanch.db", base=tmp_path)
    found = runner.alarms_of(tables, ORIGIN)
    assert [a.at for a in found if a.detector == "D1"] == [START + hour * HOUR for hour in range(0, 60, 7)]
    assert [a.statistic for a in found if a.detector == "D5-cap"] == [15, 24, 30]
    assert len(set(runner.progress(tables, ORIGIN, DETECTORS)[0:1])) == 1
    tables.close()


def watch_and_die(folder, vkey, calls):
    """In a child: watch, and kill this process at the ``calls``-th place passed; exit 0 when all is read."""
    passed = itertools.count()

    def maybe_die():
        if next(passed) == calls:
            os.kill(os.getpid(), signal.SIGKILL)

    class Dying(type(FindingDetector())):
        def step(self, state, entries):
            maybe_die()
            return super().step(state, entries)

    tables, blobs = open_tables("sqlite:stanch.db", base=folder), open_blobs("file:b", base=folder)
    reader = LedgerReader(tables, blobs, verifiers=[NoteVerifier.parse(vkey)])
    save = runner._save

    def dying_save(*arguments):
        save(*arguments)
        maybe_die()

    runner._save = dying_save
    runner.catch_up(reader, tables, [Dying(), *DETECTORS[1:]], deliver=within(tables, lambda _: maybe_die()))
    os._exit(0)


def test_an_entry_of_another_form_stops_the_watch_and_is_named(world):
    world.append(infer_entries(1, START, {"probe": {"quotes": "yes"}}))
    with pytest.raises(InvalidInput, match="entry 0"):
        world.catch_up(DETECTORS)
    assert runner.progress(world.tables, ORIGIN, DETECTORS)[0].next_index == 0


def test_the_run_follows_the_log_until_it_is_told_to_end(world):
    stop, got = threading.Event(), []
    world.append(traffic(1))

    def wait(_seconds):
        if len(got) == 1:
            world.append(traffic(7, start=1))
            return False
        return True

    runner.run(world.reader, world.tables, DETECTORS[:1], deliver=within(world.tables, got.extend), wait=wait)
    assert len(got) == 2
    assert not stop.is_set()


def test_after_many_entries_it_reads_on_at_once_and_after_few_it_waits(world, monkeypatch):
    monkeypatch.setattr(runner, "BATCH", 16)
    monkeypatch.setattr(runner, "_MANY", 10)
    world.append(traffic(15))
    waits = []

    def wait(seconds):
        waits.append(seconds)
        return len(waits) == 3

    runner.run(world.reader, world.tables, DETECTORS, deliver=within(world.tables, lambda _: None), wait=wait)
    assert waits[:2] == [0, 0]
    assert waits[2] >= runner.PAUSE_SECONDS
    assert runner.progress(world.tables, ORIGIN, DETECTORS)[0].next_index == world.reader.size() == 33


def test_what_another_run_has_read_meanwhile_is_not_delivered_twice(world):
    world.append(traffic(10))
    got = []

    def late(alarms):
        got.extend(alarms)

    def first_the_other(alarms, save):
        world.catch_up(DETECTORS[:1], late)
        within(world.tables, late)(alarms, save)

    assert runner.catch_up(world.reader, world.tables, DETECTORS[:1], deliver=first_the_other) == 0
    assert len(got) == len(runner.alarms_of(world.tables, ORIGIN)) == 2
