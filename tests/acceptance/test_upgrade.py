"""Does what an older release made still open, verify and go on under this one?

``frozen/`` holds workspaces as they were, each with a copy in its bucket and the keys of its people (``freeze.py``
makes one): the passphrases are known to everybody, and nothing in them is a secret. A clock set back to their days
keeps their grants alive. Their rows are also put into the schema of revision 1, as the first release wrote them.
"""

import contextlib
import sqlite3
import tarfile
import time
from pathlib import Path

import pytest
from scene import DATABASE, change, done

from stanch.store.schema import REVISION

pytestmark = pytest.mark.acceptance

FROZEN = sorted((Path(__file__).parent / "frozen").glob("revision-*.tar.xz"))
FIRST = Path(__file__).parents[1] / "vectors" / "store" / "revision-1.sql"


def thaw(archive, folder):
    """Unpack a frozen workspace and return how many days ago it was in use, less an hour."""
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    for path in (*folder.glob("*.txt"), *folder.glob("*.key")):
        path.chmod(0o600)
    ((last_ms,),) = change("SELECT max(time_ms) FROM ledger_index")
    return (last_ms / 1000 + 3600 - time.time()) / 86_400


def put_into_the_first_schema():
    """Write the rows of the database, as far as there was a place for them, as the first release did."""
    new = DATABASE.with_name("new.db")
    DATABASE.rename(new)
    with contextlib.closing(sqlite3.connect(DATABASE)) as connection:
        connection.executescript(FIRST.read_text())
        connection.execute("ATTACH ? AS new", (str(new),))
        tables = "SELECT name FROM {}.sqlite_schema WHERE type = 'table' AND name <> 'schema_revision'"
        old, now = ({name for (name,) in connection.execute(tables.format(of))} for of in ("main", "new"))
        for table in old & now:
            of = "SELECT name FROM pragma_table_info(?, ?)"
            kept = [n for (n,) in connection.execute(of, (table, "main"))]
            known = {n for (n,) in connection.execute(of, (table, "new"))}
            names = ", ".join(f'"{n}"' for n in kept if n in known)
            connection.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM new.{table}")  # noqa: S608 - own
        connection.commit()
    new.unlink()
    for suffix in ("-wal", "-shm"):
        new.with_name(new.name + suffix).unlink(missing_ok=True)


@pytest.mark.parametrize("archive", FROZEN, ids=lambda path: path.name.partition(".")[0])
@pytest.mark.parametrize("first", [False, True], ids=["as-it-was", "in-the-first-schema"])
def test_it_goes_on(archive, first, tmp_path, monkeypatch, later):
    monkeypatch.chdir(tmp_path)
    days = thaw(archive, tmp_path)
    if first:
        put_into_the_first_schema()
    ((found,),) = change("SELECT revision FROM schema_revision")
    verify = f"--json --workspace team --as ada log verify --vkey {Path('log.vkey').read_text()}"
    assert found == 1 if first else found <= REVISION
    if found < REVISION:
        refused = later(days, verify)
        assert (refused.code, "stanch migrate" in refused.out) == (2, True), refused
        done(later(days, "--workspace team migrate"))
    before = done(later(days, verify)).data
    done(later.team(days, "ada", "log show"))
    done(later.team(days, "olga", "access add newcomer --role auditor"))
    assert done(later(days, verify)).data["size"] == before["size"] + 4
    assert done(later(days, "--json --workspace team migrate")).data["before"] == REVISION


@pytest.mark.parametrize("archive", FROZEN, ids=lambda path: path.name.partition(".")[0])
def test_its_copies_open(archive, tmp_path, monkeypatch, later):
    monkeypatch.chdir(tmp_path)
    days = thaw(archive, tmp_path)
    (uri,) = (f"file:{path}" for path in Path("store").iterdir())
    done(later(days, f"release fetch {uri} --trust pub.pem --out got"))
    done(later(days, "release redeem got --identity acme.key --trust pub.pem"))
    opened = done(later(days, "--json release open got --identity acme.key --trust pub.pem")).data
    assert [file["path"] for file in opened["files"]][-1] == "tokenizer.json"


def test_this_releases_schema_is_frozen():
    """Whoever raises the revision freezes a workspace of it; those before stay."""
    assert f"revision-{REVISION}" in {path.name.partition(".")[0] for path in FROZEN}
    assert all(path.stat().st_size <= 200_000 for path in FROZEN)
