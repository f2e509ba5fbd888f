"""Keys by name and version: a new version is used from now on, and the old ones stay."""

import stat

import life
import pytest

from stanch.audit.certificate_file import read_certificate
from stanch.config import algorithms
from stanch.crypto import SigningKey, VerifyKey
from stanch.crypto.localkey import local_key_id
from stanch.errors import (
    CommitUnknown,
    InvalidInput,
    NotFound,
    NotPermitted,
    OutcomeNotRecorded,
    StoreError,
    VerificationError,
)
from stanch.ledger import Ledger, NoteSigner, Phase, TrustPolicy, verify_proof
from stanch.sign import TrustedKeys
from stanch.workspace import Workspace, keyring
from stanch.workspace.health import examine
from stanch.workspace.health_check import State
from stanch.workspace.keyring import SECRETS, SIGNERS, Keyring
from stanch.workspace.verbs_key import ROTATED, rotate_key
from stanch.workspace.verbs_log import Comparison, prove_entry, verify_log
from stanch.workspace.verbs_model import pass_gate


@pytest.fixture
def keys(tmp_path):
    return Keyring.create(tmp_path / "keys", algorithms("2026"))


def test_every_private_file_is_for_its_owner_alone(keys, tmp_path):
    keys.add_person("ana")
    keys.add_secret("pepper")
    keys.add_signer("publisher", "p256")
    assert len(keys.private_files()) == len(SECRETS) + len(SIGNERS) + 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys.private_files()} == {0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_new_version_is_the_default_and_the_old_one_stays(keys):
    first, old = keys.secret("pepper"), keys.signer("publisher")
    assert (keys.add_secret("pepper"), keys.add_signer("publisher", "p256")) == (2, 2)
    assert keys.secret("pepper") == keys.secret("pepper", 2) != first == keys.secret("pepper", 1)
    assert keys.signer("publisher").public == keys.public("publisher") != old.public
    assert keys.publics("publisher") == (keys.public("publisher", 2), old.public)
    assert (keys.versions("pepper"), keys.versions("log"), keys.versions("nothing")) == ((1, 2), (1,), ())


def test_two_rotations_at_once_make_one_whole_key(keys, monkeypatch):
    """The second is done after the first chose its version, and before that wrote a file."""
    generate, second = SigningKey.generate, []

    def slow(kind):
        if not second:
            second.append(None)
            second.append(keys.add_signer("publisher", "p256"))
        return generate(kind)

    monkeypatch.setattr(SigningKey, "generate", slow)
    with pytest.raises(InvalidInput, match="exists already"):
        keys.add_signer("publisher", "p256")
    assert (second[1], keys.versions("publisher")) == (2, (1, 2))
    assert keys.signer("publisher").public == keys.public("publisher")


def test_a_rotation_that_died_between_its_two_files_is_completed(keys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(keyring, "write_atomic", lambda *_: (_ for _ in ()).throw(StoreError("died")))
        with pytest.raises(StoreError):
            keys.add_signer("publisher", "p256")
    assert keys.public("publisher") == keys.publics("publisher")[0] == keys.signer("publisher", 2).public
    assert VerifyKey.from_pem(keys.public_path("publisher").read_bytes()) == keys.public("publisher")
    with pytest.raises(NotFound):
        keys.public("publisher", 3)
    with pytest.raises(NotFound):
        keys.public("nothing")


@pytest.mark.parametrize("name", ["", "../log", "a/../b", "A", "log.v2", "people/ana.v10", "x" * 65])
def test_a_name_cannot_leave_the_folder_or_be_a_version(keys, name):
    with pytest.raises(InvalidInput, match="not a key name"):
        keys.secret(name)


def test_what_is_not_there_or_damaged_is_named(keys, tmp_path):
    with pytest.raises(InvalidInput, match="nothing"):
        keys.secret("nothing")
    with pytest.raises(InvalidInput, match=r"pepper\.v3"):
        keys.secret("pepper", 3)
    with pytest.raises(NotFound):
        keys.public("nothing")
    (tmp_path / "keys" / "pepper.key").write_bytes(b"short")
    with pytest.raises(InvalidInput, match="expected 32 bytes, found 5"):
        keys.secret("pepper")


def test_a_rotated_publisher_still_vouches_for_what_it_signed(case):
    with case.acting("olga") as workspace:
        rotate_key(workspace, "publisher")
    with case.acting("dana") as workspace:
        pass_gate(workspace, case.material.model, case.certificate, life.POLICY)
        trusted = workspace.keys.public("publisher", 2)
        with pytest.raises(VerificationError):
            read_certificate(case.certificate, TrustedKeys((trusted,)))


@pytest.mark.parametrize("name", ["dataset", "index", "people/owner", "../x", "nothing"])
def test_other_keys_are_not_rotated(tmp_path, name):
    with Workspace.init(tmp_path / "w") as workspace:
        with pytest.raises(InvalidInput, match="not rotated"):
            rotate_key(workspace, name)
        assert life.entries(workspace) == []


def test_the_entry_names_the_key_and_holds_no_secret(tmp_path):
    with Workspace.init(tmp_path / "w") as workspace:
        for name in ROTATED:
            assert rotate_key(workspace, name) == 2
        secret = workspace.keys.secret("pepper").hex()
        text = b"".join(data for _, data in workspace.ledger.reader().tail())
        assert b'"name":"pepper"' in text
        assert secret.encode() not in text


def test_a_rotated_log_key_signs_beside_the_old_one(tmp_path):
    with Workspace.init(tmp_path / "w") as workspace:
        old = workspace.ledger.verifier.vkey
        assert rotate_key(workspace, "log") == 2
        new = workspace.ledger.verifier.vkey
    with Workspace.open(tmp_path / "w") as workspace:
        assert [key.vkey for key in workspace.ledger.verifiers] == [new, old]
        entry, proof = prove_entry(workspace, 1)
        for vkey in (old, new):
            assert verify_proof(proof, entry, TrustPolicy.of([vkey])).index == 1
        assert verify_log(workspace).size == workspace.ledger.reader().size()
        with pytest.raises(VerificationError):
            verify_log(workspace, Comparison((new,)))
    assert {check.state for check in examine(tmp_path / "w") if check.name == "log"} <= {State.OK, State.WARNING}


def test_the_log_does_not_use_a_key_whose_rotation_did_not_come_to_its_end(tmp_path, monkeypatch):
    def refuse(*_):
        raise StoreError("the disk is full")

    with Workspace.init(tmp_path / "w") as workspace:
        old = workspace.ledger.verifier
        with monkeypatch.context() as broken:
            broken.setattr(Ledger, "replace_key", refuse)
            with pytest.raises(StoreError):
                rotate_key(workspace, "log")
    with Workspace.open(tmp_path / "w") as workspace:
        assert workspace.ledger.verifier == old
        assert rotate_key(workspace, "log") == 3
        assert old in workspace.ledger.verifiers


def test_a_trust_policy_may_learn_of_the_new_key_later(tmp_path):
    with Workspace.init(tmp_path / "w") as workspace:
        vkey = workspace.ledger.verifier.vkey
    (tmp_path / "w" / "trust").write_text(f"log {vkey}\nquorum none\n")
    settings = tmp_path / "w" / "stanch.toml"
    settings.write_text(settings.read_text().replace("[ledger]\n", '[ledger]\npolicy = "trust"\n'))
    with Workspace.open(tmp_path / "w") as workspace:
        rotate_key(workspace, "log")
    with Workspace.open(tmp_path / "w") as workspace:
        assert workspace.ledger.verifier.vkey != vkey
    stranger = NoteSigner(workspace.ledger.origin, SigningKey.generate("ed25519")).verifier.vkey
    (tmp_path / "w" / "trust").write_text(f"log {stranger}\nquorum none\n")
    with pytest.raises(InvalidInput, match="does not trust this log"):
        Workspace.open(tmp_path / "w")


def test_a_key_that_cannot_be_written_is_a_recorded_failure(tmp_path, monkeypatch):
    def refuse(*_):
        raise InvalidInput("cannot be written")

    with Workspace.init(tmp_path / "w") as workspace:
        monkeypatch.setattr(Keyring, "add_secret", refuse)
        with pytest.raises(InvalidInput):
            rotate_key(workspace, "pepper")
        assert [entry[3] for entry in life.entries(workspace)] == ["", "failed"]


def test_nobody_without_the_role_rotates(case):
    with case.acting("rita") as workspace:
        before = workspace.keys.versions("pepper")
        with pytest.raises(NotPermitted):
            rotate_key(workspace, "pepper")
        assert workspace.keys.versions("pepper") == before


def losing_answers(monkeypatch, error, meanwhile=lambda: None, *, durable=False):
    """Let the next rotation's outcome meet an error, in the log or not; ``meanwhile`` comes before."""
    append = Ledger.append_nowait

    def lose(self, entry, *, within=None):
        if not (entry.phase is Phase.OUTCOME and entry.act.kind == "key.rotate" and entry.result == "done"):
            return append(self, entry, within=within)
        monkeypatch.setattr(Ledger, "append_nowait", append)
        if durable:
            append(self, entry, within=within).result()
        meanwhile()
        raise error

    monkeypatch.setattr(Ledger, "append_nowait", lose)


def test_a_rotation_that_is_undone_leaves_what_others_made_meanwhile(tmp_path, monkeypatch):
    with Workspace.init(tmp_path / "w") as workspace:
        losing_answers(monkeypatch, StoreError("the disk is full"), lambda: rotate_key(workspace, "pepper"))
        with pytest.raises(OutcomeNotRecorded, match="withheld"):
            rotate_key(workspace, "pepper")
        assert workspace.keys.versions("pepper") == (1, 3)
        assert rotate_key(workspace, "pepper") == 4
        assert set(workspace.people.api_keys._peppers) == {1, 3, 4}


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("name", ROTATED)
def test_no_key_is_gone_where_nobody_knows_whether_its_rotation_is_recorded(tmp_path, monkeypatch, name, durable):
    with Workspace.init(tmp_path / "w") as workspace:
        losing_answers(monkeypatch, CommitUnknown("nobody answers"), durable=durable)
        with pytest.raises(OutcomeNotRecorded):
            rotate_key(workspace, name)
        assert workspace.keys.versions(name) == (1, 2)
    with Workspace.open(tmp_path / "w") as again:
        verify_log(again)
        assert rotate_key(again, name) == 3
        verify_log(again)


def test_a_key_that_may_have_signed_already_is_never_deleted(tmp_path, monkeypatch):
    with Workspace.init(tmp_path / "w") as workspace:
        for name in SIGNERS:
            losing_answers(monkeypatch, StoreError("the disk is full"))
            with pytest.raises(OutcomeNotRecorded):
                rotate_key(workspace, name)
            assert workspace.keys.versions(name) == (1, 2)
    with Workspace.open(tmp_path / "w") as again:
        verify_log(again)


def test_a_key_that_takes_anothers_place_is_there_after_a_power_cut(keys, tmp_path, monkeypatch):
    """A rename lasts once its folder is written: after each, before the row that says which key counts."""
    people, durable = tmp_path / "keys" / "people", []

    def sync(folder):
        real(folder)
        durable.append({path.name: local_key_id(path) for path in folder.glob("ana.json*")})

    real = keyring.sync_folder
    monkeypatch.setattr(keyring, "sync_folder", sync)
    old = keys.add_person("ana").public.key_id
    new = keys.replace_person("ana").public.key_id
    assert durable[-1] == {"ana.json": new, "ana.json.earlier": old}
    keys.return_person("ana")
    assert durable[-1] == {"ana.json": old}
    assert [path.name for path in people.iterdir()] == ["ana.json"]
