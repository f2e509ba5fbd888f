"""Writing plaintext out of a bundle, which is what sealing exists to avoid."""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from stanch.crypto import Hasher, sync_folder
from stanch.errors import Conflict, StoreError, Tampered
from stanch.seal.index import IndexFile

_PARTIAL_SUFFIX = ".partial"


def write_plaintext(dest: Path, files: Iterable[tuple[IndexFile, Iterator[memoryview]]]) -> None:
    """Write files below the new directory ``dest``, readable by their owner only.

    Args:
        dest: Appears only when every file is written and durable; until then it is called ``dest`` + ``.partial``.
        files: Each file's entry of the index and its verified plaintext in pieces.

    Raises:
        Conflict: ``dest`` or its ``.partial`` exists.
        StoreError: The destination cannot be written.
        Tampered: A file differs from its BLAKE3 in the index.
    """
    partial = dest.with_name(dest.name + _PARTIAL_SUFFIX)
    if dest.exists() or dest.is_symlink():
        raise Conflict(f"{dest}: exists already", next_step="choose another name")
    try:
        partial.mkdir(mode=0o700)
    except FileExistsError as error:
        raise Conflict(f"{partial}: exists already", next_step="remove it if nothing else writes there") from error
    except OSError as error:
        raise StoreError(f"{partial}: cannot be made", why=os.strerror(error.errno or 0)) from error
    current = partial
    try:
        for file, pieces in files:
            _write_file(partial, file, pieces)
        for folder in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
            sync_folder(folder)
        current = partial.rename(dest)
        sync_folder(dest.parent)
    except BaseException as error:
        shutil.rmtree(current, ignore_errors=True)
        if isinstance(error, OSError):
            raise StoreError(f"{dest}: cannot be written", why=os.strerror(error.errno or 0)) from error
        raise


def _write_file(folder: Path, file: IndexFile, pieces: Iterator[memoryview]) -> None:
    hasher, path = Hasher("blake3"), folder / file.path
    # Not by parents=True, which makes all but the last as the umask says.
    for parent in reversed(Path(file.path).parents):
        (folder / parent).mkdir(mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb", buffering=0) as output:
        for piece in pieces:
            hasher.update(piece)
            rest = piece
            while rest:
                rest = rest[output.write(rest) :]
        os.fsync(output.fileno())
    if hasher.digest().hex() != file.blake3:
        raise Tampered(f"{file.path}: the plaintext differs from its digest in the sealed index")
