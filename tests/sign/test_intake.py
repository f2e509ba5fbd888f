"""Intake: one sample of each kind that is refused, none of which may run; and what a sound model may hold."""

import gzip
import io
import json
import os
import pickle
import re
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput, UnsafeArtifact
from stanch.sign import IntakePolicy, inspect_model
from stanch.weights import Tensor, write_safetensors

KERNELS = {
    "attn_implementation": "someone/kernel", "_attn_implementation": {"": "someone/kernel"},
    "_experts_implementation_internal": "someone/kernel", "kernel_config": {"RMSNorm": {"cuda": "someone/kernel"}},
    "use_kernels": True, "custom_generate": "someone/generate",
}  # fmt: skip


class Bomb:
    """A pickle that would create a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (self.target, "w")


def zipped(**members):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_pkl", ".pkl"), data)
    return target.getvalue()


def tarred(data, form=tarfile.GNU_FORMAT):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        info = tarfile.TarInfo("weights")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def saved(array, version=None):
    target = io.BytesIO()
    np.lib.format.write_array(target, array, version, allow_pickle=True)
    return target.getvalue()


def headed(text):
    """Return a NumPy file with this header."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin1")


def old_tar(data):
    """Return a tar as written before the ustar magic existed, with a name that is no UTF-8."""
    block = bytearray(tarred(data))
    block[257:265] = bytes(8)
    block[:1] = b"\xff"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    tensor = Tensor.from_float32("w", np.zeros((2, 2), np.float32), "F32")
    write_safetensors(folder / "model.safetensors", [tensor])
    own = '"_attn_implementation": "sdpa", "attn_implementation": null, "use_kernels": false, "kernel_config": {}'
    (folder / "config.json").write_text(f'{{"architectures": ["LlamaForCausalLM"], {own}, "vocab_size": 1{"0" * 30}}}')
    (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message }}{% endfor %}")
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    (folder / "README.md").write_text("PK and MZ are letters; auto_map is a word\n")
    (folder / "tokenizer.model").write_bytes(b"\x0a\x0e\x80\x02")
    (folder / "positions.npy").write_bytes(saved(np.arange(4)))
    (folder / "long.npy").write_bytes(saved(np.arange(4), (2, 0)))
    (folder / "data.jsonl").write_text('{"a": 1}\n\n["b"]\n')
    (folder / "brackets.txt").write_text("[not JSON at all")
    (folder / "empty").write_bytes(b"")
    return folder


def test_a_sound_model_passes(model):
    report = inspect_model(model)
    assert (report.files, report.findings) == (11, ())


NUMPY_HEADERS = [
    "{'descr': '<i8', 'fortran_order': False, 'shape': (4L,)}\n",  # as Python 2 wrote it
    "{'descr': '<i8', 'fortran_order': False, 'shape': (4",
    "x\n  y\n z",
    "{1: 2, 'a': 3}",
    "{[]: 1}",
    "-" * 9000 + "1",
    "(" * 9000,
    "{'descr': 'nonsense', 'fortran_order': False, 'shape': (4,)}",
]


