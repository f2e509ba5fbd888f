"""The tamper matrix: every object × every change is found and located, or is asserted to be what cannot be found."""

import dataclasses
import re
import shutil
import sqlite3
import sys
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from stanch.crypto import Frontier, SigningKey, leaf_hash
from stanch.errors import LogRolledBack, NotFound, NoTrustedSignature, QuorumUnmet, VerificationError
from stanch.ledger import Cosigner, Credential, Ledger, Opening, TrustPolicy, Witness, fsck_notes, outcome, sign_act
from stanch.ledger.checkpoint import Checkpoint, sign_checkpoint
from stanch.ledger.damage import LogDamaged
from stanch.ledger.entry import read_event
from stanch.ledger.fsck import _Check, fsck
from stanch.ledger.fsck_rows import Rows
from stanch.ledger.fsck_tile import CheckedTile
from stanch.ledger.integrate import integrate
from stanch.ledger.note import NoteSigner
from stanch.ledger.tiles import encode_bundle
from stanch.store import REPLACE
from stanch.store.schema import access as schema

SIZE = 300
"""One full tile and a partial one; 296 entries are in the first checkpoint, all in the second, 4 more in none."""


@pytest.fixture(scope="module")
def pristine(make_ground, tmp_path_factory):
    """Return the folder and the two signed checkpoints of a log that each test copies before it tampers."""
    ground = make_ground(tmp_path_factory.mktemp("pristine"))
    with ground.create() as log:
        ground.fill(log, SIZE - 5)
        log.append(replace(ground.entry(), openings=(Opening("actor.user.name", bytes(range(32)), "Alice"),)))
        first = log.publish()
        ground.fill(log, 4)
        second = log.publish()
        ground.fill(log, 4)
        log._closing.set()  # closed without a last checkpoint
        log._committer.stop(NotFound("closed"))
    ground.tables.close()
    return ground.folder, first, second


@pytest.fixture
def ground(make_ground, pristine, tmp_path):
    folder, first, second = pristine
    shutil.copytree(folder, tmp_path / "copy")
    ground = make_ground(tmp_path / "copy")
    ground.first, ground.second = first, second
    yield ground
    for tables in ground.opened:
        tables.close()


@pytest.fixture
def fresh(make_ground, tmp_path):
    ground = make_ground(tmp_path / "fresh")
    yield ground
    for tables in ground.opened:
        tables.close()


def sql(ground, *statements, **values):
    """Change the database as somebody does who owns the file."""
    connection = sqlite3.connect(ground.database, isolation_level=None)
    connection.create_function("leaf", 1, leaf_hash)
    for trigger in ("update", "delete"):
        connection.execute(f"DROP TRIGGER IF EXISTS ledger_entry_no_{trigger}")
    for statement in statements:
        connection.execute(statement, values)
    connection.close()


def found(ground, where, index, error=LogDamaged, **options):
    with pytest.raises(error) as caught:
        fsck(ground.reader(), ground.policy, **options)
    if error is LogDamaged:
        assert re.fullmatch(where, caught.value.place), caught.value.place
        assert caught.value.index == index
        named = caught.value.place if index is None else f"{caught.value.place} {index}"
        assert caught.value.what.startswith(f"log: {named}: expected ")
    return caught.value


def test_an_untouched_log_is_whole(ground):
    report = fsck(ground.reader(), ground.policy)
    assert (report.size, report.published, report.openings) == (SIZE + 4, SIZE, 1)
    assert report.conclusion == "self-consistent only"
    assert report.checkpoints == 3  # two stored ones and the published
    assert len(report.intents_open) == SIZE + 4
    report = fsck(ground.reader(), ground.policy, anchors=[ground.first.note])
    assert report.conclusion == "consistent with the given anchors"


@pytest.mark.parametrize("moment", ["before the published checkpoint", "before the rows", "after the rows"])
def test_a_log_in_use_is_whole_while_it_is_checked(fresh, monkeypatch, moment):
    """An act with a reason is recorded and published in the middle of a check."""
    with fresh.create() as log:
        fresh.fill(log, 3)
        log.publish()
        reader = log.reader()

        def grow():
            opening = Opening("actor.user.name", bytes(32), "Alice")
            log.append(replace(fresh.entry(), openings=(opening,)))
            log.publish()

        match moment:
            case "before the published checkpoint":
                reader.blobs = Before(fresh.blobs, grow)
            case "before the rows":
                rows = Rows.of
                monkeypatch.setattr(Rows, "of", lambda reader: (grow(), rows(reader))[1])
            case _:
                check = fsck_notes.Checkpoints.require_rows
                monkeypatch.setattr(fsck_notes.Checkpoints, "require_rows", lambda *of: (check(*of), grow())[0])
        report = fsck(reader, fresh.policy)
        assert report.size == (3 if moment == "after the rows" else 4)
        assert report.openings == (1 if moment == "before the published checkpoint" else 0)
        assert log.reader().size() == 4


