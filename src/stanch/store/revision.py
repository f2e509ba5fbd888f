"""Which revision of the schema a database has."""

import functools
from typing import Any

from sqlalchemy import Connection, create_mock_engine, inspect

from stanch.errors import InvalidInput, NotFound, SchemaTooNew, SchemaTooOld
from stanch.store.schema import METADATA, REVISION, schema_revision


def stored_revision(connection: Connection, name: str) -> int:
    """Return the revision that is written in the database, 0 if it is empty.

    Raises:
        InvalidInput: It holds tables, but not those of stanch.
    """
    names = inspect(connection).get_table_names()
    if not names:
        return 0
    if schema_revision.name not in names:
        raise InvalidInput(f"{name}: is a database, but not one of stanch", next_step="choose an empty database")
    return int(connection.execute(schema_revision.select()).scalar_one())


def check_revision(connection: Connection, name: str, *, create: bool) -> None:
    """Compare the stored revision with this release's; in an empty database ``create`` makes all tables.

    Raises:
        InvalidInput: A database of somebody else.
        NotFound: Empty, and nothing is to be made.
        SchemaTooOld: Written by an older release.
        SchemaTooNew: Written by a newer release.
    """
    found = stored_revision(connection, name)
    if found == 0:
        if not create:
            raise NotFound(f"{name}: the database is empty", next_step="make a workspace with: stanch init")
        for statement in _definitions(connection.dialect.name):
            connection.exec_driver_sql(statement)
        connection.execute(schema_revision.insert().values(revision=REVISION))
    elif found < REVISION:
        raise SchemaTooOld(
            f"{name}: expected schema revision {REVISION}, found the older {found}", next_step="stanch migrate"
        )
    elif found > REVISION:
        raise SchemaTooNew(
            f"{name}: expected schema revision {REVISION}, found the newer {found}",
            next_step="use a newer release of stanch",
        )


@functools.cache
def _definitions(dialect: str) -> tuple[str, ...]:
    """Return what makes all tables, with their triggers, in a database that has none."""
    made: list[Any] = []
    engine = create_mock_engine(f"{dialect}://", lambda item, *_, **__: made.append(item))
    METADATA.create_all(engine, checkfirst=False)
    return tuple(str(item.compile(dialect=engine.dialect)) for item in made)