def samples():
    """Return name, content and expected kind of everything refused."""
    bombs = [pickle.dumps(Bomb("pwned"), protocol) for protocol in (2, 3, 4, 5)]
    return [
        *((f"innocent{number}.txt", bomb, "pickle") for number, bomb in enumerate(bombs)),
        ("weights", zipped(archive__data_pkl=bombs[0], archive__version=b"3"), "torch-archive"),
        ("adapter.model", zipped(x=bombs[0]), "archive"),
        ("polyglot.txt", b"plain text\n" + zipped(x=b"x"), "archive"),
        ("cut.dat", zipped(x=b"x")[:20], "archive"),
        ("off.dat", b"?" + tarred(b"x")[1:], "archive"),
        ("a.dat", tarred(bombs[0]), "archive"),
        ("b.dat", tarred(b"x", tarfile.PAX_FORMAT), "archive"),
        ("c.dat", old_tar(b"x"), "archive"),
        ("vocab.txt", gzip.compress(b"x"), "archive"),
        ("d", b"BZh91AY", "archive"), ("e", b"\xfd7zXZ\x00", "archive"), ("f", b"\x28\xb5\x2f\xfd", "archive"),
        ("g", b"7z\xbc\xaf\x27\x1c", "archive"), ("h", b"Rar!\x1a\x07\x01", "archive"),
        *((f"x{suffix}", b"x", "pickle") for suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".joblib", ".PT")),
        *((f"x{suffix}", b"x", "weights") for suffix in (".h5", ".keras", ".nemo")),
        ("hdf", b"\x89HDF\r\n\x1a\n", "weights"),
        ("hdf-late", bytes(1024) + b"\x89HDF\r\n\x1a\n", "weights"),
        ("objects.npy", saved(np.array([{}], dtype=object)), "numpy-object"),
        ("nested.npy", saved(np.array([(1, None)], dtype=[("a", "i4"), ("b", "O")])), "numpy-object"),
        ("damaged.npy", b"\x93NUMPY\x01\x00\xff\xff{", "numpy-object"),
        *((f"header{number}.npy", headed(text), "numpy-object") for number, text in enumerate(NUMPY_HEADERS)),
        ("names.npy", saved(np.arange(4), (3, 0)), "numpy-object"),
        ("future.npy", b"\x93NUMPY\x09\x00\x00\x00", "numpy-object"),
        ("modeling.py", b"", "code"), ("X.PYC", b"", "code"), ("lib.so", b"", "code"), ("lib.so.1.2", b"", "code"),
        ("run", b"#!/bin/sh\n", "code"), ("elf", b"\x7fELF\x02", "code"), ("exe", b"MZ\x90", "code"),
        ("mach", b"\xcf\xfa\xed\xfe", "code"), ("wasm", b"\x00asm\x01", "code"),
        ("deep.json", json.dumps({"a": [{"b": {"auto_map": {}}}]}).encode(), "remote-code"),
        ("spelled.json", rb'{"auto\u005fmap": 1}', "remote-code"),
        ("hidden", b'\xef\xbb\xbf {"trust_remote_code": false}', "remote-code"),
        ("twice.json", b'{"custom_pipelines": 1, "custom_pipelines": 2}', "remote-code"),
        ("utf16.json", '{"auto_map": 1}'.encode("utf-16"), "remote-code"),
        *((f"{key}.json", json.dumps([{key: KERNELS[key]}]).encode(), "remote-code") for key in KERNELS),
        ("rows.jsonl", b'{"a": 1}\n\n{"auto_map": 1}\n', "remote-code"),
        ("second.jsonl", b'1\n{"auto_map": 1}\n', "remote-code"),
        ("list", b' [{"auto_map": 1}]', "remote-code"),
        ("broken.json", b'{"auto_map": 1', "json"),
        ("broken.jsonl", b'{"a": 1}\n{\n', "json"),
        ("abyss.json", b"[" * 100_000, "json"),
        ("cut.safetensors", b"\x10\0\0\0\0\0\0\0{}", "safetensors"),
        ("pickle.safetensors", bombs[0], "safetensors"),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "kind"), samples(), ids=[name for name, _, _ in samples()])
