"""Publishing: what appears, that it may be repeated, that a crash between steps heals, and the rollback guard."""

import shutil
import sqlite3
import sys
import time
from types import SimpleNamespace

import pytest

from stanch.crypto import Frontier, SigningKey
from stanch.errors import Conflict, LedgerUnavailable, LogRolledBack, StoreError, TileConflict
from stanch.ledger import Cosigner, Ledger, LedgerParams, NoteSigner, fsck, open_checkpoint
from stanch.ledger.checkpoint import Checkpoint, sign_checkpoint
from stanch.ledger.integrate import integrate
from stanch.ledger.publish import Publisher
from stanch.store import REPLACE, FileBlobs


def test_publishing_shows_the_log_to_everybody(ground):
    with ground.create() as log:
        ground.fill(log, 300)
        signed = log.publish()
        assert signed.checkpoint.size == 300
        assert ground.blobs.get("log/checkpoint") == signed.note
        assert open_checkpoint(signed.note, ground.policy.logs) == signed
        assert [info.key for info in ground.blobs.list("log/")] == [
            "log/checkpoint",
            "log/tile/0/000",
            "log/tile/0/001.p/44",
            "log/tile/1/000.p/1",
            "log/tile/entries/000",
            "log/tile/entries/001.p/44",
        ]


def test_publishing_again_signs_nothing_new(ground):
    with ground.create() as log:
        log.append(ground.entry())
        assert log.publish() == log.publish()
        with ground.tables.read() as connection:
            assert connection.exec_driver_sql("SELECT size, published FROM ledger_checkpoint").all() == [(1, 1)]


def test_an_empty_log_can_be_published(ground):
    with ground.create() as log:
        assert log.publish().checkpoint.size == 0
        assert log.publish().checkpoint.size == 0


