"""Who may bring a log back, and that a refusal leaves it as it was."""

import shutil
import sqlite3
from contextlib import closing

import life
import pytest

from stanch.errors import LogRolledBack, NotPermitted, NoTrustedSignature
from stanch.ledger import open_checkpoint
from stanch.workspace import Workspace
from stanch.workspace.verbs_access import grant_role
from stanch.workspace.verbs_key import rotate_key
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


def test_a_replaced_log_key_goes_on_signing_for_its_thirty_days_after_a_recovery(tmp_path):
    folder = tmp_path / "w"
    Workspace.init(folder).close()
    database = folder / ".stanch" / "stanch.db"
    shutil.copy(database, tmp_path / "old.db")
    with Workspace.open(folder) as workspace:
        rotate_key(workspace, "log")
        workspace.keys.add_signer("log", "ed25519")  # a rotation that came to no end
        rotate_key(workspace, "publisher")
        rotate_key(workspace, "log")
        verifiers = workspace.ledger.verifiers
    kept = rows_of(folder)
    shutil.copy(tmp_path / "old.db", database)
    recover_log(folder, None)
    assert [row[:2] for row in rows_of(folder)] == [row[:2] for row in kept]
    assert all(abs(now[2] - then[2]) < 1000 for now, then in zip(rows_of(folder), kept, strict=True))
    assert len(kept) == 2
    with Workspace.open(folder) as workspace:
        assert workspace.ledger.verifiers == verifiers
        note = workspace.ledger.publish().note
    for verifier in (verifiers[0], verifiers[2], verifiers[3]):
        assert open_checkpoint(note, [verifier])
    with pytest.raises(NoTrustedSignature):
        open_checkpoint(note, [verifiers[1]])


def rows_of(folder):
    with closing(sqlite3.connect(folder / ".stanch" / "stanch.db")) as connection:
        return connection.execute("SELECT * FROM ledger_key ORDER BY replaced_ms").fetchall()
