"""FLOE: fast lightweight online encryption with random access.

Source: C2SP FLOE (c2sp.org/FLOE); "Random-Access AEAD for Fast Lightweight Online Encryption", ePrint 2025/2275. The
instance is AES-256-GCM with HKDF-Expand-SHA384, 32-byte stream nonces and key rotation each 2^20 segments; only the
length of an encrypted segment varies.

A stream is a 74-byte header and numbered segments. Whether a segment is the last one comes from the caller, who knows
the stream's true length; the marker inside the segment is only compared with it. FLOE would lose its commitment if
whoever supplies the bytes could also choose position or finality.
"""

import hmac
import threading
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stanch.crypto.kdf import hkdf_expand_sha384
from stanch.crypto.prf import RandomBytes, random_bytes
from stanch.errors import DecryptionFailed, InvalidInput

ReadBuffer: TypeAlias = bytes | bytearray | memoryview

HEADER_SIZE = 74
SEGMENT_OVERHEAD = 32  # length 4, nonce 12, tag 16
_KEY_SIZE = 32
_NONCE_SIZE = 12
_IV_SIZE = 32
_PARAMS_SIZE = 10
_PREFIX = 4 + _NONCE_SIZE
_ROTATION_BITS = 20
_MAX_SEGMENTS = 1 << 40
_NOT_LAST = b"\xff\xff\xff\xff"


def decryption_failed() -> DecryptionFailed:
    """Return the one error of every failure after a key came into use: it never says which part failed."""
    return DecryptionFailed(
        "the data does not decrypt with this key",
        why="it was changed, or it was made for another key",
        next_step="fetch the data again, or use the identity that it was made for",
    )


class _Schedule:
    """The key schedule of one stream: header tag, message key and rotating segment keys."""

    def __init__(
        self, key: bytes, aad: bytes, iv: bytes, segment_size: int, rotation_bits: int = _ROTATION_BITS
    ) -> None:
        if len(key) != _KEY_SIZE:
            raise InvalidInput(f"FLOE key: expected {_KEY_SIZE} bytes, found {len(key)}")
        self.segment_size = segment_size
        self._aad = aad
        self._iv = iv
        self._params = _params(segment_size)
        self._rotation_bits = rotation_bits
        self.header = self._params + iv + self._derive(key, b"HEADER_TAG:", 32)
        self._message_key = self._derive(key, b"MESSAGE_KEY:", 48)
        self._cached: tuple[int, AESGCM] | None = None

    def _derive(self, key: bytes, purpose: bytes, length: int) -> bytes:
        return hkdf_expand_sha384(key, info=self._params + self._iv + purpose + self._aad, length=length)

    def segment_key(self, position: int) -> bytes:
        """Return the AEAD key of the segment at ``position``."""
        masked = position >> self._rotation_bits << self._rotation_bits
        return self._derive(self._message_key, b"DEK:" + masked.to_bytes(8, "big"), _KEY_SIZE)

    def aead(self, position: int) -> AESGCM:
        """Return the AEAD for ``position``; safe to call from several threads."""
        masked = position >> self._rotation_bits
        cached = self._cached
        if cached is None or cached[0] != masked:
            # Two threads may both derive; each stores an equal pair, so the race is harmless.
            cached = (masked, AESGCM(self.segment_key(position)))
            self._cached = cached
        return cached[1]


def _params(segment_size: int) -> bytes:
    """Return the ten PARAMS bytes: AEAD 0, KDF 0, encrypted segment length, stream nonce length."""
    if not SEGMENT_OVERHEAD < segment_size < 0xFFFFFFFF:
        raise InvalidInput(f"FLOE segment length: expected 33 to 2^32 - 2, found {segment_size}")
    return b"\x00\x00" + segment_size.to_bytes(4, "big") + _IV_SIZE.to_bytes(4, "big")


def _segment_aad(position: int, *, final: bool) -> bytes:
    if not 0 <= position < _MAX_SEGMENTS:
        raise InvalidInput(f"FLOE position: expected 0 to 2^40 - 1, found {position}")
    return position.to_bytes(8, "big") + (b"\x01" if final else b"\x00")


