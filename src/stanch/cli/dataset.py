"""The data set that a command is given."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stanch.data import Dataset, open_dataset
from stanch.workspace import Workspace


def open_dataset_of(workspace: Workspace, path: Path, *, chat: str = "auto", skip_bad: bool = False) -> Dataset:
    """Open a data set under the workspace's key, so that ids and digests of it are keyed."""
    return open_dataset(path, key=workspace.keys.secret("dataset"), chat=chat, skip_bad=skip_bad)


@contextmanager
def file_of(path: Path) -> Iterator[Path]:
    """Yield ``path``; for ``-``, a copy of standard input that only its owner can read, and that goes afterwards.

    A data set is read more than once. Standard input is JSONL if its first line that is not blank begins with a brace,
    an array if with a bracket, and paragraphs of text otherwise.
    """
    if path != Path("-"):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="stanch-") as folder:
        stream = sys.stdin.buffer
        while (first := stream.readline()) and not first.strip():
            pass
        ending = {b"{": "jsonl", b"[": "json"}.get(first.lstrip()[:1], "txt")
        copy = Path(folder) / f"stdin.{ending}"
        with copy.open("wb") as file:
            file.write(first)
            shutil.copyfileobj(stream, file)
        yield copy
