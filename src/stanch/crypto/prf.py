"""AES-256 as a pseudo-random function: seekable key streams and a block permutation. Not for encrypting data."""

import os
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

RandomBytes = Callable[[int], bytes]

_ZEROS = memoryview(bytes(1 << 18))


def random_bytes(count: int) -> bytes:
    """Return ``count`` bytes from the operating system's generator."""
    return os.urandom(count)


def key_stream(key: bytes, counter: bytes) -> Callable[[bytearray | memoryview], None]:
    """Return a function that fills one buffer after the other with an AES-256-CTR key stream, without gaps.

    Args:
        key: 32 bytes. The same (key, counter) always gives the same bytes. Not to be shared between threads.
        counter: The 16-byte big-endian counter block that the stream starts at (NIST SP 800-38A, section 6.5).
    """
    encrypt = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor().update_into

    def fill(out: bytearray | memoryview) -> None:
        view = memoryview(out).cast("B")
        for start in range(0, len(view), len(_ZEROS)):
            part = view[start : start + len(_ZEROS)]
            encrypt(_ZEROS[: len(part)], part)

    return fill


def aes_ctr_into(key: bytes, counter: bytes, out: bytearray | memoryview) -> None:
    """Fill ``out`` with the start of a :func:`key_stream`."""
    key_stream(key, counter)(out)


def block_prf(key: bytes) -> Callable[[bytes | memoryview], bytes]:
    """Return AES-256 under ``key`` as a function of whole 16-byte blocks: a keyed permutation of each (FIPS 197).

    For many short calls: the key schedule is made once. Not to be shared between threads.
    """
    # ECB is right here: the blocks are distinct counters or fingerprints, and a permutation is what is wanted.
    return Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update  # noqa: S305 - see above


def aes_ecb_blocks(key: bytes, blocks: bytes | bytearray | memoryview) -> bytes:
    """Apply AES-256 under ``key`` to each 16-byte block: :func:`block_prf` for a single call."""
    return block_prf(key)(bytes(blocks))
