"""A copy that two people release, as everybody types it: publisher, approvers, recipient."""

import shutil

import life
import pytest

from stanch.workspace import Workspace
from stanch.workspace.verbs_log import verify_log


@pytest.fixture
def scene(tmp_path):
    """A team's workspace with a proposed release, the approvers' files, and the recipient's."""
    case = life.make_proposed(tmp_path / "team", life.make_material(tmp_path / "team" / "material"), life.Files())
    for name in life.APPROVERS:
        (tmp_path / f"{name}.txt").write_bytes(f"the passphrase of {name}".encode())
        (tmp_path / f"{name}.txt").chmod(0o600)
        case.material.identities[name].save(tmp_path / f"{name}.key")
    case.material.acme.save(tmp_path / "acme.key")
    pem = (case.folder / ".stanch/keys/publisher.pub.pem").read_text()
    for name, lineages in (("trust", "acme/*"), ("other", "other/*")):
        text = f'[[keys]]\nname = "us"\nlineages = ["{lineages}"]\npem = """{pem}"""\n'
        (tmp_path / f"{name}.toml").write_text(text)
    shutil.copy(case.folder / ".stanch/keys/people/rolf.json", tmp_path / "rolf.json")
    (tmp_path / "gate.toml").write_text('[gate]\nrelease_context = "internal-api"\n')
    return case


def test_two_people_release_a_copy_and_its_recipient_opens_it(stanch, scene, tmp_path):
    def act(name, *words):
        return stanch("--workspace", scene.folder, "--as", name, "--passphrase-file", f"{name}.txt", *words)

    made = act(
        "rolf", "release", "create", "r1", "--to", "acme", "--approver", "rita", "--approver", "rolf", "--policy",
        "gate.toml", "--out", "copy", "--json",
    )  # fmt: skip
    assert made.code == 0, made
    request = made.json["data"]["request"]
    open_ = ("release", "open", "got", "--identity", "acme.key", "--trust", "trust.toml")
    redeem = ("release", "redeem", "got", "--identity", "acme.key", "--trust", "trust.toml")
    approve = ("release", "approve", "r1", "--to", "acme", "--identity")
    shown = act("rita", *approve, "rita.key")
    assert shown.code == 2  # shown, and nothing approved
    assert f"expected --request {request}" in shown.err
    assert all(word in shown.err for word in (str(scene.material.acme.recipient), made.json["data"]["manifest"][7:]))
    assert act("rita", *approve, "rita.key", "--request", "sha256:" + "0" * 64).code == 1
    shown = act("rita", *approve, "rita.key", "--request", request)
    assert "approved   r1 for acme: 1 of 2 people so far" in shown.out, shown
    assert act("rita", "release", "deliver", "copy", "file:store").code == 3
    offline = (
        "--passphrase-file", "rolf.txt", "release", "approve-offline", "copy.quorum/quorum.json",
        "--trust", "trust.toml", "--identity", "rolf.key", "--key", "rolf.json", "--out", "approval.json",
    )  # fmt: skip
    assert stanch(*offline).code == 2
    assert stanch(*offline, "--request", "sha256:" + "0" * 64).code == 1
    assert not (tmp_path / "approval.json").exists()
    assert stanch(*offline, "--request", request).code == 0
    shutil.copytree("copy", "got")  # the copy, its record and one approval came some way; the other by hand
    shutil.copytree("copy.quorum", "got.quorum")
    assert stanch(*redeem, "--approval", "approval.json").code == 3
    assert stanch(*open_).code == 3
    assert act("rolf", *approve, "rolf.key", "--request", request, "--out", "again.json").code == 0
    assert stanch(*redeem, "--approval", "approval.json", "--approval", "again.json").code == 3  # both are rolf's
    shutil.rmtree("got")
    shutil.rmtree("got.quorum")
    sent = act("rita", "release", "deliver", "copy", "file:store", "--json")
    assert sent.code == 0, sent
    uri, leaf = sent.json["data"]["uri"], sent.json["data"]["receipt"]["leaf"]
    fetch = ("release", "fetch", uri, "--trust", "trust.toml", "--out")
    fetched = stanch(*fetch, "got")
    assert "release redeem got" in fetched.out, fetched
    assert stanch(*redeem).code == 3  # the approvals wait for the receipt
    sign_for_it(stanch, act, uri, leaf)
    assert stanch(*open_).code == 3
    redeemed = stanch(*redeem)
    assert redeemed.code == 0, redeemed
    assert stanch(*open_).code == 0
    revoke = ("release", "revoke", uri, str(scene.material.acme.recipient), "--reason", "left")
    assert act("rita", *revoke, "--trust", "trust.toml").code == 0
    assert stanch(*fetch, "late").code == 3  # revoked: the list counts, though it says no lineage
    assert not list((tmp_path / "store").rglob("approval-*"))
    assert stanch(*revoke).code == 2  # without a workspace a key must be named
    with Workspace.open(scene.folder, principal="nina") as workspace:
        kinds = [(phase, kind) for phase, kind, _, _ in life.entries(workspace)]
        assert verify_log(workspace).intents_open == ()
    assert kinds.count(("denied", "release.deliver")) == 1
    for kind in ("release.create", "release.approve", "release.deliver", "release.receive", "release.revoke"):
        assert ("outcome", kind) in kinds


