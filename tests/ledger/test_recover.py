"""Recovery: rows come back from the tiles, what differs is set aside, and nothing that was signed is lost."""

import base64
import hashlib
import json
import shutil
import sqlite3

import pytest

from stanch.crypto import Frontier, SigningKey, leaf_hash
from stanch.errors import ClockWentBack, Conflict, Equivocation, LogRolledBack, NotFound
from stanch.ledger import Act, EntryQuery, fsck, new_act_id, noted, outcome
from stanch.ledger.checkpoint import Checkpoint, sign_checkpoint
from stanch.ledger.damage import LogDamaged
from stanch.ledger.hashes import TileHashes
from stanch.ledger.keys import LogKeys
from stanch.ledger.note import NoteSigner
from stanch.ledger.recover import Recovery, recover
from stanch.ledger.tiles import CHECKPOINT_KEY, encode_bundle, tile_key
from stanch.store import REPLACE

SIZE = 300


@pytest.fixture
def published(ground):
    """A log of 300 published entries; a copy of its database when it had 100."""
    with ground.create() as log:
        ground.fill(log, 100)
        log.publish()
        copy = sqlite3.connect(ground.database)
        copy.execute("VACUUM INTO ?", (str(ground.folder / "old.db"),))
        copy.close()
        ground.fill(log, SIZE - 100)
        ground.signed = log.publish()
    return ground


def restore(ground):
    """Put the old database back, as somebody does after a crash."""
    ground.tables.close()
    for suffix in ("-wal", "-shm"):
        ground.database.with_name(ground.database.name + suffix).unlink(missing_ok=True)
    shutil.copy(ground.folder / "old.db", ground.database)
    ground.tables = ground.open_tables()


def run(ground, **memories):
    notes = {"log/checkpoint": ground.blobs.get("log/checkpoint"), **memories}
    return recover(
        ground.tables, ground.blobs, keys=ground.policy.logs, memories=notes, now_ms=int(ground.clock() * 1000)
    )


def sql(ground, *statements, **values):
    connection = sqlite3.connect(ground.database, isolation_level=None)
    connection.create_function("leaf", 1, leaf_hash)
    rules = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in rules:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement, values)
    for _, statement in rules:
        connection.execute(statement)
    connection.close()


def is_whole(ground, size):
    """The log goes on, and everything in it verifies against the checkpoint that was signed before."""
    with ground.open() as log:
        ground.fill(log, 1)
        log.publish()
        report = fsck(log.reader(), ground.policy, anchors=[ground.signed.note])
        assert report.size == size + 1
    with pytest.raises(Conflict), ground.tables.write() as connection:
        connection.exec_driver_sql("DELETE FROM ledger_entry")
    return True


def test_a_restored_backup_catches_up(published):
    restore(published)
    with pytest.raises(LogRolledBack):
        published.open()
    done = run(published)
    assert done == Recovery(checkpoint=SIZE, size=SIZE, restored=200, set_aside=0, kept_in="", ahead_ms=0)
    with published.tables.read() as connection:
        rows = connection.exec_driver_sql("SELECT size, published FROM ledger_checkpoint ORDER BY size").all()
    assert rows == [(100, 1), (SIZE, 0)]
    assert is_whole(published, SIZE)


def test_a_recovery_may_be_repeated(published):
    restore(published)
    run(published)
    assert run(published).restored == 0
    assert is_whole(published, SIZE)


def test_an_empty_database_is_filled(published, make_ground, tmp_path):
    fresh = make_ground(tmp_path / "fresh")
    fresh.blobs, fresh.params, fresh.signed = published.blobs, published.params, published.signed
    assert run(fresh).restored == SIZE
    with fresh.tables.read() as connection:
        (row,) = connection.exec_driver_sql("SELECT origin, size, root, note, created_ms FROM ledger_checkpoint")
    signed = published.signed.checkpoint
    assert row == (signed.origin, SIZE, signed.root, published.signed.note, int(published.clock() * 1000))
    assert is_whole(fresh, SIZE)
    for tables in fresh.opened:
        tables.close()


