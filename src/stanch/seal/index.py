"""The sealed index: stream 0 of a bundle, which names the files and says which streams hold them."""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from stanch.crypto import canonical_json, parse_json
from stanch.errors import InvalidInput
from stanch.seal.layout import MAX_INDEX, cut, cut_safetensors
from stanch.seal.manifest import Hex32, Natural, StreamEntry
from stanch.weights import MAX_HEADER_BYTES, check_paths

INDEX_FORMAT: Final = "stanch/sealed-index/v1"
_WHAT = "sealed index"


class IndexFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file: its streams in order, its plaintext digests, and for safetensors the number of the head stream."""

    path: str
    size: Natural
    streams: tuple[Natural, ...]
    blake3: Hex32
    sha256: Hex32 | None
    type: Literal["safetensors", "file"]
    head: Natural | None


class SealedIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The index; ``oms`` is the publisher's signature bundle over the plaintext directory, if there is one."""

    format: Literal["stanch/sealed-index/v1"]
    files: tuple[IndexFile, ...]
    oms: Any
    notes: dict[str, str]

    def to_bytes(self) -> bytes:
        """Return the canonical JSON of the index."""
        return canonical_json(msgspec.to_builtins(self))


def parse_index(data: bytes, streams: Sequence[StreamEntry]) -> SealedIndex:
    """Read the index and check it against the streams of the signed manifest.

    Raises:
        InvalidInput: A rule is broken: canonical form, paths, every body stream used once and in order, and sizes that
            are the ones the format cuts.
    """
    document = parse_json(data, what=_WHAT, max_bytes=MAX_INDEX)
    try:
        index = msgspec.convert(document, SealedIndex)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{_WHAT}: {error}") from error
    if index.to_bytes() != data:
        raise InvalidInput(f"{_WHAT}: expected canonical JSON (RFC 8785)")
    paths = [file.path for file in index.files]
    check_paths(paths)
    if paths != sorted(paths, key=lambda path: path.encode()):
        raise InvalidInput(f"{_WHAT}: expected the files sorted by the bytes of their paths")
    used = [number for file in index.files for number in file.streams]
    if used != list(range(1, len(streams))):
        raise InvalidInput(f"{_WHAT}: expected every body stream once and in order")
    for file in index.files:
        _check_file(file, [streams[number].size for number in file.streams])
    return index


def _check_file(file: IndexFile, sizes: Sequence[int]) -> None:
    if file.type == "file":
        fits = file.head is None and tuple(sizes) == cut(file.size)
    else:
        head = sizes[0] if sizes else 0
        fits = (
            8 <= head <= min(8 + MAX_HEADER_BYTES, file.size)
            and file.head == file.streams[0]
            and tuple(sizes) == cut_safetensors(file.size, head)
        )
    if not fits:
        raise InvalidInput(f"{_WHAT}: the streams of {file.path[:80]!r} are not as the format cuts {file.size} bytes")
