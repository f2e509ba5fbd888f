"""The seam between the search and the library that runs it: anchors in, the places where they end out.

Nothing else crosses it. Every engine reports the same hits: each end of each anchor, once, in order, and for a stream
the same as for the whole text, however it is cut. In a stream, an anchor that has a ``trail`` is reported with the byte
right of it, or when the stream is closed. What is searched is folded text, and so UTF-8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Hit: TypeAlias = tuple[int, int]
"""(end offset of the anchor, index of its pattern)."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """An anchor for the engine, in the language of :mod:`stanch.scan.anchor`; ASCII case may not count.

    No byte of ``lead`` may stand left of it and none of ``trail`` right of it; both ends of a text are neither.
    """

    name: str
    expression: bytes
    caseless: bool
    lead: bytes = b""
    trail: bytes = b""


class EngineStream(Protocol):
    """One text that arrives in pieces; offsets count from its first byte. One caller at a time."""

    def feed(self, data: bytes) -> list[Hit]:
        """Take the next bytes and return the hits that they decide, sorted by end."""
        ...

    def close(self) -> list[Hit]:
        """End the text, return the hits that its end decides, and free what the stream holds."""
        ...


class Engine(Protocol):
    """Compiled anchors. Safe to use from several threads."""

    name: str

    def scan(self, data: bytes) -> list[Hit]:
        """Return all hits in one block, sorted by end."""
        ...

    def open_stream(self) -> EngineStream:
        """Start a stream."""
        ...


class EngineMaker(Protocol):
    """What compiles patterns: the class of an engine."""

    def __call__(self, patterns: Sequence[Pattern], *, cached: bool) -> Engine:
        """Compile the patterns.

        Args:
            patterns: The anchors; their place in the sequence is the index in a hit.
            cached: Whether the compiled form may be kept on disk. Never for patterns that are themselves secret.

        Raises:
            InvalidInput: A pattern does not compile; it is named.
        """
        ...
