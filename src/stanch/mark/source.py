"""A marked copy as a :class:`stanch.terms.Source`: its files are made while they are read, never stored in plain."""

import io
import itertools
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from stanch.crypto import sync_folder
from stanch.errors import InvalidInput
from stanch.mark.embedding import RowBlock, mark_block, row_blocks
from stanch.mark.keys import CopyKey
from stanch.mark.plan import MarkPlan
from stanch.terms import SILENT, Progress, SourceFile
from stanch.weights import Tensor, directory_digest, open_tensors, read_header, walk_files, weight_files
from stanch.weights.digest import DirectoryDigest

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PASS_BYTES = 1 << 20
# Longer reads than this bypass the buffer: a larger one would have most chunks copied twice.
_BUFFER_BYTES = 1 << 16
_WRITE_BYTES = 1 << 20

Chunk = bytes | npt.NDArray[np.generic]


class ChunkReader(io.RawIOBase):
    """A forward-only reader over chunks that are made one after the other."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill as much of ``buffer`` as the current chunk gives; 0 at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk if isinstance(chunk, bytes) else chunk.data).cast("B")
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Stop making chunks."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
        super().close()


def in_order(tasks: Iterable[Callable[[], Chunk]], threads: int) -> Iterator[Chunk]:
    """Run tasks on ``threads`` threads, a few ahead of the reader, and yield their results in order."""
    if threads == 1:
        for task in tasks:
            yield task()
        return
    queue: deque[Future[Chunk]] = deque()
    remaining = iter(tasks)
    pool = ThreadPoolExecutor(threads)
    try:
        for task in itertools.islice(remaining, 2 * threads):
            queue.append(pool.submit(task))
        while queue:
            result = queue.popleft().result()
            for task in itertools.islice(remaining, 1):
                queue.append(pool.submit(task))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


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
        reader = ChunkReader(in_order(self._tasks(), self.threads))
        return cast("BinaryIO", io.BufferedReader(reader, _BUFFER_BYTES))

    def _tasks(self) -> Iterator[Callable[[], Chunk]]:
        """Yield one task a chunk, in the file's order."""
        yield partial(bytes, read_header(self.original).head)
        for tensor in open_tensors(self.original).values():
            entry = self.plan.layout.by_name.get(tensor.name)
            if entry is None:
                flat = tensor.raw.reshape(-1)
                step = _PASS_BYTES // flat.itemsize
                for start in range(0, flat.size, step):
                    yield partial(np.ascontiguousarray, flat[start : start + step])
            else:
                for block in row_blocks(entry):
                    yield partial(self._mark, tensor, block)

    def _mark(self, tensor: Tensor, block: RowBlock) -> Chunk:
        return mark_block(block.of(tensor), block, self.plan.alpha, self.key)


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
