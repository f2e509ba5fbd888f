"""Before the stages: what runs of base64, hexadecimal digits and percent-encoding say. Chunk borders leave no trace.

A run is a maximal stretch of the ASCII characters that percent-encoding uses, which base64 and hexadecimal digits are
among. It is held until it ends, which delays prose by a word; one of 24 and more characters is then decoded, and the
training text, the canaries and the dictionaries are looked for in what it says. What only shows decoded ends the
answer, and nothing of its run leaves. Base64 is read from each of the first four characters on, and hexadecimal digits
from each of the first two, so that characters glued before it hide nothing.

Not claimed: an encoding in an encoding, a value that a space or a line break cuts, base64 of other text than UTF-8.
"""

import re
from collections.abc import Iterator

from stanch.guard.policy import ENCODED_TEXT, ENCODED_TRAINING_TEXT, GuardPolicy
from stanch.scan.decode import ENCODINGS, SHORTEST_RUN, View, view_of
from stanch.terms import Finding, Severity

LONGEST_RUN = 4096
"""Characters of a run that are held and decoded at most; a longer one cannot be judged and ends the answer."""

_BASE64, _HEX, _PERCENT = ENCODINGS[:3]
_PHASES = {_BASE64.name: 4, _HEX.name: 2, _PERCENT.name: 1}
MEMBERS = "".join(re.findall(_PERCENT.run, "".join(map(chr, range(128)))))

_SHORT, _REMEMBERED = 24, 1 << 15


class _Ends(dict[str, int]):
    """Where the last character of a short text ends that is in no run; 0 if there is none. In memory only."""

    def __missing__(self, text: str) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        end = self[text] = len(text.rstrip(MEMBERS))
        return end


_ENDS = _Ends()


class DecodedGate:
    """Holds a run of encoding characters until it has ended and hides nothing.

    Attributes:
        found: What ended the text, with the place of the whole run that hid it; None while the text goes on.
    """

    def __init__(self, policy: GuardPolicy) -> None:
        self.found: Finding | None = None
        self._policy = policy
        self._held = ""  # the run at the end of the text
        self._start = 0

    @property
    def held_chars(self) -> int:
        """Code points that are held now."""
        return len(self._held)

    @property
    def held(self) -> str:
        """The run that is held."""
        return self._held

    def skip(self, passed: int, held: str) -> None:
        """Take text of short runs; so much of it has passed, after what was held, and the last run is held."""
        self._start += passed
        self._held = held

    def feed(self, text: str) -> str:
        """Take the next piece of the text and return what passes; after a finding nothing does."""
        if self.found is not None:
            return ""
        # Each piece is looked at once: one without other characters only makes the run longer.
        end = _ENDS[text] if len(text) <= _SHORT else len(text.rstrip(MEMBERS))
        before, held = len(self._held), self._held + text
        done, size = before + end if end else 0, before + len(text)
        if size >= SHORTEST_RUN and (done >= SHORTEST_RUN or size - done > LONGEST_RUN):
            return self._search(held, done)
        if not done:
            self._held = held
            return ""
        self._held = held[done:]
        self._start += done
        return held[:done]

    def finish(self) -> str:
        """Say that the text ends here and return the rest."""
        return "" if self.found is not None else self._search(self._held, len(self._held))

    def _search(self, held: str, done: int) -> str:
        """Judge the runs that end before ``done``, and the length of the one that goes on."""
        passed = done
        for match in _PERCENT.long_run.finditer(held, 0, done):
            if kind := self._hidden(match[0]):
                self._stop(kind, *match.span())
                passed = match.start()
                break
        else:
            if len(held) - done > LONGEST_RUN:
                self._stop((ENCODED_TEXT, Severity.CRITICAL), done, len(held))
        self._held = "" if self.found is not None else held[passed:]
        self._start += passed
        return held[:passed]

    def _stop(self, kind: tuple[str, Severity], start: int, end: int) -> None:
        # Of a run that is too long, as much as had to be seen, whatever the chunks were.
        self.found = Finding(*kind, self._start + start, self._start + min(end, start + LONGEST_RUN), "")

    def _hidden(self, run: str) -> tuple[str, Severity] | None:
        """Return kind and severity of what a run hides."""
        if len(run) > LONGEST_RUN:
            return ENCODED_TEXT, Severity.CRITICAL
        index, known = self._policy.index, self._policy.known
        for view in _views(run):
            if index is not None and any(_decoded(view, match.start, match.end) for match in index.query(view.text)):
                return ENCODED_TRAINING_TEXT, Severity.CRITICAL
            for found in known.scan(view.text).findings if known is not None else ():
                if _decoded(view, found.start, found.end):
                    return found.kind, found.severity
        return None


def _views(run: str) -> Iterator[View]:
    for encoding in (_BASE64, _HEX, _PERCENT):
        if encoding.mark in run:
            for match in encoding.long_run.finditer(run):
                for phase in range(_PHASES[encoding.name]):
                    yield from view_of(encoding, match[0][phase:], match.start())


def _decoded(view: View, start: int, end: int) -> bool:
    """Tell whether a place in a view was encoded; what is not stands in the text itself, where the stages find it."""
    return any(stretch.low < end and start < stretch.high for stretch in view.stretches)
