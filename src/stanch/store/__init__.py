r"""Bytes and rows behind URIs: durable blobs (``file:``, ``s3:`` …) and tables (``sqlite:``, ``postgresql:``).

A write that returned is on the disk: files and their folders are synced, SQLite runs with ``synchronous=FULL`` and
PostgreSQL with ``synchronous_commit=on``, read back and compared at open; an object store must prove that it keeps
conditional writes. Drivers other than ``file:`` and ``sqlite:`` are optional parts. All table definitions of the
project live in :mod:`stanch.store.schema`.

Example:
    >>> from pathlib import Path
    >>> from stanch.store import CREATE, open_blobs, open_tables
    >>> blobs = open_blobs("file:./blobs", base=Path("/var/lib/stanch"))         # doctest: +SKIP
    >>> blobs.put("log/tile/0/000.p/1", b"\x00" * 32, mode=CREATE)               # doctest: +SKIP
    >>> tables = open_tables("sqlite:./stanch.db", base=Path("/var/lib/stanch"), create=True)  # doctest: +SKIP
    >>> with tables.write() as connection:                                       # doctest: +SKIP
    ...     connection.exec_driver_sql("SELECT 1")
"""

from stanch.store.blob import CREATE, REPLACE, BlobInfo, BlobStore, Match, PutMode, check_key
from stanch.store.blob_file import FileBlobs
from stanch.store.bucket import Bucket
from stanch.store.http import HttpRequest, HttpResponse, exchange
from stanch.store.migrate import Migration, migrate
from stanch.store.tables import Tables
from stanch.store.uri import open_blobs, open_tables

__all__ = [
    "CREATE",
    "REPLACE",
    "BlobInfo",
    "BlobStore",
    "Bucket",
    "FileBlobs",
    "HttpRequest",
    "HttpResponse",
    "Match",
    "Migration",
    "PutMode",
    "Tables",
    "check_key",
    "exchange",
    "migrate",
    "open_blobs",
    "open_tables",
]
