"""Signed directories: what was signed holds, everything else is named; and both ways with model-signing 1.1.1."""

import base64
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.crypto import SigningKey, VerifyKey, hash_bytes, sha256
from stanch.errors import InvalidInput, NoTrustedSignature, PolicyViolation
from stanch.sign import (
    Bundle,
    DirectoryMismatch,
    Statement,
    Subject,
    TrustedKeys,
    sign_directory,
    sign_listing,
    sign_statement,
    verify_bundle,
    verify_directory,
)
from stanch.sign.directory import MODEL_SIGNATURE_TYPE, SIGNATURE_NAME
from stanch.sign.files import Piece, hash_pieces, open_regular
from stanch.sign.resources import read_resources
from stanch.terms import Digest

KEY, OTHER = SigningKey.generate("p256"), SigningKey.generate("p256")
TRUSTED = TrustedKeys((KEY.public,))
FILES = {"config.json": b"{}", "a/b.bin": bytes(range(256)) * 9000, "a.txt": b"text", "empty": b"", "a/c/d": b"deep"}


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "bot"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def signed_predicate(bundle):
    return json.loads(bundle.payload)["predicate"]


def forge(bundle, change):
    """Return a statement by the trusted key whose predicate and subject were changed."""
    statement = Statement.parse(bundle.payload)
    predicate = json.loads(json.dumps(statement.predicate))
    change(predicate)
    root = sha256(*(bytes.fromhex(item["digest"]) for item in predicate["resources"]))
    return sign_statement(Statement((Subject("bot", Digest("sha256", root)),), MODEL_SIGNATURE_TYPE, predicate), KEY)


@pytest.mark.parametrize("name", ["sha256", "blake2b", "blake3"])
def test_a_signed_directory_comes_back_verified(model, name):
    bundle = sign_directory(model, KEY, hash=name)
    (model / SIGNATURE_NAME).write_bytes(bundle.to_bytes())
    verified = verify_directory(model, Bundle.parse(bundle.to_bytes()), TRUSTED)
    assert (verified.name, verified.hash) == ("bot", name)
    assert verified.files == ("a.txt", "a/b.bin", "a/c/d", "config.json", "empty")
    assert verified.signer_key_ids == (KEY.key_id,)
    resources = signed_predicate(bundle)["resources"]
    assert [item["name"] for item in resources] == list(verified.files)
    assert verified.digest.value == sha256(*(bytes.fromhex(item["digest"]) for item in resources))
    if name != "blake2b":
        assert resources[1]["digest"] == hash_bytes(name, FILES["a/b.bin"]).hex()


def test_every_difference_is_named_at_once(model):
    bundle = sign_directory(model, KEY)
    (model / "a/b.bin").write_bytes(FILES["a/b.bin"][:-1] + b"\0")
    (model / "empty").write_bytes(b"x")
    (model / "a/c/d").unlink()
    (model / "a.txt").unlink()
    (model / "a.txt").symlink_to("config.json")
    (model / "a/c/new\x1b.py").write_bytes(b"import os")
    with pytest.raises(DirectoryMismatch) as caught:
        verify_directory(model, bundle, TRUSTED)
    error = caught.value
    assert error.changed == ("a.txt", "a/b.bin", "empty")
    assert error.missing == ("a/c/d",)
    assert error.unlisted == ("a/c/new\x1b.py",)
    assert "\x1b" not in error.why
    assert error.why.startswith("changed: a.txt, a/b.bin, empty; missing: a/c/d; unlisted: 'a/c/new")


def test_a_special_file_is_never_opened(model):
    bundle = sign_directory(model, KEY)
    os.mkfifo(model / "pipe")
    with pytest.raises(DirectoryMismatch, match="files are not") as caught:
        verify_directory(model, bundle, TRUSTED)
    assert caught.value.changed == ("pipe",)
    with pytest.raises(InvalidInput, match="special files: pipe"):
        sign_directory(model, KEY)


def test_a_stranger_and_a_key_of_another_kind_are_refused(model):
    with pytest.raises(NoTrustedSignature):
        verify_directory(model, sign_directory(model, OTHER), TRUSTED)
    for other in (SigningKey.from_seed(bytes(32)), SigningKey.generate("mldsa65")):
        with pytest.raises(InvalidInput, match="P-256"):
            sign_directory(model, other)
    for kind in ("p384", "p521"):
        key = SigningKey.generate(kind)
        verified = verify_directory(model, sign_directory(model, key), TrustedKeys((key.public,)))
        assert verified.signer_key_ids == (key.key_id,)


