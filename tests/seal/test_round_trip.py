import ctypes
import errno
import gc
import hashlib
import io
import os
import random
import re
import resource
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.crypto.identity import generate_identity
from stanch.crypto.passphrase import Passphrase
from stanch.errors import BundleIncomplete, Conflict, InvalidInput, InvalidSafetensors, NotFound, StoreError, Tampered
from stanch.seal import (
    BaseModel,
    Commitments,
    OpenParams,
    SealParams,
    SourceChanged,
    VolatileReleases,
    index,
    open_bundle,
    read,
    read_manifest,
    read_signature,
    seal,
    segments,
    verify_sealed,
    write,
)
from stanch.seal.arena import Arena
from stanch.seal.folder import BundleFolder
from stanch.seal.layout import PLAIN
from stanch.seal.source import DirectorySource
from stanch.seal.source import MemorySource as SealedMemory
from stanch.terms import VerifiedDigest

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def clock():
    return NOW


PARAMS = SealParams(kind="other", lineage="l", release_number=1, workers=2, clock=clock)


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


class MemoryFile:
    """A file of a source that lies in memory only."""

    def __init__(self, path, data, *, size=None, piece=1 << 30):
        self.path, self._data, self.size, self._piece = path, data, len(data) if size is None else size, piece

    def open(self):
        piece = self._piece

        class Reader(io.BytesIO):
            def read(self, count=-1):
                return super().read(min(count, piece) if count >= 0 else count)

        return Reader(self._data)


class MemorySource:
    def __init__(self, *files):
        self._files = files

    def files(self):
        return self._files


