"""The keyed span index ``stanch/span-index/v1``: finds verbatim training text without holding any of it.

Example:
    >>> from stanch.scan.spans import SpanIndex
    >>> text = "The quick brown fox jumps over the lazy dog while the second fox sleeps in the sun. " * 2
    >>> index = SpanIndex.build([text], key=bytes(32))
    >>> [match.folded_length for match in index.query("He wrote: " + text)]
    [165]
"""

from stanch.scan.spans.cursor import Hit, SpanCursor
from stanch.scan.spans.decision import Match, MatchTracker
from stanch.scan.spans.evidence import Evidence
from stanch.scan.spans.index import SpanIndex
from stanch.scan.spans.layout import Layout
from stanch.scan.spans.params import COMPACT, FINE, STANDARD, IndexParams

__all__ = [
    "COMPACT",
    "FINE",
    "STANDARD",
    "Evidence",
    "Hit",
    "IndexParams",
    "Layout",
    "Match",
    "MatchTracker",
    "SpanCursor",
    "SpanIndex",
]
