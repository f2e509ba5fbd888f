"""Stray copies: found renamed, re-saved, cut, and inside other containers; nothing else is called one."""

import io
import os
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput
from stanch.release import Fingerprint, Listing, leave_out, search, take_fingerprint
from stanch.release.tensor_stream import TensorStream
from stanch.release.windows import WINDOW, WindowStream
from stanch.store import open_blobs
from stanch.weights import Tensor, write_safetensors

RANDOM = np.random.default_rng(7)


def weights(*names, rows=64, seed=0):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=(rows, 256)).astype(np.float32) for name in names}


def save(path, values, dtype="BF16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, [Tensor.from_float32(name, value, dtype) for name, value in values.items()])
    return path


def chunked(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


def take(*paths, size=1 << 16):
    return take_fingerprint((path.name, path.stat().st_size, chunked(path.read_bytes(), size)) for path in paths)


def look(fingerprint, *places, **options):
    listing = Listing()
    for place in places:
        listing.add_folder(place, **options)
    return search(fingerprint, listing, workers=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A protected file with a trivial tensor and a tiny one besides."""
    folder = tmp_path_factory.mktemp("model")
    values = weights("a", "b", "c") | {"zeros": np.zeros((64, 256), np.float32), "tiny": np.zeros(4, np.float32)}
    return save(folder / "adapter_model.safetensors", values)


@pytest.fixture(scope="module")
def fingerprint(model):
    return take(model)


def data_of(model, name="b"):
    stream, found = TensorStream(model.stat().st_size), b""
    for tensor, part in stream.feed(model.read_bytes()):
        found += bytes(part) if tensor.name == name else b""
    return found


def stray(found):
    return [(Path(one.place).name, one.file, one.tensors, one.parts) for one in found.stray]


def test_a_renamed_copy_is_found_whole(model, fingerprint, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "holiday.jpg").write_bytes(model.read_bytes())
    (tmp_path / "other").write_bytes(os.urandom(100_000))
    found = look(fingerprint, tmp_path)
    assert stray(found) == [("holiday.jpg", model.name, ("a", "b", "c"), ())]
    assert (found.searched, found.unread) == (2, ())


def test_a_file_that_was_saved_again_is_found_by_its_tensors(fingerprint, tmp_path):
    values = weights("a", "b", "c")
    save(tmp_path / "x.safetensors", {"other": weights("q", seed=9)["q"], "renamed": values["c"], "b": values["b"]})
    assert stray(look(fingerprint, tmp_path)) == [("x.safetensors", None, ("b", "c"), ())]


def test_one_tensor_in_another_container_is_found(model, fingerprint, tmp_path):
    data = data_of(model)
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data/0", data)
    with tarfile.open(tmp_path / "backup.tar", "w") as archive:
        info = tarfile.TarInfo("m")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    (tmp_path / "core.1234").write_bytes(os.urandom(1_000_003) + data + os.urandom(77))
    found = stray(look(fingerprint, tmp_path))
    assert sorted(name for name, *_ in found) == ["backup.tar", "core.1234", "pytorch_model.bin"]
    assert {what for _, *what in map(tuple, found) for what in [tuple(what)]} == {(None, (), ("b",))}


def test_a_half_copied_file_is_found(model, fingerprint, tmp_path):
    data = model.read_bytes()
    (tmp_path / "x.safetensors.part").write_bytes(data[: len(data) // 2])
    (tmp_path / "tail").write_bytes(data[70_000:90_000])
    assert sorted(stray(look(fingerprint, tmp_path))) == [
        ("tail", None, (), ("c",)),
        ("x.safetensors.part", None, ("a",), ("b",)),
    ]


def test_what_says_nothing_is_not_searched_for(fingerprint, tmp_path):
    assert [tensor.name for tensor in fingerprint.tensors] == ["a", "b", "c"]
    save(tmp_path / "x.safetensors", {"zeros": np.zeros((64, 256), np.float32), "tiny": np.zeros(4, np.float32)})
    (tmp_path / "zeros").write_bytes(bytes(5 << 20))
    (tmp_path / "ones").write_bytes(b"\x01" * (1 << 20))
    (tmp_path / "counters").write_bytes(np.arange(1 << 17, dtype="<i8").tobytes())
    save(tmp_path / "y.safetensors", weights("a", "b", "c", seed=1))
    save(tmp_path / "z.safetensors", weights("a", "b", "c"), dtype="F32")  # converted: other bytes
    found = look(fingerprint, tmp_path)
    assert (found.stray, found.searched) == ((), 6)
    with pytest.raises(InvalidInput, match="trivial"):
        take(save(tmp_path / "t" / "x.safetensors", {"zeros": np.zeros((64, 256), np.float32)}))
    with pytest.raises(InvalidInput):
        take(tmp_path / "zeros")


def test_the_base_model_is_left_out(model, fingerprint, tmp_path):
    base = save(tmp_path / "base" / "m.safetensors", {"x": weights("a", "b", "c")["a"]})
    listing = Listing()
    listing.add_folder(base.parent)
    tuned = leave_out(fingerprint, listing)
    assert [tensor.name for tensor in tuned.tensors] == ["b", "c"]
    assert look(tuned, tmp_path).stray == ()
    assert stray(look(tuned, model)) == [(model.name, model.name, ("b", "c"), ())]
    listing.add_folder(model)
    with pytest.raises(InvalidInput, match="nothing is left"):
        leave_out(fingerprint, listing)
    assert leave_out(fingerprint, Listing()) == fingerprint


def test_only_what_was_tuned_of_a_tensor_is_searched_for(tmp_path):
    value = weights("a", rows=512)["a"]
    tuned = value.copy()
    tuned[256:] += 1
    fingerprint = take(save(tmp_path / "tuned" / "m.safetensors", {"a": tuned}))
    base, listing = save(tmp_path / "base" / "m.safetensors", {"a": value}), Listing()
    listing.add_folder(base)
    left = leave_out(fingerprint, listing)
    assert len(fingerprint.tensors[0].windows) == 32
    assert 0 < len(left.tensors[0].windows) < len(fingerprint.tensors[0].windows)
    assert look(fingerprint, base).stray
    assert look(left, base).stray == ()


def test_what_is_allowed_or_no_plain_file_is_passed_over(model, fingerprint, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "copy").write_bytes(model.read_bytes())
    (tmp_path / "link").symlink_to(model)
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert look(fingerprint, tmp_path, allowed=[tmp_path / "mine"]).searched == 0
    assert look(fingerprint, tmp_path, allowed=[tmp_path / "mine" / "copy"]).searched == 0
    assert look(fingerprint, tmp_path, allowed=[tmp_path]).searched == 0
    assert len(look(fingerprint, tmp_path).stray) == 1


def test_what_cannot_be_read_is_said(model, fingerprint, tmp_path):
    (tmp_path / "gone").write_bytes(b"x")
    listing = Listing()
    listing.add_folder(tmp_path)
    listing.add_folder(tmp_path / "never")
    (tmp_path / "gone").unlink()
    listing.add_folder(model)
    found = search(fingerprint, listing)
    assert sorted(Path(place).name for place in found.unread) == ["gone", "never"]
    assert (found.searched, len(found.stray)) == (1, 1)


def test_a_bucket_is_searched_whatever_its_keys(model, fingerprint, s3):
    import obstore  # noqa: PLC0415 - a part that may be missing
    from obstore.store import S3Store  # noqa: PLC0415 - same

    uri = s3.uri()
    open_blobs(uri).put("tame", b"x", mode="create")
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    store = S3Store(bucket, prefix=prefix, client_options={"allow_http": True})
    obstore.put(store, "Old Backups/Model (1).BIN", os.urandom(5 << 20) + model.read_bytes())
    listing = Listing()
    listing.add_bucket(uri)
    found = search(fingerprint, listing)
    assert [(one.place, one.parts) for one in found.stray] == [(f"{uri}/Old Backups/Model (1).BIN", ("a", "b", "c"))]
    assert found.size == listing.size


def test_progress_counts_bytes_to_the_end(model, fingerprint):
    listing, told = Listing(), []
    listing.add_folder(model)
    search(fingerprint, listing, progress=lambda *what: told.append(what))
    assert told[-1] == ("search", model.stat().st_size, model.stat().st_size)


def test_no_file_is_held_in_memory(fingerprint, tmp_path):
    (tmp_path / "big").write_bytes(RANDOM.bytes(36 << 20))
    listing = Listing()
    listing.add_folder(tmp_path)
    tracemalloc.start()
    assert search(fingerprint, listing).stray == ()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


@given(data=st.binary(min_size=0, max_size=4000), sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_windows_do_not_depend_on_the_chunks(data, sizes):
    data = RANDOM.bytes(20_000) + data
    whole = sorted(WindowStream().feed(data))
    stream, found, at = WindowStream(), [], 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        found += stream.feed(data[at : at + size])
        at += size
    assert sorted(found) == whole
    assert all(len(window) == WINDOW for window in whole)


def test_windows_are_those_of_the_definition():
    data = RANDOM.bytes(30_000) + bytes(100) + RANDOM.bytes(30_000)

    def word(at):
        return int.from_bytes(data[at : at + 4], "little")

    expected = [
        data[at : at + 64]
        for at in range(len(data) - 63)
        if (word(at) * 0x9E3779B1) % 2**32 < 2**20 and word(at) != word(at + 4)
    ]
    assert sorted(WindowStream().feed(data)) == sorted(expected)
    assert expected


def test_windows_move_with_their_bytes_and_are_as_many_as_said():
    data = RANDOM.bytes(2 << 20)
    found = set(WindowStream().feed(data))
    assert 400 < len(found) < 630  # 512 expected, standard deviation 23
    for shift in (1, 5, 8, 1000):
        assert set(WindowStream().feed(bytes(shift) + data)) >= found


@given(head=st.binary(max_size=60), length=st.integers(0, 2**64 - 1), size=st.integers(0, 1 << 40))
@settings(max_examples=100, deadline=None)
def test_any_file_has_tensors_or_none(head, length, size):
    stream = TensorStream(size)
    for chunk in chunked(length.to_bytes(8, "little") + b"{" + head, 7):
        list(stream.feed(chunk))


def test_a_fingerprint_round_trips_and_is_read_strictly(fingerprint):
    data = fingerprint.to_bytes()
    assert Fingerprint.parse(data) == fingerprint
    assert all(0 < len(tensor.windows) < 32 for tensor in fingerprint.tensors)
    for bad in (b"", b"{}", data + b" ", data.replace(b"/v1", b"/v2"), data.replace(b'"size"', b'"sise"', 1)):
        with pytest.raises(InvalidInput):
            Fingerprint.parse(bad)


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_no_fingerprint(data):
    with pytest.raises(InvalidInput):
        Fingerprint.parse(data)


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_a_fingerprint_does_not_depend_on_the_chunks(model, fingerprint, size, tmp_path):
    small = save(tmp_path / model.name, weights("a", rows=2))
    assert take(small, size=size) == take(small)
    if size > 1:
        assert take(model, size=size) == fingerprint