class Before:
    """Blobs that do something once before the published checkpoint is got."""

    def __init__(self, blobs, act):
        self._blobs, self._act = blobs, act

    def get(self, key, **part):
        act, self._act = self._act, lambda: None
        act()
        return self._blobs.get(key, **part)


def test_a_log_with_many_checkpoints_holds_a_page_of_them(fresh, monkeypatch):
    monkeypatch.setattr(sys.modules["stanch.ledger.fsck"], "PAGE", 256)
    held, opened = [], fsck_notes.Checkpoints.load
    monkeypatch.setattr(
        fsck_notes.Checkpoints, "load", lambda self, end: (opened(self, end), held.append(len(self._waiting)))[0]
    )
    with fresh.create() as log:
        for _ in range(16):
            fresh.fill(log, 50)
            log.publish()
        report = fsck(log.reader(), fresh.policy)
        assert fsck(log.reader(), fresh.policy, place=fresh.place, jobs=2) == report
    assert (report.size, report.checkpoints) == (800, 17)
    assert max(held[:5]) <= 256 // 50 + 2


def test_open_intents_are_those_without_an_outcome(fresh):
    with fresh.create() as log:
        done, left = fresh.entry(1), fresh.entry(2)
        for entry in (done, left, outcome(done.act, time_ms=done.time_ms)):
            log.append(entry)
        assert fsck(log.reader(), fresh.policy).intents_open == (left.act.id,)


def ended(ground, *acts, results=("done",)):
    """A log of an intent, many others, and outcomes of it or of what was made of its act."""
    with ground.create() as log:
        begun = ground.entry()
        log.append(begun)
        ground.fill(log, 300 if acts else 0)
        for act in acts or (begun.act,):
            for result in results:
                log.append(outcome(replace(begun.act, **(act if acts else {})), time_ms=begun.time_ms, result=result))
    return log.reader()


@pytest.mark.parametrize(
    "act",
    [
        {"id": "019b7000-0000-7000-8000-000000000000"},
        {"kind": "access.grant"},
        {"principal": "p_" + "b" * 26},
    ],
    ids=["no intent", "of another kind", "of another principal"],
)
def test_an_outcome_that_ends_nothing_is_located(fresh, act):
    """Made by whoever writes the database: the log signs a checkpoint over it as over any other entry."""
    with pytest.raises(LogDamaged) as caught:
        fsck(ended(fresh, act), fresh.policy)
    assert (caught.value.place, caught.value.index) == ("outcome, entry", 301)


@pytest.mark.parametrize("results", [("done", "done"), ("abandoned", "done"), ("failed", "done")])
def test_a_second_outcome_of_an_act_is_located(fresh, results):
    with pytest.raises(LogDamaged) as caught:
        fsck(ended(fresh, results=results), fresh.policy)
    assert (caught.value.place, caught.value.index) == ("outcome, entry", 2)


def test_an_act_of_another_kind_is_not_ended_by_being_abandoned(fresh):
    with pytest.raises(LogDamaged, match=r"found one of kind tune\.run of p_"):
        fsck(ended(fresh, {"kind": "access.grant"}, results=("abandoned",)), fresh.policy)


def test_an_act_that_ended_and_is_found_abandoned_after_a_recovery_is_no_damage(fresh):
    assert fsck(ended(fresh, results=("done", "abandoned")), fresh.policy).intents_open == ()


def test_a_query_index_that_lags_behind_is_no_damage(ground):
    sql(ground, "DELETE FROM ledger_index", "DELETE FROM ledger_subject")
    fsck(ground.reader(), ground.policy)


@pytest.mark.parametrize("index", [0, 17, 255, 256, 290])
@pytest.mark.parametrize("cover", [False, True], ids=["data only", "data and leaf hash"])
def test_a_changed_row_is_located(ground, index, cover):
    sql(ground, "UPDATE ledger_entry SET data = CAST(data || ' ' AS BLOB) WHERE idx = :index", index=index)
    if cover:
        sql(ground, "UPDATE ledger_entry SET leaf_hash = leaf(data) WHERE idx = :index", index=index)
    found(ground, "entry", index)


@pytest.mark.parametrize("index", [0, 17, 255, 256, 299])
def test_a_changed_leaf_hash_is_located(ground, index):
    sql(ground, "UPDATE ledger_entry SET leaf_hash = zeroblob(32) WHERE idx = :index", index=index)
    found(ground, "entry", index)


@pytest.mark.parametrize("index", [0, 17, 255, 256, 299, 301])
def test_a_deleted_row_is_located(ground, index):
    sql(ground, "DELETE FROM ledger_entry WHERE idx = :index", index=index)
    found(ground, "entry", index)


@pytest.mark.parametrize("index", [0, 17, 255, 256, 299])
def test_a_deleted_row_whose_gap_was_closed_is_located(ground, index):
    sql(
        ground,
        "DELETE FROM ledger_entry WHERE idx = :index",
        "UPDATE ledger_entry SET idx = -idx WHERE idx > :index",
        "UPDATE ledger_entry SET idx = -idx - 1 WHERE idx < 0",
        "UPDATE ledger_log SET size = size - 1",
        index=index,
    )
    found(ground, "entry", index)


