"""AES-256 as a pseudo-random function: seekable key streams and a block permutation. Not for encrypting data."""

import os
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

RandomBytes = Callable[[int], bytes]


def random_bytes(count: int) -> bytes:
    """Return ``count`` bytes from the operating system's generator."""
    return os.urandom(count)


def aes_ctr_into(key: bytes, counter: bytes, out: bytearray | memoryview) -> None:
    """Fill ``out`` with the AES-256-CTR key stream that starts at the 16-byte big-endian counter block ``counter``.

    Source: NIST SP 800-38A, section 6.5. The same (key, counter) always gives the same bytes.
    """
    view = memoryview(out).cast("B")
    Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor().update_into(bytes(len(view)), view)


def block_prf(key: bytes) -> Callable[[bytes], bytes]:
    """Return AES-256 under ``key`` as a function of whole 16-byte blocks: a keyed permutation of each (FIPS 197).

    For many short calls: the key schedule is made once. Not to be shared between threads.
    """
    # ECB is right here: the blocks are distinct counters or fingerprints, and a permutation is what is wanted.
    return Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update  # noqa: S305 - see above


def aes_ecb_blocks(key: bytes, blocks: bytes | bytearray | memoryview) -> bytes:
    """Apply AES-256 under ``key`` to each 16-byte block: :func:`block_prf` for a single call."""
    return block_prf(key)(bytes(blocks))
