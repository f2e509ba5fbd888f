"""One string of an answer through the stages; any failure inside ends it and releases nothing more."""

import itertools
from collections import deque
from collections.abc import Sequence
from functools import cached_property

import msgspec

from stanch.errors import StanchError
from stanch.guard.escape import BORDER, EscapedGate
from stanch.guard.policy import Action, GuardPolicy
from stanch.guard.quiet import QuietReader, policy_sheet
from stanch.guard.reading import Reading
from stanch.scan.compiler import COMPILER
from stanch.scan.fold import CodePoints
from stanch.scan.sheet import Sheet
from stanch.scan.stream import Piece
from stanch.terms import Finding

_BLOCK = Action.BLOCK  # a member is looked up much slower than a name
_AT_ONCE = 160
"""Characters of a chunk that are read together: with what is held of before, as many as a glance takes."""


class GuardError(StanchError):
    """The guard failed; the stream is dead and released nothing more."""

    http_status = 502


class Step(msgspec.Struct, frozen=True):
    """What a call released.

    Attributes:
        text: Text that may go out; findings in it are replaced by labels.
        action: The worst action so far; after ``block`` nothing is ever released again.
        findings: Findings decided in this call: kinds and places in the original text, never values.
        held_chars: Code points that are held.
        borders: Where in ``text`` another place of the answer begins; see :meth:`GuardStream.border`.
    """

    text: str
    action: Action
    findings: tuple[Finding, ...]
    held_chars: int
    borders: tuple[int, ...] = ()

    def places(self) -> list[str]:
        """Return the text cut at its borders: of the place that was spoken of last, then of each that begins."""
        if not self.borders:
            return [self.text]
        return [self.text[a:b] for a, b in itertools.pairwise([0, *self.borders, len(self.text)])]

    def __repr__(self) -> str:
        shown = f"text=<{len(self.text)} characters>, action={self.action!r}"
        return f"Step({shown}, findings={self.findings!r}, held_chars={self.held_chars})"