@pytest.mark.parametrize("index", [0, 17, 255, 256, 299])
def test_an_inserted_row_is_located(ground, index):
    sql(
        ground,
        "UPDATE ledger_entry SET idx = -idx - 1 WHERE idx >= :index",
        "UPDATE ledger_entry SET idx = -idx WHERE idx < 0",
        "INSERT INTO ledger_entry SELECT origin, :index, data, leaf_hash FROM ledger_entry WHERE idx = 302",
        "UPDATE ledger_log SET size = size + 1",
        index=index,
    )
    found(ground, "entry", index)


@pytest.mark.parametrize(("one", "other"), [(3, 4), (17, 200), (255, 256), (256, 299)])
def test_swapped_rows_are_located(ground, one, other):
    sql(
        ground,
        "UPDATE ledger_entry SET idx = -1 WHERE idx = :one",
        "UPDATE ledger_entry SET idx = :one WHERE idx = :other",
        "UPDATE ledger_entry SET idx = :other WHERE idx = -1",
        one=one,
        other=other,
    )
    found(ground, "entry", one)


@pytest.mark.parametrize("index", [-1, SIZE + 4, SIZE + 100])
def test_a_row_outside_the_log_is_found(ground, index):
    statement = "INSERT INTO ledger_entry SELECT origin, :index, data, leaf_hash FROM ledger_entry WHERE idx = 5"
    sql(ground, statement, index=index)
    found(ground, "entry", index)


def test_a_changed_row_behind_the_last_checkpoint_is_found_by_its_leaf_hash(ground):
    sql(ground, "UPDATE ledger_entry SET data = CAST(data || ' ' AS BLOB) WHERE idx = 302")
    found(ground, "entry", 302)


def test_the_same_with_a_new_leaf_hash_is_found_by_the_frontier(ground):
    data = ground.reader().entry(302).replace(b'"number":2}', b'"number":8}')
    sql(ground, "UPDATE ledger_entry SET data = :data, leaf_hash = leaf(:data) WHERE idx = 302", data=data)
    found(ground, "frontier", None)


def test_a_row_behind_the_last_checkpoint_that_is_no_entry_is_located(ground):
    data = ground.reader().entry(302) + b" "
    sql(ground, "UPDATE ledger_entry SET data = :data, leaf_hash = leaf(:data) WHERE idx = 302", data=data)
    assert "expected canonical bytes" in found(ground, "entry", 302).what


def test_a_tail_without_a_checkpoint_can_be_rewritten_unseen(ground):
    """5.9: acknowledged within the last second and in no checkpoint yet; asserted, so that the table stays honest."""
    data = ground.reader().entry(302).replace(b'"number":2}', b'"number":8}')
    sql(ground, "UPDATE ledger_entry SET data = :data, leaf_hash = leaf(:data) WHERE idx = 302", data=data)
    frontier = Frontier().append(leaf_hash(entry) for _, entry in ground.reader().tail())
    sql(ground, "UPDATE ledger_log SET frontier = :frontier", frontier=frontier.to_bytes())
    assert fsck(ground.reader(), ground.policy, anchors=[ground.second.note]).size == SIZE + 4


def cut(ground, size):
    frontier = Frontier().append(leaf_hash(entry) for index, entry in ground.reader().tail() if index < size)
    sql(
        ground,
        "DELETE FROM ledger_entry WHERE idx >= :size",
        "DELETE FROM ledger_index WHERE idx >= :size",
        "UPDATE ledger_log SET size = :size, frontier = :frontier",
        size=size,
        frontier=frontier.to_bytes(),
    )


def test_a_cut_tail_without_a_checkpoint_cannot_be_seen(ground):
    cut(ground, SIZE)
    assert fsck(ground.reader(), ground.policy, anchors=[ground.second.note]).size == SIZE


def test_a_cut_tail_that_was_published_is_found(ground):
    cut(ground, SIZE - 1)
    error = found(ground, "", None, error=LogRolledBack)
    assert "expected 300 entries" in error.what
    assert "entries 299 to 299 were cut off" in error.why


def test_all_checkpoints_removed_with_the_tail_needs_an_anchor(ground):
    cut(ground, SIZE - 1)
    sql(ground, "DELETE FROM ledger_checkpoint")
    ground.blobs.delete("log/checkpoint")
    assert fsck(ground.reader(), ground.policy).conclusion == "self-consistent only"
    found(ground, "", None, error=LogRolledBack, anchors=[ground.second.note])


def test_a_checkpoint_that_was_only_stored_tells_of_a_cut_tail(ground):
    cut(ground, SIZE - 1)
    ground.blobs.delete("log/checkpoint")
    sql(ground, "UPDATE ledger_checkpoint SET published = 0")
    assert "as stored checkpoint 300 says" in found(ground, "", None, error=LogRolledBack).what