@pytest.mark.parametrize("hash_name", ["blake3", "sha256"])
def test_edge_sizes_come_back_and_the_independent_reader_agrees(make_sealed, oracle, hash_name, safetensors):
    files = {f"f{size}": noise(size, size) for size in (0, 1, PLAIN - 1, PLAIN, PLAIN + 1)}
    files["sub/w.safetensors"] = safetensors({"a": noise(PLAIN + 7), "b": b"", "c": noise(3)})
    sealed = make_sealed(files, segment_hash=hash_name)
    assert sealed.read_all() == files
    assert sealed.read_all(verify="aead_only_unsafe") == files
    verify_sealed(sealed.path, sealed.publisher)
    secret = sealed.identity._secret
    key_id = sealed.identity.recipient.key_id
    assert oracle.open_sealed(sealed.path, secret, sealed.publisher.sha256, key_id=key_id) == files


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["a", "b/c", "b/d", "é.txt", "日本"]), st.binary(max_size=99), min_size=1))
def test_any_small_files_come_back(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("any")
    identity = generate_identity()
    source = MemorySource(*(MemoryFile(path, data, piece=3) for path, data in files.items()))
    bundle = seal(source, folder / "x.sealed", [identity], PARAMS, lambda _manifest: b"signature")
    publisher = VerifiedDigest(bundle.digest.value, ("k",), None)
    with open_bundle(
        bundle.path, publisher, [identity], memory=VolatileReleases(), params=OpenParams(clock=clock)
    ) as opened:
        assert {file.path: bytes(opened.read(file.path)) for file in opened.files()} == files


def test_any_range_of_a_file_of_several_segments_is_the_slice(make_sealed):
    data = noise(3 * PLAIN + 100)
    sealed = make_sealed({"f": data})
    rng = random.Random(5)
    with sealed.open() as bundle:
        for _ in range(40):
            start = rng.choice([rng.randrange(len(data)), PLAIN, PLAIN - 1, 2 * PLAIN])
            stop = min(len(data), start + rng.choice([0, 1, 50, PLAIN, PLAIN + 2]))
            assert bundle._read((1,), start, stop) == data[start:stop]


def test_memory_is_for_the_segments_that_are_read_and_threads_are_as_many_as_are_allowed(make_sealed, monkeypatch):
    sealed = make_sealed({"f": noise(13 * PLAIN)})
    sizes, counts = [], []
    monkeypatch.setattr(segments, "Arena", lambda size: sizes.append(size) or Arena(size))

    class Counted(ThreadPoolExecutor):
        def __init__(self, count, **options):
            counts.append(count)
            super().__init__(count, **options)

    monkeypatch.setattr(segments, "ThreadPoolExecutor", Counted)
    for threads, tasks, found in ((1, 4, []), (2, 4, [2]), (3, 4, [3]), (9, 4, [4]), (9, 1, [])):
        counts.clear()
        with sealed.open(params=OpenParams(clock=clock, threads=threads)) as bundle:
            assert len(bundle.read("f") if tasks == 4 else bundle._read((1,), 12 * PLAIN, 13 * PLAIN)) % PLAIN == 0
        assert counts == found
    assert sizes[-1] == PLAIN


def test_a_bundle_that_was_read_leaves_no_file_open(small):
    before = len(list(Path("/proc/self/fd").iterdir()))
    small.read_all()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_part_that_is_gone_is_named(small):
    (small.path / "recipients.json").unlink()
    with pytest.raises(BundleIncomplete, match=r"recipients\.json is missing"):
        BundleFolder(small.path).document("recipients.json", 10)


def test_weights_that_are_not_as_long_as_their_header_says_are_refused(make_sealed, monkeypatch, safetensors):
    sealed, parse = make_sealed({"w.safetensors": safetensors({"a": b"12345678"})}), read.parse_header
    monkeypatch.setattr(read, "parse_header", lambda data, what: replace(parse(data, what=what), tensors=()))
    with sealed.open() as bundle, pytest.raises(InvalidSafetensors, match="not as long as its header says"):
        bundle.read_weights("w.safetensors")


def test_the_body_is_as_long_as_the_format_says(make_sealed):
    data = noise(PLAIN * 2 + 1)
    sealed = make_sealed({"f": data})
    assert (sealed.path / "body" / "00001.floe").stat().st_size == 74 + len(data) + 3 * 32
    assert (sealed.path / "digests.bin").stat().st_size == 32 * (2 + 4)


def test_long_files_are_cut_into_streams(make_sealed, monkeypatch, safetensors):
    def cut(size):
        whole, rest = divmod(size, PLAIN)
        return (PLAIN,) * whole + ((rest,) if rest or not whole else ())

    def cut_safetensors(size, head):
        return (head, *cut(size - head))

    for module in (index, write):
        monkeypatch.setattr(module, "cut", cut)
        monkeypatch.setattr(module, "cut_safetensors", cut_safetensors)
    tensors = {"a": noise(PLAIN - 3, 1), "b": noise(10, 2), "c": noise(PLAIN + 5, 3)}
    files = {"f": noise(2 * PLAIN + 5), "w.safetensors": safetensors(tensors)}
    sealed = make_sealed(files)
    assert [stream.size for stream in read_manifest(sealed.path).streams][1:4] == [PLAIN, PLAIN, 5]
    assert sealed.read_all() == files
    with sealed.open() as bundle:
        for name, data in tensors.items():
            assert bundle.tensor(name).raw.tobytes() == data
            assert bundle.tensors("w.safetensors")[name].raw.tobytes() == data


def test_tensors_are_read_only_views(make_sealed, safetensors):
    tensors = {"a": noise(1000), "empty": b"", "b": noise(10)}
    sealed = make_sealed({"model.safetensors": safetensors(tensors)})
    with sealed.open() as bundle:
        views = bundle.tensors("model.safetensors")
        single = bundle.tensor("b")
        assert {name: view.raw.tobytes() for name, view in views.items()} == tensors
        assert single.raw.tobytes() == tensors["b"]
        assert bundle.tensor("empty").raw.size == 0
    for view in (*views.values(), single):
        with pytest.raises(ValueError, match="read-only"):
            view.raw[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.raw.flags.writeable = True
    assert views["a"].raw.tobytes() == tensors["a"]  # still there after closing


def test_one_tensor_reads_only_the_segments_that_hold_it(make_sealed, monkeypatch, safetensors):
    tensors = {f"t{n}": noise(PLAIN // 2, n) for n in range(12)}
    sealed = make_sealed({"w.safetensors": safetensors(tensors)})
    with sealed.open() as bundle:
        bundle.tensor("t0")
        seen = []
        original = type(bundle._reader)._decrypt

        def spy(self, task, *rest):
            seen.extend(segment.position for segment in task.segments)
            return original(self, task, *rest)

        monkeypatch.setattr(type(bundle._reader), "_decrypt", spy)
        assert bundle.tensor("t5").raw.tobytes() == tensors["t5"]
        assert len(seen) <= 2


def test_bf16_and_fp8_come_as_integers(make_sealed):
    bf16, fp8 = (
        '{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}',
        '{"dtype":"F8_E4M3","shape":[3],"data_offsets":[8,11]}',
    )
    header = f'{{"w":{bf16},"x":{fp8}}}'.encode()
    data = len(header).to_bytes(8, "little") + header + bytes(range(11))
    sealed = make_sealed({"w.safetensors": data})
    with sealed.open() as bundle:
        views = bundle.tensors("w.safetensors")
    assert (views["w"].dtype, views["w"].raw.dtype, views["w"].shape) == ("BF16", np.dtype("<u2"), (2, 2))
    assert (views["x"].dtype, views["x"].raw.dtype) == ("F8_E4M3", np.dtype("u1"))


def test_names_that_are_not_there(small):
    with small.open() as bundle:
        for call in (
            lambda: bundle.read("config.jso"),
            lambda: bundle.tensor("z"),
            lambda: bundle.tensors("config.json"),
            lambda: bundle.tensors("nothing"),
        ):
            with pytest.raises(NotFound):
                call()


def test_a_tensor_in_two_files_must_be_named_with_its_file(make_sealed, safetensors):
    sealed = make_sealed({"a.safetensors": safetensors({"t": b"1"}), "b.safetensors": safetensors({"t": b"2"})})
    with sealed.open() as bundle:
        with pytest.raises(InvalidInput, match="more than one"):
            bundle.tensor("t")
        assert bundle.tensors("b.safetensors")["t"].raw.tobytes() == b"2"


def test_a_closed_bundle_gives_nothing(small):
    with small.open() as bundle:
        data = bundle.read("config.json")
        bundle.tensor("a")
        assert data.readonly
    assert bytes(data) == small.files["config.json"]
    assert not bundle._headers  # names of tensors
    for call in (lambda: bundle.read("config.json"), lambda: bundle.tensor("a")):
        with pytest.raises(InvalidInput, match="closed"):
            call()
    assert bundle._root._root == bytearray(32)


def test_unsealing_gives_back_the_identical_files(small, tmp_path, monkeypatch):
    out, durable = tmp_path / "out", []
    monkeypatch.setattr("stanch.seal.unseal.sync_folder", lambda folder: durable.append(folder.name))
    with small.open() as bundle:
        bundle.unseal_unsafe(out)
        assert durable == ["out.partial", "sub", tmp_path.name]
        assert {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()} == small.files
        assert {p.stat().st_mode & 0o077 for p in [out, *out.rglob("*")]} == {0}
        with pytest.raises(Conflict):
            bundle.unseal_unsafe(out)
        (tmp_path / "other.partial").mkdir()
        with pytest.raises(Conflict):
            bundle.unseal_unsafe(tmp_path / "other")
        with pytest.raises(StoreError, match="cannot be made"):
            bundle.unseal_unsafe(tmp_path / "no" / "such")


def test_unsealed_folders_are_their_owners_alone_at_any_depth(make_sealed, tmp_path, monkeypatch):
    durable = []
    with make_sealed({"a/b/c": b"1", "a/d": b"2", "e": b"3"}).open() as bundle:
        monkeypatch.setattr("stanch.seal.unseal.os.fsync", lambda handle: durable.append(os.fstat(handle).st_size))
        bundle.unseal_unsafe(tmp_path / "out")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*") if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*") if path.is_file()} == {0o600}
    assert durable[:3] == [1, 1, 1]


def test_unsealing_that_fails_leaves_nothing_and_says_why(small, tmp_path, monkeypatch):
    out = tmp_path / "out"
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with small.open() as bundle:
        with pytest.raises(Conflict):
            bundle.unseal_unsafe(tmp_path / "dangling")
        file = bundle._index["sub/empty"]
        bundle._index["sub/empty"] = msgspec.structs.replace(file, blake3="0" * 64)
        with pytest.raises(Tampered, match="sub/empty"):
            bundle.unseal_unsafe(out)
        assert not list(tmp_path.glob("out*"))
        bundle._index["sub/empty"] = file
        for name in ("fsync", "rmdir"):
            monkeypatch.setattr(os, name, lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "")))
        with pytest.raises(StoreError, match="cannot be written") as caught:
            bundle.unseal_unsafe(out)
        assert caught.value.why == os.strerror(errno.EIO)