def test_each_kind_is_refused_and_none_runs(model, name, data, kind, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (model / "sub").mkdir()
    (model / "sub" / name).write_bytes(data)
    (found,) = inspect_model(model, IntakePolicy.REPORT).findings
    assert (found.path, found.kind) == (f"sub/{name}", kind)
    assert found.reason
    assert found.convert
    with pytest.raises(UnsafeArtifact, match=re.escape(f"sub/{name} ")) as caught:
        inspect_model(model)
    assert found.convert == caught.value.next_step
    assert os.listdir(tmp_path) == ["model"]  # noqa: PTH208 - names are enough


@pytest.mark.filterwarnings("ignore")
def test_a_header_that_numpy_repairs_with_a_warning_is_damaged(tmp_path):
    (tmp_path / "x.npy").write_bytes(headed(NUMPY_HEADERS[0]))
    assert [found.kind for found in inspect_model(tmp_path, IntakePolicy.REPORT).findings] == ["numpy-object"]


CODE = [
    ".py", ".pyw", ".pyc", ".pyo", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".cmd", ".ps1", ".jar",
    ".so.1", ".SO.1.22",
]  # fmt: skip
PICKLED = [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill"]
NAMED = {
    **dict.fromkeys(CODE, ("code", "is code by its name")),
    **dict.fromkeys(PICKLED, ("pickle", "is a pickle by its name")),
    ".h5": ("weights", "is HDF5 by its name"), ".hdf5": ("weights", "is HDF5 by its name"),
    ".keras": ("weights", "is Keras by its name"), ".nemo": ("weights", "is NeMo by its name"),
}  # fmt: skip
MAGIC = {
    b"\x7fELF": "is a Linux program", b"MZ": "is a Windows program", b"\xfe\xed\xfa\xce": "is a macOS program",
    b"\xfe\xed\xfa\xcf": "is a macOS program", b"\xce\xfa\xed\xfe": "is a macOS program",
    b"\xcf\xfa\xed\xfe": "is a macOS program", b"\xca\xfe\xba\xbe": "is a Java class",
    b"\x00asm": "is a WebAssembly program", b"#!": "is a script", b"\x1f\x8b": "is a gzip archive",
    b"BZh": "is a bzip2 archive", b"\xfd7zXZ\x00": "is a xz archive", b"\x28\xb5\x2f\xfd": "is a Zstandard archive",
    b"\x04\x22\x4d\x18": "is a LZ4 archive", b"7z\xbc\xaf\x27\x1c": "is a 7-Zip archive",
    b"Rar!\x1a\x07": "is a RAR archive", b"PK\x03\x04": "is a zip archive", tarred(b""): "is a tar archive",
}  # fmt: skip


def test_each_name_and_each_beginning_is_refused_and_said(tmp_path):
    for suffix in NAMED:
        (tmp_path / f"x{suffix}").write_bytes(b"x")
    for number, magic in enumerate(MAGIC):
        (tmp_path / f"magic-{number:02}").write_bytes(magic)
    found = {item.path: item for item in inspect_model(tmp_path, IntakePolicy.REPORT).findings}
    assert len(found) == len(NAMED) + len(MAGIC)
    for suffix, (kind, reason) in NAMED.items():
        assert found[f"x{suffix}"].kind == kind
        assert found[f"x{suffix}"].reason.startswith(reason)
    for number, (magic, reason) in enumerate(MAGIC.items()):
        item = found[f"magic-{number:02}"]
        assert item.kind == ("archive" if "archive" in reason else "code")
        assert item.reason.startswith(reason), magic


@pytest.mark.parametrize(
    ("suffix", "hint"), [(".bin", "safetensors"), (".keras", "safetensors"), (".zip", "unpack it")]
)
def test_an_archive_of_weights_is_to_be_converted_and_another_unpacked_elsewhere(tmp_path, suffix, hint):
    (tmp_path / f"x{suffix}").write_bytes(zipped(x=b"x"))
    (found,) = inspect_model(tmp_path, IntakePolicy.REPORT).findings
    assert hint in found.convert


def test_the_length_of_a_safetensors_header_may_look_like_anything(model):
    # Its first bytes are a length; 0x0280 are also the first bytes of a pickle, 0x5A4D those of a Windows program.
    for length in (0x0280, 0x5A4D):
        (model / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}".ljust(length))
        assert inspect_model(model).findings == ()
    (model / "model.safetensors").rename(model / "model.dat")
    assert {found.kind for found in inspect_model(model, IntakePolicy.REPORT).findings} == {"code"}


def test_links_special_files_and_names_are_findings(model):
    (model / "link").symlink_to("/etc/passwd")
    os.mkfifo(model / "pipe")
    (model / "sub").mkdir()
    (model / "sub" / "Config.json").write_text("{}")
    (model / "sub" / "config.JSON").write_text("{}")
    (model / "SUB").write_text("")
    (model / "a\nb").write_text("")
    found = [(item.path, item.kind) for item in inspect_model(model, IntakePolicy.REPORT).findings]
    assert found == [
        ("SUB", "name-clash"), ("a\nb", "name"), ("link", "link"), ("pipe", "link"), ("sub/config.JSON", "name-clash"),
    ]  # fmt: skip
    with pytest.raises(UnsafeArtifact) as caught:
        inspect_model(model)
    assert "\n" not in caught.value.why
    assert "link is a link" in caught.value.why


@pytest.mark.parametrize(
    ("size", "reason"), [(64 << 20, "not valid JSON"), ((64 << 20) + 1, "too large"), (1 << 40, "too large")]
)
def test_json_of_64_mib_is_inspected_and_no_more(tmp_path, size, reason):
    (tmp_path / "config.json").touch()
    os.truncate(tmp_path / "config.json", size)
    (found,) = inspect_model(tmp_path, IntakePolicy.REPORT).findings
    assert reason in found.reason


def test_json_that_is_too_large_is_not_parsed(tmp_path, monkeypatch):
    for name in ("config.json", "data.jsonl"):
        (tmp_path / name).write_text('{"auto_map":1}')
    monkeypatch.setattr("stanch.sign.content._MAX_JSON", 14)
    assert [item.kind for item in inspect_model(tmp_path, IntakePolicy.REPORT).findings] == ["remote-code"] * 2
    monkeypatch.setattr("stanch.sign.content._MAX_JSON", 13)
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("parsed"))
    found = inspect_model(tmp_path, IntakePolicy.REPORT).findings
    assert [(item.kind, "too large" in item.reason) for item in found] == [("json", True)] * 2


def test_a_long_list_of_findings_is_cut(tmp_path):
    for n in range(23):
        (tmp_path / f"{n:02}.py").touch()
    with pytest.raises(UnsafeArtifact, match=r"00\.py is code") as caught:
        inspect_model(tmp_path)
    assert caught.value.why.startswith("loading it could run code, or differ from what was checked; 01.py is code")
    assert caught.value.why.endswith("20.py is code by its name (.py); and 2 more")
    for n in (21, 22):
        (tmp_path / f"{n}.py").unlink()
    with pytest.raises(UnsafeArtifact) as caught:
        inspect_model(tmp_path)
    assert caught.value.why.endswith("20.py is code by its name (.py)")


def test_the_links_of_a_snapshot_in_the_hubs_cache_are_looked_through(tmp_path):
    blobs, snapshot = tmp_path / "models--acme--bot/blobs", tmp_path / "models--acme--bot/snapshots/main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for blob, name, data in (("a" * 40, "config.json", b"{}"), ("b" * 40, "notes.txt", b"#!/bin/sh\n")):
        (blobs / blob).write_bytes(data)
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    (snapshot / "away").symlink_to("/etc/passwd")
    report = inspect_model(snapshot, IntakePolicy.REPORT)
    assert report.files == 2
    assert [(item.path, item.kind) for item in report.findings] == [("away", "link"), ("notes.txt", "code")]


def test_no_directory_is_bad_input(tmp_path):
    with pytest.raises(InvalidInput, match="directory"):
        inspect_model(tmp_path / "missing")


SUFFIXES = ["", ".json", ".safetensors", ".npy"]
STARTS = [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"{", b"\x80\x04", b"\x10\0\0\0\0\0\0\0{"]


@settings(max_examples=60, deadline=None)
@given(
    start=st.sampled_from(STARTS),
    rest=st.binary(max_size=700),
    suffix=st.sampled_from(SUFFIXES),
)
def test_any_bytes_are_judged_without_a_fault(tmp_path_factory, start, rest, suffix):
    folder = tmp_path_factory.mktemp("any")
    (folder / f"x{suffix}").write_bytes(start + rest)
    assert inspect_model(folder, IntakePolicy.REPORT).files == 1
