"""Making a workspace, whole or not at all, and opening it."""

import os
import stat
import subprocess
import sys

import life
import pytest

from stanch.crypto.localkey import LocalKey
from stanch.errors import (
    Conflict,
    DecryptionFailed,
    InvalidInput,
    LogRolledBack,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    SeparationOfDuties,
)
from stanch.workspace import Workspace, find_workspace, opening
from stanch.workspace.opening import SETTINGS, STATE
from stanch.workspace.verbs_access import add_person
from stanch.workspace.verbs_log import verify_log

STEPS = [
    "stanch.workspace.opening.Keyring.create",
    "stanch.workspace.opening.write_atomic",
    "stanch.workspace.opening.load_config",
    "stanch.workspace.opening.open_tables",
    "stanch.workspace.opening.open_blobs",
    "stanch.workspace.opening.Ledger.create",
    "stanch.workspace.opening.register_owner",
]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_for_their_owner_alone(case):
    keys = case.folder / STATE / "keys"
    private = [path for path in keys.rglob("*") if path.is_file() and not path.name.endswith(".pub.pem")]
    assert {path.name for path in private} > {"log.pem", "publisher.pem", "case.pem", "dataset.key", "olga.json"}
    assert {mode(path) for path in private} == {0o600}
    assert {mode(path) for path in (keys, keys / "people", keys.parent)} == {0o700}


def test_a_key_that_others_can_read_is_refused(case):
    (case.folder / STATE / "keys" / "log.pem").chmod(0o644)
    with pytest.raises(InvalidInput, match="others may read it"):
        Workspace.open(case.folder, principal="nina")


def test_a_workspace_is_not_made_twice(case):
    before = life.contents(case.folder)
    with pytest.raises(InvalidInput, match="holds a workspace already"):
        Workspace.init(case.folder, profile="team", owner="somebody")
    assert life.contents(case.folder) == before


def test_a_state_folder_without_keys_is_not_replaced(case):
    (case.folder / STATE / "keys").rename(case.folder / "taken-away")
    before = life.contents(case.folder)
    with pytest.raises(InvalidInput, match="holds a workspace already"):
        Workspace.init(case.folder)
    assert life.contents(case.folder) == before


def test_a_workspace_that_also_holds_an_unfinished_folder_of_keys_is_not_replaced(case):
    (case.folder / STATE / "keys.partial").mkdir()
    before = life.contents(case.folder)
    with pytest.raises(InvalidInput, match="holds a workspace already"):
        Workspace.init(case.folder)
    assert life.contents(case.folder) == before


def test_of_two_beginnings_at_once_the_second_is_refused_and_takes_nothing_away(tmp_path, monkeypatch):
    real, refused = opening._fill, []

    def fill(*arguments):
        monkeypatch.setattr(opening, "_fill", real)
        with pytest.raises(InvalidInput, match="at this moment") as caught:
            Workspace.init(tmp_path / "w")
        refused.append(caught)
        return real(*arguments)

    monkeypatch.setattr(opening, "_fill", fill)
    with Workspace.init(tmp_path / "w") as workspace:
        assert verify_log(workspace).size == 0
    assert len(refused) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_beginning_leaves_nothing_and_can_be_repeated(step, error, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(step, stop)
        with pytest.raises(error):
            Workspace.init(tmp_path / "w")
    assert life.tree(tmp_path / "w") == []
    with pytest.raises(NotFound):
        find_workspace(tmp_path / "w")
    with Workspace.init(tmp_path / "w") as workspace:
        assert verify_log(workspace).size == 0
    assert sorted(os.listdir(tmp_path / "w")) == [STATE, SETTINGS]  # noqa: PTH208 - names are enough


KILLED = """
import os, sys
from unittest import mock
from stanch.workspace import Workspace
with mock.patch(sys.argv[2], lambda *_, **__: os._exit(9)):
    Workspace.init(__import__("pathlib").Path(sys.argv[1]))
"""


@pytest.mark.parametrize("step", [STEPS[3], STEPS[6]])
def test_a_killed_beginning_is_no_workspace_and_can_be_repeated(step, tmp_path):
    folder = tmp_path / "w"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), step], check=False, timeout=300)
    assert done.returncode == 9
    with pytest.raises(NotFound):
        find_workspace(folder)
    with Workspace.init(folder) as workspace:
        assert workspace.people.name == "owner"
        assert verify_log(workspace).size == 0


def test_a_bad_owner_name_leaves_nothing(tmp_path):
    with pytest.raises(InvalidInput, match="not a key name"):
        Workspace.init(tmp_path / "w", owner="../me")
    assert life.tree(tmp_path / "w") == []


def test_settings_that_name_another_profile_are_refused_and_kept(tmp_path):
    settings = tmp_path / SETTINGS
    settings.write_text('[ledger]\norigin = "example.com/log"\n\n[access]\nprofile = "team"\n')
    with pytest.raises(InvalidInput, match="profile"):
        Workspace.init(tmp_path, profile="solo")
    assert life.tree(tmp_path) == [SETTINGS]
    with Workspace.init(tmp_path, profile="team") as workspace:
        assert workspace.people.team
        assert workspace.ledger.origin == "example.com/log"


