"""What the parts of one index share, so that their filters can be joined: the salt and the size."""

import math
from dataclasses import dataclass, field

from stanch.crypto import RandomBytes, random_bytes
from stanch.errors import InvalidInput
from stanch.scan.spans.bloom import block_count
from stanch.scan.spans.params import IndexParams

SALT_SIZE = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """Salt and number of filter blocks of an index.

    Raises:
        InvalidInput: The salt has not 16 bytes, or the number of blocks is not in [1, 2^32).
    """

    salt: bytes = field(repr=False)
    blocks: int

    def __post_init__(self) -> None:
        if len(self.salt) != SALT_SIZE or not 1 <= self.blocks < 2**32:
            raise InvalidInput(f"span index: expected a salt of {SALT_SIZE} bytes and 1 to 2^32 - 1 blocks")

    @classmethod
    def for_chars(cls, chars: int, params: IndexParams, *, random: RandomBytes = random_bytes) -> "Layout":
        """Return a layout with room for all windows of texts of ``chars`` folded bytes together.

        A text of n bytes has at most (n - k) / stride + 2 windows, and none below k: one for min(stride, (k + 1) / 2)
        bytes at most.

        Raises:
            InvalidInput: The filter would have 2^32 blocks or more.
        """
        windows = math.ceil(chars * max(1 / params.stride, 2 / (params.k + 1)))
        return cls(random(SALT_SIZE), block_count(windows, params.bits))

    def blocks_for(self, keys: int, bits: int) -> int:
        """Return the blocks if they have room for so many windows.

        Raises:
            InvalidInput: They have not: hits by chance would be more than the parameters promise.
        """
        if block_count(keys, bits) > self.blocks:
            raise InvalidInput(
                f"span index: {keys} windows need more than the {self.blocks} blocks of the layout",
                next_step="make the layout for more characters, and build all parts again",
            )
        return self.blocks
