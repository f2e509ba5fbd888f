"""Hand-written statements, handed to the database's driver as they are.

What SQLAlchemy does around a statement costs twenty times what SQLite takes for a short one. The few statements that
every request of a gateway needs go past it, in the same transaction and with the same errors.
"""

import functools
from collections.abc import Sequence
from typing import Any, LiteralString

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

Row = tuple[Any, ...]


def run(connection: Connection, statement: LiteralString, parameters: Sequence[Any] = ()) -> list[Row]:
    """Run a statement inside the connection's transaction, and return the rows that it gives.

    Args:
        connection: Where a transaction has begun.
        statement: SQL that marks its parameters with ``?`` on both dialects.
        parameters: Their values.

    Raises:
        sqlalchemy.exc.DBAPIError: The database refused it or failed; a connection that broke is not used again.
    """
    driver: Any = connection.connection.dbapi_connection
    text = statement if connection.dialect.paramstyle == "qmark" else with_driver_marks(statement)
    try:
        cursor = driver.execute(text, parameters)
        rows: list[Row] = cursor.fetchall() if cursor.description is not None else []
        cursor.close()
    except driver.Error as error:
        if connection.dialect.is_disconnect(error, driver, None):
            connection.invalidate(error)
        # The values of parameters may be personal: they are not shown.
        raise DBAPIError.instance(statement, None, error, driver.Error, hide_parameters=True) from error
    return rows


@functools.lru_cache(maxsize=256)
def with_driver_marks(statement: str) -> str:
    """Return a statement that marks its parameters with ``?`` as psycopg reads it."""
    return statement.replace("%", "%%").replace("?", "%s")
