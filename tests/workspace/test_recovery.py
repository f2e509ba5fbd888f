"""Who may bring a log back, and that a refusal leaves it as it was."""

import shutil

import life
import pytest

from stanch.errors import LogRolledBack, NotPermitted
from stanch.workspace.verbs_access import grant_role
from stanch.workspace.verbs_log import recover_log, verify_log


def test_who_may_not_write_the_log_recovers_nothing(case, tmp_path):
    database = case.folder / ".stanch" / "stanch.db"
    shutil.copy(database, tmp_path / "old.db")
    with case.acting("olga") as workspace:
        grant_role(workspace, "nina", "auditor", 3)
    shutil.copy(tmp_path / "old.db", database)
    with pytest.raises(LogRolledBack), case.acting("olga"):
        pass
    kept = database.read_bytes()
    with pytest.raises(NotPermitted):
        recover_log(case.folder, "nina")
    assert database.read_bytes() == kept
    assert recover_log(case.folder, "olga", unlock=life.passphrase).restored >= 2
    with case.acting("olga") as workspace:
        assert verify_log(workspace).intents_open == ()