def test_new_entries_are_published_by_themselves(ground):
    params = LedgerParams(highwater=ground.params.highwater, checkpoint_seconds=0.02)
    log = Ledger.create(
        ground.tables, ground.blobs, origin=ground.policy.logs[0].name, signer=ground.key, params=params
    )
    log.append(ground.entry())
    deadline = time.monotonic() + 60
    while not any(ground.blobs.list("log/checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert log.reader().checkpoint().checkpoint.size == 1
    log.close()


class Crash(Exception):
    """Stands for the power going off."""


STEPS = ["_integrate", "_sign", "_remember", "_put", "_put_once"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_heals_and_signs_one_history(ground, monkeypatch, step, when):
    log = ground.create()
    ground.fill(log, 260)
    log.publish()
    ground.fill(log, 10)
    kept = getattr(Publisher, step)

    def crash(self, *arguments):
        if when == "after":
            kept(self, *arguments)
        raise Crash

    monkeypatch.setattr(Publisher, step, crash)
    with pytest.raises(Crash):
        log.publish()
    monkeypatch.setattr(Publisher, step, kept)
    with ground.tables.read() as connection:
        left = connection.exec_driver_sql("SELECT size, note FROM ledger_checkpoint WHERE published = 0").all()
    again = ground.open(ground.open_tables())
    again.append(ground.entry())
    assert again.publish().checkpoint.size == 271
    with ground.tables.read() as connection:
        notes = dict(connection.exec_driver_sql("SELECT size, note FROM ledger_checkpoint").all())
    for size, note in left:
        assert notes[size] == note
    report = fsck(again.reader(), ground.policy)
    assert report.published == 271
    again.close()


def test_a_crash_between_two_tiles_heals(ground, monkeypatch):
    log = ground.create()
    ground.fill(log, 520)
    kept = FileBlobs.put
    for allowed in range(8):
        left = [allowed]

        def put(self, key, data, *, mode, left=left):
            if not left[0]:
                raise Crash
            left[0] -= 1
            return kept(self, key, data, mode=mode)

        monkeypatch.setattr(FileBlobs, "put", put)
        with pytest.raises(Crash):
            log.publish()
    monkeypatch.setattr(FileBlobs, "put", kept)
    assert log.publish().checkpoint.size == 520
    assert fsck(log.reader(), ground.policy).size == 520
    log.close()


def snapshot(ground, name):
    """Copy the closed database aside, as a backup does."""
    ground.tables.close()
    shutil.copy(ground.database, ground.folder / name)


def restore(ground, name):
    for suffix in ("", "-wal", "-shm"):
        (ground.folder / f"stanch.db{suffix}").unlink(missing_ok=True)
    shutil.copy(ground.folder / name, ground.database)
    ground.tables = ground.open_tables()


def test_a_restored_backup_is_refused_by_the_published_checkpoint(ground):
    with ground.create() as log:
        ground.fill(log, 3)
    snapshot(ground, "old")
    with ground.open() as log:
        ground.fill(log, 3)
    ground.tables.close()
    restore(ground, "old")
    with pytest.raises(LogRolledBack, match="not what this log has signed") as caught:
        ground.open()
    assert "log/checkpoint was signed over 6" in caught.value.why


def test_a_backup_restored_with_its_blobs_is_refused_by_the_high_water_file(ground):
    with ground.create() as log:
        ground.fill(log, 3)
    snapshot(ground, "old")
    shutil.copytree(ground.folder / "blobs", ground.folder / "old-blobs")
    ground.tables = ground.open_tables()
    with ground.open() as log:
        ground.fill(log, 3)
    ground.tables.close()
    restore(ground, "old")
    shutil.rmtree(ground.folder / "blobs")
    shutil.copytree(ground.folder / "old-blobs", ground.folder / "blobs")
    with pytest.raises(LogRolledBack) as caught:
        ground.open()
    assert "highwater was signed over 6" in caught.value.why
    # Without that file nobody here remembers: the limit that the documents state.
    ground.params.highwater.unlink()
    with ground.open() as log:
        assert log.reader().size() == 3


@pytest.mark.parametrize("longer", [3, 5])
def test_a_fork_after_a_restore_is_refused(ground, longer):
    with ground.create() as log:
        ground.fill(log, 3)
    snapshot(ground, "old")
    ground.tables = ground.open_tables()
    with ground.open() as log:
        ground.fill(log, 3)
    checkpoint, highwater = ground.blobs.get("log/checkpoint"), ground.params.highwater.read_bytes()
    ground.tables.close()
    # The same log grows otherwise elsewhere, from the backup.
    other = type(ground)(ground.folder / "other")
    other.tables.close()
    shutil.copy(ground.folder / "old", other.database)
    other.tables = other.open_tables()
    with other.open() as log:
        other.fill(log, longer)
    other.tables.close()
    shutil.copy(other.database, ground.folder / "fork")
    restore(ground, "fork")
    with pytest.raises(LogRolledBack):
        ground.open()
    assert ground.blobs.get("log/checkpoint") == checkpoint
    assert ground.params.highwater.read_bytes() == highwater


def test_a_running_log_stops_when_it_finds_itself_rolled_back(ground):
    log = ground.create()
    ground.fill(log, 3)
    log.publish()
    other = type(ground)(ground.folder / "other")
    with other.create() as longer:
        other.fill(longer, 9)
    other.tables.close()
    ground.blobs.put("log/checkpoint", other.blobs.get("log/checkpoint"), mode=REPLACE)
    with pytest.raises(LogRolledBack):
        log.publish()
    with pytest.raises(LedgerUnavailable) as caught:
        log.append(ground.entry())
    assert "not what this log has signed" in caught.value.why
    with pytest.raises(LogRolledBack):
        log.close()


def test_a_new_database_beside_old_checkpoints_is_refused(ground):
    with ground.create() as log:
        log.append(ground.entry())
    ground.tables.close()
    for path in ground.folder.glob("stanch.db*"):
        path.unlink()
    ground.tables = ground.open_tables(create=True)
    with pytest.raises(LogRolledBack):
        ground.create()


def test_a_lost_log_row_is_refused(ground):
    log = ground.create()
    log.append(ground.entry())
    with sqlite3.connect(ground.database) as connection:
        connection.execute("DELETE FROM ledger_log")
    connection.close()
    with pytest.raises(LedgerUnavailable):
        log.append(ground.entry())
    with pytest.raises(LogRolledBack):
        log.publish()


def test_changed_tiles_stop_the_log(ground):
    log = ground.create()
    ground.fill(log, 300)
    log.publish()
    ground.blobs.put("log/tile/0/001.p/44", bytes(44 * 32), mode=REPLACE)
    ground.fill(log, 1)
    with pytest.raises(TileConflict):
        log.publish()


def test_a_checkpoint_is_never_replaced_by_a_smaller_one(ground):
    with ground.create() as log:
        ground.fill(log, 2)
        small = log.publish()
        ground.fill(log, 2)
        large = log.publish()
        log._publisher._put(small)
        assert ground.blobs.get("log/checkpoint") == large.note


def test_two_publishers_agree(ground):
    first = ground.create()
    ground.fill(first, 5)
    second = ground.open(ground.open_tables())
    assert second.publish() == first.publish()
    ground.fill(second, 300)
    assert first.publish().checkpoint.size == 305
    assert second.publish() == first.publish()
    first.close()
    second.close()


def test_a_publisher_that_is_overtaken_takes_the_larger_checkpoint(ground, monkeypatch):
    first = ground.create()
    second = ground.open(ground.open_tables())
    ground.fill(first, 2)
    kept = Publisher._integrate

    def overtake(self, old_size, checkpoint):
        kept(self, old_size, checkpoint)
        monkeypatch.setattr(Publisher, "_integrate", kept)
        ground.fill(second, 3)
        second.publish()

    monkeypatch.setattr(Publisher, "_integrate", overtake)
    monkeypatch.setattr("stanch.ledger.log._LEASE_SECONDS", 0.1)  # the second does not wait for the first to end
    assert first.publish().checkpoint.size == 5
    first.close()
    second.close()


def test_others_that_keep_replacing_the_checkpoint_are_given_up_on(ground, monkeypatch):
    with ground.create() as log:
        log.append(ground.entry())

        def conflict(_self, _signed):
            raise Conflict("again")

        with monkeypatch.context() as patch:
            patch.setattr(Publisher, "_put_once", conflict)
            with pytest.raises(StoreError, match="kept replacing"):
                log.publish()


def test_an_unwritable_high_water_file_signs_nothing(ground):
    log = ground.create()
    log.append(ground.entry())
    log._publisher._highwater = ground.folder / "missing" / "highwater"
    with pytest.raises(StoreError):
        log.publish()
    with ground.tables.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM ledger_checkpoint").scalar() == 0
    assert not any(ground.blobs.list("log/checkpoint"))


class Contended(FileBlobs):
    """Answers "conflict" so many times for a tile that does not exist, as S3 does while another writer of it fails."""

    times = 0

    def put(self, key, data, *, mode):
        if key.startswith("log/tile/0/") and self.times:
            self.times -= 1
            raise Conflict("409")
        return super().put(key, data, mode=mode)


def test_a_conflict_over_a_tile_that_nobody_wrote_is_asked_again(ground):
    ground.blobs = Contended(ground.folder / "blobs")
    with ground.create() as log:
        ground.fill(log, 3)
        ground.blobs.times = 2
        assert log.publish().checkpoint.size == 3
        ground.fill(log, 1)
        ground.blobs.times = 9
        with pytest.raises(StoreError, match="holds none"):
            log.publish()
        ground.blobs.times = 0


def forged(ground, size, root=bytes(32)):
    signer = NoteSigner(ground.reader().origin, ground.key)
    return sign_checkpoint(Checkpoint(signer.name, size, root), signer).note


def left_with_five_entries(ground):
    """Leave a log of five entries of which three are published."""
    with ground.create() as log:
        ground.fill(log, 3)
        log.publish()
        ground.fill(log, 2)
        log._closing.set()  # closed without a last checkpoint
        log._committer.stop(LedgerUnavailable("closed"))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_remembered_checkpoint_over_another_history_stops_the_log(ground, size):
    """Smaller than, as large as, and larger than what is published."""
    left_with_five_entries(ground)
    kept = ground.params.highwater.read_bytes()
    ground.params.highwater.write_bytes(forged(ground, size))
    with pytest.raises(LogRolledBack) as caught:
        ground.open()
    assert f"highwater was signed over another history of {size} entries" in caught.value.why
    ground.params.highwater.write_bytes(kept)
    ground.open().close()


def test_rows_that_the_stored_frontier_does_not_describe_stop_the_log(ground):
    left_with_five_entries(ground)
    frontier = Frontier().append([bytes(32)] * 5).to_bytes()
    with ground.tables.write() as connection:
        connection.exec_driver_sql("UPDATE ledger_log SET frontier = ?", (frontier,))
    with pytest.raises(LogRolledBack) as caught:
        ground.open()
    assert caught.value.why == "rows 3 to 5 do not continue the published tiles"


@pytest.mark.parametrize("before", [0, 2])
def test_what_was_signed_before_a_crash_is_published_first_and_with_its_tiles(ground, monkeypatch, before):
    log = ground.create()
    if before:
        ground.fill(log, before)
        log.publish()
    ground.fill(log, 1)
    put = Publisher._put

    def crash(_self, _signed):
        raise Crash

    monkeypatch.setattr(Publisher, "_put", crash)
    with pytest.raises(Crash):
        log.publish()
    for name in ("0", "entries"):  # the store lost what it had not kept yet
        ground.blobs.delete(f"log/tile/{name}/000.p/{before + 1}")
    seen = []

    def note(self, signed):
        tiles = [info.key for info in ground.blobs.list("log/tile/0/")]
        seen.append((signed.checkpoint.size, f"log/tile/0/000.p/{signed.checkpoint.size}" in tiles))
        put(self, signed)

    monkeypatch.setattr(Publisher, "_put", note)
    ground.fill(log, 2)
    assert log.publish().checkpoint.size == before + 3
    assert seen == [(before + 1, True), (before + 3, True)]
    log.close()


def test_publishing_again_is_due_when_a_witness_says_so(ground):
    with ground.create() as log:
        assert not log._publisher.due(3)
        log._publisher._witnesses = SimpleNamespace(due=lambda origin, size: (origin, size) == (log.origin, 3))
        assert log._publisher.due(3)
        assert not log._publisher.due(4)
        log._publisher._witnesses = None


def test_a_stored_note_over_another_history_stops_the_log(ground):
    left_with_five_entries(ground)
    with ground.tables.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO ledger_checkpoint SELECT origin, 4, root, ?, created_ms, 0 FROM ledger_checkpoint",
            (forged(ground, 4),),
        )
    with pytest.raises(LogRolledBack) as caught:
        ground.open()
    assert caught.value.why == "stored note 4 was signed over another history of 4 entries"


def test_an_anchor_over_another_history_stops_the_log(ground):
    with ground.create() as log:
        ground.fill(log, 3)
        log.publish()
        note = forged(ground, 2)
        log._publisher._anchors = SimpleNamespace(memories=lambda origin: {f"anchor of {origin}": note})
        with pytest.raises(LogRolledBack) as caught:
            log._publisher.guard()
        log._publisher._anchors = None
    assert caught.value.why == f"anchor of {log.origin} was signed over another history of 2 entries"


def test_a_row_that_is_gone_behind_the_published_ones_stops_the_log(ground):
    left_with_five_entries(ground)
    with ground.tables.write() as connection:
        connection.exec_driver_sql("DROP TRIGGER ledger_entry_no_delete")
        connection.exec_driver_sql("DELETE FROM ledger_entry WHERE idx = 4")
    with pytest.raises(LogRolledBack) as caught:
        ground.open()
    assert caught.value.why == "rows are missing between 3 and 5"


def test_the_notes_that_count_are_those_not_published_and_the_largest_that_is(ground):
    with ground.create() as log:
        for _ in range(3):
            ground.fill(log, 1)
            log.publish()
        with ground.tables.write() as connection:
            for size in (4, 5):
                connection.exec_driver_sql(
                    "INSERT INTO ledger_checkpoint SELECT origin, ?, root, ?, created_ms, 0 FROM ledger_checkpoint"
                    " WHERE size = 1",
                    (size, b"%d" % size),
                )
            found = log._publisher._stored_notes(connection)
            assert [size for size, _ in found] == [3, 4, 5]
            assert [note for _, note in found[1:]] == [b"4", b"5"]
            times = connection.exec_driver_sql("SELECT DISTINCT created_ms FROM ledger_checkpoint").scalars().all()
            connection.exec_driver_sql("DELETE FROM ledger_checkpoint WHERE size > 3")
        assert times == [int(ground.clock() * 1000)]
    assert ground.params.highwater.stat().st_mode & 0o777 == 0o600


def test_tiles_that_do_not_lead_to_the_root_are_not_signed_over(ground, monkeypatch):
    module = sys.modules["stanch.ledger.publish"]

    def other(blobs, rows, old_size, size):
        integrate(blobs, iter([(data, bytes(32)) for data, _ in rows]), old_size, size)

    monkeypatch.setattr(module, "integrate", other)
    log = ground.create()
    ground.fill(log, 3)
    with pytest.raises(TileConflict):
        log.publish()
    with ground.tables.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM ledger_checkpoint").scalar() == 0
    log._closing.set()


def test_what_witnesses_and_anchors_lack_is_made_good_when_nothing_is_new(ground):
    witness, kept = Cosigner("w.example", SigningKey.from_seed(b"w" * 32)), []
    with ground.create() as log:
        ground.fill(log, 3)
        first = log.publish()

        def cosign(signed, _hashes, _size):
            note = first.note + witness.cosign(signed.checkpoint.text(), 5).encode()
            return open_checkpoint(note, log.verifiers)

        log._publisher._witnesses = SimpleNamespace(cosign=cosign, due=lambda *_: False)
        log._publisher._anchors = SimpleNamespace(memories=lambda _origin: {}, keep_when_due=kept.append)
        again = log.publish()
        assert len(again.note) > len(first.note)
        assert ground.blobs.get("log/checkpoint") == again.note
        assert kept == [again]
        log._publisher._witnesses = log._publisher._anchors = None


def test_a_published_note_gives_way_to_one_that_says_more_or_is_newer(ground, monkeypatch):
    one, other = (Cosigner(f"{name}.example", SigningKey.from_seed(name.encode() * 32)) for name in "wv")
    with ground.create() as log:
        ground.fill(log, 3)
        base = log.publish()
        text = base.checkpoint.text()
        earlier, later = (base.note + one.cosign(text, time_s).encode() for time_s in (5, 9))
        both = later + other.cosign(text, 9).encode()
        assert len(earlier) == len(later)
        puts, put = [], FileBlobs.put
        monkeypatch.setattr(FileBlobs, "put", lambda *of, **how: puts.append(of[1]) or put(*of, **how))
        for note, stands, is_put in (
            (earlier, earlier, True), (base.note, earlier, False), (later, later, True), (both, both, True),
            (earlier, both, False), (both, both, False),
        ):  # fmt: skip
            puts.clear()
            log._publisher._put_once(open_checkpoint(note, log.verifiers))
            assert ground.blobs.get("log/checkpoint") == stands
            assert bool(puts) == is_put
