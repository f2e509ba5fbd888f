"""One log, many writers: processes on one PostgreSQL, answers that never come, servers that fail."""

import secrets
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

import servers
from stanch.crypto import leaf_hash, merkle_root
from stanch.errors import LedgerUnavailable, LogRolledBack
from stanch.ledger import EntryQuery, fsck

WRITER = Path(__file__).with_name("crash_writer.py")
EACH = 400


def test_three_processes_make_one_history(cloud_ground):
    ground = cloud_ground
    ground.create().close()
    words = [sys.executable, str(WRITER), str(ground.folder), ground.tables_uri, ground.blobs_uri]
    writers = [
        subprocess.Popen([*words, str(number * 1000), str(EACH)], stdout=subprocess.PIPE, text=True)
        for number in range(3)
    ]
    said = [line.split() for writer in writers for line in writer.communicate(timeout=300)[0].splitlines()]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert sorted(int(index) for index, _, _ in said) == list(range(3 * EACH))
    with ground.tables.read() as connection:
        leaves = connection.exec_driver_sql("SELECT leaf_hash FROM ledger_entry ORDER BY idx").scalars().all()
    assert [leaf.hex() for leaf in leaves] == [leaf for _, _, leaf in sorted(said, key=lambda line: int(line[0]))]
    log = ground.open()
    signed = log.publish()
    assert signed.checkpoint.root == merkle_root(leaves)
    report = fsck(log.reader(), ground.policy)
    assert report.size == report.published == 3 * EACH
    assert len(list(log.reader().query(EntryQuery(kind="tune.run")))) == 3 * EACH
    log.close()


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("deliver", [True, False])
def test_an_unanswered_commit_is_read_back_before_anybody_is_told(pg_ground, postgresql, deliver, count):
    ground = pg_ground
    with servers.silent_proxy(postgresql.port, deliver=deliver) as (port, armed):
        ground.tables_uri = ground.tables_uri.replace(f":{postgresql.port}/", f":{port}/")
        log = ground.create()
        log.close()
        log = ground.open(ground.open_tables())
        gate = threading.Event()
        log.append_nowait(ground.entry(), within=lambda _: gate.wait(60) and None)
        futures = [log.append_nowait(ground.entry(number)) for number in range(count)]
        gate.set()
        while log.reader().size() < 1:
            pass
        armed.set()
        futures += [log.append_nowait(ground.entry(number)) for number in range(count)]
        answers = [future.exception(60) for future in futures]
        lost = [answer for answer in answers if answer is not None]
        assert {type(answer) for answer in lost} <= {LedgerUnavailable}
        assert bool(lost) != deliver
        known = [future.result() for future, answer in zip(futures, answers, strict=True) if answer is None]
        assert sorted(ref.index for ref in known) == list(range(1, log.reader().size()))
        for ref in known:
            assert leaf_hash(log.reader().entry(ref.index)) == ref.leaf_hash
        assert log.append(ground.entry()).index == log.reader().size() - 1
        log.close()
    assert fsck(log.reader(), ground.policy).size == len(known) + 2


@pytest.fixture(scope="module")
def own_server():
    """A server that may be killed."""
    with servers.postgresql_server() as server:
        yield server


@pytest.fixture
def own_ground(make_ground, own_server, tmp_path):
    ground = make_ground(tmp_path, own_server.database())
    yield ground
    for tables in ground.opened:
        tables.close()


def test_a_server_that_is_killed_loses_nothing_that_was_acknowledged(own_ground, own_server):
    log = own_ground.create()
    futures = [log.append_nowait(own_ground.entry(number)) for number in range(2000)]
    futures[0].result(30)
    own_server.kill()
    answers = [future.exception(60) for future in futures]
    own_server.start()
    kept = [future.result() for future, answer in zip(futures, answers, strict=True) if answer is None]
    assert {type(answer) for answer in answers} <= {type(None), LedgerUnavailable}
    reader = log.reader()
    for ref in kept:
        assert leaf_hash(reader.entry(ref.index)) == ref.leaf_hash
    assert log.append(own_ground.entry()).index == reader.size() - 1
    log.close()
    assert fsck(reader, own_ground.policy).size >= len(kept) + 1


def test_a_full_disk_below_the_server_acknowledges_nothing_and_recovers(own_ground, own_server):
    log = own_ground.create()
    log.append(own_ground.entry())
    big = [replace(own_ground.entry(), payload={"text": secrets.token_hex(30_000)}) for _ in range(300)]
    own_server.kill()
    # Its files may not grow beyond those of its log, which are made whole in advance: adding a row fails as on a full
    # disk.
    unlimited, own_server.command = own_server.command, ["prlimit", f"--fsize={16 << 20}", *own_server.command]
    own_server.start()
    answers = [future.exception(60) for future in [log.append_nowait(entry) for entry in big]]
    assert LedgerUnavailable in {type(answer) for answer in answers}
    assert log.reader().size() == answers.count(None) + 1
    own_server.kill()
    own_server.command = unlimited
    own_server.start()
    assert log.append(big[0]).index == answers.count(None) + 1
    log.close()
    assert fsck(log.reader(), own_ground.policy).size == answers.count(None) + 2


def test_a_read_only_server_acknowledges_nothing(pg_ground, postgresql):
    log = pg_ground.create()
    log.append(pg_ground.entry())
    name = pg_ground.tables_uri.rpartition("/")[2]
    postgresql.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    read_only = pg_ground.open_tables()
    refused = pg_ground.open(read_only)
    with pytest.raises(LedgerUnavailable) as caught:
        refused.append(pg_ground.entry())
    assert "read-only" in caught.value.__cause__.why
    assert log.append(pg_ground.entry()).index == 1
    log.close()
    with pytest.raises(LedgerUnavailable):
        refused.append(pg_ground.entry())
    assert fsck(log.reader(), pg_ground.policy).size == 2


def test_an_older_copy_of_the_database_is_not_signed_over(pg_ground, postgresql):
    log = pg_ground.create()
    log.append(pg_ground.entry())
    log.publish()
    name = pg_ground.tables_uri.rpartition("/")[2]
    pg_ground.tables.close()
    log._closing.set()
    postgresql.run(f"CREATE DATABASE {name}old TEMPLATE {name}")
    again = pg_ground.open(pg_ground.open_tables())
    again.append(pg_ground.entry())
    again.close()
    pg_ground.tables_uri += "old"
    with pytest.raises(LogRolledBack):
        pg_ground.open(pg_ground.open_tables())
