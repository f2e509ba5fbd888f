"""Which driver a URI names, and where it points."""

import re
import time
from collections.abc import Callable
from pathlib import Path

from stanch.errors import InvalidInput
from stanch.store.blob import BlobStore
from stanch.store.blob_file import FileBlobs
from stanch.store.blob_http import HttpBlobs
from stanch.store.blob_object import connect_objects
from stanch.store.postgresql import connect_postgresql
from stanch.store.revision import check_revision
from stanch.store.sqlite import connect_sqlite
from stanch.store.tables import Tables

_URI = re.compile(r"([a-z][a-z0-9+.-]{0,31}):(.*)", re.DOTALL)
_PASSWORD = re.compile(r"//[^/@]*:[^/@]*@")


def open_blobs(uri: str, *, base: Path = Path(), clock: Callable[[], float] = time.time) -> BlobStore:
    """Open a blob store.

    Args:
        uri: ``file:./blobs`` (a missing folder is made, 0700), ``s3://bucket/prefix``, ``gs://…``, ``az://…``, or
            ``https://…`` for reading.
        base: Folder that relative paths start at, usually the workspace.
        clock: Seconds since 1970; the file driver sweeps old temporary files.

    Raises:
        InvalidInput: The URI is not of a scheme that this release has, or carries a password.
        MissingExtraError: The driver is not installed.
        StoreError: The folder cannot be used.
    """
    match _scheme(uri, "blobs"):
        case "file":
            return FileBlobs(_local_path(uri, "blobs", base), clock=clock)
        case "s3" | "gs" | "az":
            return connect_objects(uri)
        case "https" | "http":
            return HttpBlobs(uri)
        case other:
            raise _not_offered(other, "blobs", "file:, s3:, gs:, az:, https:")


def open_tables(uri: str, *, base: Path = Path(), create: bool = False) -> Tables:
    """Open a database of this release's schema.

    Args:
        uri: ``sqlite:./stanch.db``, ``sqlite:///absolute/stanch.db`` or
            ``postgresql://user@host/database?sslmode=verify-full``.
        base: Folder that relative paths start at, usually the workspace.
        create: Make the tables in an empty database, and the file (0600) of an SQLite one.

    Raises:
        InvalidInput: The URI is not of a scheme that this release has, or carries a password, or TLS is not verified.
        MissingExtraError: The driver is not installed.
        NotFound: There is no such database, or it is empty, and ``create`` is false.
        SchemaTooOld: Written by an older release.
        SchemaTooNew: Written by a newer release.
        StoreUnsafe: The file system, SQLite or the server cannot keep what a commit promises.
    """
    tables = connect_tables(uri, base=base, create=create)
    try:
        with tables.write() as connection:
            check_revision(connection, tables.name, create=create)
    except BaseException:
        tables.close()
        raise
    return tables


def connect_tables(uri: str, *, base: Path, create: bool = False) -> Tables:
    """Return the database at ``uri`` as it is, whatever its schema."""
    match _scheme(uri, "tables"):
        case "sqlite":
            return connect_sqlite(sqlite_path(uri, base), create=create)
        case "postgresql":
            return connect_postgresql(uri)
        case other:
            raise _not_offered(other, "tables", "sqlite:, postgresql:")


def sqlite_path(uri: str, base: Path) -> Path:
    """Return the file that a ``sqlite:`` URI names."""
    return _local_path(uri, "tables", base)


def _scheme(uri: str, setting: str) -> str:
    match = _URI.fullmatch(uri)
    if match is None:
        raise InvalidInput(f"{setting}: expected a URI such as {_EXAMPLES[setting]}, found no scheme")
    if _PASSWORD.search(uri):
        raise InvalidInput(
            f"{setting}: the {match[1]}: URI carries a password",
            why="URIs are shown in messages and kept in configuration files",
            next_step="remove the password from the URI; PostgreSQL reads it from the file in PGPASSFILE or "
            "PGPASSWORD_FILE, object stores from their own variables",
        )
    return match[1]


_EXAMPLES = {"tables": "sqlite:./name", "blobs": "file:./name"}


def _not_offered(scheme: str, setting: str, offered: str) -> InvalidInput:
    return InvalidInput(
        f"{setting}: scheme {scheme!r} is not offered; expected one of {offered}",
        why=f"this release keeps {setting} nowhere else",
    )


def _local_path(uri: str, setting: str, base: Path) -> Path:
    scheme, _, rest = uri.partition(":")
    path = rest.removeprefix("//")
    if not path or "\0" in path or (rest.startswith("//") and not path.startswith("/")):
        raise InvalidInput(f"{setting}: expected {scheme}:./relative or {scheme}:///absolute, found {uri[:200]!r}")
    return base / path
