"""Writing a bundle: nothing outlives a failure, no error is lost, and a disk may take what it is given in parts."""

import errno
import io
import os
import random
import time
from pathlib import Path

import pytest

from stanch.crypto.identity import generate_identity
from stanch.errors import StoreError
from stanch.seal import OpenParams, Recipients, SealParams, VolatileReleases, body, open_bundle, seal, write
from stanch.seal.body import BodyWriter
from stanch.seal.keys import ReleaseRoot
from stanch.seal.layout import PLAIN
from stanch.seal.source import MemorySource
from stanch.terms import VerifiedDigest


@pytest.fixture
def writer(tmp_path):
    (tmp_path / "body").mkdir()
    return BodyWriter(tmp_path, ReleaseRoot(bytes(32), bytes(32)), "blake3", workers=2, rng=os.urandom)


def test_a_disk_may_take_a_segment_in_parts(make_sealed, monkeypatch):
    write_at = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: write_at(handle, data[:300_001], offset))
    data = random.Random(1).randbytes(2 * PLAIN + 5)
    sealed = make_sealed({"f": data})
    monkeypatch.undo()
    assert sealed.read_all() == {"f": data}


class Trickling:
    """A source of one file that gives at most so many bytes at a time."""

    path = "f"

    def __init__(self, data, most):
        self.size, self._data, self._most = len(data), data, most

    def files(self):
        return [self]

    def open(self):
        most = self._most

        class Reader(io.BytesIO):
            def read(self, count=-1):
                return super().read(min(count, most))

        return Reader(self._data)


def test_a_file_may_come_in_parts(tmp_path, clock):
    data, identity = random.Random(2).randbytes(2 * PLAIN + 5), generate_identity()
    params = SealParams(kind="other", lineage="l", release_number=1, workers=2, clock=clock)
    sealed = seal(Trickling(data, 700_001), tmp_path / "b", [identity], params, lambda _manifest: b"s")
    publisher, opening = VerifiedDigest(sealed.digest.value, ("k",), None), OpenParams(clock=clock)
    with open_bundle(sealed.path, publisher, [identity], memory=VolatileReleases(), params=opening) as bundle:
        assert bundle.read("f") == data


def test_no_task_writes_to_a_descriptor_that_is_closed(writer, monkeypatch):
    write_at, failed, pieces = os.pwrite, [], [bytes(PLAIN)] * 3

    def slow(handle, data, offset):
        time.sleep(0.05)
        try:
            return write_at(handle, data, offset)
        except OSError as error:
            failed.append(error)
            raise

    def read(_size):
        if not pieces:
            raise StoreError("the source is gone")
        return pieces.pop()

    monkeypatch.setattr(os, "pwrite", slow)
    with pytest.raises(StoreError, match="is gone"), writer:
        writer.write(1, 5 * PLAIN, read)
    assert failed == []


def test_whoever_leaves_waits_until_every_stream_is_closed(writer, monkeypatch):
    closed = []

    def slow(handle):
        time.sleep(0.1)
        os.close(handle)
        closed.append(handle)

    monkeypatch.setattr(body, "_sync_and_close", slow)

    def leave():
        with writer:
            writer.write(1, 1, bytes)
            raise StoreError("no more")

    with pytest.raises(StoreError, match="no more"):
        leave()
    assert len(closed) == 1


def test_a_stream_that_cannot_be_made_durable_is_an_error(writer, monkeypatch):
    def fail(handle):
        os.close(handle)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(body, "_sync_and_close", fail)
    with writer:
        writer.write(1, 1, bytes)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            writer.finish()


def test_a_new_list_of_recipients_was_never_changed_and_files_have_one_digest(small):
    assert Recipients.parse((small.path / "recipients.json").read_bytes()).epoch == 0
    with small.open() as bundle:
        assert {file.sha256 for file in bundle.files()} == {None}


def test_a_place_where_no_folder_can_be_made_is_named(tmp_path, clock):
    params = SealParams(kind="other", lineage="l", release_number=1, workers=1, clock=clock)
    with pytest.raises(StoreError, match=r"a/b\.partial: cannot be made"):
        seal(MemorySource({"f": b"x"}), tmp_path / "a" / "b", [generate_identity().recipient], params, bytes)


def test_documents_are_whole_before_they_are_made_durable(tmp_path, monkeypatch, clock):
    sizes, sync = {}, os.fsync

    def note(handle):
        sizes[Path(f"/proc/self/fd/{handle}").readlink().name] = os.fstat(handle).st_size
        sync(handle)

    monkeypatch.setattr(os, "fsync", note)
    params = SealParams(kind="other", lineage="l", release_number=1, workers=1, clock=clock)
    made = seal(MemorySource({"f": b"x"}), tmp_path / "b", [generate_identity().recipient], params, lambda _: b"sign")
    names = {path.name for path in made.path.iterdir() if path.is_file()}
    assert len(names) == 4
    assert {name: sizes[name] for name in names} == {name: (made.path / name).stat().st_size for name in names}


def test_the_root_key_is_wiped_whether_a_bundle_is_made_or_not(tmp_path, monkeypatch, clock):
    made = []
    monkeypatch.setattr(write, "ReleaseRoot", lambda *given: made.append(ReleaseRoot(*given)) or made[-1])
    params = SealParams(kind="other", lineage="l", release_number=1, workers=1, clock=clock)

    def refuse(_manifest):
        raise StoreError("no signature")

    for name, finish in (("a", lambda _manifest: b"s"), ("b", refuse)):
        try:
            seal(MemorySource({"f": b"x"}), tmp_path / name, [generate_identity().recipient], params, finish)
        except StoreError:
            assert name == "b"
    assert [root._root for root in made] == [bytearray(32)] * 2
