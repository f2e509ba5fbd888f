"""Stream arithmetic of sealed bundles: how plaintext is cut into streams and segments. No input or output.

A stream of ``size`` plaintext bytes has ``max(1, ceil(size / PLAIN))`` segments and is stored in
``74 + size + 32 · segments`` bytes; every other stored length is refused. The last segment is empty only when the
stream is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stanch.crypto.floe import HEADER_SIZE, SEGMENT_OVERHEAD

SEGMENT = 1 << 20
"""Bytes of a full encrypted segment."""

PLAIN = SEGMENT - SEGMENT_OVERHEAD
"""Plaintext bytes of a full segment: 1,048,544."""

STREAM_PLAIN = 128 * PLAIN
"""Most plaintext bytes of a body stream: 134,213,632, stored in 134,217,802."""

MAX_STREAMS = 65_536
MAX_INDEX = 256 << 20
"""Most plaintext bytes of stream 0, the sealed index."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: where it lies in its stored stream, and what the signed length says about it.

    Attributes:
        stream: Number of the stream.
        position: Number of the segment in its stream.
        length: Stored bytes.
        final: Whether it is the stream's last one.
    """

    stream: int
    position: int
    length: int
    final: bool

    @property
    def offset(self) -> int:
        """Where the segment starts in the stored stream."""
        return HEADER_SIZE + self.position * SEGMENT

    @property
    def plain(self) -> int:
        """Plaintext bytes."""
        return self.length - SEGMENT_OVERHEAD


def count_segments(size: int) -> int:
    """Return the number of segments of a stream of ``size`` plaintext bytes."""
    return max(1, -(-size // PLAIN))


def stored_size(size: int) -> int:
    """Return the one accepted stored length of a stream of ``size`` plaintext bytes."""
    return HEADER_SIZE + size + SEGMENT_OVERHEAD * count_segments(size)


def segment_at(stream: int, size: int, position: int) -> Segment:
    """Return segment ``position`` of a stream of ``size`` plaintext bytes."""
    final = position == count_segments(size) - 1
    plain = size - position * PLAIN if final else PLAIN
    return Segment(stream, position, plain + SEGMENT_OVERHEAD, final)


def list_segments(stream: int, size: int) -> Iterator[Segment]:
    """Yield every segment of a stream of ``size`` plaintext bytes."""
    return (segment_at(stream, size, position) for position in range(count_segments(size)))


def cut(size: int) -> tuple[int, ...]:
    """Return the plaintext sizes of the streams that hold ``size`` bytes; one empty stream for an empty file."""
    whole, rest = divmod(size, STREAM_PLAIN)
    return (STREAM_PLAIN,) * whole + ((rest,) if rest or not whole else ())


def cut_safetensors(size: int, head: int) -> tuple[int, ...]:
    """Return the streams of a safetensors file of ``size`` bytes with ``head`` bytes before its data section.

    The head is a stream of its own, so that tensor data starts at a segment boundary.
    """
    return (head, *cut(size - head)) if size > head else (head,)


def cover(streams: Iterable[tuple[int, int]], start: int, stop: int) -> Iterator[tuple[Segment, int]]:
    """Yield the segments that hold bytes ``start`` to ``stop`` of the joined plaintext of ``streams``.

    Args:
        streams: ``(number, plaintext size)`` in order.
        start: First byte.
        stop: Byte after the last.

    Yields:
        Each segment and the offset of its plaintext in the joined plaintext. The segment of an empty stream is always
        among them, so that reading an empty file checks it too.
    """
    base = 0
    for stream, size in streams:
        low, high = max(start - base, 0), min(stop - base, size)
        if not size:
            yield segment_at(stream, 0, 0), base
        elif low < high:
            for position in range(low // PLAIN, (high - 1) // PLAIN + 1):
                yield segment_at(stream, size, position), base + position * PLAIN
        base += size