def test_the_largest_of_all_checkpoints_says_what_was_cut_off(ground):
    cut(ground, 290)
    assert "expected 300 entries" in found(ground, "", None, error=LogRolledBack, anchors=[ground.first.note]).what


def test_a_stored_checkpoint_of_less_than_no_entries_is_found(ground):
    sql(ground, "UPDATE ledger_checkpoint SET size = -1000 WHERE size = 296")
    found(ground, "stored checkpoint -1000", None)


def test_the_size_alone_changed_is_found(ground):
    sql(ground, "UPDATE ledger_log SET size = size + 1")
    found(ground, "entry", SIZE + 4)
    sql(ground, "UPDATE ledger_log SET size = size - 2")
    found(ground, "frontier", None)


def test_a_changed_frontier_is_found(ground):
    sql(ground, "UPDATE ledger_log SET frontier = zeroblob(length(frontier))")
    found(ground, "frontier", None)


def change(data, position=5):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize(
    ("key", "index"),
    [("log/tile/0/000", 2), ("log/tile/0/001.p/44", 258)],
)
def test_a_changed_tile_is_located(ground, key, index):
    ground.blobs.put(key, change(ground.blobs.get(key), 70), mode=REPLACE)
    found(ground, f"tile {key}, entry", index)


@pytest.mark.parametrize(
    ("key", "index"),
    [("log/tile/entries/000", 0), ("log/tile/entries/001.p/44", 256)],
)
def test_a_changed_bundle_is_located(ground, key, index):
    ground.blobs.put(key, change(ground.blobs.get(key), 40), mode=REPLACE)
    found(ground, f"bundle {key}, entry", index)


def test_a_changed_upper_tile_is_located(ground):
    key = "log/tile/1/000.p/1"
    ground.blobs.put(key, change(ground.blobs.get(key)), mode=REPLACE)
    found(ground, f"tile {key}, hash", 0)


FULL, LEFT = 258, 10  # tiles of 256 entries, and entries behind them: three levels of tiles
ROOTS = [leaf_hash(number.to_bytes(2, "big")) for number in range(FULL)]
ABOVE = {
    (1, 0): ROOTS[:256],
    (1, 1): ROOTS[256:],
    (2, 0): [Frontier().append(ROOTS[:256]).root()],
}


def rise(published, above):
    """Take so many tiles, of which only the roots are known, into the tree of a log with these tiles above them."""
    size = 256 * FULL + LEFT
    checkpoints = SimpleNamespace(
        published=SimpleNamespace(checkpoint=SimpleNamespace(size=published)),
        require_rows=lambda _size: None,
        load=lambda _end: None,
        compare=lambda _frontier: None,
        inside=lambda _rows: [],
    )
    check = _Check(SimpleNamespace(size=size, reader=SimpleNamespace(blobs=None)), checkpoints)
    read, check.hashes = (
        [],
        SimpleNamespace(tile=lambda level, number: read.append((level, number)) or above[level, number]),
    )
    for number, root in enumerate(ROOTS):
        check.tile(CheckedTile(256 * number, 256, root, []))
    check.tile(CheckedTile(256 * FULL, LEFT, b"", ROOTS[:LEFT]))
    check.upper_tiles()
    assert check.frontier.size == size
    return read


def test_tiles_of_every_level_are_compared():
    assert rise(256 * FULL + LEFT, ABOVE) == [(1, 0), (1, 1), (2, 0)]
    assert rise(256 * FULL, ABOVE) == [(1, 0), (1, 1), (2, 0)]
    assert rise(256 * FULL - 1, ABOVE | {(1, 1): ROOTS[256:257]}) == [(1, 0), (1, 1), (2, 0)]
    assert rise(256 * 256 - 1, {(1, 0): ROOTS[:255]}) == [(1, 0)]
    assert rise(255, {}) == []


@pytest.mark.parametrize(
    ("tile", "offset", "place"),
    [
        ((1, 0), 255, "tile log/tile/1/000, hash"),
        ((1, 1), 1, r"tile log/tile/1/001\.p/2, hash"),
        ((2, 0), 0, r"tile log/tile/2/000\.p/1, hash"),
    ],
)
def test_a_changed_hash_of_any_level_is_located(tile, offset, place):
    hashes = list(ABOVE[tile])
    hashes[offset] = bytes(32)
    with pytest.raises(LogDamaged) as caught:
        rise(256 * FULL + LEFT, ABOVE | {tile: hashes})
    assert re.fullmatch(place, caught.value.place)
    assert caught.value.index == offset


KEYS = [
    "log/tile/0/000",
    "log/tile/0/001.p/44",
    "log/tile/entries/000",
    "log/tile/entries/001.p/44",
    "log/tile/1/000.p/1",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "how",
    [lambda d: d[:-1], lambda d: d + d[-32:], lambda d: d[:0], lambda d: d + b"\0"],
    ids=["truncated", "grown by 32", "emptied", "grown by 1"],
)
def test_a_tile_or_bundle_of_another_length_is_named(ground, key, how):
    ground.blobs.put(key, how(ground.blobs.get(key)), mode=REPLACE)
    found(ground, rf"(tile|bundle) {key}", None)


