"""A lost key is replaced, the last administrator stays, and a legal hold keeps what is known of a person."""

import os

import pytest

from stanch.access import Directory
from stanch.access.sessions import Sessions
from stanch.crypto import SigningKey, passphrase
from stanch.crypto.localkey import save_local_key
from stanch.crypto.passphrase import Passphrase
from stanch.errors import (
    CommitUnknown,
    Conflict,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    OutcomeNotRecorded,
    StoreError,
)
from stanch.ledger import Ledger, Phase
from stanch.ledger.erasure import Selection
from stanch.terms import ArtifactRef, Digest
from stanch.workspace import Workspace
from stanch.workspace.act import Done, Request
from stanch.workspace.rights import read_rights
from stanch.workspace.verbs_access import (
    Newcomer,
    add_person,
    grant_role,
    register_newcomer,
    revoke_grant,
    suspend_principal,
)
from stanch.workspace.verbs_artifact import hold_artifact, lift_hold
from stanch.workspace.verbs_casework import give_task
from stanch.workspace.verbs_console import bootstrap_of, console_secret, make_token
from stanch.workspace.verbs_contain import quarantine_model
from stanch.workspace.verbs_incident import open_incident
from stanch.workspace.verbs_log import erase_personal
from stanch.workspace.verbs_person import replace_local_key, take_local_key

SECRET, OTHER = Passphrase("correct horse"), Passphrase("battery staple")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setattr(passphrase, "_COSTS", {"t": (1, 16), "m_kib": (1024, 1 << 20), "p": (1, 16)})
    with Workspace.init(tmp_path / "w") as opened:
        add_person(opened, "anna", ["security_analyst"], passphrase=SECRET)
        yield opened


def people_files(workspace):
    return sorted(path.name for path in (workspace.folder / ".stanch" / "keys" / "people").iterdir())


def signs_in(workspace, secret):
    workspace.acting_as("anna", unlock=lambda: secret)


def test_a_replaced_key_is_refused_and_the_new_one_is_the_same_person(workspace):
    acting = workspace.acting_as("anna", unlock=lambda: SECRET)
    copied = (workspace.folder / ".stanch" / "keys" / "people" / "anna.json").read_bytes()
    key_id = replace_local_key(workspace, "anna", passphrase=OTHER)
    again = workspace.acting_as("anna", unlock=lambda: OTHER)
    assert (again.people.session.principal, again.people.session.key_id) == (acting.people.session.principal, key_id)
    assert people_files(workspace) == ["anna.json", "owner.json"]
    with pytest.raises(NotAuthenticated):
        acting.people.facts()  # a session of the earlier key has ended
    (workspace.folder / ".stanch" / "keys" / "people" / "anna.json").write_bytes(copied)
    with pytest.raises(NotAuthenticated):
        signs_in(workspace, SECRET)


def test_a_key_that_the_person_made_elsewhere_replaces_the_earlier_one(workspace):
    acting = workspace.acting_as("anna", unlock=lambda: SECRET)
    key = SigningKey.generate("ed25519")
    assert take_local_key(workspace, "anna", key.public) == key.key_id
    with pytest.raises(NotAuthenticated):
        acting.people.facts()
    file = workspace.folder / ".stanch" / "keys" / "people" / "anna.json"
    file.unlink()
    save_local_key(file, key, passphrase=OTHER)
    again = workspace.acting_as("anna", unlock=lambda: OTHER)
    assert again.people.session.principal == acting.people.session.principal
    with pytest.raises(Conflict):
        take_local_key(workspace, "anna", key.public)
    with pytest.raises(InvalidInput, match="expected Ed25519"):
        take_local_key(workspace, "anna", SigningKey.generate("p256").public)
    bot = register_newcomer(workspace, Newcomer(name="bot", kind="service"))
    with pytest.raises(NotFound, match="no local key"):
        take_local_key(workspace, bot, SigningKey.generate("ed25519").public)


def test_a_person_who_brings_a_key_leaves_nothing_here_that_signs(workspace):
    key = SigningKey.generate("ed25519")
    bert = add_person(workspace, "bert", ["auditor"], key=key.public)
    assert people_files(workspace) == ["anna.json", "owner.json"]
    assert workspace.people.directory.local_key_of(bert) == key.key_id
    with pytest.raises(Conflict):
        add_person(workspace, "bart", [], key=key.public)
    with pytest.raises(InvalidInput, match="expected Ed25519"):
        add_person(workspace, "bart", [], key=SigningKey.generate("p256").public)
    assert len(workspace.people.directory.principals()) == 3
    doubts = read_rights(workspace.tables, workspace.ledger.reader()).doubts
    assert list(doubts) == [workspace.keys.person_id("anna")], "whose key was made here"
    take_local_key(workspace, "bert", (new := SigningKey.generate("ed25519")).public)
    doubts = read_rights(workspace.tables, workspace.ledger.reader()).doubts
    assert "put it in the place of the earlier one" in doubts[new.key_id]