def test_what_cannot_be_signed(model, tmp_path):
    with pytest.raises(InvalidInput, match="directory"):
        sign_directory(tmp_path / "missing", KEY)
    (tmp_path / "void").mkdir()
    with pytest.raises(InvalidInput, match="found none"):
        sign_directory(tmp_path / "void", KEY)
    (model / "CONFIG.json").write_bytes(b"")
    with pytest.raises(InvalidInput, match="letter case"):
        sign_directory(model, KEY)


def test_files_are_signed_by_their_digests_as_in_a_directory(model):
    digests = {name: hash_bytes("sha256", data) for name, data in FILES.items()}
    left_out = {".git/objects/x": bytes(32), ".gitignore": bytes(32), SIGNATURE_NAME: bytes(32)}
    bundle = sign_listing("bot", digests | left_out, KEY, hash="sha256")
    assert bundle.payload == sign_directory(model, KEY, hash="sha256").payload
    for nothing in ({}, left_out):
        with pytest.raises(InvalidInput, match="found none"):
            sign_listing("bot", nothing, KEY, hash="sha256")
    with pytest.raises(InvalidInput):
        sign_listing("bot", {"../x": bytes(32)}, KEY, hash="sha256")


def test_git_paths_are_left_out_and_a_signers_longer_list_hides_nothing(model):
    (model / ".git/objects").mkdir(parents=True)
    (model / ".git/objects/x").write_bytes(b"x")
    (model / ".gitattributes").write_bytes(b"x")
    bundle = sign_directory(model, KEY)
    (model / ".gitattributes").write_bytes(b"y")
    verify_directory(model, bundle, TRUSTED)
    (model / ".gitevil.py").write_bytes(b"x")
    (model / "run.py").write_bytes(b"x")
    longer = forge(bundle, lambda predicate: predicate["serialization"]["ignore_paths"].extend(["run.py", "a", "."]))
    with pytest.raises(DirectoryMismatch) as caught:
        verify_directory(model, longer, TRUSTED)
    assert caught.value.unlisted == (".gitevil.py", "run.py")


def test_only_a_signature_over_the_same_files_may_lie_under_its_name(model):
    bundle = sign_directory(model, KEY)
    (model / SIGNATURE_NAME).write_bytes(sign_directory(model, OTHER).to_bytes())
    verify_directory(model, bundle, TRUSTED)
    for data in (b"#!/bin/sh", sign_directory(model, KEY, hash="sha256").to_bytes()):
        (model / SIGNATURE_NAME).write_bytes(data)
        with pytest.raises(DirectoryMismatch) as caught:
            verify_directory(model, bundle, TRUSTED)
        assert caught.value.unlisted == (SIGNATURE_NAME,)


@pytest.mark.parametrize("put", [Path.symlink_to, lambda path, _: os.mkfifo(path)], ids=["link", "pipe"])
def test_what_lies_under_the_signatures_name_is_a_regular_file(model, tmp_path, put):
    bundle = sign_directory(model, KEY)
    (tmp_path / "kept.sig").write_bytes(bundle.to_bytes())
    put(model / SIGNATURE_NAME, tmp_path / "kept.sig")
    with pytest.raises(DirectoryMismatch) as caught:
        verify_directory(model, bundle, TRUSTED)
    assert caught.value.changed == (SIGNATURE_NAME,)


def test_a_folder_under_the_signatures_name_hides_nothing(model):
    bundle = sign_directory(model, KEY)
    (model / SIGNATURE_NAME).mkdir()
    (model / SIGNATURE_NAME / "x").write_bytes(b"")
    with pytest.raises(DirectoryMismatch) as caught:
        verify_directory(model, bundle, TRUSTED)
    assert caught.value.unlisted == (f"{SIGNATURE_NAME}/x",)


def test_a_snapshot_in_the_hubs_cache_is_verified_with_its_signature_inside(model, tmp_path):
    blobs, snapshot = tmp_path / "models--acme--bot/blobs", tmp_path / "models--acme--bot/snapshots/main"
    bundle = sign_directory(model, KEY)
    blobs.mkdir(parents=True)
    for number, (name, data) in enumerate([*FILES.items(), (SIGNATURE_NAME, bundle.to_bytes())]):
        (blobs / f"{number:040x}").write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blobs / f"{number:040x}", (snapshot / name).parent))
    files = tuple(sorted(FILES, key=str.encode))
    assert verify_directory(snapshot, bundle, TRUSTED).files == files
    assert sign_directory(snapshot, KEY).payload != bundle.payload  # by the folder's name alone
    (snapshot / "a.txt").unlink()
    (snapshot / "a.txt").symlink_to(tmp_path / "bot/a.txt")
    with pytest.raises(DirectoryMismatch) as caught:
        verify_directory(snapshot, bundle, TRUSTED)
    assert caught.value.changed == ("a.txt",)


