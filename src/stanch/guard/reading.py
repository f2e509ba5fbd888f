"""The stages over one reading of a text: encoded runs, training text, then canaries, terms, secrets, personal data."""

from collections.abc import Sequence

import msgspec

from stanch.guard.decode import DecodedGate
from stanch.guard.policy import TRAINING_TEXT, Action, GuardPolicy
from stanch.guard.spans import SpanGate
from stanch.scan.found import ScanFinding
from stanch.scan.stream import Piece
from stanch.terms import Finding, Severity


class Passed(msgspec.Struct, frozen=True):
    """What one step let pass.

    Attributes:
        pieces: The text, as :attr:`stanch.scan.stream.Released.pieces`.
        findings: What the scanner decided in this step.
        cut: What ended the text before the scanner.
        held: Code points that are held.
    """

    pieces: Sequence[Piece]
    findings: Sequence[ScanFinding]
    cut: Finding | None
    held: int

    def __repr__(self) -> str:
        return f"Passed(pieces=<{len(self.pieces)}>, findings={self.findings!r}, cut={self.cut!r}, held={self.held})"


class Reading:
    """One text through the stages, in whole code points. What passes never depends on how it was cut.

    Attributes:
        decoded: The stage of encoded runs; None if there are no texts to look for in them.
        gate: The stage of training text; None without an index.
        session: The last stage.
        settled: Code points, from the start of the text, that have left the last stage.
    """

    def __init__(self, policy: GuardPolicy, *, is_decoded: bool = False) -> None:
        """Open the stages; a ``is_decoded`` text is only judged, so that a run of training text always cuts it."""
        looks_for_texts = policy.index is not None or policy.known is not None
        self.decoded = DecodedGate(policy) if looks_for_texts else None
        self._begun: list[ScanFinding] = []  # runs that are to be replaced, not yet told
        self._redacts = redacts = policy.action(TRAINING_TEXT, Severity.CRITICAL) is Action.REDACT and not is_decoded
        index, lead_hold = policy.index, policy.lead_hold
        self.gate = SpanGate(index, lead_hold=lead_hold, redacts=redacts) if index is not None else None
        self.session = policy.scanner.open_stream()
        self._scanned = 0
        self.settled = 0

    @property
    def compared(self) -> tuple[int, frozenset[bytes]]:
        """Folded characters that were compared with the index, and the windows of it that stood alone among them."""
        return (0, frozenset()) if self.gate is None else (self.gate.folded_chars, frozenset(self.gate.lone))

    def resume(self, size: int, held: str) -> None:
        """Go on where the session's searches have taken ``size`` code points more, of which so many are held."""
        self._scanned += size
        self.settled = self._scanned - len(held)
        self.session.resume(self.settled, held)

    def step(self, text: str, *, final: bool = False) -> Passed:
        """Take the next piece of the text, or the last one; after a cut there must be no other step."""
        text, cut, held = self._gated(text, final=final)
        if not text and not final:  # the session has said all about what it was given
            return Passed((), (), cut, held + self._scanned - self.settled)
        # After a cut the session is not finished: what it holds may be the beginning of what the cut has hidden.
        released = self.session.step(text, final=final and cut is None)
        findings = released.findings
        if self._redacts:  # a run is told when it begins: the answer may end before it does
            findings = (*self._begun, *(one for one in findings if one.kind != TRAINING_TEXT))
            self._begun = []
        waiting = released.held_chars
        self._scanned += len(text)
        self.settled = self._scanned - waiting
        return Passed(released.pieces, findings, cut, held + waiting)

    def _gated(self, text: str, *, final: bool) -> tuple[str, Finding | None, int]:
        """Return what passes before the session, what cut the text there, and the code points held there."""
        held = 0
        cut: Finding | None = None
        run: tuple[int, int] | None = None
        if (decoded := self.decoded) is not None:
            text = decoded.feed(text)
            if final:
                text += decoded.finish()
            held, cut = decoded.held_chars, decoded.found
        if (gate := self.gate) is not None:
            if text:
                gated = gate.feed(text)
                text, run = gated.text, gated.run
                for found, told in gated.found:
                    self.session.tell(found, found.start)
                    self._begun.append(told)
            if final and cut is None:
                rest = gate.finish()
                text, run = text + rest.text, rest.run
            held += gate.held_chars
            if run is not None:
                cut = Finding(TRAINING_TEXT, Severity.CRITICAL, *run, "")
        return text, cut, held