class FloeEncryptor:
    """Encrypts one stream, each position once, in any order and from several threads. Made by :meth:`Floe.encryptor`.

    Attributes:
        header: The 74 bytes that open the stream.
    """

    def __init__(self, schedule: _Schedule, rng: RandomBytes) -> None:
        self.header = schedule.header
        self._schedule = schedule
        self._rng = rng
        self._lock = threading.Lock()
        self._used: set[int] = set()
        self._last: int | None = None

    def segment_into(self, plaintext: ReadBuffer, position: int, final: bool, out: memoryview) -> int:  # noqa: FBT001 - the format's own argument
        """Encrypt one segment into the start of ``out`` and return its length in bytes.

        Args:
            plaintext: Exactly the segment length less 32 bytes, or at most that for the last segment.
            position: The segment's number, from 0.
            final: Whether this is the last segment.
            out: Writable bytes, at least ``len(plaintext) + 32``.

        Raises:
            InvalidInput: A position used twice or after the last one, or a wrong length; nothing was encrypted.
        """
        room = self._schedule.segment_size - SEGMENT_OVERHEAD
        length = len(plaintext) + SEGMENT_OVERHEAD
        if len(plaintext) > room or (len(plaintext) < room and not final):
            raise InvalidInput(f"FLOE segment {position}: expected {room} plaintext bytes, found {len(plaintext)}")
        if len(out) < length:
            raise InvalidInput(f"FLOE segment {position}: expected {length} bytes of output room, found {len(out)}")
        aad = _segment_aad(position, final=final)
        self._claim(position, final=final)
        nonce = self._rng(_NONCE_SIZE)
        out[:4] = length.to_bytes(4, "big") if final else _NOT_LAST
        out[4:_PREFIX] = nonce
        self._schedule.aead(position).encrypt_into(nonce, plaintext, aad, out[_PREFIX:length])
        return length

    def _claim(self, position: int, *, final: bool) -> None:
        with self._lock:
            if position in self._used:
                raise InvalidInput(f"FLOE segment {position}: this position was encrypted before")
            if self._last is not None and (final or position > self._last):
                raise InvalidInput(f"FLOE segment {position}: the stream ended at position {self._last}")
            if final and any(used > position for used in self._used):
                raise InvalidInput(f"FLOE segment {position}: later positions were encrypted before")
            self._used.add(position)
            if final:
                self._last = position


class FloeDecryptor:
    """Decrypts the segments of one stream in any order and from several threads. Made by :meth:`Floe.decryptor`."""

    def __init__(self, schedule: _Schedule) -> None:
        self._schedule = schedule

    def segment_into(self, segment: ReadBuffer, position: int, final: bool, out: memoryview) -> int:  # noqa: FBT001 - the format's own argument
        """Decrypt one segment into the start of ``out`` and return the plaintext's length in bytes.

        Args:
            segment: The encrypted segment, with its length field and nonce.
            position: The segment's number, from 0.
            final: Whether this is the last segment, as the stream's signed length says; never taken from ``segment``.
            out: Writable bytes, at least ``len(segment) - 32``.

        Raises:
            DecryptionFailed: The segment is not what was encrypted at this place. ``out`` holds zeros where the
                plaintext would have been.
            InvalidInput: ``out`` is too small or the position is out of range; nothing was decrypted.
        """
        aad = _segment_aad(position, final=final)
        length = max(len(segment) - SEGMENT_OVERHEAD, 0)
        if len(out) < length:
            raise InvalidInput(f"FLOE segment {position}: expected {length} bytes of output room, found {len(out)}")
        target = out[:length]
        try:
            self._decrypt(memoryview(segment), position, aad, target, final=final)
        except InvalidTag:
            # AES-GCM writes plaintext before it has checked the tag; nobody may see those bytes.
            target[:] = bytes(length)
            raise decryption_failed() from None
        return length

    def _decrypt(self, segment: memoryview, position: int, aad: bytes, target: memoryview, *, final: bool) -> None:
        size = self._schedule.segment_size
        if not (SEGMENT_OVERHEAD <= len(segment) <= size if final else len(segment) == size):
            raise InvalidTag
        if segment[:4] != (len(segment).to_bytes(4, "big") if final else _NOT_LAST):
            raise InvalidTag
        self._schedule.aead(position).decrypt_into(segment[4:_PREFIX], segment[_PREFIX:], aad, target)


class Floe:
    """The two ends of a FLOE stream under one key."""

    @staticmethod
    def encryptor(key: bytes, aad: bytes, *, seg: int = 1 << 20, rng: RandomBytes = random_bytes) -> FloeEncryptor:
        """Begin a new stream.

        Args:
            key: 32 bytes.
            aad: Associated data of the whole stream.
            seg: Length of an encrypted segment in bytes.
            rng: Source of the stream nonce and of the segment nonces.
        """
        return FloeEncryptor(_Schedule(key, aad, rng(_IV_SIZE), seg), rng)

    @staticmethod
    def decryptor(key: bytes, aad: bytes, header: ReadBuffer, *, seg: int = 1 << 20) -> FloeDecryptor:
        """Open a stream by its 74-byte header.

        Raises:
            DecryptionFailed: The header is not one of this key, associated data and segment length.
        """
        return _decryptor(key, aad, header, seg, _ROTATION_BITS)


def _decryptor(key: bytes, aad: bytes, header: ReadBuffer, seg: int, rotation_bits: int) -> FloeDecryptor:
    """Open a stream with any rotation mask; the published vectors need a small one, nothing else may choose it."""
    given = bytes(header)
    if len(given) != HEADER_SIZE or given[:_PARAMS_SIZE] != _params(seg):
        raise decryption_failed()
    schedule = _Schedule(key, aad, given[_PARAMS_SIZE : _PARAMS_SIZE + _IV_SIZE], seg, rotation_bits)
    if not hmac.compare_digest(schedule.header, given):
        raise decryption_failed()
    return FloeDecryptor(schedule)
