"""Sealing that fails or is killed at any step leaves no bundle, and plaintext never touches the disk."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from stanch.crypto.identity import generate_identity
from stanch.crypto.passphrase import Passphrase
from stanch.errors import Conflict, InvalidInput, NotSealed, StoreError
from stanch.seal import SealParams, read_manifest, seal

PARAMS = SealParams(kind="other", lineage="l", release_number=1, workers=2)
FILES = {"a": b"1" * 100, "b": b"2" * 3_000_000}


@pytest.fixture
def source(tmp_path, write_source):
    return write_source(tmp_path / "source", FILES)


def left(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir() if path.name != "source")


def fail_after(monkeypatch, name, count, code=errno.ENOSPC):
    """Make the system call fail from its ``count``-th use on."""
    calls, original = [], getattr(os, name)

    def limited(*args, **options):
        calls.append(name)
        if len(calls) > count:
            raise OSError(code, os.strerror(code))
        return original(*args, **options)

    monkeypatch.setattr(os, name, limited)


@pytest.mark.parametrize(
    ("name", "count"),
    [*(("pwrite", n) for n in (0, 1, 3)), *(("fsync", n) for n in range(10)), ("rename", 0)],
)
def test_a_full_disk_leaves_nothing(tmp_path, source, monkeypatch, open_here, name, count):
    fail_after(monkeypatch, name, count)
    with pytest.raises(StoreError, match="undone") as caught:
        seal(source, tmp_path / "x.sealed", [generate_identity()], PARAMS, lambda _manifest: b"s")
    assert caught.value.why == os.strerror(errno.ENOSPC)
    monkeypatch.undo()
    assert left(tmp_path) == []
    assert open_here() == []


def test_a_refused_signature_leaves_nothing(tmp_path, source):
    def refuse(_manifest):
        raise RuntimeError("the token was pulled out")

    with pytest.raises(RuntimeError, match="pulled out"):
        seal(source, tmp_path / "x.sealed", [generate_identity()], PARAMS, refuse)
    assert left(tmp_path) == []


@pytest.mark.parametrize("wrong", ["lineage", "recipient", "passphrase"])
def test_what_is_known_to_be_wrong_is_refused_before_anything_is_read(tmp_path, source, wrong, monkeypatch):
    key = generate_identity()
    named = {"lineage": [key], "recipient": [key, key.recipient], "passphrase": [Passphrase("a"), Passphrase("b")]}
    params = replace(PARAMS, lineage="Acme Bot") if wrong == "lineage" else PARAMS
    monkeypatch.setattr("stanch.seal.write.BodyWriter", lambda *_, **__: pytest.fail("a body was begun"))
    with pytest.raises(InvalidInput, match="found 'Acme Bot'" if wrong == "lineage" else "named twice"):
        seal(source, tmp_path / "x.sealed", named[wrong], params, lambda _manifest: b"s")
    assert left(tmp_path) == []


def test_an_interrupted_sealing_of_another_is_not_touched(tmp_path, source):
    (tmp_path / "x.sealed.partial").mkdir()
    (tmp_path / "x.sealed.partial" / "mine").touch()
    with pytest.raises(Conflict, match="partial"):
        seal(source, tmp_path / "x.sealed", [generate_identity()], PARAMS, lambda _manifest: b"s")
    assert (tmp_path / "x.sealed.partial" / "mine").exists()
    with pytest.raises(StoreError):
        seal(source, tmp_path / "no" / "x.sealed", [generate_identity()], PARAMS, lambda _manifest: b"s")


KILLED = """
import os, signal, sys
from pathlib import Path
from stanch.crypto.identity import generate_identity
from stanch.seal import SealParams, seal

step, number = sys.argv[2], signal.Signals(int(sys.argv[3]))
folder = Path(sys.argv[1])

def die(*_):
    os.kill(os.getpid(), number)
    signal.pause()

if step != "finish":
    name, count = step.split(":")
    original, calls = getattr(os, name), []
    def counted(*args, **options):
        calls.append(1)
        if len(calls) > int(count):
            die()
        return original(*args, **options)
    setattr(os, name, counted)
params = SealParams(kind="other", lineage="l", release_number=1, workers=1)
finish = die if step == "finish" else (lambda manifest: b"s")
seal(folder / "source", folder / "x.sealed", [generate_identity()], params, finish)
"""


@pytest.mark.parametrize("step", ["pwrite:1", "pwrite:4", "fsync:3", "finish", "fsync:8"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_sealing_leaves_at_most_a_partial_that_nobody_opens(tmp_path, source, step, number):
    assert source.exists()
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), step, str(int(number))]
    process = subprocess.run(command, check=False, timeout=300, capture_output=True)
    assert process.returncode == -number, process.stderr
    assert left(tmp_path) == ["x.sealed.partial"]
    for name in ("x.sealed", "x.sealed.partial"):
        with pytest.raises(NotSealed):
            read_manifest(tmp_path / name)


def test_sealing_writes_no_plaintext(tmp_path):
    marker = bytes(range(1, 65))

    class File:
        path, size = "weights.bin", 64 * 40_000

        def open(self):
            import io  # noqa: PLC0415 - a source made in memory

            return io.BytesIO(marker * 40_000)

    class Source:
        def files(self):
            return [File()]

    seal(Source(), tmp_path / "x.sealed", [generate_identity()], PARAMS, lambda _manifest: b"s")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 6
    for path in written:
        data = path.read_bytes()
        assert marker[:16] not in data
        assert b"weights.bin" not in data


OPENED = """
import sys
from pathlib import Path
from stanch.crypto.identity import Identity
from stanch.seal import VolatileReleases, open_bundle
from stanch.terms import VerifiedDigest

folder, digest = Path(sys.argv[1]), bytes.fromhex(sys.argv[2])
identity = Identity.load(folder / "identity")
written = []

changes = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "shutil.copyfile", "tempfile.mkstemp"}

def watch(event, args):
    # O_WRONLY and O_RDWR are 1 and 2; the other events change the file system by themselves.
    if event in changes or (event == "open" and isinstance(args[2], int) and args[2] & 3):
        written.append((event, args))

sys.addaudithook(watch)
publisher, memory = VerifiedDigest(digest, ("k",), None), VolatileReleases()
with open_bundle(folder / "m.sealed", publisher, [identity], memory=memory) as bundle:
    for file in bundle.files():
        bundle.read(file.path)
        if file.type == "safetensors":
            bundle.tensors(file.path)
            bundle.tensor("a")
print(written)
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


def test_opening_writes_no_file_and_needs_no_torch(small, tmp_path):
    small.identity.save(tmp_path / "identity")
    command = [sys.executable, "-c", OPENED, str(tmp_path), small.publisher.sha256.hex()]
    process = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    assert process.stdout.strip() == "[]"
