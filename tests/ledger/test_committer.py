"""Group commit: durable before acknowledged, no gap, one bad entry harms no other, clean refusals."""

import contextlib
import resource
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from stanch.crypto import Frontier, leaf_hash, merkle_root
from stanch.errors import (
    ApprovalsMissing,
    ClockAhead,
    ClockWentBack,
    CommitUnknown,
    Conflict,
    InvalidInput,
    LedgerUnavailable,
    LogRolledBack,
    NotFound,
    StoreError,
)
from stanch.ledger import Ledger, Opening
from stanch.ledger import committer as committer_module
from stanch.ledger.committer import Committer, PreparedEntry, _Log


def rows(ground):
    with ground.tables.read() as connection:
        found = connection.exec_driver_sql("SELECT idx, data, leaf_hash FROM ledger_entry ORDER BY idx").all()
    return [tuple(row) for row in found]


def test_an_acknowledged_entry_is_in_the_database(either):
    with either.create() as log:
        ref = log.append(either.entry(1))
        assert rows(either) == [(0, log.reader().entry(0), ref.leaf_hash)]
        assert ref.index == 0
        assert ref.leaf_hash == leaf_hash(log.reader().entry(0))


def test_many_threads_get_every_index_once(either):
    with either.create() as log, ThreadPoolExecutor(8) as pool:
        refs = list(pool.map(lambda number: log.append(either.entry(number)), range(400)))
        assert sorted(ref.index for ref in refs) == list(range(400))
        found = rows(either)
        assert [row[0] for row in found] == list(range(400))
        for ref in refs:
            assert found[ref.index][2] == ref.leaf_hash
        assert log.publish().checkpoint.root == merkle_root([row[2] for row in found])


def test_two_writers_on_one_database_make_one_history(either):
    first = either.create()
    second = either.open(either.open_tables())
    with first, second, ThreadPoolExecutor(4) as pool:
        refs = list(pool.map(lambda n: (first, second)[n % 2].append(either.entry(n)), range(200)))
    assert sorted(ref.index for ref in refs) == list(range(200))
    assert len(rows(either)) == 200


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_the_root_does_not_depend_on_the_batches(ground, tmp_path_factory, batches):
    folder = tmp_path_factory.mktemp("log")
    other = type(ground)(folder)
    committer = Committer(other.tables, "example.com/stanch/log")
    with other.create():
        pass
    data = [f"entry {number}".encode() for number in range(sum(batches))]
    pending = iter(data)
    for batch in batches:
        items = [
            PreparedEntry(data=next(pending), act="a", principal="p", time_ms=int(other.clock() * 1000))
            for _ in range(batch)
        ]
        for future in [committer.submit(item) for item in items]:
            future.result(10)
    with other.tables.read() as connection:
        frontier = committer._read_log(connection).frontier
    committer.stop(LedgerUnavailable("done"))
    other.tables.close()
    assert frontier.size == len(data)
    assert frontier.root() == merkle_root([leaf_hash(entry) for entry in data])


def test_an_entry_that_somebody_is_to_be_told_of_is_written_at_once(ground, monkeypatch):
    monkeypatch.setattr(committer_module, "_PATIENCE", 3600)  # nobody waits for it
    with ground.create() as log:
        told, future = threading.Event(), log.append_nowait(ground.entry())
        future.add_done_callback(lambda done: done.result().index == 0 and told.set())
        assert told.wait(30)


def test_within_commits_with_its_entry_or_keeps_it_out_alone(either):
    def refuse(_connection):
        raise ApprovalsMissing("one of two")

    def write_then_refuse(connection):
        connection.exec_driver_sql("INSERT INTO act_lease VALUES ('lost', 'h', 1, 1)")
        raise ApprovalsMissing("one of two")

    def write(connection):
        connection.exec_driver_sql("INSERT INTO act_lease VALUES ('kept', 'h', 1, 1)")

    with either.create() as log:
        gate = threading.Event()
        blocked = log.append_nowait(either.entry(0), within=lambda _: gate.wait(60) and None)
        futures = [
            log.append_nowait(either.entry(1), within=refuse),
            log.append_nowait(either.entry(2)),
            log.append_nowait(either.entry(3), within=write_then_refuse),
            log.append_nowait(either.entry(4), within=write),
        ]
        gate.set()
        assert blocked.result(10).index == 0
        assert [type(future.exception(10)) for future in futures] == [
            ApprovalsMissing,
            type(None),
            ApprovalsMissing,
            type(None),
        ]
        assert [futures[1].result().index, futures[3].result().index] == [1, 2]
        with either.tables.read() as connection:
            assert connection.exec_driver_sql("SELECT act FROM act_lease").scalars().all() == ["kept"]


