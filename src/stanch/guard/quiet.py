"""Quiet text goes through all stages at once: none of them sees in it anything that waits for more.

Where numba is installed, most tokens of most answers are read here: by one glance (:mod:`stanch.scan.glance`), one call
of the anchors' engine and one look into the index. At the first token that is loud the stages are told what they have
missed, which for each is a few additions, and read it themselves. Their state is then the same, and so is what they
release, as if they had read all the time. When they rest, the next token may be quiet again.
"""

import numpy as np

from stanch.guard.decode import MEMBERS
from stanch.guard.escape import EscapedGate
from stanch.guard.policy import GuardPolicy
from stanch.guard.reading import Reading
from stanch.scan.compiler import Steps
from stanch.scan.decode import SHORTEST_RUN
from stanch.scan.dictionary import DictionaryLane
from stanch.scan.fold import ASCII_TO_INDEX, SEPARATOR
from stanch.scan.glance import HASH, HELD, LITERAL, PLACE, RING, RULE, RUN, SAVED, SILENT, SIZE, SPACE, empty_room
from stanch.scan.kernels import BLOCKS, ROOM
from stanch.scan.literals import LiteralLane
from stanch.scan.rules import RuleLane
from stanch.scan.sheet import Sheet
from stanch.scan.words import WordMatcher

_PLAIN = frozenset(map(chr, {*range(128)} - {SEPARATOR}))  # what every stage reads as it stands
_MOST_HELD = 128
_MOST_MISSED = 1024
"""Pieces of text that the stages have missed at most."""


def policy_sheet(policy: GuardPolicy) -> Sheet | None:
    """Return what a glance must know of a policy; None if that is too much."""
    is_gated = policy.index is not None or policy.known is not None
    return policy.scanner.sheet(MEMBERS.encode() if is_gated else b"", SHORTEST_RUN)


class QuietReader:
    """Reads for the stages of one stream as long as all is quiet.

    Attributes:
        reads: Whether it does; from :meth:`start` to :meth:`stop`. In between the stages know nothing of the text.
    """

    def __init__(self, steps: Steps, sheet: Sheet, escaped: EscapedGate, reading: Reading) -> None:
        self.reads = False
        self._glance, self._look, self._sheet, self._figures = steps.glance, steps.look, sheet, sheet.numbers
        self._escaped, self._reading = escaped, reading
        lanes = reading.session.lanes
        (self._rules,) = (lane for lane in lanes if isinstance(lane, RuleLane))
        self._hear = self._rules.stream.feed
        self._literals = [lane for lane in lanes if isinstance(lane, LiteralLane)]
        self._terms = [lane for lane in lanes if isinstance(lane, DictionaryLane)]
        self._cursor = None if reading.gate is None else reading.gate.cursor
        self._room = empty_room()
        if self._cursor is not None:
            self._room[:ROOM] = self._cursor.room
            self._room[SIZE] = self._cursor.size
            self._permute, self._words = self._cursor.permute, self._cursor.words
        self._state = self._room.data
        self._blocks = self._room.data.cast("B")[8 * BLOCKS :]

    @property
    def missed(self) -> tuple[int, int]:
        """Code points, and folded characters to be compared with the index, of which the stages do not know."""
        return sum(map(len, self._missed[1:])), self._state[PLACE] - self._state[SIZE]

    def start(self) -> None:
        """Read from here on, if all stages rest, or only the rules wait."""
        reading, rules, state = self._reading, self._rules, self._state
        session, gate = reading.session, reading.gate
        if not (session.rests and self._escaped.rests):
            return
        run = "" if reading.decoded is None else reading.decoded.held
        raw = session.held + run
        searches: list[LiteralLane | WordMatcher] = [*self._literals, *(lane.words for lane in self._terms)]
        silent = [one for search in searches if (one := search.silent) is not None]
        if len(run) >= SHORTEST_RUN or len(raw) > _MOST_HELD or not _PLAIN.issuperset(raw):
            return
        if len(silent) < len(searches) or not all(lane.rests for lane in self._terms):
            return
        if gate is not None:
            if not gate.rests or (window := gate.cursor.window) is None:
                return
            tail, state[HASH] = window
            self._room[RING : RING + len(tail)] = np.frombuffer(tail, dtype=np.uint8)
            state[PLACE], state[SPACE] = len(tail), gate.between_words
        state[RUN], state[HELD], state[SILENT] = len(run), len(rules.held), max(silent, default=0)
        state[RULE] = self._sheet.rules.row(rules.prefix)
        state[LITERAL] = self._sheet.literals.row(self._literals[0].state if self._literals else 0)
        self._raw, self._seen, self._position = raw, len(session.held), session.position
        self._begun_at, self._missed = rules.position, [run]
        self._waits = not rules.rests
        self.reads = True

    def read(self, chunk: str) -> tuple[str, int] | None:
        """Take the next piece of text; return what may go out and how much is held, or None, and nothing is done."""
        if not chunk.isascii():
            return None
        raw, seen = self._raw + chunk, self._seen
        data = raw.encode()
        code = self._glance(data, len(chunk), self._room, self._figures)
        if code < 0:
            return None
        floor, end, windows = code & 255, code >> 8 & 255, code >> 16
        if (windows and self._look(self._permute(self._blocks[: 16 * windows]), self._words)) or (
            end > seen and (floor := self._search(data[seen:end], floor)) < 0
        ):
            self._state[RUN : RUN + 8] = self._state[SAVED : SAVED + 8]
            return None
        self._missed.append(chunk)
        self._seen = end - floor
        self._position += floor
        self._raw = held = raw[floor:]
        if len(self._missed) > _MOST_MISSED:
            self.stop()
            self.start()
        return raw[:floor], len(held)

    def _search(self, data: bytes, floor: int) -> int:
        """Search what a glance has called quiet; return the floor, or -1 where something stands in it."""
        position, begun = self._position, []
        if self._terms:
            folded = data.translate(ASCII_TO_INDEX)
            for lane in self._terms:
                if (words := lane.words.follow(folded, position + self._seen)) is None:
                    return -1
                begun.append(words)
        # At last: what the rules have taken cannot be taken back.
        if (hits := self._hear(data)) or self._waits:
            if not self._waits:
                self._waits = True
                missed = self._passed()[self._rules.position - self._begun_at :]
                self._rules.skip(missed, self._state[SAVED + HELD - RUN])
            if not self._rules.takes(data.decode(), hits):
                return -1
            self._waits = not self._rules.rests
            floor = min(floor, self._rules.floor() - position)
        for lane, words in zip(self._terms, begun, strict=True):
            lane.words.begun = words
            if words:
                floor = min(floor, words[0][0] - position)
        return floor

    def _passed(self) -> str:
        """Return the text that the stages have missed, up to what the searches have seen."""
        text = "".join(self._missed)
        return text[: len(text) - len(self._raw) + self._seen]

    def stop(self) -> None:
        """Tell the stages what they have missed."""
        reading, state, passed = self._reading, self._state, self._passed()
        if reading.decoded is not None:
            reading.decoded.skip(len(passed), self._raw[self._seen :])
        if reading.gate is not None:
            reading.gate.skip(passed, state[PLACE] - state[SIZE], state[HASH])
        if not self._waits:
            self._rules.skip(passed[self._rules.position - self._begun_at :], state[HELD])
        for lane in self._literals:
            lane.skip(passed, self._sheet.literals.state(state[LITERAL]))
        for terms in self._terms:
            terms.skip(passed)
        reading.resume(len(passed), self._raw[: self._seen])
        self._escaped.skip("".join(self._missed[1:]))
        self.reads = False
