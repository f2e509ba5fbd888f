"""Migrations: from the frozen schema of revision 1, from half a schema, and not at all."""

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import inspect

from stanch.errors import InvalidInput, NotFound, SchemaTooNew, SchemaTooOld, StoreError, StoreUnsafe
from stanch.store import migrate, open_tables
from stanch.store.schema import METADATA, REVISION

REVISION_1 = (Path(__file__).parents[1] / "vectors" / "store" / "revision-1.sql").read_text()
ROWS = [
    "INSERT INTO principal VALUES ('p_a', 'user', 'i', 's', 'Ana', 1, 0, 5)",
    "INSERT INTO credential VALUES ('k', 'p_a', 'local', x'00', 0, NULL, NULL)",
    "INSERT INTO ledger_log VALUES ('o', 1, x'11', 'key', 7)",
    "INSERT INTO ledger_entry VALUES ('o', 0, x'2233', zeroblob(32))",
    "INSERT INTO ledger_index VALUES ('o', 0, 'a', 'intent', 'k', 'p_a', 7, 99)",
    "INSERT INTO ledger_subject VALUES ('o', 0, 'sha256:00')",
]


@pytest.fixture
def old(tmp_path):
    """A database of revision 1 with rows."""
    with closing(sqlite3.connect(tmp_path / "stanch.db")) as connection:
        connection.executescript(REVISION_1)
        for statement in ROWS:
            connection.execute(statement)
        connection.commit()
    return tmp_path


def described(path):
    """Return columns, indexes and triggers of every table."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        statement = 'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?)'
        columns = {name: sorted(connection.execute(statement, (name,)).fetchall()) for name in tables}
        # Entries that were there stay in the form they had: their key is no index of its own.
        others = connection.execute(
            "SELECT type, name, tbl_name FROM sqlite_schema WHERE type <> 'table' AND name NOT LIKE 'sqlite_autoindex%'"
        ).fetchall()
    return columns, sorted(others)


def rows(path):
    with closing(sqlite3.connect(path)) as connection:
        return [
            connection.execute(statement).fetchall()
            for statement in (
                "SELECT id, kind, issuer, subject, display, clearance, suspended, created_ms FROM principal",
                "SELECT id, principal, kind, public FROM credential",
                "SELECT * FROM ledger_log",
                "SELECT * FROM ledger_entry",
            )
        ]


def test_revision_1_becomes_what_a_new_database_is(old, tmp_path):
    before = rows(old / "stanch.db")
    with pytest.raises(SchemaTooOld):
        open_tables("sqlite:stanch.db", base=old)
    done = migrate("sqlite:stanch.db", base=old)
    assert (done.before, done.after) == (1, REVISION)
    open_tables("sqlite:stanch.db", base=old).close()
    open_tables("sqlite:new.db", base=tmp_path, create=True).close()
    assert described(old / "stanch.db") == described(tmp_path / "new.db")
    assert rows(old / "stanch.db") == before


def test_the_query_index_is_emptied_and_made_anew_from_the_entries(old):
    migrate("sqlite:stanch.db", base=old)
    with closing(sqlite3.connect(old / "stanch.db")) as connection:
        assert connection.execute("SELECT * FROM ledger_index").fetchall() == []
        assert connection.execute("SELECT * FROM ledger_subject").fetchall() == []


def test_the_old_file_is_kept_beside_the_new_one(old):
    done = migrate("sqlite:stanch.db", base=old)
    assert done.copy == old / "stanch.db.revision-1"
    assert stat.S_IMODE(done.copy.stat().st_mode) == 0o600
    assert rows(done.copy) == rows(old / "stanch.db")
    with closing(sqlite3.connect(done.copy)) as connection:
        assert connection.execute("SELECT revision FROM schema_revision").fetchall() == [(1,)]
    assert sorted(path.name for path in old.iterdir() if "partial" in path.name) == []


def test_entries_stay_append_only(old):
    migrate("sqlite:stanch.db", base=old)
    with closing(sqlite3.connect(old / "stanch.db")) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE ledger_entry SET data = x'00'")


def test_again_does_nothing(place):
    place.open(create=True)
    done = migrate(place.uri, base=place.base)
    assert (done.before, done.after, done.copy) == (REVISION, REVISION, None)


def test_what_is_missing_is_added_on_both_dialects(place):
    tables = place.open(create=True)
    with tables.write() as connection:
        connection.exec_driver_sql("DROP TABLE ledger_opening")
        connection.exec_driver_sql("DROP INDEX grant_principal")
        connection.exec_driver_sql("ALTER TABLE credential DROP COLUMN expires_ms")
        connection.exec_driver_sql("INSERT INTO act_lease VALUES ('a', 'h', 1, 1)")
        connection.exec_driver_sql("UPDATE schema_revision SET revision = 1")
    assert migrate(place.uri, base=place.base).after == REVISION
    with place.open().read() as connection:
        found = inspect(connection)
        assert set(found.get_table_names()) == set(METADATA.tables)
        assert "expires_ms" in {column["name"] for column in found.get_columns("credential")}
        assert [index["name"] for index in found.get_indexes("grant_")] == ["grant_principal"]
        assert connection.exec_driver_sql("SELECT act FROM act_lease").scalar() == "a"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("ALTER TABLE act_lease ADD COLUMN extra TEXT", StoreUnsafe),
        ("ALTER TABLE act_lease RENAME COLUMN host TO hosts", StoreError),  # a column without a default is missing
    ],
)
def test_what_adding_cannot_mend_is_refused_and_left_alone(place, change, error):
    tables = place.open(create=True)
    with tables.write() as connection:
        connection.exec_driver_sql("DROP TABLE ledger_opening")
        connection.exec_driver_sql("INSERT INTO act_lease VALUES ('a', 'h', 1, 1)")
        connection.exec_driver_sql(change)
        connection.exec_driver_sql("UPDATE schema_revision SET revision = 1")
    with pytest.raises(error):
        migrate(place.uri, base=place.base)
    with tables.read() as connection:
        assert connection.exec_driver_sql("SELECT revision FROM schema_revision").scalar() == 1
        assert "ledger_opening" not in inspect(connection).get_table_names()


def test_there_must_be_an_older_database_of_ours(place):
    with pytest.raises(NotFound):
        migrate(place.uri, base=place.base)
    tables = place.open(create=True)
    with tables.write() as connection:
        connection.exec_driver_sql("UPDATE schema_revision SET revision = ?", (REVISION + 1,))
    with pytest.raises(SchemaTooNew):
        migrate(place.uri, base=place.base)
    with tables.write() as connection:
        connection.exec_driver_sql("DROP TABLE schema_revision")
    with pytest.raises(InvalidInput, match="not one of stanch"):
        migrate(place.uri, base=place.base)


def test_a_copy_that_cannot_be_made_stops_the_migration(old):
    (old / "stanch.db.revision-1").mkdir()
    with pytest.raises(StoreError, match="copy"):
        migrate("sqlite:stanch.db", base=old)
    with closing(sqlite3.connect(old / "stanch.db")) as connection:
        assert connection.execute("SELECT revision FROM schema_revision").fetchall() == [(1,)]
