"""Events that differ from one read before in a single text alone: most of a stream is such."""

import re
from collections.abc import Sequence

from stanch.gateway.dialect import Part
from stanch.gateway.sse import Event

_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')


class RepeatedEvent:
    """Reads the text out of an event that is otherwise, letter for letter, one that was read strictly before.

    A JSON text in which one string is replaced by another, that needs no escapes, reads as before but for that string.
    """

    def __init__(self) -> None:
        self._part: Part | None = None
        self._name = self._before = self._after = ""

    def learn(self, event: Event, part: Part) -> None:
        """Remember an event of which strict reading took this text, in its channel's field, and nothing else."""
        key = f'"{part.channel.field}"'
        self._part = None
        for place in _STRING.finditer(event.data):
            if place[1] == part.text and event.data[: place.start()].rstrip(" :").endswith(key):
                self._part, self._name = part, event.name
                self._before, self._after = event.data[: place.start() + 1], event.data[place.end() - 1 :]
                return

    def read(self, events: Sequence[Event]) -> tuple[Part | None, int]:
        """Return the texts of the first events that are such, put together, and how many these are."""
        if self._part is None:
            return None, 0
        before, after, texts = self._before, self._after, list[str]()
        start, end, shortest = len(before), -len(after), len(before) + len(after)
        for name, data in events:
            if len(data) < shortest or name != self._name or not (data.startswith(before) and data.endswith(after)):
                break
            text = data[start:end]
            if _PLAIN.fullmatch(text) is None:
                break
            texts.append(text)
        return (Part(self._part.channel, "".join(texts)) if texts else None), len(texts)
