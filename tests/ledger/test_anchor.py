"""Anchors: what they keep, that they never replace it, and what they remember when the log forgets."""

import shutil
from dataclasses import replace

import pytest

from stanch.errors import InvalidInput, LedgerUnavailable, LogRolledBack, StoreError
from stanch.ledger import LedgerParams, fsck
from stanch.ledger.anchor import Anchors, anchor_folder, anchor_key
from stanch.ledger.anchor_uri import open_anchor
from stanch.ledger.checkpoint import Checkpoint, sign_checkpoint
from stanch.ledger.note import Cosigner, NoteSigner

HOUR = 3600


@pytest.fixture
def anchored(either):
    """A log with one file anchor."""
    ground = either
    anchor = open_anchor(f"file:{ground.folder / 'anchor'}", log_folder=ground.folder)
    ground.params = replace(ground.params, anchors=(anchor,))
    ground.anchor = anchor
    return ground


def kept(ground):
    return [note.split(b"\n")[1] for note in ground.anchor.notes(ground.signer.name)]


@pytest.fixture(autouse=True)
def _signer(request):
    for name in ("ground", "anchored"):
        if name in request.fixturenames:
            ground = request.getfixturevalue(name)
            ground.signer = NoteSigner("example.com/stanch/log", ground.key)


def test_the_first_checkpoint_and_then_one_an_hour(anchored):
    with anchored.create() as log:
        for minutes in (0, 30, 31, 61, 61):
            anchored.clock.seconds += 60 * minutes if minutes in {30, 31} else 0
            anchored.fill(log, 2)
            log.publish()
        assert kept(anchored) == [b"2", b"6"]
        anchored.clock.seconds += HOUR
        log.publish()
        assert kept(anchored) == [b"2", b"6", b"10"]
        anchored.clock.seconds += HOUR
        log.publish()  # nothing new: nothing to keep
        assert kept(anchored) == [b"2", b"6", b"10"]
        assert log.anchors.last_ms(log.origin) == {anchored.anchor.uri: int((anchored.clock() - HOUR) * 1000)}


def test_a_clock_that_was_ahead_puts_no_checkpoint_off(anchored):
    with anchored.create() as log:
        anchored.fill(log, 1)
        log.publish()
        with anchored.tables.write() as connection:
            connection.exec_driver_sql("UPDATE ledger_anchor SET created_ms = created_ms + ?", (365 * 86_400_000,))
        for size in (2, 3):
            anchored.fill(log, 1)
            log.publish()
            assert kept(anchored) == [b"1", b"2"], size  # at once, and then after an hour again
        assert log.anchors.last_ms(log.origin) == {anchored.anchor.uri: int(anchored.clock() * 1000)}


def test_on_demand(anchored):
    with anchored.create() as log:
        log.publish()
        anchored.fill(log, 3)
        signed = log.anchor()
        assert kept(anchored) == [b"0", b"3"]
        log.anchor()
        assert list(log.anchors.notes(log.origin))[-1] == (f"anchor {anchored.anchor.uri}", signed.note)
        report = fsck(log.reader(), anchored.policy, anchors=[note for _, note in log.anchors.notes(log.origin)])
        assert report.conclusion == "consistent with the given anchors"


def test_more_cosignatures_are_no_other_checkpoint(anchored):
    signed = sign_checkpoint(Checkpoint(anchored.signer.name, 3, bytes(32)), anchored.signer)
    cosigner = Cosigner("w.example", anchored.key)
    anchored.anchor.keep(signed)
    anchored.anchor.keep(replace(signed, note=signed.note + cosigner.cosign(signed.checkpoint.text(), 5).encode()))
    assert list(anchored.anchor.notes(anchored.signer.name)) == [signed.note]


def test_another_checkpoint_of_the_same_size_is_refused(anchored):
    first = sign_checkpoint(Checkpoint(anchored.signer.name, 3, bytes(32)), anchored.signer)
    other = sign_checkpoint(Checkpoint(anchored.signer.name, 3, b"\1" * 32), anchored.signer)
    anchored.anchor.keep(first)
    with pytest.raises(LogRolledBack):
        anchored.anchor.keep(other)
    assert list(anchored.anchor.notes(anchored.signer.name)) == [first.note]