def test_a_long_list_of_differences_is_cut(model):
    bundle = sign_directory(model, KEY)
    for n in range(52):
        (model / f"new-{n:02}").write_bytes(b"")
    with pytest.raises(DirectoryMismatch, match="52 files are not") as caught:
        verify_directory(model, bundle, TRUSTED)
    assert len(caught.value.unlisted) == 52
    assert caught.value.why.startswith("unlisted: new-00, ")
    assert caught.value.why.endswith(", new-49 and 2 more")
    for name in ("new-50", "new-51"):
        (model / name).unlink()
    with pytest.raises(DirectoryMismatch, match="50 files are not") as caught:
        verify_directory(model, bundle, TRUSTED)
    assert caught.value.why.endswith(", new-49")


def test_a_threshold_needs_several_signers_of_one_payload(model):
    bundle, second = sign_directory(model, KEY), sign_directory(model, OTHER)
    both = TrustedKeys((KEY.public, OTHER.public), threshold=2)
    assert len(verify_directory(model, bundle, both, beside=[second]).signer_key_ids) == 2
    for beside in ([], [bundle], [sign_directory(model, KEY)]):
        with pytest.raises(NoTrustedSignature, match="expected 2, found 1"):
            verify_directory(model, bundle, both, beside=beside)
    (model / "new").write_bytes(b"")
    with pytest.raises(PolicyViolation, match="different statements"):
        verify_bundle(bundle, both, beside=[sign_directory(model, OTHER)])


