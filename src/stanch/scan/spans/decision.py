"""When hits are a match: the decision rule over hits in increasing order."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from stanch.scan.spans.cursor import Hit

_CROWD, _CROWD_WIDTH = 5, 512


@dataclass(frozen=True, slots=True)
class Match:
    """A span of text that stands in the index: half-open code points of the query, its folded length, and its hits."""

    start: int
    end: int
    folded_length: int
    hits: int


class MatchTracker:
    """Decides which hits belong to a match; single hits are only suspect.

    A hit counts if another lies exactly one stride before or after it, or if it is one of at least five hits whose
    windows start within 512 folded bytes.
    """

    def __init__(self, stride: int) -> None:
        self._stride = stride
        self._recent: deque[Hit] = deque()
        self._counted: set[int] = set()

    def push(self, hits: Sequence[Hit]) -> list[Hit]:
        """Take further hits, in order, and return those, earlier ones included, that now count."""
        matched: list[Hit] = []
        for hit in hits:
            while self._recent and hit.start - self._recent[0].start >= _CROWD_WIDTH:
                self._counted.discard(self._recent.popleft().start)
            self._recent.append(hit)
            if len(self._recent) >= _CROWD:
                partners = list(self._recent)
            else:
                chained = [other for other in self._recent if hit.start - other.start == self._stride]
                partners = [*chained, hit] if chained else []
            matched += [other for other in partners if other.start not in self._counted]
            self._counted.update(other.start for other in partners)
        return sorted(matched)

    def undecided(self, position: int) -> int | None:
        """Return the start of the oldest hit that may still be chained once text after ``position`` arrives."""
        return next(
            (h.start for h in self._recent if h.start not in self._counted and h.end + self._stride > position), None
        )