def test_what_the_manifest_says_and_does_not_say(make_sealed):
    base = BaseModel("base", "ab" * 32)
    commitments = Commitments("01" * 32, None, "02" * 32, None)
    sealed = make_sealed(
        {"secret-name.bin": b"x"},
        kind="adapter",
        not_after=NOW + timedelta(days=1),
        base_model=base,
        commitments=commitments,
        summary={"task": "support"},
        plaintext_sha256=True,
    )
    manifest = read_manifest(sealed.path)
    assert (manifest.kind, manifest.base_model, manifest.commitments) == ("adapter", base, commitments)
    assert (manifest.created, manifest.not_after) == ("2026-06-01T12:00:00Z", "2026-06-02T12:00:00Z")
    for path in sealed.path.rglob("*"):
        assert path.is_dir() or b"secret-name" not in path.read_bytes()
        assert "secret" not in path.name
    with sealed.open() as bundle:
        assert bundle.files()[0].sha256 == hashlib.sha256(b"x").hexdigest()
    assert read_signature(sealed.path)


def test_plaintext_is_signed_by_whom_the_caller_says(tmp_path, write_source):
    identity, seen = generate_identity(), []

    def sign_plaintext(digests):
        seen.extend(digests)
        return {"signature": "s"}

    source = write_source(tmp_path / "s", {"b": b"2", "a": b"1"})
    bundle = seal(source, tmp_path / "x.sealed", [identity], PARAMS, lambda _manifest: b"x", sign_plaintext)
    assert [(digest.path, digest.size) for digest in seen] == [("a", 1), ("b", 1)]
    publisher = VerifiedDigest(bundle.digest.value, ("k",), None)
    opened = open_bundle(bundle.path, publisher, [identity], memory=VolatileReleases(), params=OpenParams(clock=clock))
    assert opened.plaintext_signature == {"signature": "s"}


