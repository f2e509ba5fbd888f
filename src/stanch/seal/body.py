"""Writing the streams of a bundle: one thread reads and hashes plaintext in order, others encrypt, hash and write."""

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from stanch.crypto import HashName, RandomBytes, hash_bytes
from stanch.crypto.floe import Floe, FloeEncryptor
from stanch.seal.folder import BODY_NAME, stream_name
from stanch.seal.keys import ReleaseRoot, digests_commitment, stream_aad
from stanch.seal.layout import SEGMENT, Segment, count_segments, list_segments, stored_size
from stanch.seal.manifest import StreamEntry

_IN_FLIGHT = 16
"""Most plaintext segments in memory at once."""


class BodyWriter:
    """Encrypts streams into the ``body`` of an unfinished bundle. A context manager.

    Use it from one thread. The cipher and the hashes release the interpreter lock, so the workers are threads.
    """

    def __init__(
        self, folder: Path, root: ReleaseRoot, segment_hash: HashName, *, workers: int, rng: RandomBytes
    ) -> None:
        self._folder = folder / BODY_NAME
        self._root = root
        self._hash: HashName = segment_hash
        self._rng = rng
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="seal")
        self._room = threading.BoundedSemaphore(_IN_FLIGHT)
        self._buffers: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(workers):
            self._buffers.put(memoryview(bytearray(SEGMENT)))
        self._closing: list[Future[None]] = []
        self._entries: dict[int, tuple[StreamEntry, bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)

    def write(self, stream: int, size: int, read: Callable[[int], bytes]) -> None:
        """Write one stream.

        Args:
            stream: Its number; each once.
            size: Its plaintext bytes.
            read: Returns exactly as many next plaintext bytes as it is asked for.
        """
        key, aad = self._root.stream_key(stream), stream_aad(self._root.bundle_id, stream, size)
        encryptor = Floe.encryptor(key, aad, seg=SEGMENT, rng=self._rng)
        handle = os.open(self._folder / stream_name(stream), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        tasks: list[Future[bytes]] = []
        try:
            _write_at(handle, memoryview(encryptor.header), 0)
            for segment in list_segments(stream, size):
                plain = read(segment.plain)
                self._room.acquire()
                tasks.append(self._pool.submit(self._seal, encryptor, handle, segment, plain))
            digests = hash_bytes(self._hash, encryptor.header) + b"".join(task.result() for task in tasks)
        except BaseException:
            # The descriptor must outlive every task that writes to it.
            wait([task for task in tasks if not task.cancel()])
            os.close(handle)
            raise
        self._closing.append(self._pool.submit(_sync_and_close, handle))
        commitment = digests_commitment(self._root.bundle_id, stream, digests).hex()
        entry = StreamEntry(stream, size, stored_size(size), 1 + count_segments(size), commitment)
        self._entries[stream] = (entry, digests)

    def finish(self) -> tuple[tuple[StreamEntry, ...], bytes]:
        """Wait until every stream is durable; return the manifest's list of streams and the bytes of the digests."""
        for task in self._closing:
            task.result()
        ordered = [self._entries[number] for number in sorted(self._entries)]
        return tuple(entry for entry, _ in ordered), b"".join(digests for _, digests in ordered)

    def _seal(self, encryptor: FloeEncryptor, handle: int, segment: Segment, plain: bytes) -> bytes:
        """Encrypt and write one segment; return its digest."""
        buffer = self._buffers.get()
        try:
            length = encryptor.segment_into(plain, segment.position, segment.final, buffer)
            _write_at(handle, buffer[:length], segment.offset)
            return hash_bytes(self._hash, buffer[:length])
        finally:
            self._buffers.put(buffer)
            self._room.release()


def _write_at(handle: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written


def _sync_and_close(handle: int) -> None:
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