def sign_for_it(stanch, act, uri, leaf):
    """Let acme sign for the bundle that it fetched to ``got``, rita take that in, and the approvals follow."""
    for name in ("acme-sign.pem", "bolt-sign.pem"):
        assert stanch("key", "new", "--kind", "sign", "--algorithm", "ed25519", "--out", name).code == 0
    refused = stanch("release", "fetch", uri, "--trust", "other.toml", "--out", "no")
    assert (refused.code, "may not sign for lineage acme/bot" in refused.err) == (1, True), refused
    get_key = ("release", "fetch-key", uri, "got", "--trust", "trust.toml")
    assert stanch(*get_key).code == 2
    sign = ("release", "receive", "got", "--sign-key", "acme-sign.pem", "--trust", "trust.toml", "--name")
    for file, who, number in (("bolt", "bolt", leaf), ("leaf", "acme", leaf + 1), ("receipt", "acme", leaf)):
        assert stanch(*sign, who, "--leaf", number, "--out", f"{file}.json").code == 0
    take = ("release", "receipt", "r1", "--to", "acme", "--trust")
    for file, key, said in (("bolt", "acme", "recipient: expected"), ("leaf", "acme", "leaf_index: expected"),
                            ("receipt", "bolt", "no trusted")):  # fmt: skip
        refused = act("rita", *take, f"{key}-sign.pub.pem", f"{file}.json")
        assert (refused.code, said in refused.err) == (1, True), refused
    unsent = act("rita", "release", "deliver", "copy", "file:store", "--json").json["data"]
    assert (unsent["key"], stanch(*get_key).code) == (False, 2)
    assert act("rita", *take, "acme-sign.pub.pem", "receipt.json").code == 0
    again = act("rita", *take, "acme-sign.pub.pem", "receipt.json")
    assert (again.code, "holds its receipt already" in again.err) == (4, True), again
    assert act("rita", "release", "deliver", "copy", "file:store", "--json").json["data"]["key"]
    assert stanch(*get_key).code == 0


def test_what_a_team_does_next_is_something_that_it_may(stanch, scene, tmp_path):
    made = stanch(
        "init", tmp_path / "other", "--profile", "team", "--owner", "rita", "--owner-passphrase-file", "rita.txt"
    )
    assert "then: stanch access add NAME --role ROLE --key KEY.pub.pem" in made.out
    case, to = scene, f"acme={scene.material.acme.recipient}"
    shown = stanch(
        "--workspace", case.folder, "--as", "dana", "release", "propose", case.material.model, "--base",
        case.material.base, "--cert", case.certificate, "--name", "r2", "--lineage", "acme/bot", "--number", "2",
        "--to", to,
    )  # fmt: skip
    assert shown.code == 0, shown
    assert "stanch release create r2 --to RECIPIENT --approver NAME --approver NAME --out COPY" in shown.out


def test_a_person_brings_the_own_key_and_acts_with_it(stanch, scene, tmp_path):
    (tmp_path / "rosa.txt").write_text("the passphrase of rosa")
    (tmp_path / "rosa.txt").chmod(0o600)
    (tmp_path / "olga.txt").write_text("the passphrase of olga")
    (tmp_path / "olga.txt").chmod(0o600)
    made = stanch("key", "new", "--kind", "person", "--new-passphrase-file", "rosa.txt", "--out", "rosa.json", "--json")
    key = made.json["data"]["key_id"]
    assert stanch("key", "show", "rosa.pub.pem", "--json").json["data"]["key_id"] == key
    olga = ("--workspace", scene.folder, "--as", "olga", "--passphrase-file", "olga.txt")
    added = stanch(*olga, "access", "add", "rosa", "--role", "release_manager", "--key", "rosa.pub.pem")
    assert added.code == 0, added
    assert not (scene.folder / ".stanch/keys/people/rosa.json").exists()
    shutil.copy("rosa.json", scene.folder / ".stanch/keys/people")
    rosa = ("--workspace", scene.folder, "--as", "rosa", "--passphrase-file", "rosa.txt")
    own = stanch("--json", "key", "new", "--out", "own.json").json["data"]["recipient"]
    assert stanch(*rosa, "access", "key", "register", own, "--json").json["data"]["signed_with"] == key
    listed = {row["name"]: row for row in stanch(*rosa, "key", "list", "--json").json["data"]["keys"]}
    assert listed["people/rosa"]["key_id"] == key
    assert listed["publisher"]["public"].endswith("keys/publisher.pub.pem")
    with Workspace.open(scene.folder, principal="dana") as workspace:
        assert listed["log"]["vkey"] == workspace.ledger.verifier.vkey
    # A lost key gives way to another one that she made.
    new = stanch("--json", "key", "new", "--kind", "person", "--out", "rosa2.json").json["data"]["key_id"]
    rekeyed = stanch(*olga, "access", "rekey", "rosa", "--key", "rosa2.pub.pem", "--json")
    assert rekeyed.json["data"]["key_id"] == new
    assert stanch(*rosa, "status").code == 3