def test_two_seals_of_one_source_are_unrelated(make_sealed):
    files, identity = {"f": bytes(200_000)}, generate_identity()
    first = make_sealed(files, name="one", identity=identity)
    second = make_sealed(files, name="two", identity=identity)
    bodies = [np.frombuffer((x.path / "body" / "00001.floe").read_bytes()[74:], "u1") for x in (first, second)]
    agree = 8 * bodies[0].size - int(np.unpackbits(bodies[0] ^ bodies[1]).sum())
    # Independent bits agree half of the time; Hoeffding: beyond this distance with chance below 1e-9 (the length field
    # of the segment, 4 of 200,032 bytes, is equal in both and far below the bound).
    bits = 8 * bodies[0].size
    assert abs(agree - bits / 2) < np.sqrt(bits * np.log(2e9) / 2)
    raw = [x.path.joinpath(name).read_bytes() for x in (first, second) for name in ("manifest.json", "recipients.json")]
    manifests = [read_manifest(x.path) for x in (first, second)]
    assert manifests[0].bundle_id != manifests[1].bundle_id
    assert manifests[0].root_commitment != manifests[1].root_commitment
    assert len(set(raw)) == 4


def test_base_and_tuned_model_under_one_recipient_share_no_key_stream(make_sealed):
    base = noise(300_000)
    tuned = bytearray(base)
    tuned[1000:1100] = bytes(100)
    identity = generate_identity()
    bodies = [
        np.frombuffer((sealed.path / "body" / "00001.floe").read_bytes()[74 + 16 :], "u1")
        for sealed in (make_sealed({"f": bytes(x)}, name=n, identity=identity) for n, x in (("b", base), ("t", tuned)))
    ]
    bits = 8 * bodies[0].size
    agree = bits - int(np.unpackbits(bodies[0] ^ bodies[1]).sum())
    assert abs(agree - bits / 2) < np.sqrt(bits * np.log(2e9) / 2)  # false alarm below 1e-9, as above