CHANGES = {
    "method": lambda p: p["serialization"].update(method="tensors"),
    "hash": lambda p: p["serialization"].update(hash_type="md5"),
    "symlinks": lambda p: p["serialization"].update(allow_symlinks="no"),
    "ignore": lambda p: p["serialization"].update(ignore_paths="x"),
    "no resources": lambda p: p.update(resources=[]),
    "algorithm": lambda p: p["resources"][0].update(algorithm="sha256"),
    "length": lambda p: p["resources"][0].update(digest="00"),
    "twice": lambda p: p["resources"].append(p["resources"][0]),
    "escape": lambda p: p["resources"][0].update(name="../x"),
    "absolute": lambda p: p["resources"][0].update(name="/x"),
    "case": lambda p: p["resources"][0].update(name="CONFIG.json"),
    "extra": lambda p: p["resources"][0].update(size=1),
    "no shard size": lambda p: p["serialization"].update(method="shards"),
    "half a shard": lambda p: p["serialization"].update(method="shards", shard_size=0.5),
    "upper case": lambda p: p["resources"][0].update(digest="AB" * 32),
    "a gap": lambda p: p["resources"][0].update(digest="ab " * 32),
    "no name": lambda p: p["resources"][0].pop("name"),
    "nothing said of links": lambda p: p["serialization"].pop("allow_symlinks"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_signed_list_that_breaks_the_format_is_refused(model, change):
    bundle = forge(sign_directory(model, KEY), change)
    with pytest.raises(InvalidInput):
        verify_directory(model, bundle, TRUSTED)


def shards(*names, size=10.0):
    return {
        "serialization": {"method": "shards", "hash_type": "sha256", "shard_size": size, "allow_symlinks": False},
        "resources": [{"name": name, "algorithm": f"sha256-sharded-{size:.0f}", "digest": "00" * 32} for name in names],
    }


def test_shards_must_cover_a_file_from_its_start_without_hole():
    assert len(read_resources(shards("b:0:10", "b:10:13", "a b:c:0:1"))[1]) == 3
    for names in (
        ["a:10:20"],
        ["a:0:10", "a:11:13"],
        ["a:0:5", "a:5:15"],
        ["a:0:11"],
        ["a:0:10", "a:0:10"],
        ["a:3:2"],
        ["a:0:5", "a:5:10"],
        ["a:0:0"],
        ["a:00:3"],
        ["a:0:03"],
        [":0:3"],
        ["a"],
    ):
        with pytest.raises(InvalidInput):
            read_resources(shards(*names))


def test_shards_have_a_whole_size_and_end_where_numbers_do():
    largest = 2**53 - 1
    for size in (1, 2, 2**52, largest):
        (resource,) = read_resources(shards(f"a:0:{size}", size=size))[1]
        assert (resource.piece.start, resource.piece.end) == (0, size)
    read_resources(shards(f"a:0:{2**52}", f"a:{2**52}:{largest}", size=2**52))
    with pytest.raises(InvalidInput):
        read_resources(shards(f"a:0:{2**52}", f"a:{2**52}:{largest + 1}", size=2**52))
    with pytest.raises(InvalidInput) as caught:
        read_resources(shards("a:0:5", "a:5:5", size=5))
    assert caught.value.why == "a shard has another length than shard_size"
    for size in (0, -1, 10.5, float(2**53), True, "10", None):
        predicate = shards("a:0:1")
        predicate["serialization"]["shard_size"] = size
        with pytest.raises(InvalidInput) as caught:
            read_resources(predicate)
        assert caught.value.why == "shard_size is not a positive integer"


def test_a_list_has_a_million_resources_at_most(monkeypatch):
    with pytest.raises(InvalidInput) as caught:
        read_resources(shards())
    assert caught.value.why == "expected 1 to 1000000 resources"
    monkeypatch.setattr("stanch.sign.resources._MAX_RESOURCES", 3)
    names = [f"{name}:0:1" for name in "abcd"]
    assert len(read_resources(shards(*names[:3]))[1]) == 3
    with pytest.raises(InvalidInput):
        read_resources(shards(*names))


def test_a_subject_that_is_not_its_lists_digest_is_refused(model):
    statement = Statement.parse(sign_directory(model, KEY).payload)
    other = replace(statement, subjects=(Subject("bot", Digest.sha256(b"")),))
    with pytest.raises(PolicyViolation, match="own list"):
        verify_directory(model, sign_statement(other, KEY), TRUSTED)


def test_only_a_regular_file_is_opened_and_nothing_stays_open(tmp_path, open_here):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe", "missing"):
        with pytest.raises(InvalidInput, match=name):
            open_regular(tmp_path, name)
    assert open_here() == []
    os.close(open_regular(tmp_path, "file"))


def test_a_piece_ends_where_it_says_or_where_its_file_does(tmp_path):
    data = bytes(range(251)) * 8400  # more than two buffers
    (tmp_path / "f").write_bytes(data)
    size = len(data)
    spans = [
        (0, None),
        (5, None),
        (size, None),
        (size + 5, None),
        (5, 9),
        (0, 1 << 20),
        (3, (1 << 20) + 4),
        (0, size),
        (1, size),
    ]
    hashed = hash_pieces(tmp_path, [Piece("f", start, end) for start, end in spans], "sha256")
    assert hashed == [sha256(data[start:end]) for start, end in spans]
    # Nor is memory taken for what a signed list says that a file should hold.
    short = [Piece("f", *span) for span in ((0, size + 1), (size, size + 1), (size + 5, size + 6), (0, 2**53 - 1))]
    assert hash_pieces(tmp_path, short, "sha256") == [None] * 4
    with pytest.raises(InvalidInput, match="'missing': cannot be read"):
        hash_pieces(tmp_path, [Piece("f"), Piece("missing")], "sha256")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_predicate_is_read_or_refused_and_nothing_else_happens(data):
    predicate = shards("a:0:10", "b:0:3")
    target = data.draw(st.sampled_from([predicate, predicate["serialization"], predicate["resources"][0]]))
    target[data.draw(st.sampled_from([*target, "extra"]))] = data.draw(JSON)
    with suppress(InvalidInput):
        read_resources(predicate)


# -- model-signing 1.1.1: signs and verifies with keys in a process of its own, since importing it takes over a second

VECTOR = json.loads((Path(__file__).parents[1] / "vectors/sign/model-signing.json").read_text())


@pytest.mark.parametrize("name", VECTOR["signatures"])
def test_what_model_signing_signed_once_is_accepted(name, tmp_path):
    for path, text in VECTOR["files"].items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    bundle = Bundle.parse(json.dumps(VECTOR["signatures"][name]).encode())
    trusted = TrustedKeys((VerifyKey.from_pem(VECTOR["public_key"]),))
    verified = verify_directory(tmp_path, bundle, trusted)
    assert (verified.name, verified.files) == (VECTOR["name"], tuple(VECTOR["files"]))
    for text in ("0123456789" * 3 + "enD", "0123456789" * 3, "0123456789" * 3 + "end0", ""):
        (tmp_path / "a/b.txt").write_text(text)
        with pytest.raises(DirectoryMismatch) as caught:
            verify_directory(tmp_path, bundle, trusted)
        assert caught.value.changed == ("a/b.txt",)


SIGNER = """
import json, sys
from model_signing import hashing, signing
for job in json.load(sys.stdin):
    config = hashing.Config().set_ignored_paths(paths=[])
    use = config.use_shard_serialization if job["method"] == "shards" else config.use_file_serialization
    use(hashing_algorithm=job["hash"], **job["options"])
    signing.Config().use_elliptic_key_signer(private_key=job["key"]).set_hashing_config(config).sign(
        job["model"], job["out"])
"""
VARIANTS = [
    ("files", "sha256", {}, "p384"), ("files", "blake2", {}, "p521"), ("files", "blake3", {}, "p256"),
    ("shards", "sha256", {"shard_size": 1_000_000}, "p256"), ("shards", "blake2", {"shard_size": 65_536}, "p256"),
]  # fmt: skip


def peer(*words, stdin=None):
    for name, package in (("model_signing", "model-signing"), ("OpenSSL", "pyopenssl")):
        if find_spec(name) is None:
            pytest.skip(f"{package} is not installed")
    return subprocess.run([sys.executable, *words], input=stdin, capture_output=True, text=True, check=False)


VERIFIER = """
import sys
from model_signing import verifying
model, *pairs = sys.argv[1:]
for key, signature in zip(pairs[::2], pairs[1::2], strict=True):
    verifying.Config().use_elliptic_key_verifier(public_key=key).verify(model, signature)
"""


@pytest.mark.acceptance
def test_oms_interop_they_accept_what_we_sign_and_name_what_changed(model, tmp_path):
    key, signature, blake3 = tmp_path / "key.pub.pem", model / SIGNATURE_NAME, tmp_path / "blake3.sig"
    key.write_bytes(KEY.public.to_pem())
    signature.write_bytes(sign_directory(model, KEY, hash="sha256").to_bytes())
    blake3.write_bytes(sign_directory(model, KEY).to_bytes())
    pairs = [key, signature, key, blake3]
    for kind in ("p384", "p521"):
        other = SigningKey.generate(kind)
        (tmp_path / f"{kind}.pem").write_bytes(other.public.to_pem())
        (tmp_path / f"{kind}.sig").write_bytes(sign_directory(model, other).to_bytes())
        pairs += [tmp_path / f"{kind}.pem", tmp_path / f"{kind}.sig"]
    accepted = peer("-c", VERIFIER, str(model), *map(str, pairs))
    assert accepted.returncode == 0, accepted.stderr
    # Its command line compares with SHA-256 whatever the signature says; only its library reads that.
    words = ["-m", "model_signing", "verify", "key", str(model), "--signature", str(signature), "--public_key"]
    accepted = peer(*words, str(key))
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    (model / "config.json").write_bytes(b"{ }")
    refused = peer(*words, str(key))
    assert refused.returncode != 0
    assert "config.json" in refused.stdout + refused.stderr


@pytest.mark.acceptance
def test_oms_interop_we_accept_what_they_sign_and_name_what_changed(model, tmp_path):
    (model / "empty").unlink()  # shards list no empty file
    keys = {kind: SigningKey.generate(kind) for kind in ("p256", "p384", "p521")}
    for kind, key in keys.items():
        key.save(tmp_path / f"{kind}.pem")
    trusted = TrustedKeys(tuple(key.public for key in keys.values()))
    jobs = [
        {"method": method, "hash": name, "options": options, "key": str(tmp_path / f"{kind}.pem"), "model": str(model),
         "out": str(tmp_path / f"{method}-{name}.sig")}
        for method, name, options, kind in VARIANTS
    ]  # fmt: skip
    done = peer("-c", SIGNER, stdin=json.dumps(jobs))
    assert done.returncode == 0, done.stderr
    bundles = {job["out"]: Bundle.parse((tmp_path / job["out"]).read_bytes()) for job in jobs}
    for bundle in bundles.values():
        assert verify_directory(model, bundle, trusted).files == ("a.txt", "a/b.bin", "a/c/d", "config.json")
    data = FILES["a/b.bin"]
    for changed in (data[:-1], data + b"x", data[:-1] + b"\0", data[:1_000_000], b""):
        (model / "a/b.bin").write_bytes(changed)
        for bundle in bundles.values():
            with pytest.raises(DirectoryMismatch) as caught:
                verify_directory(model, bundle, trusted)
            assert (caught.value.changed, caught.value.missing, caught.value.unlisted) == (("a/b.bin",), (), ())


def test_the_payload_is_json_that_another_reader_decodes(model):
    fields = json.loads(sign_directory(model, KEY).to_bytes())
    payload = json.loads(base64.b64decode(fields["dsseEnvelope"]["payload"]))
    assert payload["predicateType"] == "https://model_signing/signature/v1.0"
    assert payload["predicate"]["serialization"] == {
        "method": "files", "hash_type": "blake3", "allow_symlinks": False,
        "ignore_paths": [".git", ".gitattributes", ".github", ".gitignore", "model.sig"],
    }  # fmt: skip
