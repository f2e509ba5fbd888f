"""Stage 1: runs of training text. What comes out never depends on how the text was cut into chunks."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from stanch.guard.policy import TRAINING_TEXT
from stanch.scan import Folder, Hit, MatchTracker, SpanIndex, fold_text
from stanch.scan.found import Found, ScanFinding
from stanch.terms import Severity

HELD_LIMIT = 4096
"""Code points that are held at most; a text that would make it more is cut (fill between two hits folds to nothing)."""

_SPACE = 0x20
_FAR = 3  # code points for each folded byte of which few texts have more
_REMEMBERED = 4096  # folded bytes whose way back to code points is kept: five hits and a window of the longest kind


class Gated(msgspec.Struct, frozen=True):
    """What stage 1 lets pass.

    Attributes:
        text: The released part.
        run: Where the text was cut, the code points of the windows that gave the reason; None while it is not cut.
        found: The runs that begin in the text and are to be replaced, of which the last may still grow, and what is to
            be told of each: the windows that gave the reason.
    """

    text: str
    run: tuple[int, int] | None = None
    found: Sequence[tuple[Found, ScanFinding]] = ()

    def __repr__(self) -> str:
        return f"Gated(text=<{len(self.text)} characters>, run={self.run!r})"


@dataclass(frozen=True, slots=True)
class _Pending:
    """A hit that may still be followed by one a stride later.

    The code point ``completed_at`` completed it; text is held from ``held_from`` on.
    """

    hit: Hit
    completed_at: int
    held_from: int
    window: bytes = field(repr=False)


class SpanGate:
    """Releases text until two windows of it, one stride apart, stand in the index (or five within 512 characters).

    From the code point that completes a first hit on, text is held; it is released if no second hit follows one stride
    later. With window k and stride s (folded characters): a copied run is surely hit from k + s − 1, surely cut from
    k + 2s − 1, and at most k + s − 2 of it have left when the gate first holds. At most s folded characters are held,
    and at most :data:`HELD_LIMIT` code points.

    With ``lead_hold`` the last k + s − 2 folded characters are always held, so that nothing of a run leaves that is
    surely hit: a delay of that many characters on every text. Then up to twice :data:`HELD_LIMIT` code points are held;
    what stands further than the limit before the end of a hit has left.

    With ``redacts`` a run does not cut the text: it is found, and passes as what is to be replaced, until k + s folded
    characters have come without a hit.

    Each hit is judged as of the code point that completed it, and so is every release before it: chunk borders leave no
    trace. A folded space is completed by the character after it, which is when it is known to stand between words.

    Attributes:
        cursor: The walk over the index.
        lone: The windows that stood in the index without a second one a stride later; folded text, so never shown.
    """

    def __init__(self, index: SpanIndex, *, lead_hold: bool = False, redacts: bool = False) -> None:
        self.cursor = index.cursor()
        self._lead = index.params.k + index.params.stride - 2 if lead_hold else 0
        self._stride = index.params.stride
        self._redacts = redacts
        self._found: list[tuple[Found, ScanFinding]] = []  # in this chunk
        self._growing: Found | None = None
        self._until = 0  # the folded place at which that ends, if no hit comes before
        self._gone = 0  # the code point up to which runs were found
        self._folder = Folder("index")
        self._tracker = MatchTracker(index.params.stride)
        self._pending: list[_Pending] = []
        self._folded = b""  # of the last chunk
        self._raw = ""
        self._raw_start = 0
        self._full = 2 * _REMEMBERED  # folded bytes at which the way back is shortened
        self._run: tuple[int, int] | None = None
        self.lone = set[bytes]()

    @property
    def folded_chars(self) -> int:
        """Folded characters that were looked at."""
        return self.cursor.position

    @property
    def held_chars(self) -> int:
        """Code points that are held now."""
        return len(self._raw)

    @property
    def rests(self) -> bool:
        """Whether nothing is held or cut, nor would be of plain text."""
        return not (self._pending or self._run or self._lead or self._growing)

    @property
    def between_words(self) -> bool:
        """Whether a separator has followed the last word."""
        return self._folder.between_words

    def skip(self, text: str, size: int, value: int) -> None:
        """Take ASCII text in which no window ends that the index holds.

        Args:
            text: The text.
            size: How many bytes it folds to.
            value: The hash of the last window.
        """
        # The next hit may begin a window before its end: of what is before that, nobody will ask for the place.
        at = text.rfind(" ", 0, max(len(text) - _FAR * self.cursor.size, 0)) + 1
        last = fold_text(text[at:], "index")
        if at and len(last) >= self.cursor.size and text[at].isalnum():
            self._folder.jump(at, 1, size - len(last) - 1)
            text = text[at:]
        self.cursor.skip(self._folder.push(text), size, value)
        self._forget()

    def _forget(self) -> None:
        if self.cursor.position >= self._full:
            self._full = self.cursor.position + _REMEMBERED
            self._folder.offsets.forget(self.cursor.position - _REMEMBERED)

    def feed(self, chunk: str) -> Gated:
        """Take the next chunk; after a cut nothing passes any more."""
        if self._run is not None:
            return Gated("", self._run)
        self._forget()
        before = self.cursor.tail
        self._folded = folded = self._folder.push(chunk)
        hits = self.cursor.push(folded) if folded else ()
        if not (hits or self._pending or self._lead or self._growing):  # nothing is held, and nothing needs to be
            return Gated(chunk)
        return self._judge(chunk, hits, before + folded)

    def _judge(self, chunk: str, hits: Sequence[Hit], folded: bytes) -> Gated:
        """Hold what follows a hit, and cut at a second one."""
        self._raw += chunk
        self._raw_start = self._folder.code_points - len(self._raw)
        self._found = []
        for hit in hits:
            if self._grows(hit):
                continue
            at = self._completed_at(hit.end)
            if not self._let_go(hit.end - 1, at):
                return self._stop(self._pending[0].hit, self._pending[0].hit)
            window = folded[len(folded) - self.cursor.position + hit.start :][: self.cursor.size]
            self._pending.append(_Pending(hit, at, self._held_from(hit.end - 1, at), window))
            if matched := self._tracker.push([hit]):
                if not self._redacts:
                    return self._stop(matched[0], hit)
                self._begin(matched[0], hit, at)
        end, position = self._folder.code_points, self.cursor.position
        if self._growing is not None:
            if position < self._until:
                self._growing.end = end
                return Gated(self._release(end), None, self._found)
            self._close(self._completed_at(self._until))
        if not self._let_go(position, end):
            return self._stop(self._pending[0].hit, self._pending[0].hit)
        until = self._pending[0].held_from if self._pending else self._held_from(position, end)
        return Gated(self._release(until), None, self._found)

    def _grows(self, hit: Hit) -> bool:
        """Tell whether a hit belongs to the run that grows; one that comes too late ends it."""
        if self._growing is None:
            return False
        if hit.end > self._until:
            self._close(self._completed_at(self._until))
            return False
        self._until = hit.end + self.cursor.size + self._stride
        return True

    def _begin(self, first: Hit, hit: Hit, at: int) -> None:
        """Begin a run that is to be replaced, with all that is held."""
        self._growing = Found(
            self._pending[0].held_from, at + 1, TRAINING_TEXT, Severity.CRITICAL, 1.0, TRAINING_TEXT, 1, "",
            swallows=True, open=True,
        )  # fmt: skip
        start, end = self._folder.offsets.span(first.start, hit.end)
        self._found.append((self._growing, replace(self._growing.report(""), start=start, end=end)))
        self._until = hit.end + self.cursor.size + self._stride
        self._pending, self._tracker = [], MatchTracker(self._stride)

    def _close(self, end: int) -> None:
        if self._growing is not None:
            self._growing.end = self._gone = end
            self._growing.open, self._growing = False, None

    def finish(self) -> Gated:
        """Say that the text ends: what is held was no run, and passes."""
        if self._run is not None:
            return Gated("", self._run)
        self.lone.update(one.window for one in self._pending)
        self._close(self._folder.code_points)
        return Gated(self._release(self._folder.code_points))

    def _held_from(self, position: int, code_points: int) -> int:
        """Return the code point from which on text is held once so much of it is folded and there."""
        if not self._lead:
            return max(code_points, self._gone)
        start = self._folder.offsets.start(max(position - self._lead, 0))
        return max(start, code_points - HELD_LIMIT, self._gone)

    def _completed_at(self, folded_end: int) -> int:
        """Return the code point with whose arrival the folded text reached ``folded_end``."""
        last = self._folded[folded_end - 1 - self.cursor.position]
        return self._folder.offsets.start(folded_end if last == _SPACE else folded_end - 1)

    def _let_go(self, position: int, code_points: int) -> bool:
        """Give up the hits that no other followed by folded ``position``; False if too much had to be held for one."""
        while self._pending:
            oldest = self._pending[0]
            followed = oldest.hit.end + self._stride
            until = self._completed_at(followed) if followed <= position else code_points
            if until - oldest.completed_at > HELD_LIMIT:
                return False
            if followed > position:
                break
            self.lone.add(self._pending.pop(0).window)
        return True

    def _release(self, until: int) -> str:
        count = max(until - self._raw_start, 0)
        text, self._raw = self._raw[:count], self._raw[count:]
        self._raw_start += len(text)
        return text

    def _stop(self, first: Hit, last: Hit) -> Gated:
        self._run = self._folder.offsets.span(first.start, last.end)
        text = self._release(self._pending[0].held_from)
        self._raw, self._pending, self._folded = "", [], b""
        return Gated(text, self._run, self._found)
