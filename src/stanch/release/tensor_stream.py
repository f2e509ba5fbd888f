"""The tensors of a safetensors file that comes in chunks, whole or cut off, or of another file, which has none."""

from collections import deque
from collections.abc import Iterator

from stanch.errors import InvalidSafetensors
from stanch.weights import MAX_HEADER_BYTES, TensorInfo, parse_header

_LENGTH = 8


class TensorStream:
    """Cuts a file of ``size`` bytes into its tensors while it is read; holds no more than its header."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._head: bytearray | None = bytearray()
        self._left: deque[TensorInfo] = deque()
        self._at = 0

    def feed(self, chunk: bytes | memoryview) -> Iterator[tuple[TensorInfo, memoryview]]:
        """Yield the parts of tensors that lie in ``chunk``, in order."""
        view = memoryview(chunk)
        if self._head is not None:
            view = self._read_head(self._head, view)
        while view and self._left:
            tensor = self._left[0]
            part = view[: tensor.end - self._at]
            self._at += len(part)
            yield tensor, part
            view = view[len(part) :]
            if self._at == tensor.end:
                self._left.popleft()

    def _read_head(self, head: bytearray, view: memoryview) -> memoryview:
        """Gather the header and return what lies behind it; a file that has none has no tensors."""
        head += view
        end = _LENGTH + int.from_bytes(head[:_LENGTH], "little")
        if len(head) <= _LENGTH:
            return memoryview(b"")
        if end > min(_LENGTH + MAX_HEADER_BYTES, self._size) or head[_LENGTH] != ord("{"):
            self._head = None
            return memoryview(b"")
        if len(head) < end:
            return memoryview(b"")
        self._head = None
        try:
            header = parse_header(bytes(head[:end]))
        except InvalidSafetensors:
            return memoryview(b"")
        self._left.extend(tensor for tensor in header.tensors if tensor.end > tensor.start)
        return memoryview(bytes(head[end:]))
