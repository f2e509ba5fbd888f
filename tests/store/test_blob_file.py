"""The file driver alone: modes, durability calls, hostile folders, full and failing disks."""

import errno
import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from stanch.errors import Conflict, StoreError, StoreUnsafe
from stanch.store import CREATE, REPLACE, FileBlobs


def files(blobs):
    return sorted(str(path.relative_to(blobs._root)) for path in blobs._root.rglob("*") if path.is_file())


def test_files_and_folders_are_private(blobs):
    blobs.put("a/b", b"", mode=CREATE)
    modes = [stat.S_IMODE((blobs._root / name).stat().st_mode) for name in ("", "a", "a/b")]
    assert modes == [0o700, 0o700, 0o600]


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


def test_only_old_temporary_files_of_ours_in_the_folder_written_to_are_swept(tmp_path):
    now = 1_767_225_600.0
    root, ours, young = tmp_path / "blobs", f".{'0' * 32}.tmp", f".{'1' * 32}.tmp"
    names = {f"a/{ours}", f"a/{young}", "a/.draft.tmp", "a/kept", f"b/{ours}", f"a/c/{ours}", ours}
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
        age = 80_000 if name.endswith(young) else 90_000
        os.utime(root / name, (now - age, now - age))
    blobs = FileBlobs(root, clock=lambda: now)
    assert blobs.get("a/kept") == b"x"
    assert set(files(blobs)) == names  # whoever only reads removes nothing
    blobs.put("a/new", b"y", mode=CREATE)
    assert set(files(blobs)) == names - {f"a/{ours}"} | {"a/new"}


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
