"""``stanch migrate``: an older database is named, brought forward, and left alone the second time."""

import sqlite3
from contextlib import closing

from stanch.store.schema import REVISION


def test_an_older_workspace_is_brought_forward(stanch, tmp_path):
    assert stanch("init", "w").code == 0
    database = tmp_path / "w" / ".stanch" / "stanch.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP INDEX ledger_index_act")
        connection.execute("UPDATE schema_revision SET revision = 1")
        connection.commit()
    refused = stanch("--workspace", "w", "status")
    assert refused.code == 2
    assert "next:  stanch migrate" in refused.err
    done = stanch("--json", "--workspace", "w", "migrate").json["data"]
    assert (done["before"], done["after"]) == (1, REVISION)
    assert done["copy"].endswith("stanch.db.revision-1")
    assert stanch("--workspace", "w", "log", "verify").code == 0
    again = stanch("--workspace", "w", "migrate")
    assert again.out == f"schema     revision {REVISION}: nothing to do\n"


def test_there_must_be_a_workspace(stanch):
    assert stanch("migrate").code == 2