def test_alone_or_of_two_a_refused_entry_leaves_nothing(either):
    def write_then_refuse(connection):
        connection.exec_driver_sql("INSERT INTO act_lease VALUES ('lost', 'h', 1, 1)")
        raise ApprovalsMissing("one of two")

    with either.create() as log:
        with pytest.raises(ApprovalsMissing):
            log.append(either.entry(0), within=write_then_refuse)
        with either.tables.read() as connection:
            assert connection.exec_driver_sql("SELECT act FROM act_lease").scalars().all() == []
        gate = threading.Event()
        first = log.append_nowait(either.entry(0), within=lambda _: gate.wait(60) and None)
        while first.running() is False:
            pass
        futures = [log.append_nowait(either.entry(1), within=write_then_refuse), log.append_nowait(either.entry(2))]
        gate.set()
        assert isinstance(futures[0].exception(10), ApprovalsMissing)
        assert futures[1].result(10).index == 1
        with either.tables.read() as connection:
            assert connection.exec_driver_sql("SELECT act FROM act_lease").scalars().all() == []


def test_openings_are_kept_with_their_entry(either):
    opening = Opening.make("actor.user.email_addr", "alice@example.com")
    entry = replace(either.entry(), openings=(opening,))
    with either.create() as log:
        log.append(entry)
        log.append(entry)
        with either.tables.read() as connection:
            kept = connection.exec_driver_sql("SELECT commitment, value FROM ledger_opening").all()
    assert kept == [(opening.commitment, '"alice@example.com"')]


def test_a_clock_that_went_back_is_refused_and_a_little_is_not(either):
    with either.create() as log:
        log.append(either.entry())
        either.clock.seconds -= 60
        log.append(either.entry())
        either.clock.seconds += 60
        log.append(either.entry())
        either.clock.seconds -= 60.001
        with pytest.raises(ClockWentBack):
            log.append(either.entry())
        assert log.reader().size() == 3


def test_small_steps_back_do_not_add_up(either):
    with either.create() as log:
        log.append(either.entry())
        either.clock.seconds -= 59
        log.append(either.entry())
        either.clock.seconds -= 59
        with pytest.raises(ClockWentBack, match="118 s before"):
            log.append(either.entry())


def test_a_clock_ahead_of_the_servers_is_refused_and_stops_nobody(pg_ground):
    """One host's clock is a year ahead: it writes nothing, and what it wrote under an older release binds nobody."""
    year, now = 365 * 86_400, time.time()
    pg_ground.clock.seconds = now
    with pg_ground.create() as log:
        log.append(pg_ground.entry(1))
        pg_ground.clock.seconds = now + year
        with pytest.raises(ClockAhead, match="ahead of the database server's"):
            log.append(pg_ground.entry(2))
        pg_ground.clock.seconds = now + 55
        log.append(pg_ground.entry(3))
        with pg_ground.tables.write() as connection:
            connection.exec_driver_sql("UPDATE ledger_log SET updated_ms = ?", (int((now + year) * 1000),))
        pg_ground.clock.seconds = now
        log.append(pg_ground.entry(4))
        pg_ground.clock.seconds = now - 3600
        with pytest.raises(ClockWentBack):
            log.append(pg_ground.entry(5))
        assert log.reader().size() == 3


