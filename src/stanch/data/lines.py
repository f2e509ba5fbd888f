"""Bounded reading and atomic writing of line files, plain or gzip-compressed."""

import gzip
import os
import secrets
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from stanch.crypto import sync_folder
from stanch.data.rows import Range
from stanch.errors import InvalidInput

MAX_LINE = 64 << 20
MAX_RATIO = 200
RATIO_SLACK = 1 << 20
_CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"


def is_gzip(path: Path) -> bool:
    """Say whether the name promises gzip."""
    return path.suffix == ".gz"


def plain_suffix(path: Path) -> str:
    """Return the ending of a name, that of gzip aside."""
    return path.with_suffix("").suffix if is_gzip(path) else path.suffix


class Source:
    """A file that is read from a place on; of a gzip file, a place in what it holds.

    A gzip file can only be expanded from its beginning. So it stays open where a reader came to its end, and who reads
    on from there or later goes on: parts in their order cost one expansion of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rested: tuple[BinaryIO, BinaryIO] | None = None

    @contextmanager
    def open(self, start: int) -> Iterator["Stream"]:
        """Yield a stream that stands at ``start``.

        Raises:
            InvalidInput: The file cannot be read, or expands more than 200-fold.
        """
        with readable(self.path):
            (opened, packed), self._rested = self._rested or (None, None), None
            if opened is None or opened.tell() > start:
                _close(opened, packed)
                raw = self.path.open("rb")
                opened, packed = (
                    (cast("BinaryIO", gzip.GzipFile(fileobj=raw)), raw) if is_gzip(self.path) else (raw, raw)
                )
            try:
                opened.seek(start)
                yield Stream(self.path, opened, packed if opened is not packed else None)
            except BaseException:
                _close(opened, packed)
                raise
            if opened is packed:
                _close(opened, packed)
            else:
                self._rested = opened, cast("BinaryIO", packed)

    def __del__(self) -> None:
        _close(*(self._rested or (None, None)))


class Stream:
    """What :meth:`Source.open` yields."""

    def __init__(self, path: Path, opened: BinaryIO, packed: BinaryIO | None) -> None:
        self._path, self._opened, self._packed = path, opened, packed

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        return self._checked(self._opened.read(size))

    def readline(self, size: int) -> bytes:
        """Return the rest of a line, or so much of it."""
        return self._checked(self._opened.readline(size))

    def _checked(self, data: bytes) -> bytes:
        if self._packed is not None and self._opened.tell() > MAX_RATIO * self._packed.tell() + RATIO_SLACK:
            raise InvalidInput(f"{self._path.name}: the file expands more than {MAX_RATIO}-fold")
        return data


def _close(*streams: BinaryIO | None) -> None:
    for stream in streams:
        if stream is not None:
            stream.close()


def read_lines(source: Source, part: Range | None = None) -> Iterator[tuple[int, bytes | None]]:
    """Yield the non-blank lines of a file with their numbers from 1, without line ends.

    Args:
        source: The file.
        part: The bytes to read, cut at line ends; all by default.

    Yields:
        Number and line; None instead of a line that is longer than 64 MiB.

    Raises:
        InvalidInput: The file cannot be read, or gzip expands more than 200-fold.
    """
    for number, line in raw_lines(source, part):
        if line is None:
            yield number, None
            continue
        content = (line.removeprefix(_BOM) if number == 1 else line).strip()
        if content:
            yield number, content


def raw_lines(source: Source, part: Range | None = None) -> Iterator[tuple[int, bytes | None]]:
    """As :func:`read_lines`, with the blank lines, and each line as it stands in the file."""
    return ((number, line) for number, line, _ in _sized_lines(source, part))


def cut_lines(source: Source, size: int, *, ends: Callable[[bytes], bool] = lambda _line: True) -> Iterator[Range]:
    """Cut a file into parts of about ``size`` bytes that end at line ends; of a gzip file, bytes once expanded.

    Args:
        source: The file.
        size: Bytes a part has at least, the last one aside.
        ends: Told each line in turn, says whether a part may end after it. A line that is too long is told as empty.

    Raises:
        InvalidInput: As :func:`read_lines`.
    """
    start = first = position = number = 0
    for number, line, length in _sized_lines(source, None):
        position += length
        if ends(line or b"") and position - start >= size:
            yield Range(start, position, first)
            start, first = position, number
    if start < position:
        yield Range(start, position, first)


def _sized_lines(source: Source, part: Range | None) -> Iterator[tuple[int, bytes | None, int]]:
    number, position, stop = (part.first, part.start, part.stop) if part is not None else (0, 0, None)
    with source.open(position) as stream:
        while (stop is None or position < stop) and (line := stream.readline(MAX_LINE + 1)):
            number, length = number + 1, len(line)
            complete = length <= MAX_LINE
            while not (complete or line.endswith(b"\n")) and (line := stream.readline(_CHUNK)):
                length += len(line)
            position += length
            yield number, line if complete else None, length


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong while ``path`` is read into an error that names it.

    Raises:
        InvalidInput: The file cannot be read.
    """
    try:
        yield
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
