"""A check by several processes, and what ends exactly where a tile or the log does."""

import pickle
import sys

import pytest
from msgspec.structs import replace

from stanch.crypto import EMPTY_ROOT
from stanch.ledger import EntryQuery
from stanch.ledger.checkpoint import Checkpoint, sign_checkpoint
from stanch.ledger.damage import LogDamaged
from stanch.ledger.fsck import fsck
from stanch.ledger.note import NoteSigner
from stanch.terms import ArtifactRef, Digest

MODULE = sys.modules["stanch.ledger.fsck"]


class Pool:
    """Stands in for the processes: does a task when its result is asked for, and counts those that wait."""

    made: list["Pool"]

    def __init__(self, count, mp_context):
        self.count, self.method = count, mp_context.get_start_method()
        self.waiting, self.most, self.ended = 0, 0, []
        self.made.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, act, *given):
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        pool = self

        class Task:
            def result(self):
                pool.waiting -= 1
                return act(*given)

        return Task()

    def shutdown(self, *, cancel_futures):
        self.ended.append(cancel_futures)


@pytest.fixture
def pools(monkeypatch):
    monkeypatch.setattr(MODULE, "PAGE", 256)
    monkeypatch.setattr(MODULE, "_AHEAD", 2)
    monkeypatch.setattr(MODULE, "ProcessPoolExecutor", Pool)
    Pool.made = []
    return Pool.made


@pytest.fixture
def log(ground):
    """A log of six full tiles, all published."""
    with ground.create() as log:
        ground.fill(log, 6 * 256)
        log.publish()
    return ground


def test_processes_work_a_few_pages_ahead_of_the_reader(log, pools):
    whole = fsck(log.reader(), log.policy)
    assert (whole.size, whole.published, whole.quorum) == (1536, 1536, "none")
    assert fsck(log.reader(), log.policy, jobs=2) == whole  # nobody knows where the log is
    assert fsck(log.reader(), log.policy, place=log.place, jobs=1) == whole
    assert pools == []
    assert fsck(log.reader(), log.policy, place=log.place, jobs=2) == whole
    (pool,) = pools
    assert (pool.count, pool.method, pool.most, pool.waiting, pool.ended) == (2, "spawn", 5, 0, [True])


def test_pages_of_several_tiles_are_divided_into_them(log, monkeypatch):
    whole = fsck(log.reader(), log.policy)
    monkeypatch.setattr(MODULE, "PAGE", 512)
    assert fsck(log.reader(), log.policy) == whole


def test_a_gap_of_the_index_at_the_end_of_a_page_is_located(log, pools):
    assert len(list(log.reader().query(EntryQuery()))) == 1536
    with log.tables.write() as connection:
        connection.exec_driver_sql("DELETE FROM ledger_index WHERE idx = 255")
    with pytest.raises(LogDamaged) as caught:
        fsck(log.reader(), log.policy)
    assert (caught.value.place, caught.value.index) == ("query index, entry", 255)
    assert pools == []


def test_the_artifacts_of_a_tiles_first_and_last_entry_are_held_against_the_index(ground):
    models = tuple(ArtifactRef("model", "bot", Digest.sha256(bytes([number]))) for number in range(6))
    with ground.create() as log:
        futures = []
        for number in range(513):
            entry = ground.entry(number)
            is_first_or_last = number % 256 in {0, 255}
            act = replace(entry.act, subject=models) if is_first_or_last else entry.act
            futures.append(log.append_nowait(replace(entry, act=act)))
        assert [future.result(30).index for future in futures] == list(range(513))
        log.publish()
        assert len(list(log.reader().query(EntryQuery()))) == 513  # the index holds them all
        fsck(log.reader(), ground.policy)
    for number in (0, 255, 256, 511, 512):
        with ground.tables.write() as connection:
            connection.exec_driver_sql("UPDATE ledger_subject SET idx = idx + 3 WHERE idx = ?", (number,))
        with pytest.raises(LogDamaged) as caught:
            fsck(ground.reader(), ground.policy)
        assert (caught.value.place, caught.value.index) == ("query index, entry", number)
        with ground.tables.write() as connection:
            connection.exec_driver_sql("UPDATE ledger_subject SET idx = idx - 3 WHERE idx = ?", (number + 3,))


@pytest.mark.parametrize("index", [None, 17])
def test_what_another_process_found_is_told_whole(index):
    found = LogDamaged("entry", index, expected="one", found="another")
    came = pickle.loads(pickle.dumps(found))  # noqa: S301 - our own
    assert (str(came), came.place, came.index, came.next_step) == (str(found), "entry", index, found.next_step)


def test_processes_are_told_to_stop_when_something_is_found(log, pools):
    log.blobs.delete("log/tile/entries/001")
    with pytest.raises(LogDamaged):
        fsck(log.reader(), log.policy, place=log.place, jobs=2)
    assert pools[0].ended == [True]


@pytest.mark.parametrize("size", [0, 1, 256, 257, 1535, 1536])
def test_a_kept_checkpoint_over_another_history_is_found_wherever_it_ends(log, size):
    signer = NoteSigner(log.reader().origin, log.key)
    forged = sign_checkpoint(Checkpoint(signer.name, size, bytes(32)), signer)
    with pytest.raises(LogDamaged, match="root") as caught:
        fsck(log.reader(), log.policy, anchors=[forged.note])
    assert caught.value.place == f"entries before {size}, against anchor 0"


def test_checkpoints_about_the_end_of_a_page_are_each_opened_once(ground, pools):
    with ground.create() as log:
        for count in (256, 1, 255):
            ground.fill(log, count)
            log.publish()
        assert fsck(log.reader(), ground.policy).checkpoints == 4  # the published one is looked at, too
    assert pools == []


def test_a_checkpoint_of_no_entries_is_compared_too(ground):
    with ground.create() as log:
        first = log.publish()
        assert (first.checkpoint.size, first.checkpoint.root) == (0, EMPTY_ROOT)
        report = fsck(log.reader(), ground.policy)
        assert (report.size, report.checkpoints, report.root) == (0, 2, EMPTY_ROOT.hex())
        ground.fill(log, 2)
        log.publish()
    signer = NoteSigner(first.checkpoint.origin, ground.key)
    forged = sign_checkpoint(Checkpoint(signer.name, 0, bytes(32)), signer)
    with ground.tables.write() as connection:
        connection.exec_driver_sql(
            "UPDATE ledger_checkpoint SET root = ?, note = ? WHERE size = 0", (bytes(32), forged.note)
        )
    with pytest.raises(LogDamaged) as caught:
        fsck(ground.reader(), ground.policy)
    assert caught.value.place == "entries before 0, against stored checkpoint 0"
