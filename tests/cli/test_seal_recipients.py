"""Every kind of recipient over the command line: seal, open, change recipients, show, and shred."""

import json
import subprocess

import pytest

import servers
from stanch.crypto import SigningKey, VerifyKey
from stanch.sign import Bundle, PredicateType, TrustedKeys, all_of, verify_bundle


@pytest.fixture
def sign(tmp_path):
    key = SigningKey.generate("p256")
    key.save(tmp_path / "sign.pem")
    (tmp_path / "sign.pub.pem").write_bytes(key.public.to_pem())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "f").write_bytes(b"contents")
    return key


def private(path, text):
    path.touch(0o600)
    path.write_text(text)
    return path


def make(name, stanch, tmp_path, request, monkeypatch):
    """Return the text of a recipient and the file of its key."""
    file = tmp_path / f"{name}.key"
    if name in {"x25519", "hybrid"}:
        return stanch("--json", "key", "new", "--kind", name, "--out", file).json["data"]["recipient"], file
    if name == "age":
        pytest.importorskip("pyrage", reason="pyrage is not installed")
        try:
            private(file, subprocess.run(["age-keygen"], check=True, capture_output=True, text=True).stdout)
        except FileNotFoundError:
            pytest.skip("age is not installed")
        return stanch("--json", "key", "show", file).json["data"]["recipient"], file
    if name == "passphrase":
        text = f"passphrase:{private(tmp_path / 'words', 'marker words')}"
        return text, private(file, text)
    if name == "pkcs11":
        token = request.getfixturevalue("softhsm")
        monkeypatch.setenv("STANCH_PKCS11_MODULE", str(servers.SOFTHSM_MODULE))
        monkeypatch.setenv("STANCH_PKCS11_PIN_FILE", str(token.pin_file))
        private(file, token.key().partition("?")[0])
        return file.read_text(), file
    text = request.getfixturevalue("kms").key()
    return text, private(file, f"{text}\n")


@pytest.mark.usefixtures("sign")
@pytest.mark.parametrize("name", ["x25519", "hybrid", "age", "passphrase", "pkcs11", "aws"])
def test_a_bundle_for_each_kind(name, stanch, tmp_path, request, monkeypatch):
    recipient, file = make(name, stanch, tmp_path, request, monkeypatch)
    shown = stanch(
        "seal", "create", "model", "--to", recipient, "--sign-key", "sign.pem", "--lineage", "l", "--out", "b"
    )
    assert (shown.code, shown.err) == (0, ""), shown
    opened = stanch("release", "open", "b", "--identity", file, "--trust", "sign.pub.pem")
    assert opened.code == 0, opened
    named = stanch("key", "show", file)
    assert named.code == 0
    assert recipient.partition(":/")[0] in named.out
    other = stanch("--json", "key", "new", "--out", "other.key").json["data"]["recipient"]
    assert stanch("seal", "rekey", "b", "--trust", "sign.pub.pem", "--identity", file, "--add", other).code == 0
    if name != "x25519":  # the other way round: this kind is added by somebody else
        held = [s["key_id"] for s in json.loads((tmp_path / "b" / "recipients.json").read_bytes())["stanzas"]]
        words = ["seal", "rekey", "b", "--trust", "sign.pub.pem", "--identity", "other.key"]
        assert stanch(*words, "--remove", held[0]).code == 0
        assert stanch("release", "open", "b", "--identity", file, "--trust", "sign.pub.pem").code == 1
        assert stanch(*words, "--add", recipient).code == 0
    done = stanch("seal", "unseal-unsafe", "b", "--trust", "sign.pub.pem", "--identity", file, "--out", "plain")
    assert done.code == 0, done
    assert (tmp_path / "plain" / "f").read_bytes() == b"contents"


