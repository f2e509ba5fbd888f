"""What blob stores promise, on files and on S3 alike; a web server keeps the reading half."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from stanch.errors import Conflict, InvalidInput, NotFound
from stanch.store import CREATE, REPLACE, Match, check_key


@pytest.fixture
def blobs(any_blobs):
    return any_blobs


def keys(blobs):
    return [info.key for info in blobs.list()]


def test_create_puts_whole_bytes_once(blobs):
    info = blobs.put("log/tile/0/000", b"data", mode=CREATE)
    assert (info.key, info.size) == ("log/tile/0/000", 4)
    assert blobs.get("log/tile/0/000") == b"data"
    assert blobs.head("log/tile/0/000") == info
    with pytest.raises(Conflict):
        blobs.put("log/tile/0/000", b"other", mode=CREATE)
    assert blobs.get("log/tile/0/000") == b"data"
    assert keys(blobs) == ["log/tile/0/000"]


DATA = [bytes, bytearray, memoryview, lambda data: [data[:1], bytearray(data[1:])], lambda data: iter([data])]


@pytest.mark.parametrize("form", DATA)
@pytest.mark.parametrize("mode", [CREATE, REPLACE])
def test_any_buffer_or_stream_is_stored(blobs, form, mode):
    assert blobs.put("k", form(b"abc"), mode=mode).size == 3
    assert blobs.get("k") == b"abc"


def test_replace_makes_or_replaces(blobs):
    blobs.put("k", b"one", mode=REPLACE)
    blobs.put("k", b"two", mode=REPLACE)
    assert blobs.get("k") == b"two"


def test_match_replaces_only_the_expected_content(blobs):
    first = blobs.put("k", b"one", mode=CREATE)
    second = blobs.put("k", b"two", mode=Match(first.etag))
    with pytest.raises(Conflict):
        blobs.put("k", b"three", mode=Match(first.etag))
    assert blobs.get("k") == b"two"
    blobs.put("k", b"three", mode=Match(second.etag))
    assert keys(blobs) == ["k"]


def test_match_of_nothing_is_a_conflict(blobs):
    with pytest.raises(Conflict):
        blobs.put("k", b"one", mode=Match("0" * 64))
    assert keys(blobs) == []


def test_many_creators_have_one_winner(blobs):
    def put(number):
        try:
            return blobs.put("k", bytes([number]), mode=CREATE).etag
        except Conflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        winners = [etag for etag in pool.map(put, range(64)) if etag]
    assert winners == [blobs.head("k").etag]


def test_many_matchers_lose_no_update(blobs):
    blobs.put("k", b"0", mode=CREATE)

    def increment(_):
        while True:
            info = blobs.head("k")
            value = int(blobs.get("k"))
            try:
                return blobs.put("k", str(value + 1).encode(), mode=Match(info.etag))
            except Conflict:
                continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(increment, range(40)))
    assert blobs.get("k") == b"40"


def test_ranges_are_those_of_bytes(blobs):
    data = b"0123456789"
    blobs.put("k", data, mode=CREATE)
    blobs.put("empty", b"", mode=CREATE)
    for length in (None, *range(13)):
        for start in range(13):
            assert blobs.get("k", start=start, length=length) == data[start:][:length]
        assert blobs.get("empty", start=0, length=length) == b""
    with pytest.raises(NotFound):
        blobs.get("missing", start=3, length=0)


def test_megabytes_are_stored_as_they_are(blobs):
    data = random.Random(1).randbytes(9 << 20)
    blobs.put("k", [data[:1000], data[1000:]], mode=CREATE)
    assert blobs.get("k") == data
    assert blobs.get("k", start=5 << 20, length=70) == data[5 << 20 :][:70]
    with pytest.raises(Conflict):
        blobs.put("k", data, mode=CREATE)


@pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1)])
def test_negative_ranges_are_refused(blobs, start, length):
    blobs.put("k", b"x", mode=CREATE)
    with pytest.raises(InvalidInput):
        blobs.get("k", start=start, length=length)


def test_list_is_sorted_and_by_prefix(blobs):
    for key in ("b", "a/2", "a/10", "a/b/c", "ab", "a-b"):
        blobs.put(key, b"x", mode=CREATE)
    assert [info.key for info in blobs.list()] == ["a-b", "a/10", "a/2", "a/b/c", "ab", "b"]
    assert [info.key for info in blobs.list("a")] == ["a-b", "a/10", "a/2", "a/b/c", "ab"]
    assert list(blobs.list("a/2")) == [blobs.head("a/2")]
    assert [info.key for info in blobs.list("a/")] == ["a/10", "a/2", "a/b/c"]
    assert [info.key for info in blobs.list("a/1")] == ["a/10"]
    assert list(blobs.list("missing/")) == []


@pytest.mark.parametrize("prefix", ["../", "/etc/", "a/../../"])
def test_list_stays_inside(blobs, prefix):
    with pytest.raises(InvalidInput):
        list(blobs.list(prefix))


def test_delete_removes_and_names_what_is_missing(blobs):
    blobs.put("a/k", b"x", mode=CREATE)
    blobs.delete("a/k")
    for call in (blobs.delete, blobs.get, blobs.head):
        with pytest.raises(NotFound, match="a/k"):
            call("a/k")
        with pytest.raises(NotFound):
            call("no/such/folder")


LONGEST = "/".join(["a" * 127] * 4) + "a"
GOOD = ["a", "0", "_", "-x", "a.b", "log/tile/0/x001/234.p/17", "a" * 128, LONGEST]
BAD = [
    *("", "/", "a/", "/a", "a//b", ".", "..", "a/..", "a/./b", "../a", ".hidden", "a/.0.tmp"),
    *("A", "é", "a b", "a\n", "a\0", "a\\b", "a:b", "~", "a" * 129, LONGEST.replace("/", "/a/", 1)),
]


@pytest.mark.parametrize("key", GOOD)
def test_good_keys(key):
    assert "/".join(check_key(key)) == key


@pytest.mark.parametrize("key", BAD)
def test_bad_keys_never_reach_the_store(blobs, key):
    for call in (lambda: blobs.put(key, b"x", mode=CREATE), lambda: blobs.get(key), lambda: blobs.delete(key)):
        with pytest.raises(InvalidInput):
            call()
    assert keys(blobs) == []
