"""Targets of the means: scan, seal, sign, mark."""

import functools
import shutil
import struct
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from fuzz_harness import Counting, Target, as_file, corpus, scratch, text_of

from stanch.crypto.canonical import canonical_json, parse_json
from stanch.crypto.identity import generate_identity
from stanch.crypto.signing import SigningKey
from stanch.errors import InvalidInput, NotPermitted, VerificationError
from stanch.mark.commitment import commit, restore
from stanch.mark.gguf import MAGIC, open_gguf
from stanch.mark.keys import MarkRoot, RecipientSlot
from stanch.mark.layout import make_layout
from stanch.mark.plan import MarkPlan
from stanch.mark.quantised import read_weights
from stanch.mark.treatments import Treatment
from stanch.seal.index import IndexFile, SealedIndex, parse_index
from stanch.seal.manifest import StreamEntry, parse_manifest
from stanch.seal.memory import FileReleases, SeenRelease, VolatileReleases
from stanch.seal.read import OpenParams, open_bundle
from stanch.seal.recipients import Recipients
from stanch.seal.source import MemorySource
from stanch.seal.write import SealParams, seal
from stanch.sign.bundle import Bundle, sign_statement, verify_bundle
from stanch.sign.content import find_unsafe
from stanch.sign.directory import sign_directory, verify_directory
from stanch.sign.policy import TrustedKeys
from stanch.sign.resources import read_resources
from stanch.sign.sealed import sign_manifest, verify_manifest
from stanch.sign.statement import Statement, Subject
from stanch.sign.trust import read_trusted_keys
from stanch.terms import Digest
from stanch.weights.header import build_head
from stanch.weights.tensors import Tensor

KEY = bytes(range(32))
SIGNER = SigningKey.from_seed(KEY)
TRUSTED = TrustedKeys((SIGNER.public,))
NOW = datetime(2026, 6, 1, tzinfo=UTC)
HEAD = build_head([("a", "U8", (4,))])
FILES = {"config.json": b'{"model_type":"llama"}', "model.safetensors": HEAD.head + b"abcd", "sub/empty": b""}
INPUT = (InvalidInput,)
WRONG = (InvalidInput, VerificationError)


def own_identity():
    return generate_identity(rng=Counting("identity"))


# seal


