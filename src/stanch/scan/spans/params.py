"""Parameters of a span index, and three choices of them."""

from dataclasses import dataclass

from stanch.errors import InvalidInput

_SHORTEST_WINDOW, _LONGEST_WINDOW = 32, 1024


@dataclass(frozen=True, slots=True)
class IndexParams:
    """Window length ``k`` and ``stride`` in folded bytes, filter ``bits`` per window, and what counts as boilerplate.

    A copied span gives at least one hit from ``k + stride - 1`` folded bytes on, and a chain from ``k + 2·stride - 1``.
    Windows that stand in more than ``boilerplate_after`` different texts are left out, and not protected then; None
    keeps them all.

    Raises:
        InvalidInput: A value out of range; windows below 32 bytes could be guessed by whoever holds the key.
    """

    k: int
    stride: int
    bits: int
    boilerplate_after: int | None = None

    def __post_init__(self) -> None:
        if not _SHORTEST_WINDOW <= self.k <= _LONGEST_WINDOW:
            raise InvalidInput(f"span index: k is {self.k}, expected {_SHORTEST_WINDOW} to {_LONGEST_WINDOW}")
        if not 1 <= self.stride <= self.k:
            raise InvalidInput(f"span index: stride is {self.stride}, expected 1 to k = {self.k}")
        if not 8 <= self.bits <= 64:
            raise InvalidInput(f"span index: {self.bits} bits per window, expected 8 to 64")
        if self.boilerplate_after is not None and self.boilerplate_after < 1:
            raise InvalidInput("span index: boilerplate_after must be at least 1, or None")


# At 17 bits a window, STANDARD takes 85 MB for 1 GB of text, plus at most two bytes a text for its last window. A
# random window is a hit with probability 6.5e-4, and an independent text of a million characters holds 0.4 chains and
# 0.2 crowds of five by chance. Windows of 32 bytes are the shortest that are allowed: with one word in ten changed,
# copies of 380 characters are still found (0.97), which windows of 50 bytes at the same size do not reach (0.88).
COMPACT = IndexParams(50, 50, 17)
STANDARD = IndexParams(32, 25, 17)
FINE = IndexParams(32, 16, 17)