def test_sources_that_change_are_refused_and_leave_nothing(tmp_path, write_source):
    dest = tmp_path / "x.sealed"
    for size in (4, 6):
        source = MemorySource(MemoryFile("f", b"12345", size=size))
        with pytest.raises(SourceChanged):
            seal(source, dest, [generate_identity()], PARAMS, lambda _manifest: b"x")
    folder = write_source(tmp_path / "s", {"f": b"12345", "g": b"1"})

    def touch_meanwhile(_digests):
        (folder / "g").write_bytes(b"2")

    for name, change in (
        ("g", touch_meanwhile),
        ("new", lambda _d: (folder / "new").touch()),
        ("f", lambda _d: (folder / "f").unlink()),
    ):
        with pytest.raises(SourceChanged, match=f"^{name}: the file changed"):
            seal(folder, dest, [generate_identity()], PARAMS, lambda _manifest: b"x", change)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]


def test_sources_that_cannot_be_sealed(tmp_path, write_source):
    identity, dest = generate_identity(), tmp_path / "x.sealed"

    def attempt(source, *, recipients=(identity,), **params):
        settings = {"kind": "other", "lineage": "l", "release_number": 1, "clock": clock} | params
        seal(source, dest, list(recipients), SealParams(**settings), lambda _manifest: b"x")

    empty = tmp_path / "empty"
    empty.mkdir()
    linked = write_source(tmp_path / "linked", {"a": b"1"})
    (linked / "link").symlink_to("a")
    good = write_source(tmp_path / "good", {"a": b"1"})
    broken = write_source(tmp_path / "broken", {"w.safetensors": b"12345678abc"})
    for source in (empty, linked, tmp_path / "nothing", MemorySource(MemoryFile("../a", b""))):
        with pytest.raises(InvalidInput):
            attempt(source)
    with pytest.raises(InvalidSafetensors):
        attempt(broken)
    for wrong in (
        {"recipients": ()},
        {"recipients": (identity, identity)},
        {"recipients": (Passphrase("a"), Passphrase("b"))},
        {"lineage": "Upper"},
        {"release_number": 0},
        {"kind": "weights"},
        {"not_after": NOW},
    ):
        with pytest.raises(InvalidInput):
            attempt(good, **wrong)
    assert not list(tmp_path.glob("x.*"))
    dest.mkdir()
    with pytest.raises(Conflict):
        attempt(good)
    dest.rmdir()
    dest.symlink_to(tmp_path / "nowhere")
    with pytest.raises(Conflict):
        attempt(good)


def test_a_source_may_need_as_many_streams_and_as_long_an_index_as_a_bundle_holds(make_sealed, monkeypatch):
    files = {"a": b"1", "b": b"2"}
    length = read_manifest(make_sealed(files, name="one").path).streams[0].size
    for name, most, message in (("MAX_STREAMS", 3, "needs 3 streams"), ("MAX_INDEX", length, "index needs")):
        monkeypatch.setattr(write, name, most)
        make_sealed(files, name=f"two-{name}")
        monkeypatch.setattr(write, name, most - 1)
        with pytest.raises(InvalidInput, match=message):
            make_sealed(files, name=f"three-{name}")
        monkeypatch.undo()


def test_what_is_sealed_is_its_owners_to_change_and_everybodys_to_read(make_sealed):
    before = os.umask(0o022)
    try:
        sealed = make_sealed({"f": b"x"})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in sealed.path.rglob("*") if path.is_file()} == {0o644}


def test_a_link_of_the_hub_cache_stands_for_its_blob(tmp_path, write_source):
    blob = "0" * 40
    cache = write_source(tmp_path / "models--a--b", {f"blobs/{blob}": b"{}", "snapshots/ab/notes": b"x"})
    (cache / "snapshots" / "ab" / "config.json").symlink_to(f"../../blobs/{blob}")
    files = DirectorySource(cache / "snapshots" / "ab").files()
    assert [(file.path, file.size) for file in files] == [("config.json", 2), ("notes", 1)]
    with files[0].open() as reader:
        assert reader.read() == b"{}"


