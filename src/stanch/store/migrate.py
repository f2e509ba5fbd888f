"""Migrations: forward only, by adding. Rows that exist are never rewritten, those of the ledger least of all.

The query index alone is emptied where a revision adds to it: it is derived from the entries, and made anew from them.
"""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect
from sqlalchemy.schema import CreateColumn, Table

from stanch.errors import NotFound, SchemaTooNew, StoreUnsafe
from stanch.store.revision import stored_revision
from stanch.store.schema import METADATA, REVISION, schema_revision
from stanch.store.schema.ledger import ledger_index, ledger_subject
from stanch.store.sqlite import copy_sqlite
from stanch.store.uri import connect_tables, sqlite_path

_INDEXED_ANEW = 9


@dataclass(frozen=True, slots=True)
class Migration:
    """What a migration did.

    Attributes:
        before: The revision that was found.
        after: The revision that the database has now.
        copy: Where the SQLite file was copied to before anything was changed; None if nothing had to be done.
    """

    before: int
    after: int
    copy: Path | None


def migrate(uri: str, *, base: Path = Path()) -> Migration:
    """Bring a database to this release's schema, in one transaction; doing it again does nothing.

    Tables, columns and indexes that the schema has and the database lacks are added. Afterwards both are compared.

    Args:
        uri: As for :func:`stanch.store.uri.open_tables`.
        base: Folder that relative paths start at.

    Raises:
        NotFound: There is no database, or it is empty.
        SchemaTooNew: Written by a newer release.
        StoreUnsafe: The database holds a table that adding cannot bring to the schema; nothing was changed.
    """
    tables = connect_tables(uri, base=base)
    try:
        with tables.write() as connection:
            found = stored_revision(connection, tables.name)
            if found == 0:
                raise NotFound(f"{tables.name}: the database is empty", next_step="make a workspace with: stanch init")
            if found > REVISION:
                raise SchemaTooNew(f"{tables.name}: has the newer schema revision {found}")
            if found == REVISION:
                return Migration(found, found, None)
            # The write lock is held: what is copied is what is then changed.
            copy = _copy(sqlite_path(uri, base), found) if tables.dialect == "sqlite" else None
            METADATA.create_all(connection)
            for table in METADATA.tables.values():
                _extend(connection, table)
                _compare(connection, table, tables.name)
            if found < _INDEXED_ANEW:
                for table in (ledger_index, ledger_subject):
                    connection.execute(table.delete())
            connection.execute(schema_revision.update().values(revision=REVISION))
        return Migration(found, REVISION, copy)
    finally:
        tables.close()


def _copy(path: Path, revision: int) -> Path:
    target = path.with_name(f"{path.name}.revision-{revision}")
    copy_sqlite(path, target)
    return target


def _extend(connection: Connection, table: Table) -> None:
    """Add the columns and indexes that ``table`` lacks."""
    found = {column["name"] for column in inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in found:
            definition = CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
    for index in table.indexes:
        index.create(connection, checkfirst=True)


def _compare(connection: Connection, table: Table, name: str) -> None:
    """Refuse a table whose columns, order of the key apart, are not those that a new database would have."""
    wanted = {column.name: (str(column.type.compile(connection.dialect)), column.nullable) for column in table.columns}
    found = {
        column["name"]: (str(column["type"].compile(connection.dialect)), column["nullable"])
        for column in inspect(connection).get_columns(table.name)
    }
    if differing := sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)):
        raise StoreUnsafe(
            f"{name}: table {table.name} is not what this release expects: {', '.join(differing)}",
            why="its columns differ in name, type or in whether they may be empty",
            next_step="restore the database from a backup",
        )
