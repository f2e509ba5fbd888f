"""Making bundles over the command line: several signers, the hash of segments."""

import json

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
