"""Stores in a fresh folder."""

import pytest

from stanch.store import FileBlobs, open_tables


@pytest.fixture
def blobs(tmp_path):
    return FileBlobs(tmp_path / "blobs")


@pytest.fixture
def tables(tmp_path):
    tables = open_tables("sqlite:stanch.db", base=tmp_path, create=True)
    yield tables
    tables.close()
