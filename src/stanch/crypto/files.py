"""Files that are whole or absent, and secret files that only their owner can read."""

import os
import secrets
import stat
from pathlib import Path

from stanch.errors import InvalidInput

_MAX_PRIVATE = 16 << 20


def write_private(path: Path, data: bytes) -> None:
    """Create ``path`` with mode 0600 and the given bytes, durably; refuse to replace an existing file.

    Raises:
        InvalidInput: The file exists already, or its folder does not.
    """
    if path.exists() or path.is_symlink():
        raise InvalidInput(f"{path}: exists already and is not replaced", next_step="choose another file name")
    write_atomic(path, data, mode=0o600)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write ``path`` so that a reader or a crash sees the old file or the new one, never a part.

    Raises:
        InvalidInput: The folder does not exist or cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written", why=os.strerror(error.errno or 0)) from error
    sync_folder(path.parent)


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
    return os.open(path, flags | os.O_NOFOLLOW)
