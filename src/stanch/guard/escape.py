r"""Before the stages: what a text says once its JSON escapes are read. Chunk borders leave no trace.

A client that asked for JSON decodes it, so a protected text can be written ``\u0074he``, with ``\/`` or in surrogate
pairs. From the first backslash on, the text goes through all stages a second time, decoded; a text without one costs a
look. What blocks there ends the answer. What is replaced there is replaced as it is written, with the escapes in it; an
escape beside a value would hide it too, or one in a word that it needs.

The border of two places of an answer (:data:`BORDER`) is read likewise: as it is written it parts words, decoded it is
nothing. So what lies across it is found whether a client puts the places together with or without a space; that ends
the answer, since no label can stand in two places.

Tag characters show nothing, and the stages drop them; read as escapes they say the ASCII characters that they encode.

Not claimed: an escape in an escape, and escapes of other languages than JSON.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from stanch.guard.policy import ENCODED_TRAINING_TEXT, TRAINING_TEXT, Action, GuardPolicy
from stanch.guard.reading import Passed, Reading
from stanch.scan.found import Found, ScanFinding
from stanch.terms import Finding, Severity

BORDER = "\x1f"
"""Stands where one place of an answer ends and the next begins; a model that says it is read in the same way."""

REPLAYED = 4096
"""Code points before the first backslash that are read again; a finding that reaches further back shows unescaped."""

_TAGS = "\U000e0020-\U000e007e"
_CUT = f"{BORDER}{{0,3}}"  # an escape may be cut by borders
_HEX = rf"(?:{_CUT}[0-9a-fA-F])"
_HIGH, _LOW = rf"u{_CUT}[dD]{_CUT}[89abAB]{_HEX}{{2}}", rf"u{_CUT}[dD]{_CUT}[c-fC-F]{_HEX}{{2}}"
_LOW_BEGUN = rf"\\{_CUT}(?:u{_CUT}(?:[dD]{_CUT}(?:[c-fC-F]{_HEX}?{_CUT})?)?)?"
_WHOLE = rf'\\{_CUT}(?:{_HIGH}{_CUT}\\{_CUT}{_LOW}|u{_HEX}{{4}}|["\\/bfnrt])|{BORDER}|[{_TAGS}]'
_ESCAPE = re.compile(_WHOLE)
_BEGUN = re.compile(rf"(?P<begun>\\{_CUT}(?:{_HIGH}{_CUT}(?:{_LOW_BEGUN})?|u{_HEX}{{0,3}}{_CUT})?\Z)|{_WHOLE}")
_FIRST = re.compile(rf"[\\{BORDER}{_TAGS}]")
_TAG = re.compile(f"[{_TAGS}]")
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class EscapedGate:
    """Holds text until what it says with its escapes read is judged.

    Attributes:
        found: What ended the text, with its place as it is written; None while the text goes on.
        told: What is to be replaced in the text that passes or is held, and where the escape before it begins, which no
            value takes a part of. Whoever reads on takes them out before the text.
        begun: The same of values that the policy spares: where each begins.
    """

    def __init__(self, policy: GuardPolicy, after: str) -> None:
        self.found: Finding | None = None
        self.told: list[tuple[Found, int]] = []
        self.begun: list[tuple[int, int]] = []
        self._policy = policy
        self._before = [after + BORDER] if after else []  # the end of what has passed
        self._kept = 0
        self._held = ""
        self._passed = 0
        self._reading: Reading | None = None
        self._is_after = bool(after)  # then all is read together, from the first character on

    @property
    def held_chars(self) -> int:
        """Code points that are held now."""
        return len(self._held)

    @property
    def rests(self) -> bool:
        """Whether the text is not read a second time."""
        return self._reading is None and not self._is_after

    @property
    def position(self) -> int:
        """Code points that were given."""
        return self._passed + len(self._held)

    def feed(self, text: str, *, final: bool = False) -> str:
        """Take the next piece of the text, or the last one, and return what passes; after a finding nothing does."""
        if self.found is not None:
            return ""
        if self._reading is not None:
            return self._judge(self._reading, text, final=final)
        if not (self._is_after or "\\" in text or BORDER in text or (not text.isascii() and _TAG.search(text))):
            self.skip(text)
            return text
        first = None if self._is_after else _FIRST.search(text)
        start = 0 if first is None else first.start()
        plain = text[:start]
        self._passed += start
        self._before.append(plain)
        self._reading = self._begin()
        return plain + self._judge(self._reading, text[start:], final=final)

    def skip(self, text: str) -> None:
        """Take text without escapes and borders, before there are any: it passes."""
        self._passed += len(text)
        self._before.append(text)
        self._kept += len(text)
        if self._kept > 2 * REPLAYED:
            self._before = ["".join(self._before)[-REPLAYED:]]
            self._kept = REPLAYED

    def _begin(self) -> Reading:
        """Read what came before the first escape once more: the stages have judged it, and it has passed."""
        before, self._before = "".join(self._before)[-REPLAYED:], []
        self._first, self._base, self._decoded = self._passed, self._passed - len(before), 0
        self._undecoded = ""  # the beginning of an escape
        self._lows: list[int] = []  # where each escape stands in the decoded text,
        self._highs: list[int] = []  # where what it says ends there,
        self._ends: list[int] = []  # and where it ends as it is written
        self._borders: tuple[list[int], list[int]] = [], []  # lows and highs of those with a border
        self._known: dict[tuple[str, int], int] = {}  # where a finding ends, which is told before it is replaced
        reading = Reading(self._policy, is_decoded=True)
        passed = reading.step(self._decode(before, final=False))
        self._learn(passed.findings)
        if (cut := passed.cut) is not None:  # a run of training text that was replaced
            self.found = Finding(cut.kind, cut.severity, max(self._written(cut.start), 0), self._written(cut.end), "")
        return reading

    def _judge(self, reading: Reading, text: str, *, final: bool) -> str:
        if self.found is not None:  # before the first escape
            return ""
        self._held += text
        passed = reading.step(self._decode(self._undecoded + text, final=final), final=final)
        self._learn(passed.findings)
        self.begun += [(self._written(start), self._since(start)) for start in reading.session.spared]
        until = reading.settled
        stop = None if (cut := passed.cut) is None else (cut.start, cut.end, cut.kind, cut.severity)
        if hidden := self._hidden(passed):
            stop, until = hidden, min(until, hidden[0])
        if stop is None:
            return self._pass(self._written(until))
        start, end, kind, severity = stop
        # A border alone hides nothing: what has left of the run reads as it is written.
        within = _between(self._lows, self._highs, start, end)
        if kind == TRAINING_TEXT and any(self._lows[at] < self._highs[at] for at in within):
            kind = ENCODED_TRAINING_TEXT
        self.found = Finding(kind, severity, max(self._written(start), 0), self._written(end), "")
        # What stood before the first escape has passed, or would have, had the text been cut there.
        released = self._pass(max(self._written(until), self._first))
        self._held = ""
        return released

    def _learn(self, findings: Sequence[ScanFinding]) -> None:
        """Take what the decoded text shows, before the text that holds it passes."""
        for one in findings:
            known = self._known[one.kind, one.start] = max(self._known.get((one.kind, one.start), 0), one.end)
            ends = self._policy.action(one.kind, one.severity) is Action.BLOCK
            if ends or _between(*self._borders, one.start, known):
                continue
            start, end = self._written(one.start), self._written_end(known)
            told = Found(start, end, one.kind, one.severity, one.score, one.recogniser, one.version, one.reason)
            self.told.append((told, self._since(one.start)))

    def _since(self, start: int) -> int:
        """Return where a place of the decoded text stands as it is written; before the escape that ends there."""
        before = bisect_right(self._highs, start) - 1
        is_beside = before >= 0 and self._highs[before] == start
        return self._written(self._lows[before] if is_beside else start)

    def _hidden(self, passed: Passed) -> tuple[int, int, str, Severity] | None:
        """Return the first finding that ends the answer."""
        for _, kind, severity, start in passed.pieces:
            if kind is None or severity is None:
                continue
            end = self._known.get((kind, start))
            if self._policy.action(kind, severity) is Action.BLOCK or end is None:
                return start, end or start, kind, severity
            if _between(*self._borders, start, end):
                return start, end, kind, severity
        return None

    def _pass(self, until: int) -> str:
        count = max(until - self._passed, 0)
        text, self._held = self._held[:count], self._held[count:]
        self._passed += len(text)
        return text

    def _written(self, decoded: int) -> int:
        """Return where a place of the decoded text stands in the text as it is written."""
        at = bisect_right(self._highs, decoded)
        return self._ends[at - 1] + decoded - self._highs[at - 1] if at else self._base + decoded

    def _written_end(self, decoded: int) -> int:
        """Return where what ends there ends as it is written, before the borders behind it."""
        at = bisect_left(self._lows, decoded)
        return self._ends[at - 1] + decoded - self._highs[at - 1] if at else self._base + decoded

    def _decode(self, text: str, *, final: bool) -> str:
        """Return what a text says; the beginning of an escape at its end waits for the rest."""
        written, parts, done = self._passed + len(self._held) - len(text), list[str](), 0
        self._undecoded = ""
        for match in (_ESCAPE if final else _BEGUN).finditer(text):
            start = match.start()
            if match.lastgroup == "begun":
                text, self._undecoded = text[:start], text[start:]
                break
            parts += [text[done:start], said := _said(match[0])]
            self._decoded += start - done
            self._lows.append(self._decoded)
            self._decoded += len(said)
            self._highs.append(self._decoded)
            self._ends.append(written + match.end())
            if BORDER in match[0]:
                self._borders[0].append(self._lows[-1])
                self._borders[1].append(self._highs[-1])
            done = match.end()
        self._decoded += len(text) - done
        return "".join([*parts, text[done:]])


def _between(lows: list[int], highs: list[int], start: int, end: int) -> range:
    """Return the numbers of the escapes that lie between two places of the decoded text, at least in part."""
    return range(bisect_right(highs, start), bisect_left(lows, end))


def _said(escape: str) -> str:
    """Return the character of an escape or a tag; half a surrogate pair becomes U+FFFD. A border says nothing."""
    escape = escape.replace(BORDER, "")
    if not escape:
        return ""
    if escape[0] != "\\":
        return chr(ord(escape) & 0x7F)
    if escape[1] != "u":
        return _SHORT.get(escape[1], escape[1])
    return bytes.fromhex(escape.replace("\\u", "")).decode("utf-16-be", "replace")
