"""What can be sealed: a directory, which notices when it changes meanwhile, or files in memory."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from stanch.errors import InvalidInput
from stanch.terms import SourceFile
from stanch.weights import walk_files


class SourceChanged(InvalidInput):
    """A file changed while it was read; nothing was sealed."""


def source_changed(path: str) -> SourceChanged:
    """Return the error for the file at ``path``."""
    return SourceChanged(
        f"{path}: the file changed while it was sealed",
        why="a bundle holds one state of its source",
        next_step="seal again when nothing writes to the source",
    )


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A regular file below a source directory, as it was when the directory was listed."""

    path: str
    size: int
    location: Path
    modified_ns: int
    inode: int

    def open(self) -> BinaryIO:
        """Return a new reader; a link put in the place of the file or blob is refused by the system."""
        return os.fdopen(os.open(self.location, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0)


class DirectorySource:
    """The regular files below a directory; links and special files are refused.

    In a snapshot of the Hugging Face cache the links to its own blobs stand for these.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = _list_files(path)

    def files(self) -> Sequence[SourceFile]:
        """Return the files, sorted by the bytes of their paths."""
        return self._files

    def confirm_unchanged(self) -> None:
        """Check that the directory still lists the same files with the same sizes and times.

        Raises:
            SourceChanged: It does not.
        """
        now = _list_files(self._path)
        if now != self._files:
            changed = {file.path for file in set(now) ^ set(self._files)}
            raise source_changed(min(changed))


@dataclass(frozen=True, slots=True)
class MemoryFile:
    """A file that lies in memory alone."""

    path: str
    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def open(self) -> BinaryIO:
        """Return a new reader."""
        return BytesIO(self.data)


class MemorySource:
    """Files by name that lie in memory alone, so that nothing of them reaches a disk before it is sealed."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = tuple(MemoryFile(name, data) for name, data in sorted(files.items()))

    def files(self) -> Sequence[SourceFile]:
        """Return the files, sorted by their paths."""
        return self._files


def _list_files(path: Path) -> tuple[DiskFile, ...]:
    files = []
    for name, location in walk_files(path, hub=True):
        status = location.lstat()
        files.append(DiskFile(name, status.st_size, location, status.st_mtime_ns, status.st_ino))
    return tuple(files)
