"""Blobs as files in a folder: whole or absent, synced before ``put`` returns, never reached through a symbolic link."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from stanch.errors import Conflict, InvalidInput, NotFound, StoreError, StoreUnsafe
from stanch.store.blob import BlobInfo, Buffer, Match, PutMode, check_key

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")
_STALE_SECONDS = 24 * 3600


class FileBlobs:
    """The ``file:`` driver. Files are 0600, folders 0700. Safe for several threads and processes of one machine.

    CREATE links a synced temporary file to its name, so that the name appears whole or not at all and never replaces
    another; REPLACE renames it; ``Match`` compares and renames under a lock of the folder. The first ``put`` into a
    folder removes temporary files there that a crash left more than a day ago; nothing else is ever removed. A network
    file system tells no other machine of that lock: CREATE is sound there, ``Match`` is not.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._root, self._clock = root, clock
        self._swept: set[tuple[str, ...]] = set()
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _store_error(str(root), error) from error

    def put(self, key: str, data: Buffer | Iterable[Buffer], *, mode: PutMode) -> BlobInfo:
        """See :meth:`stanch.store.blob.BlobStore.put`."""
        *folders, name = check_key(key)
        with _errors(key), self._folder(folders, create=True) as folder:
            if tuple(folders) not in self._swept:
                self._swept.add(tuple(folders))
                _sweep(folder, self._clock() - _STALE_SECONDS)
            temporary = f".{secrets.token_hex(16)}.tmp"
            try:
                info = _write(temporary, data, folder=folder, key=key)
                if mode == "create":
                    os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
                else:
                    self._replace(temporary, name, mode, folder=folder, key=key)
            except FileExistsError as error:
                raise Conflict(f"blob {key}: exists already") from error
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
            os.fsync(folder)
        return info

    @staticmethod
    def _replace(temporary: str, name: str, mode: PutMode, *, folder: int, key: str) -> None:
        # The lock is of the folder's inode and is given back when its descriptor closes, also on a crash. Plain
        # REPLACE takes it too, or it could slip between the comparison and the renaming of a Match.
        fcntl.flock(folder, fcntl.LOCK_EX)
        if isinstance(mode, Match):
            try:
                found = _info(name, folder=folder, key=key).etag
            except FileNotFoundError as error:
                raise Conflict(f"blob {key}: expected content {mode.etag[:16]}, found none") from error
            if found != mode.etag:
                raise Conflict(f"blob {key}: expected content {mode.etag[:16]}, found {found[:16]}")
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """See :meth:`stanch.store.blob.BlobStore.get`."""
        if start < 0 or (length is not None and length < 0):
            raise InvalidInput(f"blob {key}: expected a range that is not negative")
        *folders, name = check_key(key)
        with _errors(key), self._folder(folders) as folder, _open(name, folder=folder) as handle:
            left = max(os.fstat(handle).st_size - start, 0) if length is None else length
            chunks = []
            while left and (chunk := os.pread(handle, min(left, _CHUNK), start)):
                chunks.append(chunk)
                start, left = start + len(chunk), left - len(chunk)
        return b"".join(chunks)

    def head(self, key: str) -> BlobInfo:
        """See :meth:`stanch.store.blob.BlobStore.head`; the whole file is read to compute its etag."""
        *folders, name = check_key(key)
        with _errors(key), self._folder(folders) as folder:
            return _info(name, folder=folder, key=key)

    def list(self, prefix: str = "") -> Iterator[BlobInfo]:
        """See :meth:`stanch.store.blob.BlobStore.list`; every listed file is read to compute its etag."""
        folder, keys = prefix.rpartition("/")[0], []
        if folder:
            check_key(folder)
        for parent, _, names in os.walk(self._root / folder, onerror=_refuse_unread):
            relative = Path(parent).relative_to(self._root)
            keys += [(relative / name).as_posix() for name in names if not name.startswith(".")]
        for key in sorted(keys):
            if key.startswith(prefix):
                with contextlib.suppress(NotFound):  # deleted since the walk
                    yield self.head(key)

    def delete(self, key: str) -> None:
        """See :meth:`stanch.store.blob.BlobStore.delete`."""
        *folders, name = check_key(key)
        with _errors(key), self._folder(folders) as folder:
            os.unlink(name, dir_fd=folder)
            os.fsync(folder)

    @contextlib.contextmanager
    def _folder(self, segments: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """Yield a descriptor of the folder; each step refuses a symbolic link."""
        handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for segment in segments:
                if create:
                    _make_folder(segment, parent=handle)
                child = os.open(segment, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = child
            yield handle
        finally:
            os.close(handle)


def _refuse_unread(error: OSError) -> None:
    """Let no folder that cannot be read pass for an empty one; there may be none of that name, or a blob."""
    if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
        raise _store_error(str(error.filename), error) from error


def _sweep(folder: int, before: float) -> None:
    """Remove what a crash left of our own temporary files before that time."""
    for name in os.listdir(folder):
        if _TEMPORARY.fullmatch(name):
            with contextlib.suppress(OSError):  # another process may sweep too
                if os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime < before:
                    os.unlink(name, dir_fd=folder)


def _make_folder(name: str, *, parent: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return
    os.fsync(parent)


def _write(name: str, data: Buffer | Iterable[Buffer], *, folder: int, key: str) -> BlobInfo:
    chunks = (data,) if isinstance(data, bytes | bytearray | memoryview) else data
    digest, size = hashlib.sha256(), 0
    with os.fdopen(os.open(name, _NEW, 0o600, dir_fd=folder), "wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += memoryview(chunk).nbytes
        file.flush()
        os.fsync(file.fileno())
    return BlobInfo(key, size, digest.hexdigest())


@contextlib.contextmanager
def _open(name: str, *, folder: int) -> Iterator[int]:
    handle = os.open(name, _READ, dir_fd=folder)
    try:
        yield handle
    finally:
        os.close(handle)


def _info(name: str, *, folder: int, key: str) -> BlobInfo:
    with _open(name, folder=folder) as handle, os.fdopen(handle, "rb", closefd=False) as file:
        return BlobInfo(key, os.fstat(handle).st_size, hashlib.file_digest(file, "sha256").hexdigest())


@contextlib.contextmanager
def _errors(key: str) -> Iterator[None]:
    """Turn what the operating system says into errors of stanch."""
    try:
        yield
    except OSError as error:
        raise _store_error(f"blob {key}", error) from error


def _store_error(what: str, error: OSError) -> StoreError:
    reason = os.strerror(error.errno or 0)
    if error.errno == errno.ENOENT:
        return NotFound(f"{what}: does not exist")
    if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.EISDIR}:
        return StoreUnsafe(f"{what}: a symbolic link, file or folder stands where it must not", why=reason)
    return StoreError(f"{what}: the file store failed", why=reason, next_step="free or mend the disk, then repeat")
