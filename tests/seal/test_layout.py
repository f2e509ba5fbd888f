import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.crypto.stanza import WrapContext
from stanch.errors import DecryptionFailed, InvalidInput
from stanch.seal.keys import ReleaseRoot, stream_aad
from stanch.seal.layout import (
    PLAIN,
    SEGMENT,
    STREAM_PLAIN,
    count_segments,
    cover,
    cut,
    cut_safetensors,
    list_segments,
    segment_at,
    stored_size,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "vectors" / "seal" / "golden.json").read_text())
EDGES = [0, 1, PLAIN - 1, PLAIN, PLAIN + 1, 5 * PLAIN, STREAM_PLAIN - 1, STREAM_PLAIN, STREAM_PLAIN + 1]
SIZES = st.one_of(st.integers(0, 3 * STREAM_PLAIN), st.sampled_from(EDGES))


def test_golden_keys():
    keys = {name: bytes.fromhex(value) for name, value in GOLDEN["keys"].items()}
    root = ReleaseRoot(keys["root"], keys["bundle_id"])
    assert root.commitment() == keys["commitment"]
    assert root.stream_key(0) == keys["stream_0"]
    assert root.stream_key(1) == keys["stream_1"]
    assert stream_aad(keys["bundle_id"], 1, 1_048_545) == keys["aad_1_body_1048545"]
    assert stream_aad(keys["bundle_id"], 0, 1_048_545) != keys["aad_1_body_1048545"]
    root.check(keys["commitment"])
    with pytest.raises(DecryptionFailed):
        root.check(bytes(32))


def test_a_wiped_root_gives_nothing():
    root = ReleaseRoot(bytes(range(32)), bytes(32))
    root.wipe()
    assert root._root == bytearray(32)
    for use in (root.reveal, root.commitment, lambda: root.stream_key(0)):
        with pytest.raises(InvalidInput):
            use()


def test_the_root_is_not_printed():
    assert repr(ReleaseRoot(bytes(range(32)), bytes(32))) == "ReleaseRoot(bundle_id=0000000000000000…)"
    for wrong in ((31, 32), (32, 33)):
        with pytest.raises(InvalidInput):
            ReleaseRoot(*map(bytes, wrong))


def test_golden_wrap_context():
    from stanch.crypto import sha256  # noqa: PLC0415 - only this vector needs it

    vector = GOLDEN["info"]
    context = WrapContext(bytes.fromhex(vector["bundle_id"]), sha256(vector["manifest"].encode()), vector["not_after"])
    info = context.info(vector["type"], vector["key_id"])
    assert len(info) == vector["length"]
    assert sha256(info).hex() == vector["sha256"]


@pytest.mark.parametrize(("size", "segments", "stored"), GOLDEN["stored_sizes"])
def test_golden_sizes(size, segments, stored):
    assert (count_segments(size), stored_size(size)) == (segments, stored)


@given(st.one_of(st.integers(0, 300 * PLAIN), st.sampled_from(EDGES)))
def test_segments_fill_the_stored_stream_exactly(size):
    segments = list(list_segments(0, size)) if size < 40 * PLAIN else [segment_at(0, size, count_segments(size) - 1)]
    assert segments[-1].offset + segments[-1].length == stored_size(size)
    assert [segment.final for segment in segments] == [False] * (len(segments) - 1) + [True]
    assert all(segment.length == SEGMENT for segment in segments[:-1])
    assert 32 <= segments[-1].length <= SEGMENT
    assert segments[-1].plain > 0 or size == 0
    if len(segments) == count_segments(size):
        assert sum(segment.plain for segment in segments) == size


@given(SIZES)
def test_cutting_loses_nothing(size):
    sizes = cut(size)
    assert sum(sizes) == size
    assert all(part == STREAM_PLAIN for part in sizes[:-1])
    assert 0 < sizes[-1] <= STREAM_PLAIN or size == 0
    assert cut_safetensors(size + 9, 9) == ((9, *sizes) if size else (9,))


@given(st.lists(st.integers(0, 3 * PLAIN), min_size=1, max_size=6), st.data())
def test_cover_is_the_least_that_holds_the_range(sizes, data):
    total = sum(sizes)
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total))
    placed = list(cover(list(enumerate(sizes)), start, stop))
    bases = [sum(sizes[:n]) for n in range(len(sizes))]
    wanted = [
        (segment, bases[n] + segment.position * PLAIN)
        for n, size in enumerate(sizes)
        for segment in list_segments(n, size)
        if not size
        or max(start, bases[n] + segment.position * PLAIN)
        < min(stop, bases[n] + segment.position * PLAIN + segment.plain)
    ]
    assert placed == wanted


@pytest.mark.parametrize(
    ("start", "stop", "positions"),
    [(0, 1, [0]), (0, PLAIN, [0]), (PLAIN - 1, PLAIN + 1, [0, 1]), (PLAIN, PLAIN + 1, [1]), (PLAIN, 3 * PLAIN, [1, 2]),
     (5, 5, [])],
)  # fmt: skip
def test_a_range_is_covered_to_the_byte(start, stop, positions):
    streams = [(4, 1), (7, 3 * PLAIN)]
    placed = [(segment.stream, segment.position, offset) for segment, offset in cover(streams, 1 + start, 1 + stop)]
    assert placed == [(7, position, 1 + position * PLAIN) for position in positions]
    assert [segment.stream for segment, _ in cover(streams, 0, 1)] == [4]


def test_one_small_tensor_needs_at_most_two_segments():
    streams = [(n, STREAM_PLAIN) for n in range(4)]
    for start in (0, PLAIN - 10, 7 * PLAIN, STREAM_PLAIN - 5, 2 * STREAM_PLAIN + 3):
        assert len(list(cover(streams, start, start + 100))) <= 2
