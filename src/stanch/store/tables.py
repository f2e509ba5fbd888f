"""Transactions on the project's tables."""

import contextlib
import threading
from collections.abc import Iterator

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from stanch.errors import Conflict, StoreError


class Tables:
    """An opened database. One writer at a time in this process; readers see the last commit and never block it.

    Attributes:
        dialect: ``sqlite``.
    """

    dialect = "sqlite"

    def __init__(self, name: str, *, writer: Engine, reader: Engine) -> None:
        self._name = name
        self._writer = writer
        self._reader = reader
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection inside ``BEGIN IMMEDIATE``; commit at the end, roll back on any exception.

        The commit is durable when the block is left. Never wait inside the block for something that writes.

        Raises:
            Conflict: A row breaks a uniqueness or foreign-key rule, or one that forbids a change.
            StoreError: The transaction could not be made durable; nothing was changed.
        """
        with self._lock, self._errors(), self._writer.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection that reads one snapshot and cannot write.

        Raises:
            StoreError: The database cannot be read.
        """
        with self._errors(), self._reader.begin() as connection:
            yield connection

    def close(self) -> None:
        """Give back all connections."""
        self._reader.dispose()
        self._writer.dispose()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        # Only the driver's own text is passed on: SQLAlchemy's would show the parameters, which may be personal.
        try:
            yield
        except IntegrityError as error:
            raise Conflict(f"{self._name}: the change was refused", why=str(error.orig)) from error
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or type(error).__name__)
            raise StoreError(f"{self._name}: the database failed; nothing was changed", why=reason) from error
