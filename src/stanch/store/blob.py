"""What a blob store promises, and how keys look."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from stanch.errors import InvalidInput

Buffer: TypeAlias = bytes | bytearray | memoryview

# Stricter than an object store needs: a segment never starts with a dot, so no key names a temporary file, "." or "..".
_SEGMENT = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,127}")
_MAX_KEY = 512


@dataclass(frozen=True, slots=True)
class Match:
    """Replace only if the blob's present content still has this ``etag``."""

    etag: str


CREATE: Literal["create"] = "create"
REPLACE: Literal["replace"] = "replace"
PutMode: TypeAlias = Literal["create", "replace"] | Match


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A blob's key, its size in bytes and its ``etag``: equal exactly when the content is equal."""

    key: str
    size: int
    etag: str


class BlobStore(Protocol):
    """Named byte strings. A ``put`` that returned is durable; a reader sees a whole blob or none."""

    def put(self, key: str, data: Buffer | Iterable[Buffer], *, mode: PutMode) -> BlobInfo:
        """Store ``data`` under ``key``.

        Raises:
            Conflict: ``CREATE`` and the key exists, or ``Match`` and the content is another or absent.
            StoreError: The bytes could not be made durable; nothing was changed.
        """
        ...

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return the bytes from ``start``, at most ``length`` of them.

        Raises:
            NotFound: No such key.
        """
        ...

    def head(self, key: str) -> BlobInfo:
        """Return size and etag, or raise :class:`stanch.errors.NotFound`."""
        ...

    def list(self, prefix: str = "") -> Iterator[BlobInfo]:
        """Yield all blobs whose key starts with ``prefix``, in the order of their keys."""
        ...

    def delete(self, key: str) -> None:
        """Remove the blob durably, or raise :class:`stanch.errors.NotFound`."""
        ...


def check_key(key: str) -> tuple[str, ...]:
    """Return the segments of ``key``.

    Raises:
        InvalidInput: Longer than 512 bytes, or a segment is not ``[a-z0-9_-][a-z0-9._-]{0,127}``.
    """
    segments = tuple(key.split("/"))
    if len(key) > _MAX_KEY or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise InvalidInput(f"not a blob key: {key[:80]!r}", why="segments are [a-z0-9._-], 1 to 128, joined by /")
    return segments
