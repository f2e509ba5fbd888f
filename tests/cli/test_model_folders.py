"""Model folders as they are found in the world: each is sealed and signed without loss, or refused with its reason.

One row a shape. What works must come back byte for byte through every command; what a loader could run is sealed like
any other bytes, and named by ``sign intake``.
"""

import contextlib
import json
import os
import pickle
import socket
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SHA1, SHA256 = "a" * 40, "b" * 64
WIDTHS = {"F64": 8, "C64": 8, "F32": 4, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 5\n"


def weights(*tensors, metadata=None, pad=0):
    """Return a safetensors file of ``(name, dtype, shape, bytes)``, written without our own code."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, dtype, shape, size in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += os.urandom(size)
    text = json.dumps(header).encode() + b" " * pad
    return len(text).to_bytes(8, "little") + text + data


MODEL = {
    "config.json": '{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": Infinity}',
    "generation_config.json": '{"eos_token_id": 2}',
    "model.safetensors": weights(("w", "F32", [3, 2], 24), metadata={"format": "pt"}),
    "tokenizer.json": '{"version": "1.0", "model": {"type": "BPE", "vocab": {"\\u0120a": 0}}}',
    "tokenizer_config.json": '{"chat_template": "{{ messages }}"}',
}


def put(folder, files):
    """Write ``{path: text or bytes}`` below a folder and return it."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def in_cache(folder, files, *, link=None):
    """Lay files out as huggingface_hub does, and return the snapshot; ``link`` changes where the links point."""
    repository = folder / "hub/models--acme--b"
    snapshot = repository / f"snapshots/{SHA1}"
    for number, (name, data) in enumerate(files.items()):
        blob = put(repository / "blobs", {(f"{number:040x}", f"{number:064x}")[number % 2]: data})
        path = snapshot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        target = blob / (f"{number:040x}", f"{number:064x}")[number % 2]
        path.symlink_to(link(target) if link else os.path.relpath(target, path.parent))
    put(repository, {"refs/main": SHA1})
    return snapshot


@dataclass(frozen=True)
class Row:
    """A shape: its files or what makes it, what intake finds, and why sealing or signing refuses it, if they do."""

    files: dict = field(default_factory=dict)
    make: object = put
    kind: str = "model"
    found: tuple[str, ...] = ()
    sealing: str = ""
    signing: str = ""

    def folder(self, path):
        return self.make(path, self.files)


SHAPES = {
    "one file": Row(MODEL),
    "shards with their index": Row(
        {
            "config.json": "{}",
            "model-00001-of-00002.safetensors": weights(("a", "BF16", [2, 4], 16)),
            "model-00002-of-00002.safetensors": weights(("b", "BF16", [1], 2)),
            "model.safetensors.index.json": '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}',
        }
    ),
    "adapter alone": Row(
        {
            "adapter_config.json": '{"peft_type": "LORA", "auto_mapping": null, "r": 8}',
            "adapter_model.safetensors": weights(("base_model.model.q.lora_A.weight", "F32", [1, 2], 8)),
            "README.md": "---\nbase_model: acme/b\n---\n# card\n",
        },
        kind="adapter",
    ),
    "a data set": Row(
        {"train.jsonl": '{"text": "a row"}\n', "train.manifest.json": '{"format": "…"}', "more/test.jsonl": ""},
        kind="dataset",
    ),
    "sentencepiece": Row(
        MODEL | {"tokenizer.model": b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02", "spiece.model": b"\n"}
    ),
    "word pieces": Row(
        MODEL | {"vocab.txt": "[PAD]\n##ing\n", "merges.txt": "#version: 0.2\na b\n", "vocab.json": "{}"}
    ),
    "diffusers": Row(
        {
            "model_index.json": '{"_class_name": "StableDiffusionPipeline"}',
            "unet/config.json": "{}",
            "unet/diffusion_pytorch_model.safetensors": weights(("w", "F16", [2], 4)),
            "vae/diffusion_pytorch_model.fp16.safetensors": weights(("w", "F16", [2], 4)),
            "scheduler/scheduler_config.json": "{}",
            "text_encoder/model.safetensors": weights(("w", "F16", [0, 4], 0)),
        }
    ),
    "sentence-transformers": Row(
        MODEL
        | {
            "modules.json": '[{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}]',
            "1_Pooling/config.json": '{"pooling_mode_mean_tokens": true}',
            "2_Normalize/.keep": "",
            "sentence_bert_config.json": "{}",
        }
    ),
    "snapshot in the cache": Row(
        MODEL | {".gitattributes": "*.st filter=lfs\n", "onnx/model.onnx": b"\x08\x07", "1_Pooling/config.json": "{}"},
        make=in_cache,
    ),
    "snapshot with absolute links": Row(MODEL, make=lambda folder, files: in_cache(folder, files, link=Path.resolve)),
    "downloaded to a folder": Row(
        MODEL
        | {
            ".cache/huggingface/.gitignore": "*",
            ".cache/huggingface/download/config.json.metadata": f"{SHA1}\n{SHA256}\n1.5\n",
            ".cache/huggingface/download/config.json.lock": "",
        }
    ),
    "git clone": Row(
        MODEL
        | {
            ".git/HEAD": "ref: refs/heads/main\n",
            ".git/objects/0a/b": b"x\x01\x00",
            ".git/lfs/objects/aa/bb/aabb": b"\x00" * 9,
            ".gitattributes": "*.bin filter=lfs\n",
        }
    ),
    "card and licence": Row(
        MODEL | {"README.md": "# card\n", "LICENSE": "Apache", "NOTICE": "", "USE_POLICY.md": "\ufefftext"}
    ),
    "other engines": Row(
        MODEL
        | {
            "onnx/model.onnx": b"\x08\x07\x12\x07pytorch",
            "onnx/model.onnx_data": b"\x00" * 100,
            "model-Q4_K_M.gguf": b"GGUF\x03\x00\x00\x00" + bytes(16),
            "openvino/openvino_model.xml": "<net/>",
            "flax_model.msgpack": b"\x81\xa1a\x01",
        }
    ),
    "gguf alone": Row({"model.gguf": b"GGUF\x03\x00\x00\x00" + bytes(16)}),
    "names": Row(
        MODEL
        | {"a name with spaces.txt": "x", "métadonnées/日本語.json": "{}", "-rf": "x", "%41&;$(x)": "x", "a" * 255: "x"}
    ),
    "empty files": Row(MODEL | {"empty": "", "deep/er/empty.txt": ""}),
    "checkpoint files without a configuration": Row({"weights.safetensors": weights(("w", "F32", [1], 4))}),
    "element types": Row(
        {
            "config.json": "{}",
            "model.safetensors": weights(
                *((name, name, [2, 3], 6 * size) for name, size in WIDTHS.items()),
                *((name, name, [5], 5) for name in ("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL")),
                *((name, name, [5], 5) for name in ("F8_E4M3FNUZ", "F8_E5M2FNUZ")),
                ("f4", "F4", [2, 3], 3),
                ("f6", "F6_E2M3", [4, 2], 6),
                ("f6b", "F6_E3M2", [4], 3),
                ("scalar", "F32", [], 4),
                ("none", "BF16", [4, 0], 0),
                ("none too", "F4", [0], 0),
            ),
            "empty.safetensors": weights(),
            "padded.safetensors": weights(("w", "F32", [1], 4), pad=5),
            "late.safetensors": weights(("z", "U8", [3], 3), ("a", "F32", [1], 4)),
        }
    ),
    "original weights beside": Row(
        MODEL | {"original/consolidated.00.pth": pickle.dumps([1], 2), "original/params.json": "{}"}, found=("pickle",)
    ),
    "left by a trainer": Row(
        MODEL
        | {"training_args.bin": pickle.dumps({}, 4), "opt.pt": b"PK\x03\x04", "trainer_state.json": '{"loss": NaN}'},
        found=("archive", "pickle"),
    ),
    "remote code": Row(
        MODEL | {"config.json": '{"auto_map": {"AutoModel": "modeling_x.X"}}', "modeling_x.py": "print(1)\n"},
        found=("remote-code", "code"),
    ),
    "large files not fetched": Row(
        MODEL | {"model.safetensors": POINTER}, sealing="pointer of Git LFS", found=("safetensors",)
    ),
    "cut off": Row(
        MODEL | {"model.safetensors": MODEL["model.safetensors"][:-1]}, sealing="expected", found=("safetensors",)
    ),
    "weights of no bytes": Row(MODEL | {"model.safetensors": ""}, sealing="not a safetensors", found=("safetensors",)),
    "empty folder": Row(
        make=lambda folder, _: (folder / "x").mkdir(parents=True) or folder, sealing="no file", signing="none"
    ),
    "names that clash": Row(
        MODEL | {"readme.md": "", "README.md": ""}, sealing="letter case", signing="letter case", found=("name-clash",)
    ),
    "a name in NFD": Row(MODEL | {"e\u0301": ""}, sealing="in NFC", signing="in NFC", found=("name",)),
    "a backslash": Row(MODEL | {"a\\b": ""}, sealing="short relative", signing="short relative", found=("name",)),
    "a line break": Row(MODEL | {"a\nb": ""}, sealing="short relative", signing="short relative", found=("name",)),
    "a name that is no text": Row(MODEL | {os.fsdecode(b"\xff"): ""}, sealing="path", signing="path", found=("name",)),
}


def link_out(folder, files):
    put(folder, files)
    (folder / "secret").symlink_to("/etc/hostname")
    return folder


def special(folder, files):
    put(folder, files)
    os.mkfifo(folder / "pipe")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as made:
        made.bind(os.path.relpath(folder / "s"))
    return folder


def blob_is_a_link(folder, files):
    snapshot = in_cache(folder, files)
    blob = (snapshot / "config.json").resolve()
    blob.unlink()
    blob.symlink_to("/etc/hostname")
    return snapshot


def blobs_elsewhere(folder, files):
    snapshot = in_cache(folder, files)
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(folder / "elsewhere")
    blobs.symlink_to(folder / "elsewhere")
    return snapshot


def beside(name):
    return lambda folder, files: in_cache(folder, files, link=lambda blob: f"../../blobs/{name or blob.name}")


LINKS = {"sealing": "a link", "signing": "links or special", "found": ("link",)}
SHAPES |= {
    "a link out of the folder": Row(MODEL, make=link_out, **LINKS),
    "a pipe and a socket": Row(MODEL, make=special, **LINKS),
    "the whole repository in the cache": Row(MODEL, make=lambda *made: in_cache(*made).parents[1], **LINKS),
    "a blob that is gone": Row(MODEL, make=beside("f" * 40), **LINKS),
    "a blob that is a link": Row(MODEL, make=blob_is_a_link, **LINKS),
    "blobs that lie elsewhere": Row(MODEL, make=blobs_elsewhere, **LINKS),
    "a link to no blob's name": Row(MODEL, make=beside("../refs/main"), **LINKS),
    "links of a folder that only looks alike": Row(
        MODEL, make=lambda folder, files: in_cache(folder, files).parent.rename(folder / "snapshots") / SHA1, **LINKS
    ),
}


@pytest.fixture
def keys(tmp_path_factory):
    from stanch.crypto import SigningKey  # noqa: PLC0415 - only here
    from stanch.crypto.identity import generate_identity  # noqa: PLC0415 - only here

    folder = tmp_path_factory.mktemp("keys")
    sign = SigningKey.generate("p256")
    sign.save(folder / "s.pem")
    (folder / "s.pub.pem").write_bytes(sign.public.to_pem())
    for name in ("one", "two"):
        generate_identity().save(folder / f"{name}.json")
    return folder


def contents(folder):
    """Return all files by name; links as what they point to."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "model.sig"]
    return {os.fsencode(path.relative_to(folder)): path.read_bytes() for path in paths}


def recipient(stanch, key):
    return stanch("--json", "key", "show", key).json["data"]["recipient"]


@pytest.mark.parametrize("name", [name for name, row in SHAPES.items() if not row.sealing])
def test_a_folder_comes_back_as_it_was(stanch, keys, tmp_path, name):
    row, trust = SHAPES[name], ("--trust", keys / "s.pub.pem")
    folder = row.folder(tmp_path / "model")
    before = contents(folder)
    words = ("--to", recipient(stanch, keys / "one.json"), "--sign-key", keys / "s.pem", "--lineage", "acme/b")
    made = stanch("--json", "seal", "create", folder, *words, "--out", "b.sealed")
    assert (made.code, made.err) == (0, "")
    assert stanch("--json", "seal", "ls", "b.sealed").json["data"]["kind"] == row.kind
    assert stanch("seal", "verify", "b.sealed", *trust).code == 0
    rekey = ("--identity", keys / "one.json", "--add", recipient(stanch, keys / "two.json"))
    assert stanch("seal", "rekey", "b.sealed", *trust, *rekey).code == 0
    opened = ("--identity", keys / "two.json", "--out", "clear")
    assert stanch("seal", "unseal-unsafe", "b.sealed", *trust, *opened).code == 0
    assert contents(tmp_path / "clear") == before
    assert not any(path.is_symlink() for path in (tmp_path / "clear").rglob("*"))
    # What was sealed is what was signed, and the folder itself is signed as well.
    assert stanch("sign", "verify", "clear", *trust).code == 0
    assert stanch("sign", "create", folder, "--key", keys / "s.pem", "--out", "m.sig").code == 0
    for place in (folder, "clear"):
        if place == folder or (tmp_path / "clear/model.sig").unlink() is None:
            assert stanch("sign", "verify", place, *trust, "--signature", "m.sig").code == 0
    assert contents(folder) == before


@pytest.mark.parametrize("name", SHAPES)
def test_intake_names_what_a_loader_could_run(stanch, tmp_path, name):
    row = SHAPES[name]
    shown = stanch("--json", "sign", "intake", row.folder(tmp_path / "model"))
    kinds = {found["kind"] for found in shown.json["data"]["findings"]}
    assert (shown.code, kinds) == (1 if row.found else 0, set(row.found))


@pytest.mark.parametrize("name", [name for name, row in SHAPES.items() if row.sealing])
def test_a_folder_is_refused_with_its_reason(stanch, keys, tmp_path, name):
    row = SHAPES[name]
    folder = row.folder(tmp_path / "model")
    before = sorted(tmp_path.rglob("*"))
    words = ("--to", recipient(stanch, keys / "one.json"), "--sign-key", keys / "s.pem", "--lineage", "acme/b")
    refused = stanch("seal", "create", folder, *words, "--out", "b.sealed")
    assert refused.code in {1, 2}, refused
    assert row.sealing in refused.err
    signed = stanch("sign", "create", folder, "--key", keys / "s.pem", "--out", "m.sig")
    assert (signed.code == 0) == (not row.signing), signed
    assert row.signing in signed.err
    (tmp_path / "m.sig").unlink(missing_ok=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_blob_exchanged_for_a_link_while_it_is_read_is_not_followed(tmp_path):
    from stanch.seal import DirectorySource  # noqa: PLC0415 - only here

    snapshot = in_cache(tmp_path, MODEL)
    (file,) = (file for file in DirectorySource(snapshot).files() if file.path == "config.json")
    blob = (snapshot / "config.json").resolve()
    blob.unlink()
    blob.symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic links"):
        file.open()
