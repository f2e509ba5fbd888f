"""The keys of text watermarks: one root secret, and thirty numbers a tenant derived from it.

SynthID's hash, as transformers has it, looks its result up in a table of 65,536 bits, so only a key's lowest 16 bits
matter. They are uniform and independent here: that is all the bound in :mod:`stanch.trace.text_scores` rests on.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from stanch.crypto import RandomBytes, frame, hkdf_sha256, random_bytes, read_private, write_private
from stanch.errors import InvalidInput
from stanch.mark.keys import text

DEPTH = 30
_SIZE = 32
_HEADER = b"stanch/text-root/v1\n"


@dataclass(frozen=True, slots=True)
class TextRoot:
    """The secret from which every tenant's keys follow: 32 random bytes."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != _SIZE:
            raise InvalidInput(f"text root: expected {_SIZE} bytes, found {len(self.secret)}")

    @classmethod
    def generate(cls, rng: RandomBytes = random_bytes) -> Self:
        """Draw a new root."""
        return cls(rng(_SIZE))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a root from a file that only its owner can read."""
        data = read_private(path)
        if not data.startswith(_HEADER):
            raise InvalidInput(f"{path.name}: not a text root file")
        return cls(data[len(_HEADER) :])

    def save(self, path: Path) -> None:
        """Write the root to a new file with mode 0600."""
        write_private(path, _HEADER + self.secret)

    def keys(self, tenant: str) -> tuple[int, ...]:
        """Return a tenant's keys: HKDF-SHA256, read as 30 numbers of 31 bits.

        Raises:
            InvalidInput: The name is empty, longer than 256 bytes, or not printable.
        """
        words = np.frombuffer(self._derive(b"stanch/text/v1/tenant", tenant, 4 * DEPTH), ">u4")
        return tuple(int(word) & 0x7FFFFFFF for word in words)

    def key_id(self, tenant: str) -> str:
        """Return what a tenant's keys are called, 16 hexadecimal digits that tell nothing of them.

        Raises:
            InvalidInput: As :meth:`keys`.
        """
        return self._derive(b"stanch/text/v1/key-id", tenant, 8).hex()

    def order_key(self) -> bytes:
        """Return the key of orders to write under a tenant's keys (:mod:`stanch.trace.text_order`)."""
        return hkdf_sha256(self.secret, info=frame(b"stanch/text/v1/order"), length=_SIZE)

    def _derive(self, label: bytes, tenant: str, length: int) -> bytes:
        if not tenant or len(tenant.encode()) > 256 or not tenant.isprintable():
            raise InvalidInput("tenant: expected a printable name of 1 to 256 bytes")
        return hkdf_sha256(self.secret, info=frame(label, text(tenant)), length=length)
