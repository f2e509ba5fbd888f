"""The file driver: modes, keys, ranges, durability calls, races, hostile folders, full and read-only disks."""

import errno
import hashlib
import os
import resource
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.errors import Conflict, InvalidInput, NotFound, StoreError, StoreUnsafe
from stanch.store import CREATE, REPLACE, FileBlobs, Match, check_key


def files(blobs):
    return sorted(str(path.relative_to(blobs._root)) for path in blobs._root.rglob("*") if path.is_file())


def test_create_puts_whole_bytes_once(blobs):
    info = blobs.put("log/tile/0/000", b"data", mode=CREATE)
    assert (info.key, info.size, info.etag) == ("log/tile/0/000", 4, hashlib.sha256(b"data").hexdigest())
    assert blobs.get("log/tile/0/000") == b"data"
    assert blobs.head("log/tile/0/000") == info
    with pytest.raises(Conflict):
        blobs.put("log/tile/0/000", b"other", mode=CREATE)
    assert blobs.get("log/tile/0/000") == b"data"
    assert files(blobs) == ["log/tile/0/000"]


def test_files_and_folders_are_private(blobs):
    blobs.put("a/b", b"", mode=CREATE)
    modes = [stat.S_IMODE((blobs._root / name).stat().st_mode) for name in ("", "a", "a/b")]
    assert modes == [0o700, 0o700, 0o600]


DATA = [b"abc", bytearray(b"abc"), memoryview(b"abc"), [b"a", bytearray(b"bc")], iter([b"abc"])]


@pytest.mark.parametrize("data", DATA)
def test_any_buffer_or_stream_is_stored(blobs, data):
    assert blobs.put("k", data, mode=CREATE).size == 3
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
    assert files(blobs) == ["k"]


def test_match_of_nothing_is_a_conflict(blobs):
    with pytest.raises(Conflict):
        blobs.put("k", b"one", mode=Match("0" * 64))
    assert files(blobs) == []


def test_many_creators_have_one_winner(blobs):
    def put(number):
        try:
            return blobs.put("k", bytes([number]), mode=CREATE).etag
        except Conflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        winners = [etag for etag in pool.map(put, range(64)) if etag]
    assert winners == [hashlib.sha256(blobs.get("k")).hexdigest()]


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


def test_a_reader_sees_the_old_or_the_new_and_never_a_part(blobs):
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    blobs.put("k", contents[0], mode=CREATE)
    done = threading.Event()

    def write():
        for number in range(60):
            blobs.put("k", contents[number % 2], mode=REPLACE)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert blobs.get("k") in contents
    writer.join()


@given(st.integers(0, 12), st.none() | st.integers(0, 12))
def test_ranges_are_those_of_bytes(tmp_path_factory, start, length):
    blobs = FileBlobs(tmp_path_factory.getbasetemp() / "ranges")
    blobs.put("k", b"0123456789", mode=REPLACE)
    assert blobs.get("k", start=start, length=length) == b"0123456789"[start:][:length]


@pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1)])
def test_negative_ranges_are_refused(blobs, start, length):
    blobs.put("k", b"x", mode=CREATE)
    with pytest.raises(InvalidInput):
        blobs.get("k", start=start, length=length)


def test_list_is_sorted_and_by_prefix(blobs):
    for key in ("b", "a/2", "a/10", "a/b/c", "ab"):
        blobs.put(key, b"x", mode=CREATE)
    assert [info.key for info in blobs.list()] == ["a/10", "a/2", "a/b/c", "ab", "b"]
    assert [info.key for info in blobs.list("a")] == ["a/10", "a/2", "a/b/c", "ab"]
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
def test_bad_keys_never_reach_the_disk(blobs, key):
    for call in (lambda: blobs.put(key, b"x", mode=CREATE), lambda: blobs.get(key), lambda: blobs.delete(key)):
        with pytest.raises(InvalidInput):
            call()
    assert files(blobs) == []


def test_symbolic_links_are_not_followed(blobs, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    blobs.put("a", b"x", mode=CREATE)
    (blobs._root / "file").symlink_to(tmp_path / "secret")
    (blobs._root / "folder").symlink_to(tmp_path / "outside")
    for call in (lambda: blobs.get("file"), lambda: blobs.put("folder/k", b"x", mode=CREATE)):
        with pytest.raises(StoreUnsafe):
            call()
    with pytest.raises(Conflict):
        blobs.put("file", b"x", mode=CREATE)
    blobs.put("file", b"mine", mode=REPLACE)
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert blobs.get("file") == b"mine"
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_file_in_place_of_a_folder(blobs):
    blobs.put("a", b"x", mode=CREATE)
    with pytest.raises(StoreUnsafe):
        blobs.put("a/b", b"x", mode=CREATE)
    blobs.put("c/d", b"x", mode=CREATE)
    with pytest.raises((StoreUnsafe, StoreError)):
        blobs.get("c")


def test_old_temporary_files_are_swept_and_young_ones_left(tmp_path):
    now = 1_767_225_600.0
    root = tmp_path / "blobs"
    (root / "a").mkdir(parents=True)
    for name, age in (("a/.00.tmp", 90_000), ("a/.01.tmp", 80_000), ("a/kept", 90_000)):
        (root / name).write_bytes(b"x")
        os.utime(root / name, (now - age, now - age))
    assert files(FileBlobs(root, clock=lambda: now)) == ["a/.01.tmp", "a/kept"]


def test_temporary_files_are_not_listed(blobs):
    blobs.put("a/k", b"x", mode=CREATE)
    (blobs._root / "a" / ".00.tmp").write_bytes(b"x")
    assert [info.key for info in blobs.list()] == ["a/k"]


def test_file_and_folder_are_synced_before_put_returns(blobs, monkeypatch):
    synced = []
    kept = os.fsync

    def fsync(handle):
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        kept(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    blobs.put("a/b/k", b"x", mode=CREATE)
    root = str(blobs._root)
    assert synced[:2] == [root, f"{root}/a"]  # the folders newly made
    assert synced[2].startswith(f"{root}/a/b/.")
    assert synced[3:] == [f"{root}/a/b"]


@pytest.mark.parametrize("mode", [CREATE, REPLACE])
@pytest.mark.parametrize("call", ["fsync", "link", "rename", "write"])
def test_a_failing_disk_leaves_the_old_state(blobs, monkeypatch, mode, call):
    blobs.put("a/k", b"old", mode=CREATE)

    def fail(*_arguments, **_options):
        raise OSError(errno.EIO, "input/output error")

    if call == "write":
        used = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, used[1]))
    else:
        monkeypatch.setattr(os, call, fail)
    key = "a/new" if mode == CREATE else "a/k"
    try:
        if (mode, call) in {(CREATE, "rename"), (REPLACE, "link")}:
            blobs.put(key, b"new", mode=mode)
        else:
            with pytest.raises(StoreError):
                blobs.put(key, b"new", mode=mode)
            assert files(blobs) == ["a/k"]
            assert blobs.get("a/k") == b"old"
    finally:
        if call == "write":
            resource.setrlimit(resource.RLIMIT_FSIZE, used)


def test_a_stream_that_fails_leaves_nothing(blobs):
    def chunks():
        yield b"x"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        blobs.put("k", chunks(), mode=CREATE)
    assert files(blobs) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        FileBlobs(tmp_path / "file" / "blobs")
