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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