@pytest.mark.parametrize("key", KEYS)
def test_a_deleted_tile_or_bundle_is_named(ground, key):
    ground.blobs.delete(key)
    found(ground, rf"(tile|bundle) {key}", None)


def test_swapped_entries_of_a_bundle_are_located(ground):
    entries = [entry for _, entry in ground.reader().tail(0, 256)]
    entries[3], entries[9] = entries[9], entries[3]
    ground.blobs.put("log/tile/entries/000", encode_bundle(entries), mode=REPLACE)
    found(ground, "bundle log/tile/entries/000, entry", 3)


def rewrite_everything(ground, index):
    """Change one entry in row, index, bundle, tiles and frontier alike: all that needs no key."""
    reader = ground.reader()
    data = reader.entry(index).replace(b'"tune.run"', b'"tune.fun"')
    entries = [data if i == index else entry for i, entry in reader.tail()]
    frontier = Frontier().append(map(leaf_hash, entries))
    sql(
        ground,
        "UPDATE ledger_entry SET data = :data, leaf_hash = leaf(:data) WHERE idx = :index",
        "UPDATE ledger_log SET frontier = :frontier",
        "DELETE FROM ledger_index",
        data=data,
        index=index,
        frontier=frontier.to_bytes(),
    )
    shutil.rmtree(ground.folder / "blobs" / "log" / "tile")
    integrate(ground.blobs, iter([(entry, leaf_hash(entry)) for entry in entries[:SIZE]]), 0, SIZE)
    return Checkpoint(reader.origin, SIZE, Frontier().append(map(leaf_hash, entries[:SIZE])).root()), entries


@pytest.mark.parametrize(("index", "size"), [(17, 296), (298, 300)])
def test_a_history_rewritten_without_the_key_is_found_between_two_checkpoints(ground, index, size):
    rewrite_everything(ground, index)
    error = found(ground, rf"entries before {size}, against .*", None)
    assert "root" in error.what


def test_a_history_rewritten_with_the_key_needs_an_anchor(ground):
    forged, _ = rewrite_everything(ground, 17)
    note = sign_checkpoint(forged, NoteSigner(forged.origin, ground.key)).note
    ground.blobs.put("log/checkpoint", note, mode=REPLACE)
    sql(
        ground,
        "DELETE FROM ledger_checkpoint WHERE size < 300",
        "UPDATE ledger_checkpoint SET root = :root, note = :note",
        root=forged.root,
        note=note,
    )
    assert fsck(ground.reader(), ground.policy).conclusion == "self-consistent only"
    found(ground, "entries before 296, against anchor 0", None, anchors=[ground.first.note])
    found(ground, "entries before 300, against anchor 0", None, anchors=[ground.second.note])


def test_a_checkpoint_signed_with_another_key_is_refused(ground):
    other = NoteSigner(ground.second.checkpoint.origin, SigningKey.from_seed(bytes(32)))
    ground.blobs.put("log/checkpoint", sign_checkpoint(ground.second.checkpoint, other).note, mode=REPLACE)
    found(ground, "", None, error=VerificationError)


@pytest.mark.parametrize("position", range(0, 180, 7))
def test_a_changed_checkpoint_is_refused(ground, position):
    ground.blobs.put("log/checkpoint", change(ground.second.note, position), mode=REPLACE)
    found(ground, "", None, error=VerificationError)


def test_an_older_checkpoint_put_back_is_a_stale_view_and_not_damage(ground):
    """5.9, checkpoint withheld: only the age of a cosignature shows it; the log itself is whole."""
    ground.blobs.put("log/checkpoint", ground.first.note, mode=REPLACE)
    ground.blobs.put("log/tile/0/001.p/40", ground.blobs.get("log/tile/0/001.p/44")[: 40 * 32], mode=REPLACE)
    assert fsck(ground.reader(), ground.policy).published == 296


def test_a_deleted_published_checkpoint_is_found(ground):
    ground.blobs.delete("log/checkpoint")
    found(ground, "log/checkpoint", None)


def test_a_stored_checkpoint_whose_columns_lie_is_found(ground):
    sql(ground, "UPDATE ledger_checkpoint SET root = zeroblob(32) WHERE size = 296")
    found(ground, "stored checkpoint 296", None)


def test_a_deleted_stored_checkpoint_is_no_damage(ground):
    sql(ground, "DELETE FROM ledger_checkpoint WHERE size = 296")
    assert fsck(ground.reader(), ground.policy).checkpoints == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_opening SET value = '\"Bob\"'",
        "UPDATE ledger_opening SET salt = zeroblob(32)",
        "UPDATE ledger_opening SET salt = zeroblob(31)",
        "UPDATE ledger_opening SET field = 'actor.user.email_addr'",
        "UPDATE ledger_opening SET value = 'Bob'",
        "UPDATE ledger_opening SET commitment = replace(commitment, substr(commitment, 1, 8), '00000000')",
    ],
)
def test_a_changed_opening_is_found(ground, statement):
    sql(ground, statement)
    error = found(ground, "opening .*", None)
    assert "Alice" not in error.what + error.why
    assert "Bob" not in error.what + error.why