@pytest.mark.parametrize("index", [0, 17, 255, 256, 299])
def test_a_deleted_row_comes_back(published, index):
    sql(published, "DELETE FROM ledger_entry WHERE idx = :index", index=index)
    assert run(published).restored == 1
    assert is_whole(published, SIZE)


def test_a_changed_row_is_set_aside_and_replaced(published):
    entry = published.reader().entry(17)
    changed = entry.replace(b'"tune.run"', b'"tune.fun"')
    sql(
        published,
        "UPDATE ledger_entry SET data = CAST(:changed AS BLOB), leaf_hash = leaf(:changed) WHERE idx = 17",
        changed=changed,
    )
    done = run(published)
    assert (done.restored, done.set_aside) == (1, 1)
    (row,) = map(json.loads, published.blobs.get(done.kept_in).splitlines())
    assert (row["index"], base64.b64decode(row["data"])) == (17, changed)
    digest = hashlib.sha256(published.blobs.get(done.kept_in)).hexdigest()
    assert done.kept_in == f"recovered/sha256/{digest[:2]}/{digest}"
    assert published.reader().entry(17) == entry
    assert is_whole(published, SIZE)


def leave(log):
    """Close a log without a last checkpoint."""
    log._closing.set()
    log._committer.stop(NotFound("closed"))


def test_unpublished_rows_that_continue_the_history_stay(published):
    log = published.open()
    published.clock.seconds += 10
    published.fill(log, 5)
    leave(log)
    published.clock.seconds -= 30
    sql(published, "DELETE FROM ledger_entry WHERE idx = 40")
    done = run(published)
    assert (done.checkpoint, done.size, done.restored, done.set_aside) == (SIZE, SIZE + 5, 1, 0)
    assert done.ahead_ms == 30_000
    assert is_whole(published, SIZE + 5)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger_entry SET idx = idx + 9000 WHERE idx = 304",
        "UPDATE ledger_entry SET idx = 10000 - idx WHERE idx >= 300",
        "INSERT INTO ledger_entry SELECT origin, idx + 9000, data, leaf_hash FROM ledger_entry WHERE idx = 304",
        "UPDATE ledger_log SET size = 304",
        "DELETE FROM ledger_log",
    ],
)
def test_rows_that_do_not_continue_the_history_as_the_frontier_says_are_set_aside(published, change):
    log = published.open()
    published.fill(log, 5)
    leave(log)
    sql(published, change)
    done = run(published)
    assert (done.size, done.restored, done.set_aside) == (SIZE, 0, 5 + ("INSERT" in change))
    kept = [json.loads(line)["index"] for line in published.blobs.get(done.kept_in).splitlines()]
    assert kept == sorted(kept)
    assert published.reader().size() == len(list(published.reader().tail())) == SIZE
    assert is_whole(published, SIZE)


KEYS = [SigningKey.from_seed(bytes([n]) * 32) for n in range(4)]


def rotate(ground, log, result="done", **payload):
    """Record how a rotation ended; of one that was done the new key signs from then on."""
    ground.clock.seconds += 1000
    time_ms = int(ground.clock() * 1000)
    act = Act(kind="key.rotate", id=new_act_id(time_ms), principal="p_aaaqeayeaudaocajbifqydiob4")
    log.append(outcome(act, time_ms=time_ms, result=result, payload=payload))
    return time_ms


def use(ground, log, keys):
    with ground.tables.write() as connection:
        log.replace_key(keys[0], connection)
    log.use_keys(keys)


