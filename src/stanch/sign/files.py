"""The files of a directory to sign or to verify, opened without following links and hashed in parallel streams."""

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from stanch.crypto import FileHashName, Hasher
from stanch.errors import InvalidInput
from stanch.weights import find_file

_BUFFER, _LARGE = 1 << 20, 16 << 20
_WORKERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes of a file; ``end`` is None for all that follows."""

    path: str
    start: int = 0
    end: int | None = None


def open_regular(root: Path, name: str) -> int:
    """Return a descriptor of the regular file ``name`` below ``root``; a link put in its place is refused.

    The links of a snapshot in the Hugging Face cache to its own blobs stand for these.

    Raises:
        InvalidInput: It cannot be opened, or is no regular file any more.
    """
    try:
        # O_NONBLOCK: a pipe put in the file's place must not stop us.
        handle = os.open(
            find_file(root, name) or root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except OSError as error:
        raise InvalidInput(f"{name!r}: cannot be read", why=error.strerror or "") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InvalidInput(f"{name!r}: expected a regular file", why="it changed while it was read")
    return handle


def hash_pieces(root: Path, pieces: Sequence[Piece], algorithm: FileHashName) -> list[bytes | None]:
    """Hash each piece of the files below ``root``; None stands for a piece that its file is too short for.

    Memory is one buffer a thread, whatever the sizes of the files.

    Raises:
        InvalidInput: A file cannot be read.
    """
    # One thread a piece is quickest; where a single piece is large, the others would only watch.
    alone = sum(_size(root, piece) >= _LARGE for piece in pieces) < 2
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="hash") as pool:
        return list(pool.map(lambda piece: _hash_piece(root, piece, Hasher(algorithm, parallel=alone)), pieces))


def _size(root: Path, piece: Piece) -> int:
    """Return about how long a piece is; 0 where that cannot be told, which only costs time."""
    try:
        return ((root / piece.path).stat().st_size if piece.end is None else piece.end) - piece.start
    except OSError:
        return 0


def _hash_piece(root: Path, piece: Piece, hasher: Hasher) -> bytes | None:
    with os.fdopen(open_regular(root, piece.path), "rb", buffering=0) as stream:
        left = (os.fstat(stream.fileno()).st_size if piece.end is None else piece.end) - piece.start
        buffer = memoryview(bytearray(max(1, min(_BUFFER, left))))
        stream.seek(piece.start)
        while count := stream.readinto(buffer[:left] if piece.end is not None else buffer):
            hasher.update(buffer[:count])
            left -= count
        return hasher.digest() if piece.end is None or left == 0 else None