def test_a_deleted_opening_is_erasure_and_no_damage(ground):
    sql(ground, "DELETE FROM ledger_opening")
    assert fsck(ground.reader(), ground.policy).openings == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_index SET principal = 'p_" + "b" * 26 + "' WHERE idx = 17",
        "UPDATE ledger_index SET subjects = '[]' WHERE idx = 17",
        "DELETE FROM ledger_index WHERE idx = 17",
        "INSERT INTO ledger_subject SELECT origin, 17, 'sha256:" + "0" * 64 + "' FROM ledger_log",
    ],
)
def test_a_changed_query_index_is_located(ground, statement):
    sql(ground, statement)
    found(ground, "query index, entry", 17)


def test_a_changed_query_index_is_found_though_its_end_is_missing(ground):
    sql(ground, "DELETE FROM ledger_index WHERE idx > 270", "UPDATE ledger_index SET kind = 'x.y' WHERE idx = 269")
    found(ground, "query index, entry", 269)


def test_an_entry_of_another_log_is_located(ground):
    other = type(ground)(ground.folder / "other")
    foreign = Ledger.create(
        other.tables, other.blobs, origin="example.com/other", signer=ground.key, params=other.params
    )
    foreign.append(ground.entry())
    data = foreign.reader().entry(0)
    foreign.close()
    other.tables.close()
    frontier = Frontier().append(leaf_hash(entry) for _, entry in ground.reader().tail()).append([leaf_hash(data)])
    sql(
        ground,
        "INSERT INTO ledger_entry VALUES (:origin, :index, :data, leaf(:data))",
        "UPDATE ledger_log SET size = size + 1, frontier = :frontier",
        origin=ground.reader().origin,
        index=SIZE + 4,
        data=data,
        frontier=frontier.to_bytes(),
    )
    found(ground, "entry", SIZE + 4)


def test_an_anchor_of_another_log_is_refused(ground):
    signer = NoteSigner("example.com/other", SigningKey.from_seed(bytes(32)))
    leaves = [leaf_hash(entry) for _, entry in ground.reader().tail(0, 3)]
    foreign = sign_checkpoint(Checkpoint("example.com/other", 3, Frontier().append(leaves).root()), signer)
    policy = dataclasses.replace(ground.policy, logs=(*ground.policy.logs, signer.verifier))
    with pytest.raises(LogDamaged, match=r"anchor 0: expected log .*, found log example\.com/other"):
        fsck(ground.reader(), policy, anchors=[foreign.note])


def test_a_log_that_is_not_there_is_not_found(fresh):
    with pytest.raises(NotFound):
        fsck(fresh.reader(), fresh.policy)


# What witnesses, anchors and principals add


def test_two_processes_find_the_same(ground):
    report = fsck(ground.reader(), ground.policy, anchors=[ground.first.note])
    assert fsck(ground.reader(), ground.policy, anchors=[ground.first.note], place=ground.place, jobs=2) == report
    sql(ground, "UPDATE ledger_entry SET data = CAST(data || ' ' AS BLOB) WHERE idx = 290")
    found(ground, "entry", 290, place=ground.place, jobs=2)


def test_an_opening_that_no_entry_commits_to_is_found(ground):
    stray = Opening("actor.user.name", bytes(32), "Mallory")
    sql(
        ground,
        "INSERT INTO ledger_opening (commitment, field, salt, value, principal) VALUES (:c, :f, :s, :v, 'p')",
        c=stray.commitment,
        f=stray.field,
        s=stray.salt,
        v=stray.value_json,
    )
    found(ground, "opening .*", None)


WITNESS = Cosigner("w.example", SigningKey.from_seed(b"w" * 32))


@pytest.fixture
def watched(ground):
    """The log, whose second checkpoint a witness cosigned, in the table and in the published note."""
    text = ground.second.checkpoint.text()
    line = WITNESS.cosign(text, 1_767_225_600)
    sql(
        ground,
        "INSERT INTO ledger_cosignature VALUES (:o, 300, :n, :k, :l, 1767225600)",
        o=ground.reader().origin,
        n=WITNESS.name,
        k=WITNESS.verifier.key_id.hex(),
        l=line,
    )
    ground.blobs.put("log/checkpoint", ground.second.note + line.encode(), mode=REPLACE)
    ground.line = line
    ground.trust = TrustPolicy.of([ground.policy.logs[0].vkey], [Witness("w", WITNESS.verifier)])
    return ground