def test_keys_that_were_replaced_are_those_that_the_entries_tell_of(published):
    """The third is recorded behind the checkpoint; what lies between was no rotation that came to its end."""
    first, second, third, unused = published.key, *KEYS[:3]
    log = published.open()
    times = [rotate(published, log, key_id=second.key_id)]
    use(published, log, [second, first])
    rotate(published, log)
    rotate(published, log, "failed", key_id=unused.key_id)
    act = Act(kind="key.rotate", id=new_act_id(0), principal="p_aaaqeayeaudaocajbifqydiob4")
    log.append(noted(act, time_ms=int(published.clock() * 1000), payload={"key_id": unused.key_id}))
    ended = Act(kind="tune.run", id=new_act_id(0), principal="p_aaaqeayeaudaocajbifqydiob4")
    told = {"of": "key.rotate", "key_id": unused.key_id}
    log.append(outcome(ended, time_ms=int(published.clock() * 1000), payload=told))
    published.clock.seconds += 31 * 86_400  # the first signs no more
    log.publish()
    times.append(rotate(published, log, key_id=third.key_id))
    use(published, log, [third, second, first])
    verifiers = log.verifiers
    leave(log)
    spare = NoteSigner(published.reader().origin, unused).verifier
    sql(published, "DELETE FROM ledger_key WHERE replaced_ms < :last", last=times[1])
    for keys in ([*verifiers], [spare, *verifiers], [verifiers[0], spare, *verifiers[1:]]):
        recover(
            published.tables, published.blobs, keys=keys, memories={"here": published.blobs.get(CHECKPOINT_KEY)},
            now_ms=int(published.clock() * 1000),
        )  # fmt: skip
        found = LogKeys.read(published.tables, published.reader().origin, [unused, third, second, first])
        assert found.keys == (third, second, first)
        assert found.replaced_ms == {first.key_id: times[0], second.key_id: times[1]}
        with published.tables.write() as connection:
            connection.exec_driver_sql("DELETE FROM ledger_key")


def test_a_history_that_went_on_after_a_restore_is_set_aside(published):
    """A writer without the rollback guard appended to the old database: its entries are kept, in a blob."""
    restore(published)
    frontier = Frontier().append(leaf_hash(entry) for _, entry in published.reader().tail())
    forked = [published.entry(1000 + number).encode(published.reader().origin) for number in range(250)]
    rows = [(published.reader().origin, 100 + n, data, leaf_hash(data)) for n, data in enumerate(forked)]
    connection = sqlite3.connect(published.database, isolation_level=None)
    connection.executemany("INSERT INTO ledger_entry VALUES (?, ?, ?, ?)", rows)
    frontier = frontier.append(map(leaf_hash, forked))
    connection.execute("UPDATE ledger_log SET size = 350, frontier = ?", (frontier.to_bytes(),))
    connection.close()
    assert len(list(published.reader().query(EntryQuery()))) == 350  # the index holds them too
    done = run(published)
    assert (done.size, done.restored, done.set_aside) == (SIZE, 200, 250)
    kept = [base64.b64decode(json.loads(line)["data"]) for line in published.blobs.get(done.kept_in).splitlines()]
    assert kept == forked
    assert is_whole(published, SIZE)


def test_the_largest_memory_decides(published):
    older = published.signed.checkpoint
    restore(published)
    small = sign_checkpoint(
        Checkpoint(older.origin, 1, leaf_hash(published.reader().entry(0))), NoteSigner(older.origin, published.key)
    )
    assert run(published, anchor=small.note).checkpoint == SIZE


def test_two_checkpoints_of_one_size_are_equivocation(published):
    other = sign_checkpoint(
        Checkpoint(published.signed.checkpoint.origin, SIZE, bytes(32)),
        NoteSigner(published.signed.checkpoint.origin, published.key),
    )
    with pytest.raises(Equivocation):
        run(published, anchor=other.note)


def test_nothing_remembered_is_nothing_to_go_by(published):
    with pytest.raises(NotFound):
        recover(published.tables, published.blobs, keys=published.policy.logs, memories={}, now_ms=0)


def test_a_log_without_an_entry_comes_back(ground, make_ground, tmp_path):
    with ground.create() as log:
        ground.signed = log.publish()
    fresh = make_ground(tmp_path / "fresh")
    fresh.blobs, fresh.params, fresh.signed = ground.blobs, ground.params, ground.signed
    assert run(fresh) == Recovery(checkpoint=0, size=0, restored=0, set_aside=0, kept_in="", ahead_ms=0)
    with fresh.tables.read() as connection:
        assert connection.exec_driver_sql("SELECT size, updated_ms FROM ledger_log").all() == [(0, 0)]
    for tables in fresh.opened:
        tables.close()


