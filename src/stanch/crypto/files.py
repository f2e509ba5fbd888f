"""Files that are whole or absent, and secret files that only their owner can read."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stanch.errors import InvalidInput, StoreError

_MAX_PRIVATE = 16 << 20
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


def write_private(path: Path, data: bytes) -> None:
    """Create ``path`` with mode 0600 and the given bytes, durably; refuse to replace an existing file.

    Raises:
        InvalidInput: The file exists already, or its folder does not or cannot be written.
        StoreError: The disk is full or fails.
    """
    with _written(path, data, 0o600) as temporary:
        try:
            os.link(temporary, path)  # of two makers at once, one is refused
        except FileExistsError as error:
            raise InvalidInput(
                f"{path}: exists already and is not replaced", next_step="choose another file name"
            ) from error


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write ``path`` so that a reader or a crash sees the old file or the new one, never a part.

    Raises:
        InvalidInput: The folder does not exist or cannot be written.
        StoreError: The disk is full or fails.
    """
    with _written(path, data, mode) as temporary:
        temporary.replace(path)


@contextmanager
def _written(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Yield a durable file beside ``path``, for the caller to give it that name; what is left of it then goes."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        what, why = f"{path}: cannot be written", os.strerror(error.errno or 0)
        if error.errno in _DISK:
            raise StoreError(what, why=why, next_step="free or mend the disk, then repeat") from error
        raise InvalidInput(what, why=why, next_step="name a file in a folder that you may write to") from error


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_private(path: Path, *, limit: int = _MAX_PRIVATE) -> bytes:
    """Read a secret file of at most ``limit`` bytes.

    Raises:
        InvalidInput: It is missing, is no regular file, it is too long, or others than its owner may read or write it.
    """
    try:
        file = open(path, "rb", opener=_open_no_link)  # noqa: SIM115 - Path.open takes no opener; closed below
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read", why=os.strerror(error.errno or 0)) from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput(f"{path}: expected a regular file")
        if status.st_mode & 0o077:
            raise InvalidInput(
                f"{path}: holds a secret but others may read it (mode {stat.S_IMODE(status.st_mode):04o})",
                next_step=f"chmod 600 {path}",
            )
        data = file.read(min(limit, status.st_size) + 1)  # a read of many bytes reserves as many
    if len(data) > limit:
        raise InvalidInput(f"{path}: expected a secret file of at most {limit} bytes, found more")
    return data


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would wait for its writer
