"""Listing a folder: all of it or an error. A part that cannot be read never goes missing in silence."""

import errno
import os
from pathlib import Path

import pytest

from stanch.errors import InvalidInput, StoreError
from stanch.mark import suspect_files
from stanch.seal import DirectorySource
from stanch.sign import inspect_model
from stanch.store import FileBlobs
from stanch.trace import case
from stanch.weights import directory_digest, list_files, walk_files


@pytest.fixture
def model(tmp_path):
    """A model whose tokenizer lies in a folder of somebody else."""
    for name in ("config.json", "a/b/c.txt", "closed/tokenizer.json"):
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return tmp_path / "model"


@pytest.fixture
def closed(monkeypatch):
    """Folders named ``closed`` cannot be listed, also by an administrator."""
    real = os.scandir

    def scandir(path="."):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


ALL = ("a/b/c.txt", "closed/tokenizer.json", "config.json")
READERS = {
    "digest": (directory_digest, InvalidInput),
    "seal": (DirectorySource, InvalidInput),
    "sign": (list_files, InvalidInput),
    "intake": (inspect_model, InvalidInput),
    "custody": (lambda folder: list(case._suspect_files(folder)), InvalidInput),
    "suspect": (lambda folder: suspect_files._others(folder, ()), InvalidInput),
    "blobs": (lambda folder: list(FileBlobs(folder).list()), StoreError),
}


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("reader", READERS)
def test_a_folder_that_cannot_be_read_is_never_left_out(model, reader):
    read, error = READERS[reader]
    with pytest.raises(error, match="closed") as caught:
        read(model)
    assert caught.value.why == "Permission denied"


@pytest.mark.parametrize("reader", READERS)
def test_one_that_can_be_read_is(model, reader):
    READERS[reader][0](model)


def test_all_files_are_listed_and_links_apart(model):
    assert list_files(model).files == ALL
    assert tuple(name for name, _ in walk_files(model)) == ALL
    (model / "a/link").symlink_to("/etc/hostname")
    (model / "away").symlink_to(model.parent)
    os.mkfifo(model / "pipe")
    assert list_files(model).others == ("a/link", "away", "pipe")
    assert list_files(model, ("config.json", "away", "a")).files == ("closed/tokenizer.json",)
    assert list_files(model, ("config.json", "away", "a")).others == ("away", "pipe")
    with pytest.raises(InvalidInput, match="a/link: expected a regular file"):
        list(walk_files(model))
    for nothing in (model / "none", model / "config.json"):
        with pytest.raises(InvalidInput, match="expected a directory"):
            list_files(nothing)


def test_a_store_lists_nothing_below_what_is_not_there_or_is_a_blob(tmp_path):
    blobs = FileBlobs(tmp_path)
    blobs.put("a", b"x", mode="create")
    assert [list(blobs.list(prefix)) for prefix in ("a/b", "none/at/all")] == [[], []]
