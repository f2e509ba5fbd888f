"""SQLite: settings that are read back, transactions, revisions, file systems that are refused."""

import sqlite3
import stat
import threading

import pytest
from sqlalchemy import insert, select

from stanch.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    SchemaTooNew,
    SchemaTooOld,
    StoreError,
    StoreUnsafe,
)
from stanch.store import open_tables
from stanch.store import sqlite as sqlite_module
from stanch.store.schema import METADATA, REVISION, access, workspace
from stanch.store.sqlite import refuse_network


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("foreign_keys", 1),
        ("busy_timeout", 5000),
        ("trusted_schema", 0),
        ("cell_size_check", 1),
        ("secure_delete", 1),
        ("fullfsync", 1),
        ("checkpoint_fullfsync", 1),
    ],
)
def test_the_settings_hold_on_both_sides(tables, name, value):
    with tables.write() as connection:
        assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == value
    with tables.read() as connection:
        assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == value


def test_a_setting_that_does_not_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sqlite_module._PRAGMAS, "synchronous", 7)
    with pytest.raises(StoreUnsafe, match="synchronous: expected 7"):
        open_tables("sqlite:stanch.db", base=tmp_path, create=True)


def test_an_old_sqlite_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(StoreUnsafe, match=r"3\.37"):
        open_tables("sqlite:stanch.db", base=tmp_path, create=True)


def test_the_file_is_private_and_missing_ones_are_not_made(tmp_path):
    with pytest.raises(NotFound):
        open_tables("sqlite:stanch.db", base=tmp_path)
    assert list(tmp_path.iterdir()) == []
    open_tables("sqlite:stanch.db", base=tmp_path, create=True).close()
    assert stat.S_IMODE((tmp_path / "stanch.db").stat().st_mode) == 0o600


def test_every_table_is_strict_and_every_column_tagged(tables):
    with tables.read() as connection:
        strict = {
            row[1]: row[5]
            for row in connection.exec_driver_sql("PRAGMA table_list")
            if not row[1].startswith("sqlite_")
        }
    assert strict == dict.fromkeys(METADATA.tables, 1)
    for table in METADATA.tables.values():
        assert all(isinstance(column.info.get("personal"), bool) for column in table.columns)


def test_a_value_of_another_type_is_refused(tables):
    with pytest.raises((Conflict, StoreError)), tables.write() as connection:
        connection.exec_driver_sql("INSERT INTO act_lease VALUES ('a', 'h', 'not a number', 1)")


def lease(act):
    return insert(workspace.act_lease).values(act=act, host="h", pid=1, until_ms=1)


def leases(tables):
    with tables.read() as connection:
        return connection.execute(select(workspace.act_lease.c.act)).scalars().all()


def test_a_transaction_is_whole_or_absent(tables):
    with tables.write() as connection:
        connection.execute(lease("kept"))
    with pytest.raises(ZeroDivisionError), tables.write() as connection:
        connection.execute(lease("lost")).rowcount / 0
    assert leases(tables) == ["kept"]


def test_readers_cannot_write(tables):
    with pytest.raises(StoreError), tables.read() as connection:
        connection.execute(lease("x"))
    assert leases(tables) == []


def test_a_reader_keeps_its_snapshot_while_others_write(tables):
    with tables.read() as reader:
        assert reader.execute(select(workspace.act_lease.c.act)).scalars().all() == []
        with tables.write() as connection:
            connection.execute(lease("x"))
        assert reader.execute(select(workspace.act_lease.c.act)).scalars().all() == []
    assert leases(tables) == ["x"]


def test_writers_of_one_process_take_turns(tables):
    order = []

    def write(name):
        with tables.write() as connection:
            order.append(f"{name} in")
            connection.execute(lease(name))
            order.append(f"{name} out")

    threads = [threading.Thread(target=write, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leases(tables)) == 8
    assert all(a.split()[0] == b.split()[0] for a, b in zip(order[::2], order[1::2], strict=True))


def test_uniqueness_is_a_conflict_that_shows_no_value(tables):
    row = {"kind": "user", "issuer": "i", "subject": "hunter2", "clearance": 0, "suspended": 0, "created_ms": 0}
    with tables.write() as connection:
        connection.execute(insert(access.principal).values(id="a", **row))
    with pytest.raises(Conflict) as caught, tables.write() as connection:
        connection.execute(insert(access.principal).values(id="b", **row))
    assert "hunter2" not in caught.value.what + caught.value.why


def test_database_errors_show_no_value(tables):
    with pytest.raises(StoreError) as caught, tables.write() as connection:
        connection.exec_driver_sql("INSERT INTO nowhere VALUES (?)", ("hunter2",))
    assert "hunter2" not in caught.value.what + caught.value.why


def test_reopening_keeps_the_rows(tmp_path):
    first = open_tables("sqlite:stanch.db", base=tmp_path, create=True)
    with first.write() as connection:
        connection.execute(lease("kept"))
    first.close()
    second = open_tables("sqlite:stanch.db", base=tmp_path)
    assert leases(second) == ["kept"]
    second.close()


@pytest.mark.parametrize(("revision", "error"), [(REVISION - 1, SchemaTooOld), (REVISION + 1, SchemaTooNew)])
def test_another_revision_is_refused(tmp_path, tables, revision, error):
    with tables.write() as connection:
        connection.exec_driver_sql("UPDATE schema_revision SET revision = ?", (revision,))
    with pytest.raises(error):
        open_tables("sqlite:stanch.db", base=tmp_path)


def test_a_foreign_database_is_refused_and_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(InvalidInput, match="not one of stanch"):
        open_tables("sqlite:other.db", base=tmp_path, create=True)
    with sqlite3.connect(tmp_path / "other.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    connection.close()


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(StoreError):
        open_tables("sqlite:x.db", base=tmp_path)


MOUNTS = """\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 0:40 / {folder} rw,relatime shared:1 - {kind} host:/export rw
"""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse"])
def test_network_file_systems_are_refused(tmp_path, kind):
    with pytest.raises(StoreUnsafe, match=kind.replace(".", r"\.")):
        refuse_network(tmp_path / "stanch.db", MOUNTS.format(folder=tmp_path, kind=kind))


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk"])
def test_local_file_systems_are_taken(tmp_path, kind):
    refuse_network(tmp_path / "stanch.db", MOUNTS.format(folder=tmp_path, kind=kind))


def test_a_network_mount_elsewhere_does_not_matter(tmp_path):
    refuse_network(tmp_path / "stanch.db", MOUNTS.format(folder=f"{tmp_path}-other", kind="nfs"))


def test_the_upper_of_two_mounts_on_one_folder_counts(tmp_path):
    text = MOUNTS.format(folder=tmp_path, kind="ext4") + MOUNTS.format(folder=tmp_path, kind="nfs").splitlines()[1]
    with pytest.raises(StoreUnsafe):
        refuse_network(tmp_path / "stanch.db", text)


def test_spaces_in_mount_points_are_read(tmp_path):
    folder = tmp_path / "with space"
    folder.mkdir()
    with pytest.raises(StoreUnsafe):
        refuse_network(folder / "stanch.db", MOUNTS.format(folder=str(folder).replace(" ", "\\040"), kind="nfs"))
