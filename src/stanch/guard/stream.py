"""One string of an answer through the stages; any failure inside ends it and releases nothing more."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stanch.errors import StanchError
from stanch.guard.decode import DecodedGate
from stanch.guard.policy import TRAINING_TEXT, Action, GuardPolicy
from stanch.guard.spans import Gated, SpanGate
from stanch.scan.fold import CodePoints
from stanch.scan.stream import Piece
from stanch.terms import Finding, Severity


class GuardError(StanchError):
    """The guard failed; the stream is dead and released nothing more."""

    http_status = 502


@dataclass(frozen=True, slots=True)
class Step:
    """What a call released.

    Attributes:
        text: Text that may go out; findings in it are replaced by labels.
        action: The worst action so far; after ``block`` nothing is ever released again.
        findings: Findings decided in this call: kinds and places in the original text, never values.
        held_chars: Code points that are held.
    """

    text: str = field(repr=False)
    action: Action
    findings: tuple[Finding, ...]
    held_chars: int


class GuardStream:
    """The guard over one string that arrives in chunks. Sans-IO, and owned by one caller at a time.

    For every way of cutting the string, the texts of all steps together and the last action are the same. No text of a
    finding leaves, nor the beginning of one, but for the head of a copied run that :class:`SpanGate` states; of an
    encoded finding nothing leaves.
    """

    def __init__(self, policy: GuardPolicy) -> None:
        self._policy = policy
        self._points = CodePoints()
        looks_for_texts = policy.index is not None or policy.known is not None
        self._decoded = DecodedGate(policy) if looks_for_texts else None
        self._gate = SpanGate(policy.index) if policy.index is not None else None
        self._session = policy.scanner.open_stream()
        self._action = Action.ALLOW
        self._alive = True

    @property
    def counts(self) -> tuple[int, int]:
        """Folded characters that were compared with the index, and windows of it that stood alone among them."""
        return (self._gate.folded_chars, self._gate.lone_hits) if self._gate is not None else (0, 0)

    def feed(self, chunk: str) -> Step:
        """Take the next chunk and return what may go out.

        Raises:
            GuardError: Something failed inside, or the string has ended; nothing more is released.
        """
        return self._guarded(chunk, final=False)

    def finish(self) -> Step:
        """Say that the string ends and return the rest.

        Raises:
            GuardError: Something failed inside, or the string has ended; nothing more is released.
        """
        return self._guarded("", final=True)

    def _guarded(self, chunk: str, *, final: bool) -> Step:
        if not self._alive:
            raise GuardError("the guard's stream has ended", next_step="open a new stream for each answer")
        if self._action == Action.BLOCK:
            return Step("", Action.BLOCK, (), 0)
        self._alive = False  # until this call has gone well: an error in between leaves nothing to be released
        try:
            step = self._step(chunk, final=final)
        except Exception as error:  # noqa: BLE001 - fails closed, whatever it was
            failure = type(error).__name__
        else:
            self._alive = not final or step.action == Action.BLOCK
            return step
        # Raised out here and without the cause, which might quote the text.
        raise GuardError("the guard failed; the answer was ended", why=f"{failure} inside")

    def _step(self, chunk: str, *, final: bool) -> Step:
        passed = self._passed(self._points.push(chunk) + (self._points.finish() if final else ""), final=final)
        cut = self._decoded.found if self._decoded is not None else None
        ended = final and cut is None
        gated = self._gated(passed, final=ended)
        released = self._session.feed(gated.text)
        pieces, found, held = released.pieces, released.findings, released.held_chars
        if ended and gated.run is None:
            rest = self._session.finish()
            pieces, found, held = pieces + rest.pieces, found + rest.findings, 0
        text = self._take(pieces)
        findings = [self._public(item) for item in found]
        if gated.run is not None:
            cut = Finding(TRAINING_TEXT, Severity.CRITICAL, *gated.run, "")
        if cut is not None:
            # What the session still holds is dropped: it may be the beginning of a finding that the cut has hidden.
            self._action = Action.BLOCK
            findings.append(replace(cut, reason=f"action: {Action.BLOCK}"))
        return Step(text, self._action, tuple(findings), 0 if self._action == Action.BLOCK else self._held(held))

    def _held(self, by_session: int) -> int:
        if self._decoded is not None:
            by_session += self._decoded.held_chars
        return by_session + self._gate.held_chars if self._gate is not None else by_session

    def _passed(self, text: str, *, final: bool) -> str:
        if self._decoded is None:
            return text
        passed = self._decoded.feed(text)
        return passed + self._decoded.finish() if final else passed

    def _gated(self, text: str, *, final: bool) -> Gated:
        if self._gate is None:
            return Gated(text)
        first = self._gate.feed(text)
        if not final:
            return first
        last = self._gate.finish()
        return Gated(first.text + last.text, last.run)

    def _take(self, pieces: Sequence[Piece]) -> str:
        """Return the text of the pieces up to the first finding that blocks."""
        out: list[str] = []
        for text, kind, severity in pieces:
            if kind is not None and severity is not None:
                self._action = self._action.worst(self._policy.action(kind, severity))
                if self._action == Action.BLOCK:
                    break
            out.append(text)
        return "".join(out)

    def _public(self, item: Finding) -> Finding:
        action = self._policy.action(item.kind, item.severity)
        return Finding(item.kind, item.severity, item.start, item.end, f"action: {action}")


class Guard:
    """Opens a stream for each string of an answer. One object serves many threads."""

    def __init__(self, policy: GuardPolicy) -> None:
        self.policy = policy

    def open(self) -> GuardStream:
        """Return a new stream."""
        return GuardStream(self.policy)