def refused(ground, error, place="", **options):
    with pytest.raises(error) as caught:
        fsck(ground.reader(), ground.trust, **options)
    if error is LogDamaged:
        assert re.fullmatch(place, caught.value.place), caught.value.place


def test_a_cosigned_log_is_consistent_with_its_witnesses(watched):
    report = fsck(watched.reader(), watched.trust)
    assert (report.witnesses, report.quorum, report.cosignatures) == (("w",), "met", 1)
    assert report.conclusion == "consistent with its witnesses"
    assert fsck(watched.reader(), watched.policy).conclusion == "self-consistent only"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_cosignature SET line = replace(line, substr(line, 60, 4), 'AAAA')",
        "UPDATE ledger_cosignature SET line = ''",
        "UPDATE ledger_cosignature SET line = line || line",
        "UPDATE ledger_cosignature SET line = 'x' || char(10) || line",
        "UPDATE ledger_cosignature SET time_s = time_s + 1",
        "UPDATE ledger_cosignature SET key_id = '00000000'",
        "UPDATE ledger_cosignature SET key_name = 'v.example'",
        "UPDATE ledger_cosignature SET size = 296",
    ],
)
def test_a_changed_cosignature_is_found(watched, statement):
    sql(watched, statement)
    refused(watched, LogDamaged, "cosignature of .*")


def test_a_deleted_row_of_a_cosignature_is_no_damage_while_it_is_published(watched):
    sql(watched, "DELETE FROM ledger_cosignature")
    assert fsck(watched.reader(), watched.trust).witnesses == ("w",)


def test_a_published_checkpoint_without_its_cosignature_lacks_the_quorum(watched):
    watched.blobs.put("log/checkpoint", watched.second.note, mode=REPLACE)
    refused(watched, QuorumUnmet)


def test_a_published_cosignature_that_was_changed_is_refused(watched):
    line = watched.line.encode()
    changed = line[:60] + (b"A" if line[60:61] != b"A" else b"B") + line[61:]
    watched.blobs.put("log/checkpoint", watched.second.note + changed, mode=REPLACE)
    refused(watched, NoTrustedSignature)


def test_a_cosignature_of_an_older_checkpoint_is_refused(watched):
    line = WITNESS.cosign(watched.first.checkpoint.text(), 1_767_225_600).encode()
    watched.blobs.put("log/checkpoint", watched.second.note + line, mode=REPLACE)
    refused(watched, NoTrustedSignature)


def test_a_history_rewritten_with_the_logs_key_lacks_the_witness(watched):
    """5.9: without the witness this is the cell that says `self-consistent only`."""
    forged, _ = rewrite_everything(watched, 17)
    note = sign_checkpoint(forged, NoteSigner(forged.origin, watched.key)).note
    sql(watched, "DELETE FROM ledger_checkpoint", "DELETE FROM ledger_cosignature")
    watched.blobs.put("log/checkpoint", note, mode=REPLACE)
    assert fsck(watched.reader(), watched.policy).conclusion == "self-consistent only"
    refused(watched, QuorumUnmet)
    watched.blobs.put("log/checkpoint", note + watched.line.encode(), mode=REPLACE)
    refused(watched, NoTrustedSignature)
    watched.blobs.put("log/checkpoint", note, mode=REPLACE)
    kept = watched.second.note + watched.line.encode()
    refused(watched, LogDamaged, "entries before 300, against anchor 0", anchors=[kept])


def test_with_the_log_key_and_the_witness_in_one_hand_a_rewritten_history_cannot_be_seen(watched):
    """5.9: log key plus k witnesses; asserted, so that the table stays honest."""
    forged, _ = rewrite_everything(watched, 17)
    note = sign_checkpoint(forged, NoteSigner(forged.origin, watched.key)).note
    sql(watched, "DELETE FROM ledger_checkpoint", "DELETE FROM ledger_cosignature")
    watched.blobs.put("log/checkpoint", note + WITNESS.cosign(forged.text(), 5).encode(), mode=REPLACE)
    assert fsck(watched.reader(), watched.trust).quorum == "met"


def anchor_row(ground, note, size):
    sql(
        ground,
        "INSERT INTO ledger_anchor VALUES (:o, 'file:/mnt/a', :s, :p, 0)",
        o=ground.reader().origin,
        s=size,
        p=note,
    )


def test_what_the_table_of_anchors_remembers_is_compared(ground):
    anchor_row(ground, ground.first.note, 296)
    assert fsck(ground.reader(), ground.policy).checkpoints == 4
    rewrite_everything(ground, 17)
    sql(ground, "DELETE FROM ledger_checkpoint")
    ground.blobs.delete("log/checkpoint")
    found(ground, "entries before 296, against anchor row .*", None)


@pytest.mark.parametrize("position", [5, 25, 60, 150])
def test_a_changed_row_of_an_anchor_is_refused(ground, position):
    anchor_row(ground, change(ground.first.note, position), 296)
    found(ground, "", None, error=VerificationError)


# Signatures of acts

PERSON_KEY = SigningKey.from_seed(b"p" * 32)
PERSON = "p_" + "q" * 26


