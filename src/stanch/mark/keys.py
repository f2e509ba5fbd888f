"""The keys of a mark: one root secret a release, and everything derived from it.

Every derivation binds the original's digest, and every stream the layout and the beacon: the first checkpoint of the
log that contains the commitment. So a key that was committed to says nothing about a model until the beacon exists,
and the owner cannot search for a key that fits a model already seen.
"""

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from stanch.crypto import RandomBytes, frame, hmac_sha256, random_bytes, read_private, write_private
from stanch.errors import InvalidInput
from stanch.terms import Digest

KEY_SIZE = 32
_ROOT_HEADER = b"stanch/mark-root/v1\n"
_MAX_ID_BYTES = 256


@dataclass(frozen=True, slots=True)
class RecipientSlot:
    """A recipient who will get a copy.

    Attributes:
        id: The recipient's name, unique in its batch.
        contribution: Empty, or 32 bytes that the recipient chose. The owner alone cannot choose the key where the root
            was fixed before these were known; no command takes them, and no opened leaf shows that they went in.
    """

    id: str
    contribution: bytes = b""

    def __post_init__(self) -> None:
        if len(self.contribution) not in {0, KEY_SIZE}:
            raise InvalidInput(f"recipient {self.id!r}: expected a contribution of 0 or 32 bytes")
        if not self.id or len(self.id.encode()) > _MAX_ID_BYTES or not self.id.isprintable():
            raise InvalidInput("recipient: expected a printable name of 1 to 256 bytes")
        if self.id.startswith(("*", "decoy:")):
            raise InvalidInput(f"recipient {self.id!r}: names that start with '*' or 'decoy:' are reserved")


@dataclass(frozen=True, slots=True)
class MarkRoot:
    """The root secret of a release: 32 random bytes, bound to one original."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_SIZE:
            raise InvalidInput(f"mark root: expected 32 bytes, found {len(self.secret)}")

    @classmethod
    def generate(cls, rng: RandomBytes = random_bytes) -> Self:
        """Draw a new root."""
        return cls(rng(KEY_SIZE))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a root from a file that only its owner can read."""
        data = read_private(path)
        if not data.startswith(_ROOT_HEADER):
            raise InvalidInput(f"{path.name}: not a mark root file")
        return cls(data[len(_ROOT_HEADER) :])

    def save(self, path: Path) -> None:
        """Write the root to a new file with mode 0600."""
        write_private(path, _ROOT_HEADER + self.secret)

    def recipient_subkey(self, original: Digest, batch: int, slot: RecipientSlot) -> bytes:
        """Return the subkey of a recipient."""
        return self._derive("recipient", original.value, u32(batch), text(slot.id), slot.contribution)

    def release_subkey(self, original: Digest) -> bytes:
        """Return the subkey of the ownership mark, one for all recipients."""
        return self._derive("release", original.value)

    def decoy_subkey(self, original: Digest, batch: int, number: int) -> bytes:
        """Return the subkey of a decoy: a leaf that is committed to and never issued."""
        return self._derive("decoy", original.value, u32(batch), u32(number))

    def shuffle_key(self, original: Digest, batch: int) -> bytes:
        """Return the key of a batch's leaf order."""
        return self._derive("shuffle", original.value, u32(batch))

    def leaf_salt(self, original: Digest, batch: int, leaf: int) -> bytes:
        """Return the salt that hides a leaf until it is opened."""
        return self._derive("salt", original.value, u32(batch), u32(leaf))

    def strata_key(self, original: Digest, beacon: bytes) -> bytes:
        """Return the key that chooses the coordinates of keyed strata."""
        return self._derive("strata", original.value, beacon)

    def _derive(self, purpose: str, *fields: bytes) -> bytes:
        return hmac_sha256(self.secret, frame(f"stanch/mark/v1/{purpose}".encode(), *fields))


def stream_key(subkey: bytes, beacon: bytes, layout_digest: bytes) -> bytes:
    """Return the AES-256 key of a subkey's values.

    Args:
        subkey: Of a recipient, the release or a decoy.
        beacon: SHA-256 of the text of the log's first checkpoint whose tree contains the batch's commitment entry.
        layout_digest: :attr:`stanch.mark.layout.Layout.digest`.
    """
    if len(beacon) != KEY_SIZE:
        raise InvalidInput(f"beacon: expected the 32 bytes of a SHA-256, found {len(beacon)}")
    return hmac_sha256(subkey, frame(b"stanch/mark/v1/stream", beacon, layout_digest))


def u32(number: int) -> bytes:
    """Return an integer field: four bytes, big-endian."""
    if not 0 <= number < 2**32:
        raise InvalidInput(f"expected a number below 2^32, found {number}")
    return number.to_bytes(4, "big")


def text(value: str) -> bytes:
    """Return a text field: UTF-8 of its NFC form."""
    return unicodedata.normalize("NFC", value).encode()


@dataclass(frozen=True, slots=True)
class CopyKey:
    """What marks one recipient's copy, and finds it again.

    Attributes:
        recipient: The recipient's name.
        batch: Its batch.
        leaf: Its leaf in the batch's commitment.
        alpha: Strength that was committed to.
        original: Digest of the original.
        layout_digest: Digest of the layout the streams belong to.
        stream: Key of the recipient's values.
        release_stream: Key of the ownership mark's values.
    """

    recipient: str
    batch: int
    leaf: int
    alpha: float
    original: Digest
    layout_digest: bytes
    stream: bytes = field(repr=False)
    release_stream: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class MarkKeys:
    """All keys that detection scores: every issued copy, the ownership mark, and decoys that were never issued.

    Attributes:
        copies: One key a recipient, all with the same original, layout and strength.
        decoys: Streams of the decoys.
        release_stream: Stream of the ownership mark.
        strata_key: Chooses the coordinates on which decoys are scored.
    """

    copies: tuple[CopyKey, ...]
    decoys: tuple[bytes, ...] = field(repr=False)
    release_stream: bytes = field(repr=False)
    strata_key: bytes = field(repr=False)
