"""Who edits the rows of rights without an act is named, with the row and the entry."""

import sqlite3

import pytest

from stanch.access.policy import default_text
from stanch.workspace import Workspace
from stanch.workspace.health import State, examine
from stanch.workspace.verbs_access import (
    Newcomer,
    add_person,
    grant_role,
    register_newcomer,
    resume_principal,
    revoke_grant,
    suspend_principal,
)
from stanch.workspace.verbs_policy import activate_policies, rollback_policies


@pytest.fixture
def folder(tmp_path):
    with Workspace.init(tmp_path / "w") as workspace:
        add_person(workspace, "anna", ["auditor"], clearance=2)
        register_newcomer(workspace, Newcomer(name="bot", kind="service", roles=("consumer",), clearance=1))
        revoke_grant(workspace, grant_role(workspace, "anna", "ml_engineer", 10).id)
        grant_role(workspace, "anna", "legal_reader", 10)
        for name in ("anna", "bot"):
            suspend_principal(workspace, name)
        resume_principal(workspace, "anna")
        text = default_text() + '\n@id("more") permit(principal, action, resource) when { false };\n'
        activate_policies(workspace, text)
        rollback_policies(workspace)
    return tmp_path / "w"


def found(folder):
    return [check.found for check in examine(folder) if check.name == "rights" and check.state is State.FAILED]


def edit(folder, statement):
    with sqlite3.connect(folder / ".stanch" / "stanch.db") as connection:
        people = dict(connection.execute("SELECT display, id FROM principal"))
        assert connection.execute(statement, people).rowcount > 0
    connection.close()


def test_what_acts_did_does_not_differ(folder):
    assert [check.state for check in examine(folder) if check.name == "rights"] == [State.OK]


BOOTSTRAP = "INSERT INTO grant_ SELECT 'g_forged', {}, 'platform_admin', 'workspace', 1, NULL, NULL, 'bootstrap', NULL"


@pytest.mark.parametrize(
    ("statement", "row", "said"),
    [
        (BOOTSTRAP.format(":anna"), "grant g_forged", "no entry of the log made it"),
        (BOOTSTRAP.format(":owner"), "grant g_", "no entry of the log made it"),
        ("UPDATE grant_ SET role = 'platform_admin' WHERE role = 'auditor' AND granted_by <> 'bootstrap'",
         "grant g_", "role is platform_admin in the database, auditor in the log (entry "),
        ("UPDATE grant_ SET expires_ms = NULL WHERE role = 'legal_reader' AND granted_by <> 'bootstrap'",
         "grant g_", "expires_ms is None in the database"),
        ("UPDATE grant_ SET revoked_ms = NULL WHERE revoked_ms IS NOT NULL", "grant g_", "revoked is False"),
        ("UPDATE grant_ SET revoked_ms = 5 WHERE role = 'consumer' AND granted_by = 'bootstrap'",
         "grant g_", "revoked is True"),
        ("DELETE FROM grant_ WHERE role = 'consumer' AND granted_by <> 'bootstrap'", "grant g_", "does not hold it"),
        ("DELETE FROM grant_ WHERE role = 'consumer' AND granted_by = 'bootstrap'", "grant of consumer to p_",
         "does not hold it"),
        ("INSERT INTO principal SELECT 'p_forged', 'user', 'x', 'y', 'z', 100, 0, 1", "principal p_forged", "no entry"),
        ("UPDATE principal SET clearance = 100 WHERE display = 'anna'", "principal p_",
         "clearance is 100 in the database, 2 in the log (entry "),
        ("UPDATE principal SET suspended = 1 WHERE display = 'owner'", "principal p_", "suspended is True"),
        ("UPDATE principal SET suspended = 1 WHERE display = 'anna'", "principal p_", "suspended is True"),
        ("UPDATE principal SET suspended = 0 WHERE display = 'bot'", "principal p_", "suspended is False"),
        ("UPDATE credential SET public = zeroblob(32) WHERE principal = :anna", "key ", "public half is "),
        ("UPDATE credential SET principal = :owner WHERE principal = :anna", "key ", "principal is p_"),
        ("UPDATE policy SET text = 'permit(principal, action, resource);', digest = 'x' WHERE version = 2",
         "policy 2", "policy is sha256:"),
        ("UPDATE policy SET state = CASE version WHEN 1 THEN 'active' ELSE 'retired' END", "policy 1",
         "state is active in the database, retired in the log (entry "),
        ("DELETE FROM policy WHERE version = 2", "policy 2", "the database does not hold it"),
    ],
)  # fmt: skip
def test_an_edited_row_is_named_with_its_entry(statement, row, said, folder):
    edit(folder, statement)
    assert any(line.startswith(row) and said in line for line in found(folder)), found(folder)
