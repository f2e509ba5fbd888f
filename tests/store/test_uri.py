"""URIs: what they open, and what they refuse."""

import pytest

from stanch.errors import InvalidInput
from stanch.store import CREATE, open_blobs, open_tables


def test_relative_paths_start_at_the_base(tmp_path):
    open_blobs("file:./blobs", base=tmp_path).put("k", b"x", mode=CREATE)
    assert (tmp_path / "blobs" / "k").read_bytes() == b"x"
    open_tables("sqlite:./deep/stanch.db", base=tmp_path, create=True).close()
    assert (tmp_path / "deep" / "stanch.db").exists()


def test_absolute_paths_stand_alone(tmp_path):
    open_blobs(f"file://{tmp_path}/blobs", base=tmp_path / "elsewhere").put("k", b"x", mode=CREATE)
    open_tables(f"sqlite://{tmp_path}/stanch.db", base=tmp_path / "elsewhere", create=True).close()
    assert (tmp_path / "blobs" / "k").exists()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "blobs",
        "./blobs",
        "file:",
        "file://",
        "file://host/blobs",
        "FILE:./x",
        "file:a\0b",
        "http://example.com/x",
        "ftp://host/x",
        "1:x",
    ],
)
def test_blob_uris_that_are_refused(tmp_path, uri):
    with pytest.raises(InvalidInput):
        open_blobs(uri, base=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["stanch.db", "sqlite:", "sqlite://host/x.db", "mysql://host/db", "file:./x.db"])
def test_table_uris_that_are_refused(tmp_path, uri):
    with pytest.raises(InvalidInput):
        open_tables(uri, base=tmp_path, create=True)
    assert list(tmp_path.iterdir()) == []


def test_a_scheme_that_is_not_offered_says_so():
    with pytest.raises(InvalidInput, match="'mysql' is not offered; expected one of sqlite:, postgresql:"):
        open_tables("mysql://host/db")


@pytest.mark.parametrize(
    "uri", ["postgresql://user:hunter2@host/db", "s3://key:hunter2@bucket", "file://a:hunter2@b/c"]
)
def test_a_password_is_refused_and_not_repeated(uri):
    for opener in (open_tables, open_blobs):
        with pytest.raises(InvalidInput, match="password") as caught:
            opener(uri)
        assert "hunter2" not in caught.value.what + caught.value.why + caught.value.next_step
