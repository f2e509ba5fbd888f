"""SQLite alone: settings that are read back, its file, file systems that are refused."""

import sqlite3
import stat

import pytest

from stanch.errors import Conflict, NotFound, StoreError, StoreUnsafe
from stanch.store import open_tables
from stanch.store import sqlite as sqlite_module
from stanch.store.schema import METADATA, ledger
from stanch.store.sqlite import refuse_network


@pytest.fixture
def tables(sqlite):
    return sqlite.open(create=True)


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


def test_a_commit_that_fails_leaves_nothing_behind(tables):
    """The connection is kept for the next transaction, and what failed at its very end is not in it."""
    orphan = "INSERT INTO credential (id, principal, kind, public, not_before_ms) VALUES ('k', 'p', 'local', x'', 0)"

    def refused():
        with tables.write() as connection:
            connection.exec_driver_sql("PRAGMA defer_foreign_keys = 1")
            connection.exec_driver_sql(orphan)

    with pytest.raises(Conflict):
        refused()
    with tables.write() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM credential").scalar() == 0
        connection.exec_driver_sql("INSERT INTO act_lease VALUES ('kept', 'h', 1, 1)")
    with tables.read() as connection:
        assert connection.exec_driver_sql("SELECT act FROM act_lease").scalars().all() == ["kept"]


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


def test_a_long_entry_takes_no_page_of_its_own(tables):
    rows = [("o", index, bytes(1300), bytes(32)) for index in range(300)]
    with tables.write() as connection:
        before = connection.exec_driver_sql("PRAGMA page_count").scalar()
        tables.insert(connection, ledger.ledger_entry, rows)
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar() - before
    assert pages < 150  # two or three of them on each


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
