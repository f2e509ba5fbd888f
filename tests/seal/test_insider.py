"""A recipient who holds the key and alters the weights; full disks, killed processes, and a load that is traced."""

import contextlib
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime

import msgspec
import pytest

from stanch.crypto.identity import generate_identity
from stanch.errors import NotSealed, StoreError, Tampered
from stanch.seal import Recipients, SealParams, read_manifest, rekey, seal, segments, verify_sealed
from stanch.seal.body import BodyWriter
from stanch.seal.recipients import unwrap_root

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MARKER = bytes(range(100, 164))
"""64 bytes that stand in the weights over and over."""


@pytest.mark.parametrize("rehashed", ["body", "digests", "manifest"])
def test_weights_that_a_recipient_altered_are_not_the_publishers(small, tmp_path, monkeypatch, rehashed):
    """Re-encrypted with the very key of the stream, so that every tag is right; then the digests and the manifest."""
    manifest = read_manifest(small.path)
    recipients = Recipients.parse((small.path / "recipients.json").read_bytes())
    root = unwrap_root(recipients, manifest, small.publisher.sha256, [small.identity], NOW)
    (tmp_path / "new" / "body").mkdir(parents=True)
    index, *others = manifest.streams
    # With the streams' own nonces even the headers are the signed ones: the segments' digests alone tell.
    own = iter([(small.path / "body" / f"{entry.n:05d}.floe").read_bytes()[10:42] for entry in others])
    rng = lambda count: next(own) if count == 32 else bytes(count)  # noqa: E731 - one expression
    with BodyWriter(tmp_path / "new", root, "blake3", workers=1, rng=rng) as body:
        for entry in others:
            body.write(entry.n, entry.size, bytes)
        streams, digests = body.finish()
    for path in (tmp_path / "new" / "body").iterdir():
        shutil.copy(path, small.path / "body")
    if rehashed != "body":
        kept = (small.path / "digests.bin").read_bytes()[: 32 * index.entries]
        (small.path / "digests.bin").write_bytes(kept + digests)
    if rehashed == "manifest":
        (small.path / "manifest.json").write_bytes(
            msgspec.structs.replace(manifest, streams=(index, *streams)).to_bytes()
        )
    decrypted, original = [], segments.FloeDecryptor.segment_into
    spy = lambda *given: decrypted.append(1) or original(*given)  # noqa: E731 - one expression
    monkeypatch.setattr(segments.FloeDecryptor, "segment_into", spy)
    with pytest.raises(Tampered):
        small.read_all()
    with pytest.raises(Tampered):
        verify_sealed(small.path, small.publisher)
    # The signed digests come first: but for the publisher's own index nothing was even decrypted.
    assert len(decrypted) == (rehashed == "body")


@pytest.mark.parametrize("megabytes", [1, 2])
def test_a_full_disk_leaves_no_bundle(make_disk, tmp_path, write_source, megabytes):
    disk, source = make_disk(megabytes), write_source(tmp_path / "source", {"a": bytes(100), "b": bytes(3_000_000)})
    params = SealParams(kind="other", lineage="l", release_number=1, workers=2)
    with pytest.raises(StoreError, match="undone"):
        seal(source, disk / "x.sealed", [generate_identity()], params, lambda _manifest: b"s")
    assert list(disk.iterdir()) == []


def test_a_full_disk_leaves_the_old_recipients(make_disk, small):
    disk = make_disk(1)
    shutil.copytree(small.path, disk / "m.sealed")
    with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while ballast.write(bytes(4096)):
            pass
    assert shutil.disk_usage(disk).free == 0
    moved = small._replace(path=disk / "m.sealed")
    new = generate_identity()
    with pytest.raises(StoreError, match="cannot be written"):
        rekey(moved.path, moved.publisher, moved.identity, [new.recipient], clock=lambda: NOW)
    assert moved.read_all() == small.files
    assert {path.name for path in disk.iterdir()} == {"m.sealed", "ballast"}
    (disk / "ballast").unlink()
    rekey(moved.path, moved.publisher, moved.identity, [new.recipient], clock=lambda: NOW)
    assert moved.read_all(identities=[new]) == small.files