def test_bundles_and_tiles_that_agree_must_lead_to_the_signed_root(published):
    restore(published)
    hashes = TileHashes(published.blobs, SIZE)
    entries = hashes.bundle(1)
    changed = [*entries[:-1], entries[-1].replace(b'"tune.run"', b'"tune.fun"')]
    published.blobs.put(tile_key("entries", 1, 44), encode_bundle(changed), mode=REPLACE)
    published.blobs.put(tile_key(0, 1, 44), b"".join(map(leaf_hash, changed)), mode=REPLACE)
    with pytest.raises(LogDamaged, match=f"bundles of {SIZE} entries: expected root"):
        run(published)
    assert published.reader().size() == 100


@pytest.mark.parametrize("key", ["log/tile/entries/000", "log/tile/entries/001.p/44", "log/tile/0/000"])
def test_changed_tiles_are_not_trusted_and_nothing_changes(published, key):
    data = published.blobs.get(key)
    published.blobs.put(key, data[:40] + bytes([data[40] ^ 1]) + data[41:], mode=REPLACE)
    restore(published)
    with pytest.raises(LogDamaged):
        run(published)
    assert published.reader().size() == 100


def test_bundles_that_are_missing_are_named(published):
    published.blobs.delete("log/tile/entries/000")
    restore(published)
    with pytest.raises(NotFound, match="entries/000"):
        run(published)


@pytest.mark.parametrize(("first", "last"), [(0, SIZE - 1), (17, 17), (256, SIZE - 1)])
def test_rows_come_back_into_postgresql(pg_ground, first, last):
    with pg_ground.create() as log:
        pg_ground.fill(log, SIZE)
        pg_ground.signed = log.publish()
    with pg_ground.tables.write() as connection:
        connection.exec_driver_sql("ALTER TABLE ledger_entry DISABLE TRIGGER USER")
        connection.exec_driver_sql("DELETE FROM ledger_entry WHERE idx >= ? AND idx <= ?", (first, last))
        connection.exec_driver_sql("ALTER TABLE ledger_entry ENABLE TRIGGER USER")
    with pytest.raises(LogDamaged):
        fsck(pg_ground.reader(), pg_ground.policy)
    assert run(pg_ground).restored == last - first + 1
    assert is_whole(pg_ground, SIZE)


def test_a_changed_row_is_replaced_in_postgresql_and_none_can_be_changed_after(pg_ground):
    with pg_ground.create() as log:
        pg_ground.fill(log, 5)
        pg_ground.signed = log.publish()
    changed = pg_ground.reader().entry(2).replace(b'"tune.run"', b'"tune.fun"')
    with pg_ground.tables.write() as connection:
        connection.exec_driver_sql("ALTER TABLE ledger_entry DISABLE TRIGGER USER")
        connection.exec_driver_sql(
            "UPDATE ledger_entry SET data = ?, leaf_hash = ? WHERE idx = 2", (changed, leaf_hash(changed))
        )
        connection.exec_driver_sql("ALTER TABLE ledger_entry ENABLE TRIGGER USER")
    assert run(pg_ground).set_aside == 1
    assert is_whole(pg_ground, 5)


def test_a_recovery_lets_a_log_go_on_whose_last_clock_was_ahead(published):
    """A year's wait, on a machine that has no other clock to ask."""
    with published.open() as log:
        published.clock.seconds += 365 * 86_400
        log.append(published.entry())
        log.publish()
        published.clock.seconds -= 365 * 86_400
        with pytest.raises(ClockWentBack) as caught:
            log.append(published.entry())
        assert "stanch log recover" in caught.value.next_step
    done = run(published)
    assert (done.size, done.restored, done.set_aside, done.ahead_ms) == (SIZE + 1, 0, 0, 365 * 86_400_000)
    with published.open() as log:
        log.append(published.entry())
        assert fsck(log.reader(), published.policy).size == SIZE + 2