@functools.cache
def _sealed() -> dict[str, bytes]:
    """Return the files of a bundle by their names; the target of each is called after it."""
    folder = scratch() / "made.sealed"
    shutil.rmtree(folder, ignore_errors=True)
    params = SealParams(
        kind="model", lineage="acme/bot", release_number=1, workers=1, rng=Counting("seal"), clock=lambda: NOW
    )
    seal(
        MemorySource(FILES),
        folder,
        [own_identity().recipient],
        params,
        lambda data: sign_manifest(data, SIGNER).to_bytes(),
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


PARTS = {
    "manifest.json": "sealed-manifest",
    "recipients.json": "sealed-recipients",
    "manifest.sigstore.json": "sealed-signature",
    "digests.bin": "sealed-digests",
    "body/00000.floe": "sealed-index-stream",
    "body/00001.floe": "sealed-body",
    "body/00002.floe": "sealed-head",
    "body/00003.floe": "sealed-weights",
    "body/00004.floe": "sealed-empty",
}


def _open_sealed(name: str, data: bytes) -> object:
    """Open a bundle, one file of which is ``data``, and read all of it."""
    folder = scratch() / "opened.sealed"
    if not folder.exists():
        for part, stem in PARTS.items():
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            (folder / part).write_bytes(corpus(stem)[0])
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(data)
    try:
        manifest = (folder / "manifest.json").read_bytes()
        signature = Bundle.parse((folder / "manifest.sigstore.json").read_bytes())
        publisher = verify_manifest(manifest, signature, TRUSTED)
        params = OpenParams(clock=lambda: NOW, threads=1)
        with open_bundle(folder, publisher, [own_identity()], memory=VolatileReleases(), params=params) as opened:
            return {file.path: bytes(opened.read(file.path)) for file in opened.files()}
    finally:
        (folder / name).write_bytes(whole)


def _part(name: str) -> Target:
    return Target(
        name=PARTS[name], parser="stanch.seal.read.open_bundle", reads=f"`{name}` of a sealed bundle", kind="authentic",
        run=lambda data: _open_sealed(name, data), refuses=(*WRONG, NotPermitted), make=lambda: [_sealed()[name]],
    )  # fmt: skip


def _streams() -> list[StreamEntry]:
    sizes = [900, len(FILES["config.json"]), 8 + len(HEAD.head) - 8, 4, 0]
    return [StreamEntry(n, size, size, 1, "0" * 64) for n, size in enumerate(sizes)]


def _make_index() -> Iterable[bytes]:
    hexes = "0" * 64
    files = (
        IndexFile("config.json", len(FILES["config.json"]), (1,), hexes, None, "file", None),
        IndexFile("model.safetensors", len(FILES["model.safetensors"]), (2, 3), hexes, hexes, "safetensors", 2),
        IndexFile("sub/empty", 0, (4,), hexes, None, "file", None),
    )
    yield SealedIndex("stanch/sealed-index/v1", files, None, {"a": "b"}).to_bytes()


def _read_memory(data: bytes) -> object:
    return FileReleases(as_file(data, "releases.json")).last("p", "acme/bot")


def _make_memory() -> Iterable[bytes]:
    path = as_file(b"", "made.json")
    path.unlink()
    FileReleases(path).remember("p", "acme/bot", SeenRelease(3, "0" * 64))
    yield path.read_bytes()


# sign


def _statement() -> Statement:
    return Statement((Subject("weights", Digest.sha256(b"weights")),), "urn:test:v1", {"ok": True, "list": [1, "a"]})


def _verify_signed(data: bytes) -> object:
    return verify_bundle(Bundle.parse(data), TRUSTED).statement


def _model_folder() -> Path:
    folder = scratch() / "model"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@functools.cache
def _publisher() -> SigningKey:
    """Return a key of P-256, the only kind that signs models; the same in every process."""
    return SigningKey.load(as_file(corpus("signing-key")[1], "publisher.pem", folder="keys"))


def _verify_model(data: bytes) -> object:
    found = verify_directory(_model_folder(), Bundle.parse(data), TrustedKeys((_publisher().public,)))
    return found.statement.statement if hasattr(found, "statement") else found


def _make_trust() -> Iterable[bytes]:
    pem = SIGNER.public.to_pem().decode()
    yield pem.encode()
    yield (
        f'threshold = 1\n[[keys]]\nname = "us"\npem = """{pem}"""\nlineages = ["acme/bot"]\n'
        "not_before = 2026-01-01T00:00:00Z\nnot_after = 2027-01-01T00:00:00Z\n"
    ).encode()


def _inspect(data: bytes) -> object:
    root = as_file(data, "x.json", folder="intake").parent
    found = [list(find_unsafe(root, "x.json"))]
    for name in ("x.safetensors", "x.npy", "x.dat"):
        as_file(data, name, folder="intake")
        found.append(list(find_unsafe(root, name)))
    return found


def _make_inspected() -> Iterable[bytes]:
    yield b'{"model_type": "llama", "inner": {"auto_map": {}}}'
    yield FILES["model.safetensors"]
    path = scratch() / "array.npy"
    np.save(path, np.zeros(3))
    yield path.read_bytes()
    yield b"PK\x03\x04" + bytes(26) + b"data.pkl"


# mark


def _mark_plan() -> MarkPlan:
    tensors = [
        Tensor.from_float32(f"model.layers.{n}.self_attn.q_proj.weight", np.ones((64, 64), np.float32))
        for n in range(2)
    ]
    return MarkPlan(Digest.sha256(b"original"), "full", 0.003, make_layout(tensors, "full"), {})


def _batch() -> bytes:
    slots = [RecipientSlot("acme"), RecipientSlot("bolt é", bytes(32))]
    return canonical_json(commit(_mark_plan(), MarkRoot(KEY), slots, decoys=4).to_json())


def _restore(data: bytes) -> object:
    return restore(data, _mark_plan(), MarkRoot(KEY)).root


def _gguf(arch: str = "llama") -> bytes:
    """Return a small file as llama.cpp writes them: two tensors, metadata of every kind."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    fields = [
        text("general.architecture") + struct.pack("<I", 8) + text(arch),
        text(f"{arch}.block_count") + struct.pack("<II", 4, 1),
        text("general.alignment") + struct.pack("<II", 4, 32),
        text(f"{arch}.attention.head_count") + struct.pack("<II", 4, 2),
        text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"),
        text("scores") + struct.pack("<IIQ2f", 9, 6, 2, 0.5, 1.5),
        text("flag") + struct.pack("<IB", 7, 1),
    ]
    tensors = [
        text("blk.0.attn_q.weight") + struct.pack("<I2QIQ", 2, 32, 8, 0, 0),
        text("blk.0.ffn_up.weight") + struct.pack("<I2QIQ", 2, 32, 4, 8, 1024),
    ]
    head = MAGIC + struct.pack("<IQQ", 3, len(tensors), len(fields)) + b"".join(fields + tensors)
    return head.ljust(-(-len(head) // 32) * 32, b"\x00") + bytes(range(256)) * 4 + bytes(4 * 34)


def _open_gguf(data: bytes) -> object:
    model = open_gguf((as_file(data, "m.gguf"),))
    with np.errstate(all="ignore"):
        return {name: weight.whole().shape for name, weight in model.weights.items() if np.prod(weight.shape) < 1 << 16}


STATE = (
    b'{"quant_type":"nf4","blocksize":64,"shape":[8,16],"dtype":"float32","nested_blocksize":256,"nested_offset":0.1}'
)


def _quantised(data: bytes) -> object:
    tensors = {
        "a.weight": Tensor("a.weight", "U8", np.zeros((64, 1), np.uint8)),
        "a.weight.absmax": Tensor.from_float32("a.weight.absmax", np.ones(2, np.float32)),
        "a.weight.quant_map": Tensor.from_float32("a.weight.quant_map", np.linspace(-1, 1, 16, dtype=np.float32)),
        "a.weight.quant_state.bitsandbytes__nf4": Tensor("q", "U8", np.frombuffer(data, np.uint8)),
    }
    with np.errstate(all="ignore"):
        return {name: weight.whole().shape for name, weight in read_weights(tensors).items()}


def _resources(data: bytes) -> object:
    predicate = parse_json(data, what="predicate")
    if not isinstance(predicate, dict):
        raise InvalidInput("not an object")
    return read_resources(predicate)


def _resource_seed() -> bytes:
    signed = sign_directory(_model_folder(), _publisher())
    return canonical_json(Statement.parse(signed.payload).predicate)


def _saved_root() -> Iterable[bytes]:
    path = as_file(b"", "made.root")
    path.unlink()
    MarkRoot(KEY).save(path)
    yield path.read_bytes()


TARGETS = (
    *map(_part, PARTS),
    Target(name="seal-manifest", parser="stanch.seal.manifest.parse_manifest",
           reads="a manifest that nobody vouched for", kind="canonical", run=parse_manifest,
           rewrite=lambda m: m.to_bytes(), refuses=WRONG, make=lambda: [_sealed()["manifest.json"]]),
    Target(name="seal-recipients", parser="stanch.seal.recipients.Recipients.parse", reads="a list of recipients",
           kind="canonical", run=Recipients.parse, rewrite=lambda r: r.to_bytes(), refuses=INPUT,
           make=lambda: [_sealed()["recipients.json"]]),
    Target(name="seal-index", parser="stanch.seal.index.parse_index", reads="the index inside a bundle",
           kind="canonical", run=lambda data: parse_index(data, _streams()), rewrite=lambda i: i.to_bytes(),
           refuses=INPUT, make=_make_index),
    Target(name="release-memory", parser="stanch.seal.memory.FileReleases", reads="releases seen before", kind="plain",
           run=_read_memory, refuses=INPUT, make=_make_memory),
    Target(name="statement", parser="stanch.sign.statement.Statement.parse", reads="an in-toto statement", kind="plain",
           run=Statement.parse, refuses=INPUT, make=lambda: [_statement().to_bytes()]),
    Target(name="signature", parser="stanch.sign.bundle.verify_bundle", reads="a DSSE envelope in a Sigstore bundle",
           kind="authentic", run=_verify_signed, refuses=WRONG,
           make=lambda: [sign_statement(_statement(), SIGNER).to_bytes()]),
    Target(name="resources", parser="stanch.sign.resources.read_resources", reads="the predicate of a model signature",
           kind="plain", run=_resources, refuses=INPUT, make=lambda: [_resource_seed()]),
    Target(name="model-signature", parser="stanch.sign.directory.verify_directory",
           reads="the signature of a model's folder", kind="authentic", run=_verify_model, refuses=WRONG,
           make=lambda: [sign_directory(_model_folder(), _publisher()).to_bytes()]),
    Target(name="trusted-keys", parser="stanch.sign.trust.read_trusted_keys", reads="whom to trust", kind="plain",
           run=lambda data: read_trusted_keys(as_file(data, "trust.toml")), refuses=INPUT, make=_make_trust),
    Target(name="intake", parser="stanch.sign.content.find_unsafe", reads="any file of a model from outside",
           kind="plain", run=_inspect, refuses=INPUT, make=_make_inspected),
    Target(name="mark-batch", parser="stanch.mark.commitment.restore", reads="the batch of a release's marks",
           kind="authentic", run=_restore, refuses=WRONG, make=lambda: [_batch()]),
    Target(name="mark-root", parser="stanch.mark.keys.MarkRoot.load", reads="the root secret of a release's marks",
           kind="plain", run=lambda data: MarkRoot.load(as_file(data, "mark.root")).secret, refuses=INPUT,
           make=_saved_root),
    Target(name="treatment", parser="stanch.mark.treatments.Treatment.parse", reads="what a copy is put through",
           kind="plain", run=lambda data: Treatment.parse(text_of(data)).name, refuses=INPUT,
           make=lambda: [b"average:4+prune50+nf4", b"int8"]),
    Target(name="gguf", parser="stanch.mark.gguf.open_gguf", reads="a GGUF file", kind="plain", run=_open_gguf,
           refuses=INPUT, make=lambda: [_gguf(), _gguf("gpt2")]),
    Target(name="quantised", parser="stanch.mark.quantised.read_weights", reads="the state of a quantised tensor",
           kind="plain", run=_quantised, refuses=INPUT, make=lambda: [STATE]),
)  # fmt: skip