def forget(ground, *, log):
    """Take the whole log back to nothing: database, blobs and high-water file, as from an old backup."""
    log.close()
    ground.tables.close()
    shutil.rmtree(ground.folder / "blobs")
    for path in [*ground.folder.glob("stanch.db*"), ground.folder / "highwater"]:
        path.unlink()
    if ground.tables.dialect == "postgresql":
        ground.tables_uri = ground.server.database()
    ground.__post_init__()
    ground.params = LedgerParams(highwater=ground.folder / "highwater", checkpoint_seconds=0, anchors=(ground.anchor,))


def test_a_log_that_was_restored_with_everything_at_home_is_found_by_its_anchor(anchored):
    log = anchored.create()
    anchored.fill(log, 5)
    log.publish()
    forget(anchored, log=log)
    with pytest.raises(LogRolledBack, match="not what this log has signed") as caught:
        anchored.create()
    assert f"anchor {anchored.anchor.uri} was signed over 5" in caught.value.why


def test_another_history_is_found_by_the_anchor(anchored):
    log = anchored.create()
    anchored.fill(log, 5)
    log.publish()
    anchor, anchored.params = anchored.params, replace(anchored.params, anchors=())
    forget(anchored, log=log)
    anchored.params = replace(anchored.params, anchors=())
    log = anchored.create()
    anchored.clock.seconds += 1
    anchored.fill(log, 9)
    log.close()
    anchored.params = anchor
    with pytest.raises(LogRolledBack) as caught:
        anchored.open()
    assert "another history" in caught.value.why


def test_an_anchor_out_of_reach_stops_nothing_and_is_said_on_demand(anchored):
    with anchored.create() as log:
        log.publish()
        anchored.clock.seconds += HOUR
        shutil.rmtree(anchored.folder / "anchor")
        (anchored.folder / "anchor").write_text("not a folder")
        anchored.fill(log, 2)
        log.publish()
        with pytest.raises(StoreError):
            log.anchor()
        (anchored.folder / "anchor").unlink()
        (anchored.folder / "anchor").mkdir()
        log.publish()
        assert kept(anchored) == []  # left alone for a minute
        log.anchors._away.clear()
        log.publish()
        assert kept(anchored) == [b"2"]


def test_a_conflicting_anchor_stops_the_log(anchored):
    log = anchored.create()
    anchored.fill(log, 2)
    forged = sign_checkpoint(Checkpoint(log.origin, 2, bytes(32)), anchored.signer)
    anchored.anchor.keep(forged)
    with pytest.raises(LogRolledBack):
        log.publish()
    with pytest.raises(LedgerUnavailable):
        log.append(anchored.entry())


class Shelf:
    """An anchor in memory that can be out of reach."""

    outside = True

    def __init__(self, uri):
        self.uri, self.kept, self.read, self.asked, self.is_away = uri, [], 0, 0, False

    def keep(self, signed):
        self.asked += 1
        if self.is_away:
            raise StoreError("away")
        self.kept.append(signed.note)

    def newest(self, _origin):
        self.read += 1
        return self.kept[-1] if self.kept else None


def of_size(ground, size):
    return sign_checkpoint(Checkpoint(ground.signer.name, size, bytes(32)), ground.signer)


def test_an_anchor_out_of_reach_is_left_alone_for_a_minute(ground, monkeypatch):
    now, shelf = [0.0], Shelf("a")
    monkeypatch.setattr("stanch.ledger.anchor.time.monotonic", lambda: now[0])
    anchors, shelf.is_away = Anchors(ground.tables, [shelf], every_seconds=HOUR, clock=ground.clock), True
    asked = []
    for seconds in (0, 1, 59.9, 60, 60, 119.9, 120):
        now[0] = seconds
        anchors.keep_when_due(of_size(ground, 1))
        asked.append(shelf.asked)
    assert asked == [1, 1, 1, 2, 2, 2, 3]
    with pytest.raises(StoreError):
        anchors.keep(of_size(ground, 1))


def test_each_anchor_has_its_own_times(ground):
    anchors = Anchors(ground.tables, [Shelf("a"), Shelf("b")], every_seconds=HOUR, clock=ground.clock)
    first, second = anchors.anchors
    name, began = ground.signer.name, int(ground.clock() * 1000)
    assert anchors.last_ms(name) == {"a": None, "b": None}
    first.is_away = True
    with pytest.raises(StoreError):
        anchors.keep(of_size(ground, 1))
    anchors.keep_when_due(of_size(ground, 1))
    assert anchors.last_ms(name) == {"a": None, "b": began}
    assert anchors.last_ms("example.com/other") == {"a": None, "b": None}
    anchors._away.clear()
    first.is_away = False
    ground.clock.seconds += HOUR - 1
    anchors.keep_when_due(of_size(ground, 2))
    assert anchors.last_ms(name) == {"a": began + (HOUR - 1) * 1000, "b": began}
    ground.clock.seconds += 1
    anchors.keep_when_due(of_size(ground, 3))
    assert anchors.last_ms(name) == {"a": began + (HOUR - 1) * 1000, "b": began + HOUR * 1000}
    assert (len(first.kept), len(second.kept)) == (1, 2)


