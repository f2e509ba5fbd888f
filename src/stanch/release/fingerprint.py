"""What is known of protected weights without having them: digests of files, of tensors, and of windows in them.

A fingerprint finds copies where no plaintext is at hand. It does not give weights back; whoever holds one can confirm
that a given file is a copy, and reads the names of files and tensors, so keep it among your own.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Self

import msgspec
import numpy as np

from stanch.crypto import Hasher, canonical_json, parse_json
from stanch.errors import InvalidInput
from stanch.release.tensor_stream import TensorStream
from stanch.release.windows import WindowStream, window_digest
from stanch.seal.manifest import Hex32, Natural

FINGERPRINT_FORMAT: Final = "stanch/weight-fingerprint/v1"
MAX_FINGERPRINT_FILE = 256 << 20
WINDOWS_A_TENSOR = 32
MIN_TENSOR = 64
MIN_VALUES = 16
"""Data with fewer different bytes than this says nothing: zeros, ones and counters are in every model."""

Hex16 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]


class ProtectedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A weight file: its name, size and BLAKE3."""

    name: str
    size: Natural
    blake3: Hex32


class ProtectedTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor's data: its name, size, BLAKE3, and the digests of at most 32 windows, the smallest ones."""

    name: str
    size: Natural
    blake3: Hex32
    windows: tuple[Hex16, ...]


class Fingerprint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fingerprint of one model's weights."""

    format: str
    files: tuple[ProtectedFile, ...]
    tensors: tuple[ProtectedTensor, ...]

    def to_bytes(self) -> bytes:
        """Return the canonical JSON of the fingerprint."""
        return canonical_json(msgspec.to_builtins(self))

    @classmethod
    def parse(cls, data: bytes, *, what: str = "fingerprint") -> Self:
        """Read a fingerprint, strictly.

        Raises:
            InvalidInput: A rule of the format is broken.
        """
        document = parse_json(data, what=what, max_bytes=MAX_FINGERPRINT_FILE)
        if not isinstance(document, dict) or document.get("format") != FINGERPRINT_FORMAT:
            raise InvalidInput(f"{what}: expected format {FINGERPRINT_FORMAT}")
        try:
            found = msgspec.convert(document, cls)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{what}: {error}") from error
        if found.to_bytes() != data:
            raise InvalidInput(f"{what}: expected canonical JSON (RFC 8785)")
        return found


def take_fingerprint(files: Iterable[tuple[str, int, Iterable[bytes | memoryview]]]) -> Fingerprint:
    """Return the fingerprint of safetensors files, each given by name, size and its bytes in order.

    Raises:
        InvalidInput: None of them holds a tensor that could be told from others.
    """
    seen: list[ProtectedFile] = []
    tensors: list[ProtectedTensor] = []
    for name, size, chunks in files:
        whole = Hasher("blake3")
        tensors.extend(_take_tensors(size, _hashed(chunks, whole)))
        seen.append(ProtectedFile(name, size, whole.digest().hex()))
    if not tensors:
        raise InvalidInput("expected safetensors files with at least one tensor of other than trivial data")
    return Fingerprint(FINGERPRINT_FORMAT, tuple(seen), tuple(tensors))


def _hashed(chunks: Iterable[bytes | memoryview], hasher: Hasher) -> Iterator[bytes | memoryview]:
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk


def _take_tensors(size: int, chunks: Iterable[bytes | memoryview]) -> Iterator[ProtectedTensor]:
    stream, current = TensorStream(size), _Sample()
    for chunk in chunks:
        for tensor, part in stream.feed(chunk):
            current.feed(part)
            if current.size == tensor.end - tensor.start:
                if current.size >= MIN_TENSOR and current.values.sum() >= MIN_VALUES:
                    yield current.finish(tensor.name)
                current = _Sample()


class _Sample:
    """What is gathered of one tensor while it goes by."""

    def __init__(self) -> None:
        self.size = 0
        self.values = np.zeros(256, bool)
        self._hash = Hasher("blake3")
        self._windows = WindowStream()
        self._kept: list[bytes] = []

    def feed(self, part: memoryview) -> None:
        self.size += len(part)
        self._hash.update(part)
        self.values[np.frombuffer(part, np.uint8)] = True
        new = {window_digest(w) for w in self._windows.feed(part) if len(set(w)) >= MIN_VALUES}
        self._kept = heapq.nsmallest(WINDOWS_A_TENSOR, new.union(self._kept))

    def finish(self, name: str) -> ProtectedTensor:
        windows = tuple(digest.hex() for digest in sorted(self._kept))
        return ProtectedTensor(name, self.size, self._hash.digest().hex(), windows)