def test_inside_a_workspace_a_copy_is_shredded_only_with_the_list_that_the_log_knows(
    stanch, files, tmp_path, request, monkeypatch
):
    recipient, file = make("pkcs11", stanch, tmp_path, request, monkeypatch)
    (tmp_path / "gate.toml").write_text('[gate]\nrelease_context = "internal-api"\n')
    inside = ("--workspace", files.w)
    create = ("release", "create", "r1", "--to", "acme", "--policy", "gate.toml", "--out", "copy")
    assert stanch(*inside, *create).code == 0
    held = json.loads((tmp_path / "copy/recipients.json").read_bytes())["stanzas"][0]["key_id"]
    trust = ("--trust", files.w / ".stanch/keys/publisher.pub.pem")
    remove = ("--identity", files.acme_key, "--add", recipient, "--remove", held)
    assert stanch("seal", "rekey", "copy", *trust, *remove).code == 0
    words = ("seal", "shred", "copy", *trust, "--key", file, "--out", "record.json", "--keys-open-nothing-else")
    refused = stanch("--json", *inside, *words)
    assert (refused.code, refused.json["error"]["slug"]) == (3, "shredding-defeated"), refused
    assert "was sealed for it" in json.dumps(refused.json["error"])
    shown = stanch(*words)  # where no log is near the list is all there is, and that is said
    assert (shown.code, "the list of recipients is not signed:" in shown.out) == (0, True), shown


@pytest.mark.usefixtures("sign")
def test_a_passphrase_needs_a_terminal_or_a_file(stanch):
    words = ["seal", "create", "model", "--sign-key", "sign.pem", "--lineage", "l", "--out", "b", "--to"]
    shown = stanch(*words, "passphrase:")
    assert (shown.code, "passphrase:FILE" in shown.err) == (3, True)
    assert stanch(*words, "passphrase:missing").code == 2


def test_a_bundle_is_shredded_with_a_signed_record(stanch, sign, tmp_path, request, monkeypatch):
    recipient, file = make("pkcs11", stanch, tmp_path, request, monkeypatch)
    create = ["seal", "create", "model", "--sign-key", "sign.pem", "--lineage", "l", "--to", recipient]
    assert stanch(*create, "--out", "b").code == 0
    doctor = stanch("--json", "seal", "doctor", "b").json["data"]
    assert doctor["shreddable"]
    assert [check["name"] for check in doctor["host"]] == ["huge-pages", "swap", "core-dumps"]
    assert [opener["type"] for opener in doctor["openers"]] == ["pkcs11-aes-gcm"]
    words = ["seal", "shred", "b", "--trust", "sign.pub.pem", "--key", file, "--out", "record.json"]
    unsaid = stanch(*words)
    assert (unsaid.code, "--keys-open-nothing-else" in unsaid.err) == (2, True)
    words.append("--keys-open-nothing-else")
    SigningKey.generate("p256").save(tmp_path / "stranger.pem")
    assert stanch(*words, "--sign-key", "stranger.pem").code == 2
    assert stanch("release", "open", "b", "--identity", file, "--trust", "sign.pub.pem").code == 0
    shown = stanch("--json", *words, "--sign-key", "sign.pem")
    assert shown.code == 0, shown
    record = json.loads((tmp_path / "record.json").read_bytes())
    assert record["keys"][0]["state"] == "destroyed"
    bundle = Bundle.parse((tmp_path / "record.json.sigstore.json").read_bytes(), what="record")
    trusted = TrustedKeys((VerifyKey.from_pem(sign.public.to_pem()),))
    verified = verify_bundle(bundle, all_of(trusted, PredicateType("urn:stanch:destruction:v1")))
    assert verified.statement.predicate == record
    assert verified.statement.subjects[0].digest.hex == record["manifest_sha256"]
    opened = stanch("release", "open", "b", "--identity", file, "--trust", "sign.pub.pem")
    assert (opened.code, "no such key" in opened.err) == (4, True)
    assert stanch(*words).code == 2  # the record is never replaced
    words[words.index("record.json")] = "again.json"
    again = stanch(*words)
    assert (again.code, "was absent" in again.err) == (0, True)
