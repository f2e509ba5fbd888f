"""Event streams, strictly: bytes in any pieces to events, and events to bytes. Sans-IO.

WHATWG HTML Standard, "Server-sent events", sections "Parsing an event stream" and "Interpreting an event stream". One
thing is stricter: bytes that are not UTF-8 end the stream, where a browser would show replacement characters.
"""

import re
from typing import NamedTuple

from stanch.gateway.problem import UpstreamProtocol

MAX_EVENT = 1 << 20
_ENDS = re.compile(rb"\r\n|\n|\r")
_USUAL = re.compile(rb"(?:data: [^\r\n]*\n\n)+")
"""Whole events of one line each, as most servers write them."""
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One dispatched event; ``name`` is empty where the stream named none."""

    name: str
    data: str


class EventParser:
    """Takes the bytes of one event stream; what its events are does not depend on how the bytes were cut.

    An event that no blank line ends is never dispatched. At most ``limit`` bytes of one event are kept.
    """

    def __init__(self, *, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        self._line = bytearray()
        self._after_cr = False
        self._is_first_line = True
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that these bytes complete.

        Raises:
            UpstreamProtocol: A line is not UTF-8, or an event is too long.
        """
        if self._is_first_line and chunk and not self._line and chunk[:1] != _BOM[:1]:
            self._is_first_line = False  # there is no mark before it
        if self._is_between() and len(chunk) <= self._limit and _USUAL.fullmatch(chunk):
            return [Event("", data) for data in _decoded(chunk[6:-2]).split("\n\ndata: ")]
        if not chunk:
            return []
        if self._after_cr and chunk[:1] == b"\n":  # the second half of a CRLF that was cut in two
            chunk = chunk[1:]
            self._after_cr = False
            if not chunk:
                return []
        self._after_cr = chunk.endswith(b"\r")
        events: list[Event] = []
        first, *others = _ENDS.split(chunk)
        for piece in others:
            if self._line:
                self._append(first)
                first = bytes(self._line)
                self._line.clear()
            if self._size + len(first) > self._limit:
                raise UpstreamProtocol("the model's server sent too long an event")
            if (event := self._take_line(first)) is not None:
                events.append(event)
            first = piece
        self._append(first)
        return events

    def _is_between(self) -> bool:
        """Say whether nothing of an event is kept, nor anything else that changes how the next bytes are read."""
        return not (self._line or self._data or self._name or self._after_cr or self._is_first_line)

    def _append(self, piece: bytes) -> None:
        if self._size + len(self._line) + len(piece) > self._limit:
            raise UpstreamProtocol("the model's server sent too long an event")
        self._line += piece

    def _take_line(self, line: bytes) -> Event | None:
        if self._is_first_line:
            line, self._is_first_line = line.removeprefix(_BOM), False
        if not line:
            return self._dispatch()
        name, _, value = _decoded(line).partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(line) + 1
        elif name == "event":
            self._name = value
        return None  # a comment, or a field that is not interpreted here

    def _dispatch(self) -> Event | None:
        event = Event(self._name, "\n".join(self._data)) if self._data else None
        self._name, self._data, self._size = "", [], 0
        return event


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UpstreamProtocol("the model's server sent bytes that are not UTF-8") from None


def write_event(data: bytes, name: str = "") -> bytes:
    """Return an event whose data is one line, such as JSON."""
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + data + b"\n\n"


KEEP_ALIVE = b": keep-alive\n\n"
DONE = write_event(b"[DONE]")