def set_back(ground, size):
    """Take the place of the database with an older one, as a fail-over to a server that lagged behind does."""
    leaves = [row[2] for row in rows(ground)]
    with ground.open_tables().write() as connection:
        free = {"sqlite": "DROP TRIGGER ledger_entry_no_delete"}
        rule = free.get(ground.tables.dialect, "ALTER TABLE ledger_entry DISABLE TRIGGER USER")
        connection.exec_driver_sql(rule)
        connection.exec_driver_sql("DELETE FROM ledger_entry WHERE idx >= ?", (size,))
        frontier = Frontier().append(leaves[:size]).to_bytes()
        connection.exec_driver_sql("UPDATE ledger_log SET size = ?, frontier = ?", (size, frontier))


@pytest.mark.parametrize("others", [0, 1, 2], ids=["shorter", "as long", "longer"])
def test_an_acknowledged_entry_that_vanished_stops_the_log(either, others):
    """Also where the server that took over has gone on meanwhile."""
    log = either.create()
    for number in range(3):
        log.append(either.entry(number))
    set_back(either, 2)
    other = Committer(either.open_tables(), log.origin)
    for number in range(others):
        entry = either.entry(10 + number).encode(log.origin)
        other.submit(PreparedEntry(data=entry, act="a", principal="p", time_ms=int(either.clock() * 1000))).result(10)
    other.stop(LedgerUnavailable("done"))
    for number in (3, 4):
        with pytest.raises(LedgerUnavailable) as caught:
            log.append(either.entry(number))
        assert "entry 2, which was acknowledged here" in caught.value.why
        assert isinstance(caught.value.__cause__, LogRolledBack)
    assert len(rows(either)) == 2 + others
    log._closing.set()


def test_a_log_that_stopped_stays_so_when_the_newer_database_comes_back(ground):
    """Whoever brings it back opens the log again: what was refused meanwhile is not made up for."""
    log = ground.create()
    for number in range(3):
        log.append(ground.entry(number))
    (last,) = [row for row in rows(ground) if row[0] == 2]
    leaves = [row[2] for row in rows(ground)]
    set_back(ground, 2)
    with pytest.raises(LedgerUnavailable):
        log.append(ground.entry(3))
    with ground.open_tables().write() as connection:
        connection.exec_driver_sql("INSERT INTO ledger_entry VALUES (?, ?, ?, ?)", (log.origin, *last))
        frontier = Frontier().append(leaves).to_bytes()
        connection.exec_driver_sql("UPDATE ledger_log SET size = 3, frontier = ?", (frontier,))
    with pytest.raises(LedgerUnavailable) as caught:
        log.append(ground.entry(4))
    assert isinstance(caught.value.__cause__, LogRolledBack)
    log._closing.set()


def test_a_log_whose_row_is_gone_says_so(ground):
    log = ground.create()
    log.append(ground.entry())
    with ground.open_tables().write() as connection:
        connection.exec_driver_sql("DELETE FROM ledger_log")
    with pytest.raises(LedgerUnavailable) as caught:
        log.append(ground.entry())
    assert caught.value.why == f"log {log.origin}: its row is gone from the database"
    log._closing.set()


def test_a_closed_log_refuses(either):
    log = either.create()
    log.append(either.entry())
    log.close()
    log.close()
    with pytest.raises(LedgerUnavailable):
        log.append(either.entry())
    assert len(rows(either)) == 1


def test_closing_writes_what_is_queued(ground):
    log = ground.create()
    futures = [log.append_nowait(ground.entry(number)) for number in range(50)]
    log.close()
    assert sorted(future.result(0).index for future in futures) == list(range(50))


def test_closing_waits_for_a_caller_that_writes(ground):
    entered, gate = threading.Event(), threading.Event()
    log = ground.create()

    def slow(_connection):
        entered.set()
        gate.wait(60)

    with ThreadPoolExecutor(2) as pool:
        written = pool.submit(lambda: log.append(ground.entry(), within=slow))
        assert entered.wait(60)
        closed = pool.submit(log.close)
        with pytest.raises(TimeoutError):
            closed.result(0.3)
        gate.set()
        closed.result(10)
        assert written.result(10).index == 0
    assert log.reader().checkpoint().checkpoint.size == 1


