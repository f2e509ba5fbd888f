"""What an inventory looks through: files below folders and objects in buckets, in chunks; no link is followed."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stanch.errors import StoreError
from stanch.store import Bucket

CHUNK = 4 << 20
_REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_DISKS = (Path("/proc"), Path("/sys"))


class Item(Protocol):
    """One file or object."""

    @property
    def place(self) -> str:
        """Where it lies."""
        ...

    @property
    def size(self) -> int:
        """Its size in bytes."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes in order, or raise :class:`stanch.errors.StoreError`."""
        ...


@dataclass(frozen=True, slots=True)
class FileItem:
    """A regular file."""

    path: Path
    size: int

    @property
    def place(self) -> str:
        """The path."""
        return str(self.path)

    def chunks(self) -> Iterator[bytes]:
        """Yield the file's bytes."""
        try:
            handle = os.open(self.path, _REGULAR)
            try:
                if stat.S_ISREG(os.fstat(handle).st_mode):
                    while chunk := os.read(handle, CHUNK):
                        yield chunk
            finally:
                os.close(handle)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read", why=os.strerror(error.errno or 0)) from error


@dataclass(frozen=True, slots=True)
class ObjectItem:
    """An object in a bucket."""

    bucket: Bucket
    uri: str
    key: str
    size: int

    @property
    def place(self) -> str:
        """The object's URI."""
        return f"{self.uri}/{self.key}"

    def chunks(self) -> Iterator[bytes]:
        """Yield the object's bytes."""
        for start in range(0, self.size, CHUNK):
            yield self.bucket.read(self.key, start, min(CHUNK, self.size - start))


@dataclass(slots=True)
class Listing:
    """All that is to be looked through, and what could not even be listed."""

    items: list[Item] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all items."""
        return sum(item.size for item in self.items)

    def add_folder(self, path: Path, allowed: Sequence[Path] = ()) -> None:
        """Add a file, or every regular file below a folder, but for what lies in ``allowed``.

        No link below the folder is followed. Of what is named itself and is no regular file, nothing is known.
        """
        kept_out = {one.resolve() for one in allowed}
        foreign = {_device(one) for one in _NOT_DISKS} - {None}
        if not path.is_dir():
            if path.is_symlink() or (path.exists() and not path.is_file()):
                self.unread.append(str(path))
            else:
                self._add_file(path)
            return
        for parent, folders, names in os.walk(path, onerror=self._note):
            here = Path(parent).resolve()
            folders[:] = [n for n in folders if here / n not in kept_out and _device(here / n) not in foreign]
            if here in kept_out:
                folders.clear()
                continue
            for name in names:
                if here / name not in kept_out:
                    self._add_file(Path(parent, name))

    def add_bucket(self, uri: str) -> None:
        """Add every object below ``s3://bucket/prefix``."""
        bucket = Bucket.open(uri)
        self.items.extend(ObjectItem(bucket, uri.rstrip("/"), key, size) for key, size in bucket.list())

    def _add_file(self, path: Path) -> None:
        try:
            status = path.lstat()
        except OSError as error:
            self._note(error)
            return
        if stat.S_ISREG(status.st_mode) and status.st_size:
            self.items.append(FileItem(path, status.st_size))

    def _note(self, error: OSError) -> None:
        self.unread.append(str(error.filename))


def _device(path: Path) -> int | None:
    try:
        return path.lstat().st_dev
    except OSError:
        return None
