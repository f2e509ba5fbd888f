"""The parts of a pass that are done, on disk: a pass that was killed goes on where it stopped.

The file is a header and one frame for each finished part, each under a MAC whose key only the holder of the policy's
report key has. A frame counts once it is durable; a torn one at the end is cut off.
"""

import fcntl
import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stanch.crypto import canonical_json, hkdf_sha256, hmac_sha256, sync_folder
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

_MAGIC = b"stanch/pass/v2\n"
_MAC = 32
_HEAD = 16


class PassFile:
    """Finished parts by their number. One process has the file open."""

    def __init__(self, descriptor: int, key: bytes, start: int) -> None:
        self._file = descriptor
        self._key = key
        self._places: dict[int, tuple[int, int]] = {}
        self._end = start
        self._recover()

    @classmethod
    @contextmanager
    def open(cls, path: Path, about: dict[str, JsonValue], *, key: bytes, anew: bool = False) -> Iterator["PassFile"]:
        """Open the file of a pass, or begin one (mode 0600).

        Args:
            path: The file.
            about: Whatever decides on the results: source, parts, policy.
            key: A secret of 32 bytes that the results depend on.
            anew: Whether the file of another pass is overwritten.

        Raises:
            InvalidInput: The file belongs to another pass, is in use, or cannot be written.
        """
        key = hkdf_sha256(key, info=b"stanch/pass/v2", length=32)
        header = _MAGIC + hmac_sha256(key, canonical_json(about))
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise InvalidInput(
                f"cannot write {path}", why=error.strerror or "", next_step="check the folder"
            ) from error
        try:
            _lock(descriptor, path)
            found = os.pread(descriptor, len(header), 0)
            if anew and found != header:
                os.ftruncate(descriptor, 0)
                found = b""
            if not header.startswith(found) and not hmac.compare_digest(found, header):
                raise InvalidInput(
                    f"{path}: holds another pass",
                    why="the data, the policy or the key differ from those it was begun with",
                    next_step="finish that pass, or remove the file and begin anew",
                )
            if found != header:
                _write(descriptor, header, 0)
                sync_folder(path.parent)
            yield cls(descriptor, key, len(header))
        finally:
            os.close(descriptor)

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def add(self, number: int, body: bytes) -> None:
        """Make the result of part ``number`` durable."""
        head = _head(number, len(body))
        _write(self._file, head + self._mac(head, body) + body, self._end)
        self._places[number] = (self._end, len(body))
        self._end += _HEAD + _MAC + len(body)

    def read(self, number: int) -> bytes:
        """Return the result of part ``number``.

        Raises:
            InvalidInput: The file was changed since.
        """
        start, size = self._places[number]
        head, mac, body = self._frame(start, size)
        if head != _head(number, size) or not hmac.compare_digest(mac, self._mac(head, body)):
            raise InvalidInput("the file of the pass was changed while it was in use")
        return body

    def _recover(self) -> None:
        whole = os.fstat(self._file).st_size
        while self._end + _HEAD + _MAC <= whole:
            head = os.pread(self._file, _HEAD, self._end)
            number, size = int.from_bytes(head[:8], "little"), int.from_bytes(head[8:], "little")
            if self._end + _HEAD + _MAC + size > whole:
                break
            head, mac, body = self._frame(self._end, size)
            if not hmac.compare_digest(mac, self._mac(head, body)):
                break
            self._places[number] = (self._end, size)
            self._end += _HEAD + _MAC + size
        os.ftruncate(self._file, self._end)

    def _frame(self, start: int, size: int) -> tuple[bytes, bytes, bytes]:
        data = os.pread(self._file, _HEAD + _MAC + size, start)
        return data[:_HEAD], data[_HEAD : _HEAD + _MAC], data[_HEAD + _MAC :]

    def _mac(self, head: bytes, body: bytes) -> bytes:
        return hmac_sha256(self._key, head + body)


def _head(number: int, size: int) -> bytes:
    return number.to_bytes(8, "little") + size.to_bytes(8, "little")


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InvalidInput(
            f"{path}: another process is at this pass",
            why="two that write one file would mix up its parts",
            next_step="wait until it has ended, or write to another file",
        ) from error


def _write(descriptor: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, start)
        view, start = view[written:], start + written
    os.fsync(descriptor)
