"""The seam between the search and the library that runs it: anchors in, the places where they end out.

Nothing else crosses it. Every engine reports the same hits: each end of each anchor, once, in order, and for a stream
the same as for the whole text, however it is cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Hit: TypeAlias = tuple[int, int]
"""(end offset of the anchor, index of its pattern)."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """An anchor for the engine, in the language of :mod:`stanch.scan.anchor`; ASCII case may not count."""

    name: str
    expression: bytes
    caseless: bool


class EngineStream(Protocol):
    """One text that arrives in pieces; offsets count from its first byte. One caller at a time."""

    def feed(self, data: bytes) -> list[Hit]:
        """Take the next bytes and return the hits that end in them, sorted by end."""
        ...

    def close(self) -> None:
        """Free what the stream holds; feeding ends here."""
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