def test_files_in_memory_are_sorted_and_not_shown():
    source = SealedMemory({"b": b"secret", "a": b"1"})
    assert [file.path for file in source.files()] == ["a", "b"]
    assert "secret" not in repr(source.files())


def test_reading_a_directory_refuses_a_link_put_in_a_files_place(tmp_path, write_source):
    folder = write_source(tmp_path / "s", {"f": b"12345"})
    listed = DirectorySource(folder).files()[0]
    (tmp_path / "secret").write_bytes(b"other")
    (folder / "f").unlink()
    (folder / "f").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        listed.open()


@pytest.mark.parametrize("size", [0, 1, 4096, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, 5 << 20])
def test_an_arena_holds_its_size_and_large_ones_start_at_a_huge_page(size):
    memory = Arena(size).memory
    assert len(memory) == size
    assert not any(memory[:: 4096 if size > 4096 else 1])
    memory[:] = b"\xff" * size
    if size >= 2 << 20:
        assert np.frombuffer(memory, "u1").ctypes.data % (2 << 20) == 0


def areas_of(memory):
    """Return how the kernel keeps the pages that hold the memory, as its two-letter flags."""
    address, inside = np.frombuffer(memory, "u1").ctypes.data, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError("no such memory")


def test_an_arena_is_kept_out_of_core_dumps_and_a_large_one_asks_for_huge_pages():
    small, large = Arena(5000), Arena(2 << 20)  # core(5), proc(5): dd is "do not dump", hg "huge pages wanted"
    assert "dd" in areas_of(small.memory)
    assert {"dd", "hg"} <= areas_of(large.memory)
    assert "dd" not in areas_of(memoryview(bytearray(1 << 22)))


def test_a_large_arena_starts_and_is_wiped_at_a_huge_page_wherever_the_kernel_maps_it(monkeypatch):
    # Linux maps so much at a huge page by itself since 6.7; this looks as if it had not.
    known, page = ctypes.addressof, 2 << 20
    monkeypatch.setattr(ctypes, "addressof", lambda view: known(view) + 4096)
    arena, wiped = Arena(page), []
    arena._memset = lambda *given: wiped.append(given)
    arena.wipe()
    assert wiped == [(arena._address + arena._start, 0, page)]
    assert wiped[0][0] % page == 0
    assert 0 < arena._start < page


def test_an_arena_overwrites_itself_when_the_last_view_is_gone():
    wiped = []
    arena = Arena(1000)
    arena._memset = lambda address, value, count: wiped.append((address, value, count))
    view = np.frombuffer(arena.memory[10:20].toreadonly(), "u1")
    address = np.frombuffer(arena.memory, "u1").ctypes.data
    del arena
    gc.collect()
    assert not wiped
    del view
    gc.collect()
    assert wiped == [(address, 0, 1000)]


def test_checking_tells_how_far_it_is(small):
    seen = []
    found = verify_sealed(small.path, small.publisher, progress=lambda *step: seen.append(step))
    sizes = [path.stat().st_size for path in sorted((small.path / "body").iterdir())]
    assert found.stored == sum(sizes)
    assert seen == [("verify", sum(sizes[:n]), sum(sizes)) for n in range(len(sizes) + 1)]


def test_progress_reaches_the_total(tmp_path, write_source):
    seen = []
    source = write_source(tmp_path / "s", {"a": b"123", "b": b"4567"})
    params = SealParams(kind="other", lineage="l", release_number=1, clock=clock, progress=lambda *x: seen.append(x))
    seal(source, tmp_path / "x.sealed", [generate_identity()], params, lambda _manifest: b"x")
    assert seen == [("seal", done, 7) for done in (0, 3, 7)]


def test_sealing_many_files_keeps_few_descriptors_open(tmp_path, write_source):
    source = write_source(tmp_path / "s", {f"{n:04d}": b"x" for n in range(300)})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 60, hard))
    try:
        seal(source, tmp_path / "x.sealed", [generate_identity()], PARAMS, lambda _manifest: b"x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