REKEYED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from stanch.crypto.identity import Identity
from stanch.seal import rekey
from stanch.terms import VerifiedDigest

folder, publisher = Path(sys.argv[1]), VerifiedDigest(bytes.fromhex(sys.argv[2]), ("k",), None)
old, new = Identity.load(folder / "old"), Identity.load(folder / "new")
original = {name: getattr(os, name) for name in ("open", "fsync", "rename", "replace")}
now = datetime(2026, 6, 1, 12, tzinfo=UTC)

def rekey_until(step):
    calls = []
    def counted(name):
        def call(*args, **options):
            writes = name != "open" or args[1] & (os.O_WRONLY | os.O_RDWR)
            calls.extend([1] if writes else [])
            if len(calls) > step:
                os.kill(os.getpid(), signal.SIGKILL)
            return original[name](*args, **options)
        return call
    for name in original:
        setattr(os, name, counted(name))
    bundle = folder / f"m{step}.sealed"
    rekey(bundle, publisher, old, [new.recipient], [old.recipient.key_id], clock=lambda: now)

for step in range(int(sys.argv[3])):  # each in a child of its own: a new interpreter costs a second
    child = os.fork()
    if not child:
        rekey_until(step)
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""


def test_a_killed_rekey_leaves_the_old_recipients_or_the_new_ones(small, tmp_path):
    new, steps = generate_identity(), 8
    small.identity.save(tmp_path / "old")
    new.save(tmp_path / "new")
    for step in range(steps):
        shutil.copytree(small.path, tmp_path / f"m{step}.sealed")
    command = [sys.executable, "-c", REKEYED, str(tmp_path), small.publisher.sha256.hex(), str(steps)]
    done = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    ends = [int(line) for line in done.stdout.split()]
    assert ends[0] == signal.SIGKILL
    assert ends[-1] == 0  # more steps than there are
    opened = []
    for step in range(steps):
        moved = small._replace(path=tmp_path / f"m{step}.sealed")
        names = {stanza.key_id for stanza in Recipients.parse((moved.path / "recipients.json").read_bytes()).stanzas}
        (holder,) = [identity for identity in (small.identity, new) if identity.recipient.key_id in names]
        assert moved.read_all(identities=[holder]) == small.files
        opened.append(holder is new)
        with pytest.raises(NotSealed):
            read_manifest(tmp_path / f"m{step}.sealed.recipients.json.partial")
    assert not opened[0]
    assert opened[-1]


LOADED = """
import sys
from pathlib import Path
from stanch.crypto.identity import Identity
from stanch.seal import VolatileReleases, open_bundle
from stanch.terms import VerifiedDigest

folder, digest = Path(sys.argv[1]), bytes.fromhex(sys.argv[2])
identity, memory = Identity.load(folder / "identity"), VolatileReleases()
with open_bundle(folder / "m.sealed", VerifiedDigest(digest, ("k",), None), [identity], memory=memory) as bundle:
    assert bytes.fromhex(sys.argv[3]) in bundle.tensor("a").raw.tobytes()
    assert bytes.fromhex(sys.argv[3]) in bytes(bundle.read("w.safetensors"))
"""


def test_a_load_under_strace_writes_no_plaintext(make_sealed, safetensors, strace, tmp_path):
    """The kernel's view: no file is opened for writing, nothing is written that holds 16 bytes of the weights."""
    sealed = make_sealed({"w.safetensors": safetensors({"a": MARKER * 40_000})})
    shutil.rmtree(tmp_path / "m.source")
    sealed.identity.save(tmp_path / "identity")
    python = [sys.executable, "-B", "-c", LOADED, str(tmp_path), sealed.publisher.sha256.hex(), MARKER.hex()]
    done = subprocess.run([*strace.command, *python], check=False, timeout=300, capture_output=True, text=True)
    if "ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    strace.check(MARKER[:16])