def test_who_waits_writes_until_the_own_entry_is_durable(ground, monkeypatch):
    monkeypatch.setattr(committer_module, "_MAX_BATCH", 3)
    monkeypatch.setattr(committer_module, "_PATIENCE", 3600)  # nobody else writes
    with ground.create() as log, ThreadPoolExecutor(1) as pool:
        futures = [log.append_nowait(ground.entry(number)) for number in range(8)]
        assert pool.submit(futures[7].result).result(10).index == 7
        assert all(future.done() for future in futures)


def test_a_full_queue_refuses_after_two_seconds(ground, monkeypatch):
    assert committer_module._QUEUE_WAIT == 2.0
    monkeypatch.setattr(committer_module, "_MAX_QUEUE", 2)
    monkeypatch.setattr(committer_module, "_QUEUE_WAIT", 0.05)
    gate = threading.Event()
    with ground.create() as log:
        first = log.append_nowait(ground.entry(), within=lambda _: gate.wait(60) and None)
        while first.running() is False:
            pass
        queued = [log.append_nowait(ground.entry(number)) for number in (1, 2)]
        with pytest.raises(LedgerUnavailable, match="queue"):
            log.append_nowait(ground.entry(3))
        gate.set()
        assert [future.result(10).index for future in queued] == [1, 2]


def test_a_queue_that_is_full_of_bytes_refuses_until_they_are_written(ground, monkeypatch):
    size = len(ground.entry().encode("example.com/stanch/log"))
    monkeypatch.setattr(committer_module, "_MAX_QUEUE_BYTES", 3 * size)
    monkeypatch.setattr(committer_module, "_QUEUE_WAIT", 0.05)
    with ground.create() as log:
        for _ in range(4):
            gate = threading.Event()
            first = log.append_nowait(ground.entry(), within=lambda _, gate=gate: gate.wait(60) and None)
            while first.running() is False:
                pass
            queued = [log.append_nowait(ground.entry()) for _ in range(3)]
            with pytest.raises(LedgerUnavailable, match="queue"):
                log.append_nowait(ground.entry())
            gate.set()
            assert {future.exception(10) for future in queued} == {None}


def test_a_process_that_ends_without_closing_the_log_does_end(ground):
    with ground.create() as log:
        log.append(ground.entry())
        assert log._committer._thread.daemon


def test_a_cancelled_entry_is_never_written(ground):
    gate = threading.Event()
    with ground.create() as log:
        first = log.append_nowait(ground.entry(), within=lambda _: gate.wait(60) and None)
        while first.running() is False:
            pass
        second = log.append_nowait(ground.entry(1))
        assert second.cancel()
        gate.set()
        assert log.append(ground.entry(2)).index == 1
    assert len(rows(ground)) == 2


def test_a_broken_database_acknowledges_nothing(ground):
    log = ground.create()
    log.append(ground.entry())
    with sqlite3.connect(ground.database) as connection:
        connection.execute("ALTER TABLE ledger_entry RENAME TO elsewhere")
    connection.close()
    futures = [log.append_nowait(ground.entry(number)) for number in range(3)]
    assert {type(future.exception(10)) for future in futures} == {LedgerUnavailable}
    with sqlite3.connect(ground.database) as connection:
        connection.execute("ALTER TABLE elsewhere RENAME TO ledger_entry")
    connection.close()
    assert log.append(ground.entry()).index == 1
    log.close()


def test_a_full_disk_acknowledges_nothing_and_recovers(ground):
    log = ground.create()
    log.append(ground.entry())
    with ground.tables.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    big = replace(ground.entry(), payload={"text": "x" * 60_000})
    with pytest.raises(LedgerUnavailable) as caught:
        log.append(big)
    assert "full" in str(caught.value.__cause__.why)
    assert log.reader().size() == 1
    with ground.tables.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert log.append(big).index == 1
    log.close()


