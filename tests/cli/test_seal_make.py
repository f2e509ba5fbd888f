"""Making bundles over the command line: several signers, the hash of segments, the signature over the plain files."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest


@pytest.fixture
def made(stanch, tmp_path):
    """Two signing keys, a key that opens, a folder; return the recipient's text."""
    for name, algorithm in (("s", "p384"), ("q", "mldsa65")):
        shown = stanch("--json", "key", "new", "--kind", "sign", "--algorithm", algorithm, "--out", f"{name}.pem")
        assert shown.json["data"]["key_id"].startswith(f"{algorithm}:")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    return stanch("--json", "key", "new", "--out", "id.json").json["data"]["recipient"]


def trust(tmp_path, threshold):
    keys = "".join(f'[[keys]]\nname = "{n}"\npem = """{(tmp_path / f"{n}.pub.pem").read_text()}"""\n' for n in "sq")
    (tmp_path / "trust.toml").write_text(f"threshold = {threshold}\n{keys}")
    return "trust.toml"


def test_two_keys_sign_one_bundle_and_a_threshold_demands_both(stanch, made, tmp_path):
    words = ("seal", "create", "model", "--to", made, "--lineage", "l", "--sign-key", "s.pem")
    assert stanch(*words, "--sign-key", "q.pem", "--out", "both").code == 0
    assert stanch(*words, "--out", "one").code == 0
    for key in ("s.pub.pem", "q.pub.pem", trust(tmp_path, 2)):
        assert stanch("seal", "verify", "both", "--trust", key).code == 0
    assert "mldsa65:" in stanch("seal", "verify", "both", "--trust", "trust.toml").out
    assert stanch("seal", "verify", "one", "--trust", "s.pub.pem").code == 0
    refused = stanch("--json", "seal", "verify", "one", "--trust", "trust.toml")
    assert (refused.code, refused.json["error"]["slug"]) == (1, "no-trusted-signature")
    opened = ("--trust", "trust.toml", "--identity", "id.json")
    assert stanch("seal", "unseal-unsafe", "both", *opened, "--out", "clear").code == 0
    assert stanch("seal", "unseal-unsafe", "one", *opened, "--out", "no").code == 1


@pytest.mark.parametrize("name", ["blake3", "sha256"])
def test_the_hash_of_the_segments_is_chosen(stanch, made, tmp_path, name):
    words = ("seal", "create", "model", "--to", made, "--lineage", "l", "--sign-key", "s.pem", "--out", "b")
    assert stanch(*words, "--segment-hash", name).code == 0
    assert json.loads((tmp_path / "b/manifest.json").read_text())["segment_hash"] == name
    assert stanch("seal", "verify", "b", "--trust", "s.pub.pem").code == 0
    opened = ("--trust", "s.pub.pem", "--identity", "id.json")
    assert stanch("seal", "unseal-unsafe", "b", *opened, "--out", "clear").code == 0
    assert (tmp_path / "clear/config.json").read_text() == "{}"
    stream = tmp_path / "b/body/00001.floe"
    data = bytearray(stream.read_bytes())
    data[-1] ^= 1
    stream.write_bytes(data)
    assert stanch("seal", "verify", "b", "--trust", "s.pub.pem").code == 1


def test_an_algorithm_is_chosen_for_keys_that_sign_alone(stanch):
    refused = stanch("key", "new", "--algorithm", "p384", "--out", "x.json")
    assert (refused.code, "keys that sign" in refused.err) == (2, True)


def test_the_signature_over_the_plain_files_comes_back_and_model_signing_accepts_it(stanch, made, tmp_path):
    for package in ("model_signing", "OpenSSL"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    (tmp_path / "model/sub").mkdir()
    (tmp_path / "model/sub/é.txt").write_text("x")
    (tmp_path / "model/.gitattributes").write_text("left out")
    # The curve signs the files even where it comes second.
    words = ("--to", made, "--lineage", "l", "--sign-key", "q.pem", "--sign-key", "s.pem", "--out", "b")
    assert stanch("--json", "seal", "create", "model", *words).json["data"]["files_signed"] is True
    assert all(b".txt" not in path.read_bytes() for path in tmp_path.glob("b/**/*") if path.is_file())
    opened = ("--trust", "s.pub.pem", "--identity", "id.json")
    shown = stanch("--json", "seal", "verify", "b", *opened, "--signature-out", "b.sig")
    assert (shown.code, shown.json["data"]["signature"]) == (0, "b.sig")
    assert stanch("sign", "verify", "model", "--trust", "s.pub.pem", "--signature", "b.sig").code == 0
    assert stanch("seal", "unseal-unsafe", "b", *opened, "--out", "clear").code == 0
    assert (tmp_path / "clear/model.sig").read_bytes() == (tmp_path / "b.sig").read_bytes()
    assert stanch("sign", "verify", "clear", "--trust", "s.pub.pem").code == 0

    command = [sys.executable, "-m", "model_signing", "verify", "key", "clear", "--signature", "clear/model.sig",
               "--public_key", "s.pub.pem"]  # fmt: skip
    accepted = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    (tmp_path / "clear/config.json").write_text("{ }")
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert stanch("sign", "verify", "clear", "--trust", "s.pub.pem").code == 1


def test_files_that_are_signed_already_keep_their_signature(stanch, made, tmp_path):
    assert stanch("sign", "create", "model", "--key", "s.pem").code == 0
    words = ("--to", made, "--lineage", "l", "--sign-key", "s.pem", "--out", "b")
    assert stanch("--json", "seal", "create", "model", *words).json["data"]["files_signed"] is False
    opened = ("--trust", "s.pub.pem", "--identity", "id.json")
    assert stanch("seal", "unseal-unsafe", "b", *opened, "--out", "clear").code == 0
    assert (tmp_path / "clear/model.sig").read_bytes() == (tmp_path / "model/model.sig").read_bytes()
    refused = stanch("seal", "verify", "b", *opened, "--signature-out", "b.sig")
    assert (refused.code, "bundle alone" in refused.err) == (2, True)


def test_keys_that_model_signing_does_not_read_sign_the_bundle_alone(stanch, made):
    words = ("--to", made, "--lineage", "l", "--sign-key", "q.pem", "--out", "b")
    assert stanch("--json", "seal", "create", "model", *words).json["data"]["files_signed"] is False


def test_a_bundle_is_sealed_anew_for_others(stanch, made, tmp_path):
    other = stanch("--json", "key", "new", "--out", "other.json").json["data"]["recipient"]
    create = ("--to", made, "--lineage", "l", "--number", "4", "--sign-key", "s.pem", "--out", "b")
    assert stanch("seal", "create", "model", *create).code == 0
    opened = ("--trust", "s.pub.pem", "--identity")
    words = ("seal", "reseal", "b", *opened, "id.json", "--to", other, "--sign-key", "s.pem", "--out", "c")
    shown = stanch("--json", *words)
    assert (shown.code, shown.json["data"]["release_number"]) == (0, 5)
    assert stanch("seal", "unseal-unsafe", "c", *opened, "id.json", "--out", "no").code == 1
    assert stanch("seal", "unseal-unsafe", "c", *opened, "other.json", "--out", "clear").code == 0
    assert stanch("sign", "verify", "clear", "--trust", "s.pub.pem").code == 0
    assert (tmp_path / "clear/config.json").read_text() == "{}"
