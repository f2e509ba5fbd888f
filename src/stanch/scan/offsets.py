"""Maps from positions in a derived text back to positions in the text it was made from."""

from bisect import bisect_right


class OffsetMap:
    """Piecewise map from derived positions to original positions, run-length compressed.

    A *linear* piece advances one original unit for each derived unit; any other piece is the image of one original
    unit. Positions are absolute and the pieces are added in increasing order.
    """

    __slots__ = ("_derived", "_linear", "_original")

    def __init__(self) -> None:
        self._derived: list[int] = []
        self._original: list[int] = []
        self._linear: list[bool] = []

    def add(self, derived: int, original: int, *, linear: bool) -> None:
        """Say that the next piece starts at ``derived`` and comes from ``original``."""
        if linear and self._linear and self._linear[-1]:
            previous = len(self._derived) - 1
            if derived - self._derived[previous] == original - self._original[previous]:
                return
        self._derived.append(derived)
        self._original.append(original)
        self._linear.append(linear)

    def start(self, position: int) -> int:
        """Return where the original unit starts that made the derived unit at ``position``."""
        if self._linear and self._linear[-1] and position >= self._derived[-1]:
            return self._original[-1] + position - self._derived[-1]  # most questions are about the end
        piece = bisect_right(self._derived, position) - 1
        if piece < 0:
            return position
        return self._original[piece] + (position - self._derived[piece] if self._linear[piece] else 0)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the original span of a non-empty derived span, widened to whole original units."""
        return self.start(start), self.start(end - 1) + 1

    def forget(self, position: int) -> None:
        """Drop the pieces that end before ``position``; later questions must be about positions from there on."""
        piece = bisect_right(self._derived, position) - 1
        if piece > 64:
            del self._derived[:piece], self._original[:piece], self._linear[:piece]