def test_settings_without_a_name_for_the_log_are_refused_with_a_proposal(tmp_path):
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / SETTINGS).write_text('[access]\nprofile = "solo"\n')
    with pytest.raises(InvalidInput, match="expected a name for the log") as refused:
        Workspace.init(folder)
    assert [path.name for path in folder.iterdir()] == [SETTINGS]
    proposal = refused.value.next_step.removeprefix("add: [ledger] ")
    (folder / SETTINGS).write_text(f"[ledger]\n{proposal}\n")
    Workspace.init(folder).close()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot be written"):
        Workspace.init(tmp_path / "file" / "w")


def test_the_nearest_workspace_above_is_found(case, monkeypatch):
    (case.folder / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(case.folder / "a" / "b")
    assert find_workspace(None) == case.folder


def test_whoever_has_no_key_here_is_not_let_in(case):
    with pytest.raises(NotAuthenticated, match="no local key"):
        Workspace.open(case.folder, principal="mallory")
    with pytest.raises(NotAuthenticated, match="locked"):
        Workspace.open(case.folder, principal="rita")


def test_a_key_that_is_not_registered_is_not_let_in(case):
    with case.acting("olga") as workspace:
        workspace.keys.add_person("mallory")
    with pytest.raises(NotAuthenticated, match="not authenticated"):
        Workspace.open(case.folder, principal="mallory")


def test_a_changed_log_is_not_opened(case):
    database = case.folder / STATE / "stanch.db"
    with case.acting("nina") as workspace:
        workspace.tables.close()
        before = database.read_bytes()
    with case.acting("olga") as workspace:
        add_person(workspace, "new", [])
    for name in ("stanch.db-wal", "stanch.db-shm"):
        (database.with_name(name)).unlink(missing_ok=True)
    database.write_bytes(before)
    with pytest.raises(LogRolledBack):
        Workspace.open(case.folder, principal="nina")


@pytest.mark.parametrize("roles", [["nonsense"], ["auditor", "nonsense"], ["auditor", "ml_engineer"]])
def test_a_person_with_roles_that_cannot_be_is_not_half_made(roles, case):
    with case.acting("olga") as workspace:
        before = len(workspace.people.directory.principals())
        with pytest.raises((InvalidInput, SeparationOfDuties)):
            add_person(workspace, "new", roles)
        assert len(workspace.people.directory.principals()) == before
        assert "new" not in workspace.keys.people()
        add_person(workspace, "new", roles[:1] if roles[0] != "nonsense" else [])


def test_key_names_never_leave_the_folder(case):
    with case.acting("nina") as workspace:
        for name in ("..", "../x", "people/../../x", "/etc/passwd", "", "A", "a" * 65):
            with pytest.raises(InvalidInput, match="not a key name"):
                workspace.keys.signer(name)
        assert isinstance(workspace.keys.person("nina"), LocalKey)


def test_one_person_with_a_key_and_a_name_at_an_issuer(case):
    vouched = ("https://id.example", "rosa")
    with case.acting("olga") as workspace:
        rosa = add_person(workspace, "rosa", ["release_manager"], clearance=2, vouched=vouched)
        facts = workspace.people.directory.facts_of(rosa)
        assert (facts.principal.issuer, facts.principal.subject, facts.principal.clearance) == (*vouched, 2)
        with pytest.raises(Conflict, match="registered already"):
            add_person(workspace, "other", [], vouched=vouched)
        assert "other" not in workspace.keys.people(), "nobody is left with a key that nobody owns"
        with pytest.raises(InvalidInput, match="an issuer and a subject"):
            add_person(workspace, "other", [], vouched=("", "x"))
    with case.acting("rosa") as workspace:
        assert workspace.people.session.principal == rosa


def test_whoever_is_not_let_in_leaves_nothing_open(case):
    with pytest.raises(DecryptionFailed):
        Workspace.open(case.folder, principal="olga", unlock=lambda: life.passphrase("somebody else"))
    assert list((case.folder / STATE).glob("stanch.db-*")) == [], "SQLite deletes them when the last connection ends"


@pytest.mark.parametrize("grown", [False, True])
def test_what_several_people_kept_is_never_opened_as_one_persons(case, tmp_path, grown):
    """Neither by whoever edits the settings nor, tests/config, by whoever sets a variable."""
    folder = case.folder
    if grown:  # a workspace of one that became a team's
        folder = tmp_path / "grown"
        Workspace.init(folder).close()
        with Workspace.open(folder) as workspace:
            add_person(workspace, "first", ["consumer"])
        settings = folder / SETTINGS
        settings.write_text(settings.read_text().replace('"solo"', '"team"'))
        with Workspace.open(folder) as workspace, pytest.raises(NotPermitted):
            add_person(workspace, "second", ["consumer"])
    settings = folder / SETTINGS
    settings.write_text(settings.read_text().replace('"team"', '"solo"'))
    with pytest.raises(InvalidInput, match="was kept in profile team, the settings say solo"):
        Workspace.open(folder, principal=None if grown else "nina")