def test_a_browser_session_of_a_replaced_key_ends(workspace):
    sessions = Sessions(workspace.tables, console_secret(workspace, "session"))
    signed_in = bootstrap_of(workspace).redeem(make_token(workspace).text)
    cookie = sessions.open_session(signed_in).cookie
    sessions.resume(cookie)
    replace_local_key(workspace, "owner")
    with pytest.raises(NotAuthenticated):
        sessions.resume(cookie)


def test_whoever_was_registered_first_acts_by_default_however_old_the_key_files_are(workspace):
    folder = workspace.folder / ".stanch" / "keys" / "people"
    os.utime(folder / "anna.json", (1, 1))
    with Workspace.open(workspace.folder) as opened:
        assert opened.people.name == "owner"
    replace_local_key(workspace, "owner")
    with Workspace.open(workspace.folder) as opened:
        assert opened.people.name == "owner"


def test_a_locked_key_is_replaced_by_a_locked_one(workspace):
    with pytest.raises(InvalidInput, match="the key is locked"):
        replace_local_key(workspace, "anna")
    with pytest.raises(NotFound, match="no local key"):
        replace_local_key(workspace, "nobody")
    signs_in(workspace, SECRET)


def test_a_replacement_that_cannot_be_recorded_did_not_happen(workspace, monkeypatch):
    def fail(*_):
        raise StoreError("broken")

    monkeypatch.setattr(Directory, "replace_key", fail)
    with pytest.raises(StoreError):
        replace_local_key(workspace, "anna", passphrase=OTHER)
    monkeypatch.undo()
    assert people_files(workspace) == ["anna.json", "owner.json"]
    signs_in(workspace, SECRET)


def test_what_an_interrupted_replacement_left_is_not_overwritten(workspace):
    folder = workspace.folder / ".stanch" / "keys" / "people"
    earlier = folder / "anna.json.earlier"
    earlier.write_bytes((folder / "anna.json").read_bytes())
    earlier.chmod(0o600)
    with pytest.raises(InvalidInput, match="interrupted"):
        replace_local_key(workspace, "anna", passphrase=OTHER)
    signs_in(workspace, SECRET)


def test_the_last_administrator_stays(workspace):
    owner = workspace.people.session.principal
    (only,) = [grant for grant in workspace.people.facts().grants if grant.role == "platform_admin"]
    with pytest.raises(InvalidInput, match="the last platform_admin"):
        revoke_grant(workspace, only.id)
    add_person(workspace, "bert", [])
    other = grant_role(workspace, "bert", "platform_admin", 3)
    suspend_principal(workspace, "bert")
    with pytest.raises(InvalidInput, match="the last platform_admin"):
        revoke_grant(workspace, only.id)
    revoke_grant(workspace, other.id)
    assert "platform_admin" in {grant.role for grant in workspace.people.directory.facts_of(owner).grants}


def test_a_legal_hold_keeps_what_is_known_of_who_acted(workspace):
    held, person = ArtifactRef("model", "m", Digest.sha256(b"m")), workspace.people.find("anna")
    quarantine_model(workspace.acting_as("anna", unlock=lambda: SECRET), held)
    with pytest.raises(InvalidInput, match="is not under legal hold"):
        lift_hold(workspace, held)
    hold_artifact(workspace, held)
    with pytest.raises(NotPermitted, match="legal hold"):
        erase_personal(workspace, Selection(person), "gdpr-17-1-b")
    lift_hold(workspace, held)
    assert erase_personal(workspace, Selection(person), "gdpr-17-1-b").columns


def test_a_legal_hold_on_a_model_keeps_who_tuned_it(workspace):
    """The subject of a tuning is its data: which model came of it, its outcome alone says."""
    person, anna = workspace.people.find("anna"), workspace.acting_as("anna", unlock=lambda: SECRET)
    grant_role(workspace, "anna", "ml_engineer", 3)
    tuned, data = (ArtifactRef(kind, kind, Digest.sha256(kind.encode())) for kind in ("model", "dataset"))
    anna.door.act(Request("tune.run", "model:tune", data), lambda _ref: Done(None, {"model": str(tuned.digest)}))
    hold_artifact(workspace, tuned)
    for selection in (Selection(person), Selection(None, "watch.incident.task", 10**15)):
        if selection.field is not None:
            give_task(anna, open_incident(anna, 0).id, "ring somebody", who="owner", due_ms=1)
        with pytest.raises(NotPermitted, match="legal hold"):
            erase_personal(workspace, selection, "gdpr-17-1-b")
    lift_hold(workspace, tuned)
    assert erase_personal(workspace, Selection(person), "gdpr-17-1-b").columns


def test_both_keys_lie_there_where_nobody_knows_which_one_counts(workspace, monkeypatch):
    append = Ledger.append_nowait

    def lost(self, entry, *, within=None):
        done = append(self, entry, within=within)
        if entry.phase is Phase.OUTCOME and entry.act.kind == "access.rekey" and entry.result == "done":
            done.result()
            raise CommitUnknown("nobody answers")
        return done

    monkeypatch.setattr(Ledger, "append_nowait", lost)
    with pytest.raises(OutcomeNotRecorded, match="what it made stays"):
        replace_local_key(workspace, "anna", passphrase=OTHER)
    assert people_files(workspace) == ["anna.json", "anna.json.earlier", "owner.json"]
    signs_in(workspace, OTHER)
