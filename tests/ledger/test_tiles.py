"""Tile names, widths, bundles; and that tiles rebuild the tree for every way of growing it."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.crypto import Frontier, leaf_hash, merkle_root
from stanch.errors import NotFound, Tampered, TileConflict
from stanch.ledger.hashes import TileHashes
from stanch.ledger.integrate import integrate
from stanch.ledger.proof import frontier_at
from stanch.ledger.tiles import (
    CHECKPOINT_KEY,
    decode_bundle,
    decode_tile,
    encode_bundle,
    level_size,
    tile_key,
    tile_width,
)
from stanch.store import REPLACE, FileBlobs

ENTRIES = [number.to_bytes(3, "big") * (1 + number % 5) for number in range(1400)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]


def grow(blobs, old, new):
    start = old - old % 256
    integrate(blobs, iter(list(zip(ENTRIES, LEAVES, strict=True))[start:new]), old, new)


def test_golden_keys(load):
    for case in load("ledger/tiles.json")["keys"]:
        assert tile_key(case["level"], case["number"], case["width"]) == case["key"]
    assert CHECKPOINT_KEY == "log/checkpoint"


def test_golden_layouts(load):
    for case in load("ledger/tiles.json")["sizes"]:
        levels = []
        for level in itertools.count():
            hashes = level_size(case["size"], level)
            if not hashes:
                break
            full = sum(tile_width(case["size"], level, number) == 256 for number in range(hashes // 256 + 1))
            levels.append({"full": full, "partial": tile_width(case["size"], level, full)})
        assert levels == case["levels"]


def test_golden_bundle_prefix(load):
    golden = load("ledger/entry.json")
    bundle = encode_bundle([golden["entry"].encode()])
    assert bundle[:2].hex() == golden["bundle_prefix"]
    assert decode_bundle(bundle, 1, what="bundle") == [golden["entry"].encode()]


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_bundles_round_trip(entries):
    assert decode_bundle(encode_bundle(entries), len(entries), what="bundle") == entries


@pytest.mark.parametrize("count", [1, 3])
def test_a_bundle_of_another_count_is_refused(count):
    with pytest.raises(Tampered):
        decode_bundle(encode_bundle([b"a", b"bc"]), count, what="bundle")


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_cut_bundle_is_refused(cut):
    with pytest.raises(Tampered):
        decode_bundle(encode_bundle([b"a", b"bc"])[:-cut], 2, what="bundle")


@pytest.mark.parametrize("length", [0, 31, 33, 96])
def test_a_tile_of_another_length_is_refused(length):
    with pytest.raises(Tampered):
        decode_tile(bytes(length), 2, what="tile")


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, len(ENTRIES)), min_size=1, max_size=6, unique=True).map(sorted))
def test_tiles_rebuild_every_tree_however_it_grew(tmp_path_factory, sizes):
    blobs = FileBlobs(tmp_path_factory.mktemp("blobs"))
    for old, new in itertools.pairwise([0, *sizes]):
        grow(blobs, old, new)
    last = sizes[-1]
    hashes = TileHashes(blobs, last)
    assert frontier_at(last, hashes.subtree) == Frontier().append(LEAVES[:last])
    kept = [entry for number in range(-(-last // 256)) for entry in hashes.bundle(number)]
    assert kept == ENTRIES[:last]
    # A smaller size is still served: from what is full by now, if its own partial tiles are gone.
    for size in sizes[:-1]:
        assert frontier_at(size, TileHashes(blobs, size).subtree) == Frontier().append(LEAVES[:size])


def test_third_level_tiles_are_built_from_full_ones(tmp_path):
    blobs = FileBlobs(tmp_path)
    size = 65_536 + 300
    entries = [number.to_bytes(3, "big") for number in range(size)]
    leaves = [leaf_hash(entry) for entry in entries]
    rows = list(zip(entries, leaves, strict=True))
    integrate(blobs, iter(rows[:65_000]), 0, 65_000)
    integrate(blobs, iter(rows[65_000 - 65_000 % 256 :]), 65_000, size)
    first = b"".join(merkle_root(leaves[at : at + 256]) for at in range(0, 65_536, 256))
    assert (blobs.get("log/tile/1/000"), blobs.get("log/tile/2/000.p/1")) == (first, merkle_root(leaves[:65_536]))
    assert frontier_at(size, TileHashes(blobs, size).subtree) == Frontier().append(leaves)


def test_partial_tiles_go_once_the_full_one_stands(tmp_path):
    blobs = FileBlobs(tmp_path)
    for old, new in itertools.pairwise([0, 1, 5, 255, 300]):
        grow(blobs, old, new)
    assert [info.key for info in blobs.list("log/tile/0/")] == ["log/tile/0/000", "log/tile/0/001.p/44"]
    assert [info.key for info in blobs.list("log/tile/entries/")] == [
        "log/tile/entries/000",
        "log/tile/entries/001.p/44",
    ]


def test_a_bundle_that_became_full_still_serves_a_smaller_size(tmp_path):
    blobs = FileBlobs(tmp_path)
    for old, new in itertools.pairwise([0, 5, 300]):
        grow(blobs, old, new)
    assert TileHashes(blobs, 5).bundle(0) == ENTRIES[:5]
    assert TileHashes(blobs, 300).bundle(1) == ENTRIES[256:300]


@pytest.mark.parametrize(("key", "read"), [("log/tile/entries/000", "bundle"), ("log/tile/0/000", "tile")])
def test_a_damaged_tile_is_named(tmp_path, key, read):
    blobs = FileBlobs(tmp_path)
    grow(blobs, 0, 300)
    blobs.put(key, b"short", mode=REPLACE)
    hashes = TileHashes(blobs, 300)
    with pytest.raises(Tampered, match=f"^{key}: expected"):
        hashes.bundle(0) if read == "bundle" else hashes.tile(0, 0)


def test_writing_the_same_again_is_allowed_and_another_history_is_not(tmp_path):
    blobs = FileBlobs(tmp_path)
    grow(blobs, 0, 300)
    grow(blobs, 0, 300)
    blobs.put("log/tile/0/000", bytes(8192), mode=REPLACE)
    with pytest.raises(TileConflict):
        grow(blobs, 0, 300)


def test_a_missing_full_tile_is_named(tmp_path):
    blobs = FileBlobs(tmp_path)
    grow(blobs, 0, 300)
    blobs.delete("log/tile/0/000")
    with pytest.raises(NotFound, match="log/tile/0/000"):
        TileHashes(blobs, 300).tile(0, 0)


def test_a_tile_beyond_the_size_does_not_exist(tmp_path):
    with pytest.raises(Tampered):
        TileHashes(FileBlobs(tmp_path), 10).tile(0, 1)
