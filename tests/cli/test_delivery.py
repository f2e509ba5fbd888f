"""The commands of a delivery, as a publisher and a recipient type them."""

import json
import shutil
from datetime import datetime, timedelta

import life
import pytest

from authority import served
from stanch.errors import InvalidInput, StoreError


def test_a_bundle_goes_to_a_store_and_comes_back_until_it_is_revoked(stanch, files, tmp_path):
    for name in ("acme.key", "sign.pub.pem"):
        shutil.copy(files.place / name, tmp_path)
    sent = stanch("release", "deliver", files.sealed, "file:store", "--trust", "sign.pub.pem")
    assert sent.code == 0, sent
    again = stanch("release", "deliver", files.sealed, "file:store/", "--trust", "sign.pub.pem", "--json").json["data"]
    assert again["sent"] == 0
    assert again["skipped"] > 4
    uri = again["uri"]
    assert f"next       the recipient: stanch release fetch {uri} --trust sign.pub.pem --out DIR" in sent.out
    words = ("release", "fetch", uri, "--trust", "sign.pub.pem", "--out")
    first = stanch(*words, "got")
    assert (first.code, "sign.pub.releases is new" in first.out) == (0, True)
    assert stanch(*words, "got").code == 4
    assert "is new" not in stanch(*words, "again").out
    assert stanch(*words, "more", "--json").json["data"]["release_number"] == 1
    open_ = ("release", "open", "got", "--identity", "acme.key", "--trust", "sign.pub.pem")
    assert stanch(*open_).code == 0
    # Opened where it lies: every file, and nothing of it on this disk.
    here = sorted(tmp_path.rglob("*"))
    remote = ("release", "open", uri, *open_[3:])
    assert stanch("--json", *remote).json["data"] == stanch("--json", *open_).json["data"]
    assert sorted(tmp_path.rglob("*")) == here
    stream = max(path for path in (tmp_path / "store").rglob("*.floe") if path.stat().st_size > 74 + 32)
    whole = stream.read_bytes()
    stream.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused = stanch("--json", *remote)
    assert (refused.code, refused.json["error"]["slug"]) == (1, "tampered")
    stream.write_bytes(whole)
    shown = stanch("release", "revoke", uri, files.recipient, "--sign-key", files.sign_pem, "--reason", "left")
    assert shown.code == 0, shown
    assert "revoking does not un-share" in shown.out
    refused = stanch(*remote)
    assert (refused.code, "was revoked at" in refused.err) == (3, True)
    assert stanch(*words, "late").code == 3
    assert not (tmp_path / "late.partial").exists()
    assert stanch(*open_).code == 0
    refused = stanch(*open_, "--revocations", "store/revocations.json")
    assert refused.code == 3
    assert "was revoked at" in refused.err
    assert (tmp_path / "sign.pub.releases").is_file()
    (tmp_path / "store/revocations.json").unlink()
    refused = stanch("--json", "release", "revoke", uri, files.recipient, "--sign-key", files.sign_pem, "--reason", "x")
    assert (refused.code, refused.json["error"]["slug"]) == (1, "rollback")
    assert not (tmp_path / "store/revocations.json").exists()


def test_who_acts_is_said_where_several_could(stanch):
    assert stanch("init", "w").code == 0
    deliver = ("--workspace", "w", "release", "deliver", "missing", "file:store")
    assert stanch("--json", *deliver).json["warnings"] == []
    assert stanch("--workspace", "w", "access", "add", "bob").code == 0
    said = "acts as owner; keys of 1 more are here: --as NAME chooses"
    assert stanch("--json", *deliver).json["warnings"] == [said]
    assert stanch(*deliver).err.startswith(f"warning: {said}\n")
    assert f"warning: {said}\n" in stanch("--workspace", "w", "status").err
    assert said not in stanch("--as", "owner", *deliver).err


