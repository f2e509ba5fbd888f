"""Which driver a URI names, and where it points."""

import re
import time
from collections.abc import Callable
from pathlib import Path

from stanch.errors import InvalidInput
from stanch.store.blob import BlobStore
from stanch.store.blob_file import FileBlobs
from stanch.store.sqlite import open_sqlite
from stanch.store.tables import Tables

_URI = re.compile(r"([a-z][a-z0-9+.-]{0,31}):(.*)", re.DOTALL)
_PASSWORD = re.compile(r"//[^/@]*:[^/@]*@")


def open_blobs(uri: str, *, base: Path = Path(), clock: Callable[[], float] = time.time) -> BlobStore:
    """Open the blob store at ``file:<path>``; a relative path starts at ``base``. A missing folder is made (0700).

    Raises:
        InvalidInput: The URI is not of a scheme that this release has, or carries a password.
        StoreError: The folder cannot be used.
    """
    return FileBlobs(_local_path(uri, "file", "blobs", base), clock=clock)


def open_tables(uri: str, *, base: Path = Path(), create: bool = False) -> Tables:
    """Open the database at ``sqlite:<path>``; a relative path starts at ``base``.

    Args:
        uri: ``sqlite:./stanch.db`` or ``sqlite:///absolute/stanch.db``.
        base: Folder that relative paths start at, usually the workspace.
        create: Make the file (0600) and its tables when it does not exist.

    Raises:
        InvalidInput: The URI is not of a scheme that this release has, or carries a password.
        NotFound: The file does not exist and ``create`` is false.
        SchemaTooOld: Written by an older release.
        SchemaTooNew: Written by a newer release.
        StoreUnsafe: The file system or SQLite cannot keep what a commit promises.
    """
    return open_sqlite(_local_path(uri, "sqlite", "tables", base), create=create)


def _local_path(uri: str, scheme: str, setting: str, base: Path) -> Path:
    match = _URI.fullmatch(uri)
    if match is None:
        raise InvalidInput(f"{setting}: expected a URI such as {scheme}:./name, found no scheme")
    if _PASSWORD.search(uri):
        raise InvalidInput(
            f"{setting}: the {match[1]}: URI carries a password",
            why="URIs are shown in messages and kept in configuration files",
            next_step="remove the password from the URI",
        )
    if match[1] != scheme:
        raise InvalidInput(
            f"{setting}: scheme {match[1]!r} is not offered; expected {scheme}:",
            why=f"this release keeps {setting} in {scheme}: only",
        )
    path = match[2].removeprefix("//")
    if not path or "\0" in path or (match[2].startswith("//") and not path.startswith("/")):
        raise InvalidInput(f"{setting}: expected {scheme}:./relative or {scheme}:///absolute, found {uri[:200]!r}")
    return base / path
