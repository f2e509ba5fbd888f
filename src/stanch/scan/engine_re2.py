"""The matcher for machines without Hyperscan: RE2, which needs no particular processor, and is several times slower.

RE2 finds where a match starts; an engine reports where anchors end. So anchors and text are searched backwards: where
the mirrored anchor starts in the mirrored text, the anchor ends. One set over all anchors says first which of them
occur at all.
"""

import re
from collections.abc import Iterator, Sequence

import re2

from stanch.errors import InvalidInput
from stanch.scan.anchor import outside, read_anchor
from stanch.scan.engine import Hit, Pattern

_MEMORY = 256 << 20
_BYTE = re.compile(rb"\\x([0-9a-f]{2})")


class Re2Engine:
    """Finds where anchors end. Safe to use from several threads."""

    name = "re2"

    def __init__(self, patterns: Sequence[Pattern], *, cached: bool) -> None:  # noqa: ARG002 - an engine's signature; compiling is quick
        """Compile the patterns; see :class:`stanch.scan.engine.EngineMaker`."""
        self._sensitive = _Mirror([(n, p) for n, p in enumerate(patterns) if not p.caseless])
        self._caseless = _Mirror([(n, p) for n, p in enumerate(patterns) if p.caseless])
        self.longest = max(self._sensitive.longest, self._caseless.longest)

    def scan(self, data: bytes) -> list[Hit]:
        """Return all hits in one block, sorted by end."""
        return [(end - 1, index) for end, index in self.ends(b"\x1e" + data + b"\x1e", 1)]

    def ends(self, data: bytes, old: int) -> list[Hit]:
        """Return the hits that the bytes behind the first ``old`` ones decide, sorted by end."""
        hits = [*self._sensitive.ends(data, old), *self._caseless.ends(data.lower(), old)]
        hits.sort()
        return hits

    def open_stream(self) -> "Re2Stream":
        """Start a stream."""
        return Re2Stream(self)


class Re2Stream:
    """One stream over the anchors: keeps as much of the end as an anchor can reach back to."""

    def __init__(self, engine: Re2Engine) -> None:
        self._engine = engine
        self._tail = b"\x1e"
        self._base = -1

    def feed(self, data: bytes) -> list[Hit]:
        """Take the next bytes and return the hits that they decide, sorted by end."""
        text, old = self._tail + data, len(self._tail)
        hits = [(end + self._base, index) for end, index in self._engine.ends(text, old)]
        cut = max(0, len(text) - max(0, self._engine.longest - 1))
        self._tail, self._base = text[cut:], self._base + cut
        return hits

    def close(self) -> list[Hit]:
        """End the text and return the hits that its end decides."""
        return self.feed(b"\x1e")


class _Mirror:
    """Patterns of one kind of case, backwards: one set over all, and each alone."""

    def __init__(self, patterns: Sequence[tuple[int, Pattern]]) -> None:
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        options.max_mem = _MEMORY
        self.longest = 0
        self._patterns: list[tuple[int, int, re2._Regexp]] = []
        self._set = re2.Set.SearchSet(options)
        for index, pattern in patterns:
            source, width = _mirrored(pattern)
            self.longest = max(self.longest, width)
            self._patterns.append((index, int(pattern.trail != b""), re2.compile(source, options)))
            self._set.Add(source)
        # Matches every text: its absence shows that the set gave up, which RE2 does without an error.
        self._sentinel = len(self._patterns)
        self._set.Add(rb"[\x00-\xff]")
        self._set.Compile()

    def ends(self, data: bytes, old: int) -> Iterator[Hit]:
        """Yield (end, index) for each end behind the first ``old`` bytes."""
        if len(data) == old or not self._patterns:
            return
        size, backwards = len(data), data[::-1]
        occurring = self._set.Match(backwards)
        for place in occurring if self._sentinel in occurring else range(self._sentinel):
            if place == self._sentinel:
                continue
            index, trail, expression = self._patterns[place]
            position = 0
            while (match := expression.search(backwards, position)) is not None:
                position = match.start() + 1
                if position > size - old:
                    break
                yield size - position + 1 - trail, index


def _mirrored(pattern: Pattern) -> tuple[bytes, int]:
    """Return a pattern's mirrored expression and its width.

    Raises:
        InvalidInput: It is no anchor; it is named.
    """
    failed = f"anchor of {pattern.name} does not compile"
    try:
        shape = read_anchor(pattern.expression.decode("latin-1"))
    except InvalidInput as error:
        raise InvalidInput(failed, why=error.what) from error
    if pattern.caseless and b"[^" in pattern.expression:
        raise InvalidInput(failed, why="case does not count, so what a class excludes is not clear")
    source = shape.mirrored
    if pattern.caseless:  # the text is searched in lower case
        source = _BYTE.sub(lambda match: b"\\x%02x" % ord(bytes([int(match[1], 16)]).lower()), source)
    return b"%b(?:%b)%b" % (outside(pattern.trail), source, outside(pattern.lead)), shape.longest + 2
