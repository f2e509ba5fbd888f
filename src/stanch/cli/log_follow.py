"""Standard output as a reader takes it: a line counts once its last byte was taken out of the pipe."""

import array
import fcntl
import os
import select
import signal
import stat
import termios
import threading
import time
from collections import deque
from pathlib import Path

from stanch.crypto import write_atomic
from stanch.errors import InvalidInput

_POLL, _END_SECONDS = 0.2, 5.0
_MOST_LINES = 65_536
"""More than any pipe holds: it is a mebibyte at most, unless an administrator allows more."""


class Pipe:
    """Writes lines until it is told to end, or the reader goes away; SIGTERM and SIGINT tell it.

    Lines that lie in the pipe unread are lost when the reader ends. So the cursor stands at the first of them.

    Attributes:
        stop: Ends it when set.
    """

    def __init__(self, handle: int, start: int, cursor: Path | None, origin: str) -> None:
        """Begin.

        Args:
            handle: Where the lines go.
            start: Index of the first line.
            cursor: The file that remembers the next one.
            origin: The log's name, which stands in that file.
        """
        self.stop = threading.Event()
        self._handle, self._next, self._cursor, self._origin = handle, start, cursor, origin
        self._sent: deque[int] = deque(maxlen=_MOST_LINES)
        self._begun = 0
        self._is_pipe = stat.S_ISFIFO(os.fstat(handle).st_mode)
        self._gone = select.poll()
        self._gone.register(handle, 0)  # what is not asked for is told: that nobody reads any more

    def heed_signals(self) -> None:
        """End at SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())

    @property
    def next_start(self) -> int:
        """Index of the first line that the reader did not take."""
        unread, at = self._unread() - self._begun, self._next
        for length in reversed(self._sent):
            if unread <= 0:
                break
            at, unread = at - 1, unread - length
        return at

    def put(self, index: int, line: bytes) -> bool:
        """Write a line; False: told to end, or nobody reads. It waits for a slow reader, but not when told to end."""
        left = memoryview(line)
        while left:
            if not select.select([], [self._handle], [], _POLL)[1]:
                if self.stop.is_set():
                    return False
                continue
            try:
                written = os.write(self._handle, left[: select.PIPE_BUF])  # so much fits, and does not block
            except BrokenPipeError:
                self.stop.set()
                return False
            left, self._begun = left[written:], self._begun + written
        self._sent.append(len(line))
        self._next, self._begun = index + 1, 0
        return not self.stop.is_set()

    def rest(self, seconds: float) -> bool:
        """Remember how far the reader is, and wait; False: told to end, or nobody reads."""
        self.keep()
        if self._gone.poll(0):
            self.stop.set()
        return not self.stop.wait(seconds)

    def keep(self) -> None:
        """Write the cursor."""
        if self._cursor is not None:
            write_atomic(self._cursor, f"{self._origin} {self.next_start}\n".encode(), mode=0o600)

    def end(self) -> int:
        """Let the reader take what lies in the pipe, for five seconds; write the cursor and return where it stands."""
        until = time.monotonic() + _END_SECONDS
        while self._unread() and not self._gone.poll(0) and time.monotonic() < until:
            time.sleep(_POLL / 10)
        self.keep()
        return self.next_start

    def _unread(self) -> int:
        """Return how many bytes lie in the pipe; what went into a file or a socket has left."""
        if not self._is_pipe:
            return 0
        found = array.array("i", [0])
        fcntl.ioctl(self._handle, termios.FIONREAD, found)
        return found[0]


def read_cursor(path: Path, origin: str) -> int | None:
    """Return the index that a cursor's file names; None: there is no such file.

    Raises:
        InvalidInput: It cannot be read, is not such a file, or is of another log.
    """
    try:
        name, _, index = path.read_text("ascii").rstrip("\n").rpartition(" ")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read", why=str(error)[:120]) from error
    if not index.isascii() or not index.isdecimal():
        raise InvalidInput(f"{path}: expected a log's name and the index of an entry", next_step="choose a new file")
    if name != origin:
        raise InvalidInput(
            f"{path}: is of another log", why=f"expected {origin}, found {name[:80]}", next_step="choose a new file"
        )
    return int(index)
