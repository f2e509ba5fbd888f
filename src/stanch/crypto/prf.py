"""AES-256 as a pseudo-random function: seekable key streams and a block permutation. Not for encrypting data."""

import os
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

RandomBytes = Callable[[int], bytes]

# Encrypted again and again; more of them would drive what they are encrypted into out of the processor's cache.
_ZEROS = memoryview(bytes(1 << 16))


def random_bytes(count: int) -> bytes:
    """Return ``count`` bytes from the operating system's generator."""
    return os.urandom(count)


class KeyStream:
    """An AES-256-CTR key stream. Not to be shared between threads."""

    def __init__(self, key: bytes, counter: bytes) -> None:
        """Stand at the 16-byte big-endian ``counter`` block of the stream of a 32-byte key (NIST SP 800-38A, 6.5)."""
        self._cipher = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()

    def seek(self, counter: bytes) -> None:
        """Go to another counter block: in a tenth of the time that a new stream takes."""
        self._cipher.reset_nonce(counter)

    def fill(self, out: bytearray | memoryview) -> None:
        """Fill ``out`` with the next bytes, which follow those of the last call without a gap."""
        view = memoryview(out).cast("B")
        for start in range(0, len(view), len(_ZEROS)):
            part = view[start : start + len(_ZEROS)]
            self._cipher.update_into(_ZEROS[: len(part)], part)


def aes_ctr_into(key: bytes, counter: bytes, out: bytearray | memoryview) -> None:
    """Fill ``out`` with the start of a :class:`KeyStream`."""
    KeyStream(key, counter).fill(out)


def block_prf(key: bytes) -> Callable[[bytes | memoryview], bytes]:
    """Return AES-256 under ``key`` as a function of whole 16-byte blocks: a keyed permutation of each (FIPS 197).

    For many short calls: the key schedule is made once. Not to be shared between threads.
    """
    # ECB is right here: the blocks are distinct counters or fingerprints, and a permutation is what is wanted.
    return Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update  # noqa: S305 - see above


def aes_ecb_blocks(key: bytes, blocks: bytes | bytearray | memoryview) -> bytes:
    """Apply AES-256 under ``key`` to each 16-byte block: :func:`block_prf` for a single call."""
    return block_prf(key)(bytes(blocks))
