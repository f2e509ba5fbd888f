"""Stores in fresh places: each kind of tables, each kind of blobs."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stanch.store import FileBlobs, Tables, open_blobs, open_tables


@dataclass
class Place:
    """Where a database is, or will be."""

    uri: str
    base: Path
    opened: list[Tables] = field(default_factory=list)

    def open(self, *, create: bool = False) -> Tables:
        self.opened.append(open_tables(self.uri, base=self.base, create=create))
        return self.opened[-1]


@pytest.fixture
def blobs(tmp_path):
    return FileBlobs(tmp_path / "blobs")


@pytest.fixture(params=["file", "s3"])
def any_blobs(request, tmp_path):
    uri = request.getfixturevalue("s3").uri() if request.param == "s3" else "file:./blobs"
    return open_blobs(uri, base=tmp_path)


@pytest.fixture
def sqlite(tmp_path):
    place = Place("sqlite:stanch.db", tmp_path)
    yield place
    for tables in place.opened:
        tables.close()


@pytest.fixture
def pg(postgresql, tmp_path):
    place = Place(postgresql.database(), tmp_path)
    yield place
    for tables in place.opened:
        tables.close()


@pytest.fixture(params=["sqlite", "pg"])
def place(request):
    return request.getfixturevalue(request.param)
