"""A marked copy as a :class:`stanch.terms.Source`: its files are made while they are read, never stored in plain."""

import io
import itertools
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import numpy as np

from stanch.crypto import sync_folder
from stanch.errors import InvalidInput
from stanch.mark.embedding import RowBlock, Streams, mark_block, row_blocks
from stanch.mark.keys import CopyKey
from stanch.mark.layout import LayoutEntry
from stanch.mark.plan import MarkPlan
from stanch.terms import SILENT, Progress, SourceFile
from stanch.weights import ELEMENT_TYPES, directory_digest, open_tensors, read_head, walk_files, weight_files
from stanch.weights.digest import DirectoryDigest

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PIECE_BYTES = 1 << 18
"""What is made at a time, in whole rows: it stays in the processor's cache beside the table and the key streams."""

# Longer reads than this bypass the buffer: a larger one would have most chunks copied twice.
_BUFFER_BYTES = 1 << 16
_WRITE_BYTES = 1 << 20


Read = Callable[[int, memoryview], None]


class Piece(NamedTuple):
    """Some bytes of a file, at least one; ``fill`` makes them in the place that it is given."""

    size: int
    fill: Callable[[memoryview], None]


class PieceReader(io.RawIOBase):
    """A forward-only reader over pieces, each made where it is wanted if there is room for all of it."""

    def __init__(self, pieces: Iterator[Piece], source: BinaryIO) -> None:
        """Read the pieces, which are made from an open file; it is closed with the reader."""
        super().__init__()
        self._pieces = pieces
        self._source = source
        self._room = bytearray()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill as much of ``buffer`` as the current piece gives; 0 at the end."""
        view = memoryview(buffer).cast("B")
        if not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            if piece.size <= len(view):
                piece.fill(view[: piece.size])
                return piece.size
            if len(self._room) < piece.size:
                self._room = bytearray(piece.size)
            self._rest = memoryview(self._room)[: piece.size]
            piece.fill(self._rest)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Stop making pieces."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        self._source.close()
        super().close()


def in_order(pieces: Iterator[Piece], threads: int) -> Iterator[Piece]:
    """Make pieces on ``threads`` threads, a few ahead of the reader; they come in order, each until the next is asked.

    The places they are made in are used again: of new memory, the system has to clear every page.
    """
    if threads == 1:
        yield from pieces
        return
    queue: deque[tuple[int, Future[bytearray]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for piece in itertools.islice(pieces, 2 * threads):
            queue.append((piece.size, pool.submit(_make, piece, bytearray())))
        while queue:
            size, made = queue.popleft()
            room = made.result()
            yield Piece(size, partial(_copy, memoryview(room)[:size]))
            for piece in itertools.islice(pieces, 1):
                queue.append((piece.size, pool.submit(_make, piece, room)))
    finally:
        pool.shutdown(cancel_futures=True)


def _make(piece: Piece, room: bytearray) -> bytearray:
    """Make a piece in the room, or in a new one where it does not fit; return where."""
    room = room if len(room) >= piece.size else bytearray(piece.size)
    piece.fill(memoryview(room)[: piece.size])
    return room


def _copy(source: memoryview, target: memoryview) -> None:
    target[:] = source


@dataclass(frozen=True, slots=True)
class PlainFile:
    """A file of the original that passes through unchanged."""

    path: str
    size: int
    original: Path

    def open(self) -> BinaryIO:
        """Return a reader of the original's bytes."""
        return self.original.open("rb")