def register(ground, public=PERSON_KEY.public):
    """Register a person with a key, under the id of that person's own."""
    with ground.tables.write() as connection:
        connection.execute(
            schema.principal.insert().values(id=PERSON, kind="user", clearance=0, suspended=0, created_ms=0)
        )
        connection.execute(schema.credential.insert().values(
            id=PERSON_KEY.key_id, principal=PERSON, kind="local", public=public.raw, not_before_ms=0
        ))  # fmt: skip


def signed_log(ground, *, sign=True, key=PERSON_KEY, principal=PERSON):
    """A log with one intent of a person whose key is registered."""
    register(ground)
    entry = ground.entry()
    act = replace(entry.act, principal=principal, credential=Credential(kind="local", key_id=key.key_id))
    entry = replace(entry, act=act)
    with ground.create() as log:
        log.append(sign_act(entry, log.origin, key) if sign else entry)
    return log.reader()


def test_an_act_that_its_principal_signed_is_counted(fresh):
    assert fsck(signed_log(fresh), fresh.policy).signed_acts == 1


@pytest.mark.parametrize(
    "forgery",
    [
        {"sign": False},
        {"key": SigningKey.from_seed(b"m" * 32)},
        {"principal": "p_" + "r" * 26},
    ],
    ids=["not signed", "a key that is not registered", "another person"],
)
def test_a_forged_act_of_a_person_with_an_own_key_is_located(fresh, forgery):
    """Made by whoever holds the log's key: tree, tiles and checkpoint all fit."""
    reader = signed_log(fresh, **forgery)
    with pytest.raises(LogDamaged) as caught:
        fsck(reader, fresh.policy)
    assert (caught.value.place, caught.value.index) == ("act signature, entry", 0)


def test_a_registered_key_that_was_exchanged_is_located(fresh):
    reader = signed_log(fresh)
    for public in (SigningKey.from_seed(b"m" * 32).public.raw, b"short"):
        sql(fresh, "UPDATE credential SET public = :p", p=public)
        with pytest.raises(LogDamaged, match="act signature"):
            fsck(reader, fresh.policy)


def test_an_act_signed_with_the_key_that_took_the_registered_ones_place_is_located(fresh):
    """Made by whoever holds the log's key and writes the database: the signature fits the key that stands there."""
    theirs = SigningKey.from_seed(b"m" * 32)
    register(fresh, theirs.public)
    act = replace(fresh.entry().act, principal=PERSON, credential=Credential(kind="local", key_id=theirs.key_id))
    signed = sign_act(replace(fresh.entry(), act=act), fresh.reader().origin, theirs)
    named = replace(signed.act, credential=replace(signed.act.credential, key_id=PERSON_KEY.key_id))
    with fresh.create() as log:
        log.append(replace(signed, act=named))
    with pytest.raises(LogDamaged, match=f"the registered key is not {PERSON_KEY.key_id}"):
        fsck(fresh.reader(), fresh.policy)


def test_an_act_signed_with_a_key_that_was_replaced_before_is_located(fresh):
    """A minute is for acts that were decided while the key was replaced."""
    reader, replaced = signed_log(fresh), "UPDATE credential SET revoked_ms = :t"
    begun_ms = read_event(reader.entry(0)).time
    sql(fresh, replaced, t=begun_ms - 60_000)
    assert fsck(reader, fresh.policy).signed_acts == 1
    sql(fresh, replaced, t=begun_ms - 60_001)
    with pytest.raises(LogDamaged, match="was replaced before") as caught:
        fsck(reader, fresh.policy)
    assert (caught.value.place, caught.value.index) == ("act signature, entry", 0)


@pytest.mark.parametrize("kind", ["browser", "api-key", "oidc", "mtls"])
def test_a_forged_act_that_says_it_came_without_an_own_key_cannot_be_seen(fresh, kind):
    """Asserted, so that the table stays honest: nothing that only the log's owner holds goes into such an intent."""
    entry = fresh.entry()
    act = replace(entry.act, credential=Credential(kind=kind, key_id="bs_0123456789abcdef0123"))
    with fresh.create() as log:
        log.append(replace(entry, act=act))
        log.append(outcome(act, time_ms=entry.time_ms))
    assert fsck(log.reader(), fresh.policy).signed_acts == 0


def test_a_signed_intent_that_is_appended_once_more_cannot_be_seen(fresh):
    """Asserted, so that the table stays honest; what of it is about rights doctor finds."""
    reader = signed_log(fresh)
    data = reader.entry(0)
    grown = Frontier().append([leaf_hash(data)] * 2)
    sql(
        fresh,
        "INSERT INTO ledger_entry VALUES (:origin, 1, :data, leaf(:data))",
        "UPDATE ledger_log SET size = 2, frontier = :frontier",
        origin=reader.origin,
        data=data,
        frontier=grown.to_bytes(),
    )
    assert fsck(reader, fresh.policy).signed_acts == 2