def test_a_write_beyond_the_file_size_limit_acknowledges_nothing(ground):
    log = ground.create()
    log.append(ground.entry())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    used = (ground.folder / "stanch.db-wal").stat().st_size
    # Python ignores SIGXFSZ, so that the system call fails as on a full disk: a real error below SQLite.
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 4096, hard))
    try:
        with pytest.raises(LedgerUnavailable):
            log.append(replace(ground.entry(), payload={"text": "x" * 60_000}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.reader().size() == 1
    assert log.append(ground.entry()).index == 1
    log.close()
    assert ground.open().publish().checkpoint.size == 2


def test_a_read_only_database_acknowledges_nothing(ground):
    log = ground.create()
    log.append(ground.entry())
    with ground.tables._writer.connect() as connection:
        driver = connection.connection.driver_connection
    driver.execute("PRAGMA query_only = 1")
    with pytest.raises(LedgerUnavailable) as caught:
        log.append(ground.entry())
    assert "readonly" in caught.value.__cause__.why
    assert log.reader().size() == 1
    driver.execute("PRAGMA query_only = 0")
    assert log.append(ground.entry()).index == 1
    log.close()


def test_a_locked_database_is_refused_after_its_timeout(ground):
    log = ground.create()
    with ground.tables.write() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(ground.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailable):
        log.append(ground.entry())
    other.execute("ROLLBACK")
    other.close()
    assert log.append(ground.entry()).index == 0
    log.close()


def test_an_entry_that_breaks_the_format_never_reaches_the_queue(either):
    with either.create() as log:
        with pytest.raises(InvalidInput):
            log.append(replace(either.entry(), payload={"x": 0.5}))
        assert log.reader().size() == 0


def test_opening_needs_the_log_and_its_own_key(ground):
    with pytest.raises(NotFound):
        ground.open()
    ground.create().close()
    second = type(ground)(ground.folder / "second")
    second.tables.close()
    with pytest.raises(Conflict):
        Ledger.create(
            ground.tables, second.blobs, origin="example.com/stanch/log", signer=ground.key, params=second.params
        )
    ground.key = type(ground.key).from_seed(bytes(32))
    with pytest.raises(InvalidInput, match="expected its key"):
        ground.open()


def test_the_rows_cannot_be_changed_through_the_database(either):
    with either.create() as log:
        log.append(either.entry())
    for statement in ("UPDATE ledger_entry SET data = leaf_hash", "DELETE FROM ledger_entry"):
        with pytest.raises(StoreError, match="refused"), either.tables.write() as connection:
            connection.exec_driver_sql(statement)
    assert len(rows(either)) == 1


@pytest.mark.parametrize("durable", [True, False, None])
def test_a_commit_without_an_answer_is_read_back_and_what_nobody_knows_is_said(ground, monkeypatch, durable):
    log = ground.create()
    log.append(ground.entry())
    write = ground.tables.write

    @contextlib.contextmanager
    def lost():
        monkeypatch.setattr(ground.tables, "write", write if durable is not None else away)
        with write() as connection:
            yield connection
            if not durable:
                raise CommitUnknown("the connection broke")
        raise CommitUnknown("the connection broke")

    def away():
        raise StoreError("nobody answers")

    monkeypatch.setattr("stanch.ledger.committer._READ_BACK_SECONDS", -1.0)
    monkeypatch.setattr(ground.tables, "write", lost)
    future = log.append_nowait(ground.entry())
    answer = future.exception(10)
    assert type(answer) is {True: type(None), False: LedgerUnavailable, None: CommitUnknown}[durable]
    monkeypatch.setattr(ground.tables, "write", write)
    assert log.append(ground.entry()).index == (2 if durable else 1)
    log.close()


def test_the_first_reason_to_stop_is_told(ground):
    with ground.create() as log:
        log._committer.stop(LedgerUnavailable("the first reason"))
        log._committer.stop(LedgerUnavailable("another"))
        with pytest.raises(LedgerUnavailable) as caught:
            log.append(ground.entry())
        assert caught.value.why == "the first reason"


def test_who_waits_for_room_is_told_at_once_that_the_log_stopped(ground, monkeypatch):
    monkeypatch.setattr(committer_module, "_MAX_QUEUE", 1)
    monkeypatch.setattr(committer_module, "_QUEUE_WAIT", 60)
    gate = threading.Event()
    with ground.create() as log, ThreadPoolExecutor(2) as pool:
        first = log.append_nowait(ground.entry(), within=lambda _: gate.wait(60) and None)
        while first.running() is False:
            pass
        queued = log.append_nowait(ground.entry())
        waiting = pool.submit(log.append_nowait, ground.entry())
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        stopped = pool.submit(log._committer.stop, LedgerUnavailable("enough"))
        assert waiting.exception(10).why == "enough"
        gate.set()
        stopped.result(10)
        assert (first.result(10).index, queued.result(10).index) == (0, 1)


def test_a_full_queue_is_written_at_once(ground, monkeypatch):
    monkeypatch.setattr(committer_module, "_MAX_QUEUE", 2)
    monkeypatch.setattr(committer_module, "_QUEUE_WAIT", 30)
    monkeypatch.setattr(committer_module, "_PATIENCE", 3600)  # nobody waits for an entry
    with ground.create() as log:
        futures = [log.append_nowait(ground.entry())]
        time.sleep(0.1)  # the thread has seen it, and lets it lie
        began = time.monotonic()
        futures += [log.append_nowait(ground.entry(number)) for number in range(1, 5)]
        assert time.monotonic() < began + 20  # they were told of the room
        assert sum(future.done() for future in futures) >= 2


def test_an_entry_larger_than_what_may_wait_is_taken_alone(ground, monkeypatch):
    monkeypatch.setattr(committer_module, "_MAX_QUEUE_BYTES", 10)
    monkeypatch.setattr(committer_module, "_QUEUE_WAIT", 0.05)
    with ground.create() as log:
        assert log.append(ground.entry()).index == 0


def test_stopping_waits_for_all_that_is_queued_and_may_come_from_who_writes(ground, monkeypatch):
    monkeypatch.setattr(committer_module, "_MAX_BATCH", 1)
    faults = []

    def stop(_future):
        try:
            log._committer.stop(LedgerUnavailable("enough"))
        except RuntimeError as error:  # a thread that waits for itself
            faults.append(error)

    with ground.create() as log:
        futures = [log.append_nowait(ground.entry(n), within=lambda _: time.sleep(0.03)) for n in range(5)]
        log._committer.stop(LedgerUnavailable("enough"))
        assert all(future.done() for future in futures)
    with ground.open() as log:
        told = log.append_nowait(ground.entry())
        told.add_done_callback(stop)
        assert told.result(10).index == 5
    assert faults == []


def test_an_entry_that_nobody_waits_for_is_written_after_a_moment(ground):
    with ground.create() as log:
        for number in range(2):
            future, ends = log.append_nowait(ground.entry(number)), time.monotonic() + 10
            while not future.done() and time.monotonic() < ends:
                time.sleep(0.01)
            assert future.done()
            time.sleep(0.15)  # the thread has nothing to do again


def test_an_entry_that_nobody_waits_for_lies_for_that_moment(ground, monkeypatch):
    monkeypatch.setattr(committer_module, "_PATIENCE", 0.8)
    with ground.create() as log:
        future, ends = log.append_nowait(ground.entry()), time.monotonic() + 10
        time.sleep(0.2)
        assert not future.done()
        while not future.done() and time.monotonic() < ends:
            time.sleep(0.01)
        assert future.done()


def test_a_thread_that_was_woken_for_nothing_goes_on(ground):
    """Somebody who waited was faster and wrote what it was woken for."""
    with ground.create() as log:
        log.append(ground.entry())
        with log._committer._lock:
            log._committer._is_woken = True
            log._committer._changed.notify_all()
        time.sleep(0.1)
        future, ends = log.append_nowait(ground.entry()), time.monotonic() + 10
        while not future.done() and time.monotonic() < ends:
            time.sleep(0.01)
        assert future.done()


@pytest.mark.parametrize("limit", ["_MAX_BATCH", "_MAX_BATCH_BYTES"])
def test_a_batch_is_as_large_as_is_allowed(ground, monkeypatch, limit):
    size = len(ground.entry().encode("example.com/stanch/log"))
    monkeypatch.setattr(committer_module, limit, 2 if limit == "_MAX_BATCH" else 2 * size)
    sizes, commit, gate = [], Committer._commit, threading.Event()
    monkeypatch.setattr(Committer, "_commit", lambda self, batch: sizes.append(len(batch)) or commit(self, batch))
    with ground.create() as log:
        first = log.append_nowait(ground.entry(), within=lambda _: gate.wait(60) and None)
        while first.running() is False:
            pass
        futures = [log.append_nowait(ground.entry()) for _ in range(5)]
        gate.set()
        assert [future.result(10).index for future in futures] == [1, 2, 3, 4, 5]
    assert sizes == [1, 2, 2, 1]


def test_a_server_that_comes_back_is_asked_whether_the_entry_is_durable(ground, monkeypatch):
    log = ground.create()
    log.append(ground.entry())
    write, refused = ground.tables.write, []

    @contextlib.contextmanager
    def lost():
        monkeypatch.setattr(ground.tables, "write", away)
        with write() as connection:
            yield connection
        raise CommitUnknown("the connection broke")

    def away():
        refused.append(1)
        if len(refused) == 3:
            monkeypatch.setattr(ground.tables, "write", write)
        raise StoreError("nobody answers")

    monkeypatch.setattr("stanch.ledger.committer._READ_BACK_PAUSE", 0.01)
    monkeypatch.setattr(ground.tables, "write", lost)
    assert log.append_nowait(ground.entry()).result(10).index == 1
    assert len(refused) == 3
    log.close()


def test_a_size_that_was_set_back_below_what_was_acknowledged_stops_the_log(ground):
    log = ground.create()
    for number in range(3):
        log.append(ground.entry(number))
    with ground.open_tables().write() as connection:
        frontier = Frontier().append([row[2] for row in rows(ground)][:2]).to_bytes()
        connection.exec_driver_sql("UPDATE ledger_log SET size = 2, frontier = ?", (frontier,))
    with pytest.raises(LedgerUnavailable) as caught:
        log.append(ground.entry(3))
    assert isinstance(caught.value.__cause__, LogRolledBack)
    log._closing.set()


def test_times_are_compared_with_the_last_recorded_one_and_with_the_servers_to_the_minute():
    alone = _Log(Frontier(), 100_000, None)
    alone.check_clock(40_000)
    with pytest.raises(ClockWentBack, match="60 s before"):
        alone.check_clock(39_999)
    alone.check_clock(10**12)
    for recorded in (200_000, 10**9):  # one ahead of the server's binds nobody
        served = _Log(Frontier(), recorded, 200_000)
        served.check_clock(140_000)
        served.check_clock(260_000)
        with pytest.raises(ClockWentBack, match="60 s before"):
            served.check_clock(139_999)
        with pytest.raises(ClockAhead, match="60 s ahead"):
            served.check_clock(260_001)


def test_an_opening_is_kept_for_its_own_principal_or_the_entrys(ground):
    openings = (Opening("actor.user.name", bytes(32), "Alice"), Opening("user.name", bytes(32), "Bob", "p_" + "b" * 26))
    with ground.create() as log:
        log.append(replace(ground.entry(), openings=openings))
        with ground.tables.read() as connection:
            kept = connection.exec_driver_sql("SELECT value, principal FROM ledger_opening ORDER BY value").all()
    assert kept == [('"Alice"', ground.entry().act.principal), ('"Bob"', "p_" + "b" * 26)]


def test_the_main_thread_lets_another_write_and_a_timeout_holds_for_whoever_waits(ground):
    writers, gate = [], threading.Event()
    with ground.create() as log, ThreadPoolExecutor(1) as pool:
        log.append(ground.entry(), within=lambda _: writers.append(threading.current_thread().name))
        assert writers == ["stanch-committer"]
        first = log.append_nowait(ground.entry(), within=lambda _: gate.wait(60) and None)
        while first.running() is False:
            pass
        second = log.append_nowait(ground.entry())
        waiting = pool.submit(second.result, 0.1)
        assert isinstance(waiting.exception(10), TimeoutError)
        gate.set()
        assert second.result(10).index == 2
