"""One field of an answer, such as its visible text: all its places, in order, through one guard.

Some dialects spread a text over items, blocks or parts. Whoever reads the answer puts them together, so one guard sees
them all: what lies across the border of two of them ends the answer.
"""

from collections import deque
from collections.abc import Iterator

from stanch.gateway.dialect import Channel
from stanch.gateway.fields import unexpected
from stanch.guard import BORDER, REPLAYED, Guard, Step
from stanch.scan.fold import CodePoints

_KEPT = 8192


class Voice:
    """The places of one field and what was released of them. Sans-IO.

    Attributes:
        waiting: The places of which something may still come out, in order.
        released: How many code points have left the guard's stream, borders counted, findings as their labels read.
        compared: As :attr:`stanch.guard.GuardStream.compared`.
    """

    def __init__(self, guard: Guard) -> None:
        self.waiting: deque[Channel] = deque()
        self._guard = guard
        self._known: set[Channel] = set()
        self._out = ""
        self._before: tuple[int, frozenset[bytes]] = (0, frozenset())
        self._is_between, self._is_over = True, False
        self._open()

    @property
    def compared(self) -> tuple[int, frozenset[bytes]]:
        """Folded characters that were compared with the index, and the windows of it that stood alone among them."""
        folded, lone = self._stream.compared
        return folded + self._before[0], lone | self._before[1]

    def say(self, channel: Channel, text: str) -> Iterator[Step]:
        """Take text of a place; it is the last one, or one that comes after it.

        Raises:
            UpstreamProtocol: The text belongs to a place before the last one, and may go on what was judged already.
            GuardError: The guard failed.
        """
        if not self.waiting or self.waiting[-1] != channel:
            yield from self._begin(channel)
        self._recent.push(text)
        self._is_between = False
        yield self._noted(self._stream.feed(text))

    def part(self) -> Iterator[Step]:
        """Say that the last place has ended and the next one follows; see :meth:`stanch.guard.GuardStream.border`."""
        if not self._is_between:
            self._is_between = True
            self._recent.push(BORDER)
            yield self._noted(self._stream.border())

    def finish(self) -> Iterator[Step]:
        """Say that the last place has ended, and that something else follows or nothing."""
        if not self._is_over:
            self._is_over = True
            yield self._noted(self._stream.finish())

    def slice(self, start: int, end: int) -> str:
        """Return what the guard's stream was told between two positions, within the last few thousand code points."""
        return self._recent.slice(start, end)

    def _begin(self, channel: Channel) -> Iterator[Step]:
        if channel in self._known:
            raise unexpected("$ in a place that another followed")
        if self._is_over:
            self._before = self.compared
            self._open(self._out)
        elif self._known:
            yield from self.part()
        self._known.add(channel)
        self.waiting.append(channel)

    def _open(self, after: str = "") -> None:
        self._stream = self._guard.open(after)
        self._recent = _Recent()
        self._is_between, self._is_over = True, False
        self.released = 0

    def _noted(self, step: Step) -> Step:
        self.released += len(step.text) + len(step.borders)
        self._out = (self._out + step.text)[-REPLAYED:]
        return step


class _Recent:
    """The last code points of a text; a run that is cut lies within them."""

    def __init__(self) -> None:
        self._points = CodePoints()  # the guard counts what this gives
        self._text = ""
        self._start = 0

    def push(self, text: str) -> None:
        """Forget what is too old, and add text."""
        if (old := len(self._text) - _KEPT) > _KEPT:
            self._text, self._start = self._text[old:], self._start + old
        self._text += self._points.push(text)

    def slice(self, start: int, end: int) -> str:
        """Return what stands between two positions of the text."""
        return self._text[max(0, start - self._start) : max(0, end - self._start)]