def test_what_an_anchor_keeps_is_read_once_and_then_known(ground):
    shelf = Shelf("a")
    shelf.kept.append(b"older")
    anchors = Anchors(ground.tables, [shelf, Shelf("b")], every_seconds=HOUR, clock=ground.clock)
    assert [anchors.memories("o") for _ in range(3)] == 3 * [{"anchor a": b"older"}]
    assert shelf.read == 1
    anchors.keep(of_size(ground, 2))
    assert anchors.memories("o") == {f"anchor {uri}": of_size(ground, 2).note for uri in "ab"}
    assert shelf.read == 1


def test_an_anchor_that_is_away_is_not_asked_what_it_keeps(ground, monkeypatch):
    shelf = Shelf("a")
    anchors = Anchors(ground.tables, [shelf], every_seconds=HOUR, clock=ground.clock)
    monkeypatch.setattr(shelf, "newest", lambda _origin: shelf.keep(None))
    shelf.is_away = True
    assert [anchors.memories("o") for _ in range(3)] == [{}, {}, {}]
    assert shelf.asked == 1


def test_the_newest_note_is_that_of_the_largest_size(ground):
    anchor = open_anchor(f"file://{ground.folder / 'anchor'}", log_folder=ground.folder)
    assert anchor.newest(ground.signer.name) is None
    assert list(anchor.notes(ground.signer.name)) == []
    sizes = [9, 100, 10, *range(20, 40)]
    for size in sizes:
        anchor.keep(of_size(ground, size))
    (ground.folder / "anchor" / anchor_key(ground.signer.name, 200)).with_suffix(".part").write_bytes(b"unfinished")
    assert list(anchor.notes(ground.signer.name)) == [of_size(ground, size).note for size in sorted(sizes)]
    assert anchor.newest(ground.signer.name) == of_size(ground, 100).note


def test_keys_sort_by_size():
    assert anchor_key("example.com/stanch/log", 7) == "1787441f3748f7ad63c0fd5540b4da51/00000000000000000007.note"
    keys = [anchor_key("a", size) for size in (0, 9, 10, 99, 2**63 - 1)]
    assert keys == sorted(keys)


def test_outside_means_another_device(ground):
    assert not open_anchor("file:./anchor", log_folder=ground.folder).outside
    assert Anchors(ground.tables, (), every_seconds=1).anchors == ()
    assert (ground.folder / "anchor").is_dir()


def test_a_file_anchor_that_cannot_be_read_is_said(ground):
    anchor = open_anchor("file:./anchor", log_folder=ground.folder)
    assert (list(anchor.notes("example.com/log")), anchor.newest("example.com/log")) == ([], None)
    (ground.folder / "anchor" / anchor_folder("example.com/log")).touch()
    for read in (lambda: list(anchor.notes("example.com/log")), lambda: anchor.newest("example.com/log")):
        with pytest.raises(StoreError, match=r"anchor file:\./anchor: cannot be read"):
            read()


@pytest.mark.parametrize(
    "uri",
    [
        "", "file:", "file://", "ftp:x", "ftp://x", "file://host/x", "s3lock:", "s3lock://bucket", "s3lock://bucket?days=0",
        "s3lock:///prefix?days=3", "s3lock://bucket?days=3#x", "s3lock://bucket?days=100000",
        "s3lock://bucket?days=x", "s3lock://key:secret@bucket?days=3", "s3lock://bucket?days=3&acl=public",
    ],
)  # fmt: skip
def test_other_uris_are_refused(ground, uri):
    with pytest.raises(InvalidInput, match="anchor: expected"):
        open_anchor(uri, log_folder=ground.folder)


def test_a_file_anchor_may_be_named_by_a_whole_uri(ground):
    for uri in (f"file:{ground.folder}/a", f"file://{ground.folder}/a"):
        assert open_anchor(uri, log_folder=ground.folder)._folder == ground.folder / "a"
