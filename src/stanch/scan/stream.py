"""A stream of text, searched while it arrives: what is released never holds any part of a finding.

Guarantees, for every way of cutting a text into chunks: the released texts and the findings together equal those of
:meth:`stanch.scan.Scanner.replace` on the whole text; no prefix of a finding is ever released; the held text is bounded
by the reach of the rules; an internal error raises and nothing more is released. With ``decode_depth`` 1 the output
still does not depend on how the text is cut, but of encoded values a stream finds less than a whole text
(:mod:`stanch.scan.decode`), and it holds up to 1,024 characters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Protocol, TypeAlias

import msgspec

from stanch.errors import StanchError
from stanch.scan.canonical import Fingerprint, canonical_value
from stanch.scan.fold import CodePoints, fold_text
from stanch.scan.found import Found, ScanFinding
from stanch.scan.policy import Policy
from stanch.scan.redact import Replacer
from stanch.scan.resolve import Keep, Replace, Resolver
from stanch.terms import Severity


class Lane(Protocol):
    """One search over the stream: rules in the ``detect`` view, literals in the ``squeezed`` view, or encoded runs."""

    def feed(self, text: str) -> list[Found]:
        """Take the next piece of text and return the findings that are now certain."""
        ...

    def finish(self) -> list[Found]:
        """Say that the text ends here and return what that decides."""
        ...

    def floor(self) -> int:
        """Return the code point before which no finding still to come can start."""
        ...


Piece: TypeAlias = tuple[str, str | None, Severity | None, int]


class StreamClosedError(StanchError):
    """A stream session was used after its end or after an error; nothing more is released."""


class Released(msgspec.Struct, frozen=True):
    """What a call has released: text free of findings, the findings decided by now, and the code points still held.

    Findings have absolute positions in the original text and come in the order in which they are decided.

    ``pieces`` is the released text in order: kept stretches ``(text, None, None, start)``, replacements with kind and
    severity of the finding that labels them, and ``("", kind, severity, start)`` for each finding that an earlier
    replacement covers. However the text was cut into chunks, what stands before a finding's piece is the same.
    """

    text: str
    findings: tuple[ScanFinding, ...]
    held_chars: int
    pieces: tuple[Piece, ...] = ()

    def __repr__(self) -> str:
        return f"Released(text=<{len(self.text)} characters>, findings={self.findings!r}, held_chars={self.held_chars})"


@dataclass(slots=True)
class _Open:
    """A finding that is not reported yet, with the fingerprint of what has been seen of it."""

    found: Found
    fingerprint: Fingerprint
    seen: int


class StreamSession:
    """Searches and redacts one text that arrives in chunks. Sans-IO, and owned by one caller at a time.

    Attributes:
        lanes: Its searches.
        spared: Where the values begin that were found in the last step and that the policy spares.
    """

    def __init__(self, policy: Policy, lanes: Sequence[Lane]) -> None:
        self.lanes = tuple(lanes)
        self.spared: list[int] = []
        self._policy = policy
        self._replacer = Replacer(policy)
        self._points = CodePoints()
        self._resolver = Resolver()
        self._raw = ""
        self._raw_start = 0
        self._open: list[_Open] = []
        self._unsettled: list[Found] = []  # neither labelled nor covered yet
        self._told: dict[int, int] = {}  # places before a value that are none to begin it at, and where it does begin
        self._idle = True  # nothing is found that is not yet replaced and reported
        self._usable = True

    @property
    def rests(self) -> bool:
        """Whether nothing is found that is not yet replaced and reported."""
        return self._idle and self._usable

    @property
    def held(self) -> str:
        """The text that is held."""
        return self._raw

    @property
    def position(self) -> int:
        """Code points that have left."""
        return self._raw_start

    def resume(self, position: int, held: str) -> None:
        """Go on where the searches have found nothing: all before ``position`` has left, and so much is held."""
        self._raw, self._raw_start = held, position
        self._resolver.position = position

    def tell(self, found: Found, since: int) -> None:
        """Take a finding that was made elsewhere; it is replaced like those made here.

        Args:
            found: The finding. What the session has released of it is nothing, or all.
            since: Where something begins that ends where the finding starts, and is to be kept or replaced whole:
                what is found from within it on is taken to start where the finding does.

        Raises:
            StreamClosedError: The beginning of it has been released.
        """
        if found.end <= self._raw_start:
            return
        if found.start < self._raw_start:
            raise StreamClosedError("a finding was told after its beginning was released")
        self.begin(found.start, since)
        self._take([found])

    def begin(self, start: int, since: int) -> None:
        """Take what is found from within what begins at ``since`` on to start at ``start``; see :meth:`tell`."""
        self._told.update(dict.fromkeys(range(since + 1, start), start))

    def feed(self, chunk: str) -> Released:
        """Take the next chunk and release what can no longer be part of a finding.

        Raises:
            StreamClosedError: The session has ended or failed before.
        """
        return self.step(self._points.push(chunk))

    def finish(self) -> Released:
        """Say that the text ends here and release the rest.

        Raises:
            StreamClosedError: The session has ended or failed before.
        """
        return self.step(self._points.finish(), final=True)

    def step(self, text: str, *, final: bool = False) -> Released:
        """Do as :meth:`feed` for text in whole code points, or as :meth:`finish` after it.

        Raises:
            StreamClosedError: The session has ended or failed before.
        """
        if not self._usable:
            raise StreamClosedError("the stream session has ended", next_step="open a new session for each text")
        # Unusable until this step has gone well: an error in between leaves nothing to be released.
        self._usable = False
        if self.spared:
            self.spared = []
        self._raw = raw = self._raw + text
        start = self._raw_start
        floor = size = start + len(raw)
        for lane in self.lanes:
            if found := lane.feed(text):
                self._take(found)
            if final:
                self._take(lane.finish())
            elif (low := lane.floor()) < floor:
                floor = low
        if not self._idle:
            released = self._replace(floor)
        elif floor <= start:
            released = Released("", (), len(raw))
        else:
            # Nothing was found: this is what the replacing comes to.
            passed, self._raw = (raw, "") if floor == size else (raw[: floor - start], raw[floor - start :])
            self._raw_start = self._resolver.position = floor
            released = Released(passed, (), size - floor, ((passed, None, None, start),))
        self._usable = not final
        return released

    def _take(self, found: Sequence[Found]) -> None:
        for item in found:
            if (start := self._told.get(item.start, item.start)) < item.end:
                item.start = start
            if self._policy.spares_some and self._is_spared(item):
                self.spared.append(item.start)
                continue
            self._resolver.add(item)
            self._unsettled.append(item)
            self._open.append(_Open(item, Fingerprint(self._policy.report_key, item.kind), item.start))
            self._idle = False

    def _replace(self, floor: int) -> Released:
        """Release text up to the floor with the findings replaced, as far as they are known whole."""
        pieces = self._pieces(self._resolver.advance(floor))
        findings = self._report(floor) if self._open else ()
        kept = self._resolver.position - self._raw_start
        self._raw = self._raw[kept:]
        self._raw_start += kept
        self._idle = self._resolver.idle and not self._open
        return Released("".join(text for text, _, _, _ in pieces), findings, len(self._raw), pieces)

    def _pieces(self, steps: Sequence[Keep | Replace]) -> tuple[Piece, ...]:
        """Write the steps; a covered finding's piece follows the replacement that covers it."""
        placed: list[Piece] = []
        labels: set[int] = set()
        for step in steps:
            if isinstance(step, Keep):
                placed.append((self._write(step), None, None, step.start))
            else:
                placed.append((self._write(step), step.found.kind, step.found.severity, step.found.start))
                labels.add(id(step.found))
        if self._unsettled:
            passed = [item for item in self._unsettled if item.start < self._resolver.position]
            self._unsettled = [item for item in self._unsettled if item.start >= self._resolver.position]
            placed += [("", item.kind, item.severity, item.start) for item in passed if id(item) not in labels]
            placed.sort(key=itemgetter(3))  # stable: a replacement stays before what starts with it
        self._resolver.closed.clear()
        return tuple(placed)

    def _write(self, step: Keep | Replace) -> str:
        if isinstance(step, Keep):
            return self._text(step.start, step.end)
        found = step.found
        value = "" if found.swallows or found.decoded else self._text(found.start, found.end)
        return self._replacer.write(found, value, alone=step.alone)

    def _is_spared(self, found: Found) -> bool:
        hidden = found.swallows or found.decoded
        return not hidden and self._policy.spares(found.kind, self._text(found.start, found.end))

    def _text(self, start: int, end: int) -> str:
        return self._raw[start - self._raw_start : end - self._raw_start]

    def _report(self, floor: int) -> tuple[ScanFinding, ...]:
        """Return the findings that are certain: all that start before the floor and have ended."""
        done: list[_Open] = []
        still: list[_Open] = []
        for item in self._open:
            found = item.found
            if found.swallows and item.seen < found.end:
                item.fingerprint.update(fold_text(self._text(item.seen, found.end)))
                item.seen = found.end
            (still if found.open or found.start >= floor else done).append(item)
        self._open = still
        reports: list[ScanFinding] = []
        last: tuple[str, int, int] | None = None
        for item in sorted(done, key=lambda item: item.found.report_order):
            found = item.found
            if found.identity == last:
                continue
            last = found.identity
            if not found.swallows:
                item.fingerprint.update(canonical_value(found.kind, self._text(found.start, found.end)))
            reports.append(found.report(item.fingerprint.hex()))
        return tuple(reports)