def test_a_revocation_list_needs_as_many_signers_as_its_readers_demand(stanch, tmp_path):
    for name in ("s", "q", "x"):
        assert stanch("key", "new", "--kind", "sign", "--out", f"{name}.pem").code == 0
    keys = "".join(f'[[keys]]\nname = "{n}"\npem = """{(tmp_path / f"{n}.pub.pem").read_text()}"""\n' for n in "sq")
    (tmp_path / "both.toml").write_text(f"threshold = 2\n{keys}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    to = stanch("--json", "key", "new", "--out", "id.json").json["data"]["recipient"]
    words = ("--to", to, "--sign-key", "s.pem", "--sign-key", "q.pem", "--lineage", "l", "--out", "b")
    assert stanch("seal", "create", "model", *words).code == 0
    uri = stanch("--json", "release", "deliver", "b", "file:store", "--trust", "both.toml").json["data"]["uri"]
    revoke = ("release", "revoke", uri, to, "--reason", "left")
    for signers in (("s.pem",), ("s.pem", "x.pem")):
        chosen = [word for signer in signers for word in ("--sign-key", signer)]
        refused = stanch("--json", *revoke, *chosen, "--trust", "both.toml")
        assert (refused.code, refused.json["error"]["slug"]) == (1, "no-trusted-signature")
    assert not (tmp_path / "store/revocations.json").exists()
    open_ = ("release", "open", uri, "--identity", "id.json", "--trust", "both.toml")
    assert stanch(*open_).code == 0
    assert stanch(*revoke, "--sign-key", "s.pem", "--sign-key", "q.pem", "--trust", "both.toml").code == 0
    assert stanch(*open_).code == 3
    listed = json.loads((tmp_path / "store/revocations.json").read_text())
    listed["dsseEnvelope"]["signatures"].pop()
    (tmp_path / "store/revocations.json").write_text(json.dumps(listed))
    refused = stanch("release", "fetch", uri, "--trust", "both.toml", "--out", "got")
    assert (refused.code, "expected 2, found 1" in refused.err) == (1, True)


def test_a_proposal_takes_the_next_number_of_its_line(stanch, files):
    def propose(name, *words):
        asked = ("--name", name, "--base", files.base, "--cert", files.cert_json, "--to", f"acme={files.recipient}")
        return stanch("--workspace", files.w, "release", "propose", files.model, *asked, *words)

    assert "line       acme/bot, number 2" in propose("next", "--lineage", "acme/bot").out
    data = propose("named", "--json").json["data"]
    assert (data["lineage"], data["release_number"]) == (files.model.name, 1)


def test_a_released_copy_is_time_stamped_by_the_authority_that_is_named(authority, stanch, files, tmp_path):
    (tmp_path / "roots.pem").write_bytes(authority.root)
    (tmp_path / "gate.toml").write_text('[gate]\nrelease_context = "internal-api"\n')
    create = (
        "--workspace", files.w, "release", "create", "r1", "--to", "acme", "--policy", "gate.toml", "--out", "copy",
        "--tsa-roots", "roots.pem", "--tsa",
    )  # fmt: skip
    with served(authority.answer, status=503) as url:
        refused = stanch(*create, url)
    assert (refused.code, "status 503" in refused.err) == (4, True)
    assert not (tmp_path / "copy").exists()
    with served(authority.answer) as url:
        assert stanch(*create, url).code == 0
    publisher, key = files.w / ".stanch/keys/publisher.pub.pem", files.acme_key
    words = ("copy", "--trust", publisher, "--timestamp-roots", "roots.pem")
    assert stanch("--json", "seal", "verify", *words).json["data"]["signed_at"]
    assert stanch("release", "open", *words, "--identity", key, "--memory", "m").code == 0


@pytest.mark.acceptance
def test_a_wrong_revoked_expired_key_opens_nothing_and_leaves_nothing_in_clear(stanch, files, tmp_path, monkeypatch):
    class Later(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime.now(zone) + timedelta(days=31)

    weights = (files.model / "adapter_model.safetensors").read_bytes()
    trust = ("--trust", files.sign_pub_pem)
    made = ("--sign-key", files.sign_pem, "--lineage", "l", "--days", 30, "--out", "b")
    assert stanch("seal", "create", files.model, "--to", files.recipient, *made).code == 0
    uri = stanch("--json", "release", "deliver", "b", "file:store", *trust).json["data"]["uri"]
    identity, stranger = ("--identity", files.acme_key), ("--identity", files.other_key)
    commands = [["release", "open", place, *trust, "--memory", "m"] for place in ("b", uri)]
    commands += [["seal", "unseal-unsafe", "b", "--out", "clear", *trust]]
    for command in commands:
        refused = stanch("--json", *command, *stranger)
        assert (refused.code, refused.json["error"]["slug"]) == (1, "no-identity-matched")
        with monkeypatch.context() as patch:
            patch.setattr("stanch.seal.times.datetime", Later)
            refused = stanch("--json", *command, *identity)
        assert (refused.code, refused.json["error"]["slug"]) == (3, "grant-expired")
    for command in commands[:2]:
        assert stanch(*command, *identity).code == 0
    assert stanch("release", "revoke", uri, files.recipient, "--sign-key", files.sign_pem, "--reason", "left").code == 0
    for command in (commands[1], [*commands[0], "--revocations", "store/revocations.json"]):
        refused = stanch("--json", *command, *identity)
        assert (refused.code, refused.json["error"]["slug"]) == (3, "revoked")
    written = life.contents(tmp_path)
    assert len(written) > 10
    pieces = [weights[start : start + 32] for start in range(0, len(weights) - 32, 1000)]
    assert not any(piece in data for piece in pieces for data in written.values())


@pytest.mark.parametrize("error", [InvalidInput("no folder"), StoreError("the disk is full")], ids=["folder", "disk"])
def test_an_api_key_that_could_not_be_written_is_good_for_nothing(error, stanch, monkeypatch):
    def fail(*_):
        raise error

    assert stanch("init", "w").code == 0
    act = ("--workspace", "w", "access")
    assert stanch(*act, "add", "bot", "--service", "--role", "consumer", "--clearance", "3").code == 0
    monkeypatch.setattr("stanch.crypto.write_private", fail)
    model = f"sha256:{'0' * 64}"
    made = stanch(*act, "key", "issue", "bot", "--model", model, "--network", "10.0.0.0/8", "--out", "k")
    assert made.code == error.exit_code, made
    assert "revoked" in stanch(*act, "key", "list").out
