"""Reading segments: each is read into private memory, compared with its signed digest, and only then decrypted."""

import mmap
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Literal, TypeAlias

from stanch.crypto.floe import HEADER_SIZE, Floe, FloeDecryptor
from stanch.seal.arena import Arena
from stanch.seal.digests import SignedDigests, digests_size
from stanch.seal.folder import DIGESTS_NAME, BundlePlace
from stanch.seal.keys import ReleaseRoot, stream_aad
from stanch.seal.layout import SEGMENT, Segment, cover
from stanch.seal.manifest import Manifest

Verify: TypeAlias = Literal["publisher", "aead_only_unsafe"]

_TASK_SEGMENTS = 4
"""So few that all threads end at about the same time."""


class _Buffers:
    """Private memory for stored segments, 1 MiB each; what is given back is used again."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []

    @contextmanager
    def take(self) -> Iterator[memoryview]:
        """Lend memory that nobody else writes to meanwhile."""
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = memoryview(mmap.mmap(-1, SEGMENT, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        try:
            yield buffer
        finally:
            self._free.append(buffer)


class SignedStreams:
    """The streams of a bundle whose manifest is verified: their bytes can be checked by anybody, without a key.

    Raises:
        Tampered: The digests are not those that the manifest commits to.
    """

    def __init__(self, place: BundlePlace, manifest: Manifest) -> None:
        self._place = place
        self.manifest = manifest
        self._buffers = _Buffers()
        self.digests = SignedDigests(place.document(DIGESTS_NAME, digests_size(manifest)), manifest)

    def read_header(self, stream: int) -> bytes:
        """Return the checked 74-byte header of a stream.

        Raises:
            Tampered: It does not match the signed digest.
        """
        with self._place.stream(stream, self.manifest.streams[stream].stored) as read:
            header = memoryview(bytearray(HEADER_SIZE))
            read(header, 0)
        self.digests.require(stream, 0, header)
        return bytes(header)

    def read_segments(
        self, stream: int, segments: Sequence[Segment], *, compare: bool = True
    ) -> Iterator[tuple[Segment, memoryview]]:
        """Yield segments of one stream with their checked bytes, which stay there until the next is asked for.

        What was compared is what is yielded: nobody else writes to that memory.

        Args:
            stream: Number of the stream.
            segments: Its segments to read.
            compare: Whether to compare the signed digests.

        Raises:
            Tampered: A segment does not match its signed digest.
            NonCanonicalStream: The stored stream has another length.
        """
        with (
            self._place.stream(stream, self.manifest.streams[stream].stored) as read,
            self._buffers.take() as buffer,
        ):
            for segment in segments:
                data = buffer[: segment.length]
                read(data, segment.offset)
                if compare:
                    self.digests.require(stream, segment.position + 1, data)
                yield segment, data


@dataclass(frozen=True, slots=True)
class _Task:
    """Consecutive segments of one stream and where the plaintext of each goes."""

    stream: int
    segments: tuple[Segment, ...]
    offsets: tuple[int, ...]


def _split(placed: Sequence[tuple[Segment, int]], first: int) -> list[_Task]:
    """Split segments into tasks; ``first`` is the offset that memory begins with."""
    tasks = []
    for stream, group in groupby(placed, lambda item: item[0].stream):
        while part := tuple(islice(group, _TASK_SEGMENTS)):
            segments, offsets = zip(*part, strict=True)
            tasks.append(_Task(stream, segments, tuple(offset - first for offset in offsets)))
    return tasks


class SegmentReader:
    """Decrypts parts of a bundle's streams into new memory.

    Args:
        streams: The signed streams.
        root: The release root key.
        verify: ``publisher`` compares each segment with its signed digest before it is decrypted. ``aead_only_unsafe``
            does not: then whoever else holds the root key can have changed the contents unnoticed.
        threads: Most threads that read at once.
    """

    def __init__(self, streams: SignedStreams, root: ReleaseRoot, verify: Verify, threads: int) -> None:
        self._streams = streams
        self._root = root
        self._compare = verify != "aead_only_unsafe"
        self._threads = threads
        self._decryptors: dict[int, FloeDecryptor] = {}

    def read(self, numbers: Sequence[int], start: int, stop: int) -> memoryview:
        """Return bytes ``start`` to ``stop`` of the joined plaintext of the streams ``numbers``.

        The memory is new, writable and the caller's own. It exists only if every segment of it passed; on failure
        what was decrypted is overwritten first.

        Raises:
            Tampered: A segment or header does not match its signed digest.
            DecryptionFailed: A segment does not decrypt.
            NonCanonicalStream: A stored stream has another length than its signed one.
        """
        sizes = [(number, self._streams.manifest.streams[number].size) for number in numbers]
        placed = list(cover(sizes, start, stop))
        if not placed:
            return Arena(0).memory
        first, (last, end) = placed[0][1], placed[-1]
        arena = Arena(end + last.plain - first)
        memory = arena.memory
        tasks = _split(placed, first)
        try:
            self._run(tasks, memory)
        except BaseException:
            arena.wipe()
            raise
        return memory[start - first : stop - first]

    def _run(self, tasks: Sequence[_Task], memory: memoryview) -> None:
        """Work through the tasks with threads; the first failure stops them all and is raised."""
        for number in dict.fromkeys(task.stream for task in tasks):
            self._decryptor(number)
        pending, lock, failed = iter(tasks), threading.Lock(), threading.Event()

        def work() -> None:
            try:
                while not failed.is_set():
                    with lock:
                        task = next(pending, None)
                    if task is None:
                        return
                    self._decrypt(task, memory)
            except BaseException:
                failed.set()
                raise

        count = min(self._threads, len(tasks))
        if count == 1:
            work()
            return
        with ThreadPoolExecutor(count, thread_name_prefix="open") as pool:
            runs = [pool.submit(work) for _ in range(count)]
        for run in runs:
            run.result()

    def _decrypt(self, task: _Task, memory: memoryview) -> None:
        decryptor = self._decryptor(task.stream)
        read = self._streams.read_segments(task.stream, task.segments, compare=self._compare)
        for offset, (segment, data) in zip(task.offsets, read, strict=True):
            target = memory[offset : offset + segment.plain]
            decryptor.segment_into(data, segment.position, segment.final, target)

    def _decryptor(self, stream: int) -> FloeDecryptor:
        known = self._decryptors.get(stream)
        if known is None:
            header = self._streams.read_header(stream)
            size = self._streams.manifest.streams[stream].size
            aad = stream_aad(self._root.bundle_id, stream, size)
            known = Floe.decryptor(self._root.stream_key(stream), aad, header, seg=SEGMENT)
            self._decryptors[stream] = known
        return known