class GuardStream:
    """The guard over one string that arrives in chunks. Sans-IO, and owned by one caller at a time.

    For every way of cutting the string, the texts of all steps together and the last action are the same. No text of a
    finding leaves, nor the beginning of one, but for the head of a copied run that :class:`SpanGate` states; of an
    encoded finding nothing leaves.
    """

    def __init__(self, policy: GuardPolicy, after: str = "", sheet: Sheet | None = None) -> None:
        self._policy = policy
        self._points = CodePoints()
        self._escaped = EscapedGate(policy, after)
        self._reading = Reading(policy)
        steps = COMPILER.steps
        self._quiet = QuietReader(steps, sheet, self._escaped, self._reading) if steps and sheet else None
        self._action = Action.ALLOW
        self._alive = True
        self._borders: deque[int] = deque()  # where the text has borders that are not out

    @property
    def compared(self) -> tuple[int, frozenset[bytes]]:
        """Folded characters that were compared with the index, and the windows of it that stood alone among them.

        The windows are folded text of the answer, and are never to be shown.
        """
        compared, lone = self._reading.compared
        return compared + self._missed[1], lone

    def feed(self, chunk: str) -> Step:
        """Take the next chunk and return what may go out.

        Raises:
            GuardError: Something failed inside, or the string has ended; nothing more is released.
        """
        return self._guarded(chunk, final=False)

    def border(self) -> Step:
        """Say that what follows stands in another place of the answer, such as its next block.

        What lies across a border ends the answer, whether whoever reads it puts the places together with nothing
        between them or with a space.

        Raises:
            GuardError: Something failed inside, or the string has ended; nothing more is released.
        """
        rest = self._points.finish()
        self._borders.append(self._escaped.position + self._missed[0] + len(rest))
        return self._guarded(rest + BORDER, final=False)

    def finish(self) -> Step:
        """Say that the string ends and return the rest.

        Raises:
            GuardError: Something failed inside, or the string has ended; nothing more is released.
        """
        return self._guarded("", final=True)

    def _guarded(self, chunk: str, *, final: bool) -> Step:
        if not self._alive:
            raise GuardError("the guard's stream has ended", next_step="open a new stream for each answer")
        if self._action is _BLOCK:
            return Step("", _BLOCK, (), 0)
        self._alive = False  # until this call has gone well: an error in between leaves nothing to be released
        try:
            is_long = self._quiet is not None and len(chunk) > _AT_ONCE and chunk.isascii()
            step = self._step_by_step(chunk) if is_long else self._step(chunk, final=final)
        except Exception as error:  # noqa: BLE001 - fails closed, whatever it was
            failure = type(error).__name__
        else:
            self._alive = not final or step.action is _BLOCK
            return step
        # Raised out here and without the cause, which might quote the text.
        raise GuardError("the guard failed; the answer was ended", why=f"{failure} inside")

    @property
    def _missed(self) -> tuple[int, int]:
        return self._quiet.missed if self._quiet is not None and self._quiet.reads else (0, 0)

    def _step(self, chunk: str, *, final: bool) -> Step:
        quiet = self._quiet
        if quiet is not None and quiet.reads:
            if not final and (passed := quiet.read(chunk)) is not None:
                return Step(passed[0], self._action, (), passed[1])
            quiet.stop()
        step = self._step_loud(chunk, final=final)
        if quiet is None:
            COMPILER.count(len(chunk) if self._policy.index is None else 0)
        elif not (final or self._points.waits or self._action is _BLOCK):
            quiet.start()
        return step

    def _step_by_step(self, chunk: str) -> Step:
        """Take a long chunk in pieces, most of which are quiet: what comes out never depends on how a text is cut."""
        texts, borders, found, size, held = list[str](), list[int](), list[Finding](), 0, 0
        for at in range(0, len(chunk), _AT_ONCE):
            step = self._step(chunk[at : at + _AT_ONCE], final=False)
            texts.append(step.text)
            borders += [size + place for place in step.borders]
            found += step.findings
            size, held = size + len(step.text), step.held_chars
            if self._action is _BLOCK:
                break
        return Step("".join(texts), self._action, tuple(found), held, tuple(borders))

    def _step_loud(self, chunk: str, *, final: bool) -> Step:
        """Take a chunk through the stages."""
        text = self._points.push(chunk)
        if final:
            text += self._points.finish()
        escaped = self._escaped
        text = escaped.feed(text, final=final)
        while escaped.begun:
            self._reading.session.begin(*escaped.begun.pop())
        while escaped.told:
            self._reading.session.tell(*escaped.told.pop())
        passed = self._reading.step(text, final=final and escaped.found is None)
        cut, held = passed.cut or escaped.found, passed.held + escaped.held_chars
        released, borders = self._take(passed.pieces) if passed.pieces else ("", ())
        if cut is not None:
            # What the session still holds is dropped: it may be the beginning of a finding that the cut has hidden.
            self._action = _BLOCK
        if self._action is _BLOCK:
            held = 0
        found = self._public(passed.findings, cut) if passed.findings or cut is not None else ()
        return Step(released, self._action, found, held, borders)

    def _take(self, pieces: Sequence[Piece]) -> tuple[str, tuple[int, ...]]:
        """Return the text of the pieces up to the first finding that blocks, and where its borders were."""
        if len(pieces) == 1 and pieces[0][1] is None and not self._borders:
            return pieces[0][0], ()
        out: list[str] = []
        borders: list[int] = []
        size = 0
        for piece, kind, severity, start in pieces:
            if kind is not None and severity is not None:
                self._action = self._action.worst(self._policy.action(kind, severity))
                if self._action is Action.BLOCK:
                    break
            first, *others = self._places(piece, start) if kind is None else (piece,)
            out.append(first)
            size += len(first)
            for place in others:
                borders.append(size)
                out.append(place)
                size += len(place)
        return "".join(out), tuple(borders)

    def _places(self, text: str, start: int) -> list[str]:
        """Return a text that is kept, cut at its borders and at those before it, which a finding covered."""
        places: list[str] = []
        while self._borders and self._borders[0] < start + len(text):
            at = max(self._borders.popleft() - start, -1)
            places.append(text[: max(at, 0)])
            text, start = text[at + 1 :], start + at + 1
        return [*places, text]

    def _public(self, found: Sequence[Finding], cut: Finding | None) -> tuple[Finding, ...]:
        """Return what was found without values or why, and what cut the text."""
        actions = [(item, self._policy.action(item.kind, item.severity)) for item in found]
        if cut is not None:
            actions.append((cut, Action.BLOCK))
        return tuple(Finding(item.kind, item.severity, item.start, item.end, f"action: {act}") for item, act in actions)


class Guard:
    """Opens a stream for each string of an answer. One object serves many threads."""

    def __init__(self, policy: GuardPolicy) -> None:
        self.policy = policy

    @cached_property
    def _sheet(self) -> Sheet | None:
        return policy_sheet(self.policy)

    def open(self, after: str = "") -> GuardStream:
        """Return a new stream.

        Args:
            after: The end of what was said before in the same field, with something else in between, and has left.
                What begins there and goes on in the stream ends the answer.
        """
        return GuardStream(self.policy, after, self._sheet if COMPILER.steps is not None else None)