@dataclass(frozen=True, slots=True)
class MarkedFile:
    """A safetensors file of the copy: the original's header, its marked tensors marked, all other bytes as they are."""

    path: str
    size: int
    original: Path
    plan: MarkPlan
    key: CopyKey
    threads: int

    def open(self) -> BinaryIO:
        """Return a reader that makes the marked bytes as it goes (forward only)."""
        file = self.original.open("rb")
        reader = PieceReader(in_order(self._pieces(file), self.threads), file)
        return cast("BinaryIO", io.BufferedReader(reader, _BUFFER_BYTES))

    def _pieces(self, file: BinaryIO) -> Iterator[Piece]:
        """Yield the file's pieces in order."""
        header = read_head(file, self.size, what=self.path)
        read, streams, passed = partial(_read, file.fileno(), self.path), Streams(self.key), 0
        for tensor in header.tensors:
            entry = self.plan.layout.by_name.get(tensor.name)
            if entry is not None:
                start = header.data_offset + tensor.start
                yield from _passing(read, passed, start)
                yield from self._marked(read, streams, entry, start)
                passed = header.data_offset + tensor.end
        yield from _passing(read, passed, self.size)

    def _marked(self, read: Read, streams: Streams, entry: LayoutEntry, start: int) -> Iterator[Piece]:
        """Yield the pieces of a tensor that begins at the byte ``start``: read, and marked where they lie.

        Of a mapping, the system would have to make every page known first.
        """
        dtype = np.dtype(ELEMENT_TYPES[entry.dtype])
        width = entry.columns * dtype.itemsize

        def fill(block: RowBlock, room: memoryview) -> None:
            read(start + block.first * width, room)
            rows = np.frombuffer(room, dtype).reshape(block.count, entry.columns)
            mark_block(rows, block, self.plan.alpha, streams)

        for block in row_blocks(entry, PIECE_BYTES // dtype.itemsize):
            yield Piece(block.count * width, partial(fill, block))


def _passing(read: Read, start: int, end: int) -> Iterator[Piece]:
    """Yield the pieces of bytes that are the original's."""
    for offset in range(start, end, PIECE_BYTES):
        yield Piece(min(PIECE_BYTES, end - offset), partial(read, offset))


def _read(file: int, path: str, offset: int, room: memoryview) -> None:
    """Fill ``room`` with the file's bytes from ``offset``."""
    while room:
        count = os.preadv(file, [room], offset)
        if count == 0:
            raise InvalidInput(f"{path}: it became shorter while it was read", next_step="restore the original")
        room, offset = room[count:], offset + count


@dataclass(frozen=True, slots=True)
class MarkedSource:
    """The marked copy of a directory for one recipient.

    Attributes:
        original: The unmarked directory.
        plan: Its plan.
        key: The recipient's key, for this very plan.
        threads: Threads a reader uses; 0 means one a processor.
    """

    original: Path
    plan: MarkPlan
    key: CopyKey
    threads: int = 0

    def __post_init__(self) -> None:
        committed = (self.key.original, self.key.layout_digest, self.key.alpha)
        if committed != (self.plan.original, self.plan.layout.digest, self.plan.alpha):
            raise InvalidInput(
                f"the key of {self.key.recipient!r} belongs to another original or plan",
                next_step="use the plan that the recipient's batch was committed with",
            )

    def files(self) -> Sequence[SourceFile]:
        """Return the copy's files, sorted by path: the same names and sizes as the original's.

        Raises:
            InvalidInput: The directory no longer holds the tensors that the plan describes.
        """
        marked = set(weight_files(self.original))
        self._check(marked)
        threads = self.threads or os.cpu_count() or 1
        return [
            MarkedFile(name, path.stat().st_size, path, self.plan, self.key, threads)
            if path in marked
            else PlainFile(name, path.stat().st_size, path)
            for name, path in walk_files(self.original)
        ]

    def _check(self, marked: set[Path]) -> None:
        found = {tensor.name: tensor for path in marked for tensor in open_tensors(path).values()}
        for name, entry in self.plan.layout.by_name.items():
            tensor = found.get(name)
            if tensor is None or (tensor.dtype, tensor.shape) != (entry.dtype, entry.shape):
                raise InvalidInput(
                    f"{self.original.name}: tensor {name!r} is not as the plan says: the original has changed",
                    next_step="restore the original that the batch was committed for",
                )


@dataclass(frozen=True, slots=True)
class MarkedCopy:
    """A marked copy that was written to a directory.

    Attributes:
        recipient: Whose copy it is.
        batch: Its batch.
        leaf: Its leaf in the batch's commitment.
        path: Where it lies.
        digest: Digest of that directory.
        coordinates: How many weights carry the mark.
    """

    recipient: str
    batch: int
    leaf: int
    path: Path
    digest: DirectoryDigest
    coordinates: int


def embed(
    original: Path, out: Path, plan: MarkPlan, key: CopyKey, *, threads: int = 0, progress: Progress = SILENT
) -> MarkedCopy:
    """Write the marked copy of ``original`` for the holder of ``key`` into the new directory ``out``.

    Names, shapes, types, header and order are those of the original. A release does not do this: it seals a
    :class:`MarkedSource`, so that the copy never lies on a disk in plain.

    Args:
        original: The unmarked directory.
        out: A directory that does not exist yet.
        plan: The original's plan.
        key: The recipient's key.
        threads: 0 means one a processor; the bytes do not depend on it.
        progress: Told about the bytes that are written.

    Raises:
        InvalidInput: ``out`` exists, its folder cannot be written, or key, plan and original do not belong together.
    """
    if out.exists():
        raise InvalidInput(f"{out}: exists already and is not replaced", next_step="choose another directory")
    files = MarkedSource(original, plan, key, threads).files()
    try:
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise InvalidInput(f"{out}: cannot be written", why=os.strerror(error.errno or 0)) from error
    total, done = sum(file.size for file in files), 0
    try:
        for file in files:
            for count in _write(file, part / file.path):
                done += count
                progress("mark: bytes", done, total)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sync_folder(out.parent)
    return MarkedCopy(key.recipient, key.batch, key.leaf, out, directory_digest(out), plan.layout.coordinates)


def _write(file: SourceFile, target: Path) -> Iterator[int]:
    """Write one file, yielding the size of each piece."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with closing(file.open()) as reader, target.open("wb") as writer:
        while piece := reader.read(_WRITE_BYTES):
            writer.write(piece)
            yield len(piece)
        writer.flush()
        os.fsync(writer.fileno())
