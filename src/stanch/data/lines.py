"""Bounded reading and atomic writing of line files, plain or gzip-compressed."""

import gzip
import os
import secrets
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from stanch.crypto import sync_folder
from stanch.errors import InvalidInput

MAX_LINE = 64 << 20
MAX_RATIO = 200
_RATIO_SLACK = 1 << 20
_BOM = b"\xef\xbb\xbf"


def is_gzip(path: Path) -> bool:
    """Say whether the name promises gzip."""
    return path.suffix == ".gz"


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the non-blank lines of ``path`` with their numbers from 1, without line ends.

    Raises:
        InvalidInput: The file cannot be read, a line is longer than 64 MiB, or gzip expands more than 200-fold.
    """
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(path.open("rb"))
            stream = stack.enter_context(gzip.GzipFile(fileobj=raw)) if is_gzip(path) else raw
            number, total = 0, 0
            while line := stream.readline(MAX_LINE + 1):
                number, total = number + 1, total + len(line)
                if len(line) > MAX_LINE:
                    raise InvalidInput(f"{path.name}:{number}: expected lines of at most {MAX_LINE} bytes")
                if stream is not raw and total > MAX_RATIO * raw.tell() + _RATIO_SLACK:
                    raise InvalidInput(f"{path.name}:{number}: the file expands more than {MAX_RATIO}-fold")
                line = (line.removeprefix(_BOM) if number == 1 else line).strip()
                if line:
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not readable"
        raise InvalidInput(f"cannot read {path}", why=reason, next_step="check the path and the file") from error


@contextmanager
def atomic_lines(path: Path, *, approve: Callable[[Path], None]) -> Iterator[BinaryIO]:
    """Yield a writer whose content appears under ``path`` (mode 0600) as a whole, or not at all on any error.

    A name that ends in ``.gz`` is compressed, without a time stamp, so that equal content gives equal bytes.

    Args:
        path: The file to write.
        approve: Called with the complete file under its temporary name (same ending); what it raises keeps the file
            from appearing.

    Raises:
        InvalidInput: The file cannot be written.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as raw:
                if is_gzip(path):
                    with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as stream:
                        yield cast("BinaryIO", stream)
                else:
                    yield raw
                raw.flush()
                os.fsync(raw.fileno())
            approve(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InvalidInput(f"cannot write {path}", why=error.strerror or "", next_step="check the folder") from error
    sync_folder(path.parent)
