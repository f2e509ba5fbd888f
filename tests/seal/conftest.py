"""A publisher without ``sign``, small sources, and the independent reader."""

import importlib.util
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from stanch.crypto import SigningKey
from stanch.crypto.identity import Identity, generate_identity
from stanch.seal import OpenParams, SealParams, VolatileReleases, open_bundle, seal
from stanch.terms import Digest, VerifiedDigest

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def clock():
    return NOW


@pytest.fixture(name="clock", scope="session")
def _clock():
    return clock


class Sealed(NamedTuple):
    """A bundle, what verifies it, who opens it, and what is in it."""

    path: Path
    publisher: VerifiedDigest
    identity: Identity
    files: dict[str, bytes]

    def open(self, *, memory=None, verify="publisher", identities=None, params=None):
        return open_bundle(
            self.path,
            self.publisher,
            [self.identity] if identities is None else identities,
            verify=verify,
            memory=VolatileReleases() if memory is None else memory,
            params=params or OpenParams(clock=clock, threads=2),
        )

    def read_all(self, **options):
        with self.open(**options) as bundle:
            return {file.path: bytes(bundle.read(file.path)) for file in bundle.files()}


@pytest.fixture(scope="session")
def oracle():
    spec = importlib.util.spec_from_file_location("seal_oracle", Path(__file__).with_name("oracle.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def signer():
    return SigningKey.generate("ed25519")


def make_safetensors(tensors):
    """Return the bytes of a safetensors file with the uint8 tensors ``{name: bytes}``."""
    header, start = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [start, start + len(data)]}
        start += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


@pytest.fixture(scope="session")
def safetensors():
    return make_safetensors


def write_files(folder, files):
    """Write ``{path: bytes}`` below a folder and return the folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def write_source():
    return write_files


_WRITES = "trace=open,openat,openat2,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
_WRITES += "truncate,ftruncate,write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,mmap"


class Strace:
    """What the kernel was asked for while a bundle was loaded."""

    def __init__(self, trace):
        self.trace = trace
        self.command = ["strace", "-f", "-xx", "-s", "4096", "-e", _WRITES, "-o", str(trace)]

    def check(self, *secrets):
        """Fail if a file was opened for writing, or anything written that holds one of the secrets (16 bytes)."""
        lines = self.trace.read_text().splitlines()
        assert any("floe" in bytes.fromhex("".join(line.split('"')[1].split("\\x"))).decode(errors="replace")
                   for line in lines if "openat(" in line and '"\\x' in line)  # the load itself was traced  # fmt: skip
        shown = ["".join(f"\\x{byte:02x}" for byte in secret) for secret in secrets]
        for line in lines:
            assert not any(secret in line for secret in shown), line[:200]
            if "open" in line.split("(")[0]:
                words = line.replace("|", " ").replace(",", " ").split()
                assert not {"O_WRONLY", "O_RDWR", "O_CREAT"} & set(words), line
            assert not ("MAP_SHARED" in line and "PROT_WRITE" in line), line
            assert not any(f" {name}(" in line for name in ("mkdir", "rename", "link", "symlink", "truncate")), line


@pytest.fixture
def strace(tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    return Strace(tmp_path / "trace")


@pytest.fixture
def make_sealed(tmp_path, signer):
    """Return a function that seals ``{path: bytes}``."""

    def make(files, *, name="m", identity=None, recipients=None, **params):
        identity = identity or generate_identity()
        source = write_files(tmp_path / f"{name}.source", files)
        settings = {"kind": "model", "lineage": "acme/bot", "release_number": 1, "workers": 2, "clock": clock} | params
        bundle = seal(
            source,
            tmp_path / f"{name}.sealed",
            recipients or [identity.recipient],
            SealParams(**settings),
            signer.sign,
        )
        manifest = (bundle.path / "manifest.json").read_bytes()
        signer.public.verify((bundle.path / "manifest.sigstore.json").read_bytes(), manifest)
        assert bundle.digest == Digest.sha256(manifest)
        publisher = VerifiedDigest(bundle.digest.value, (signer.key_id,), None)
        return Sealed(bundle.path, publisher, identity, files)

    return make


@pytest.fixture
def small(make_sealed):
    """A bundle with one small file of each kind."""
    return make_sealed(
        {
            "config.json": b'{"model_type": "llama"}',
            "model.safetensors": make_safetensors({"a": b"0123456789", "b": b"\xff" * 6}),
            "sub/empty": b"",
        }
    )
