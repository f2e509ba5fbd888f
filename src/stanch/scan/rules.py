"""All rules of a policy over folded text: the search of a whole text, and the rules' part of a stream."""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from stanch.scan.block import FoldedBlock
from stanch.scan.confirm import Confirmer, Located, Match
from stanch.scan.context import WIDTH
from stanch.scan.engine import EngineMaker, Hit, Pattern
from stanch.scan.fold import GAP, Folder
from stanch.scan.found import Found, Location
from stanch.scan.hold import HeldEnds, LiteralHold, SwallowHold, TrailingHold
from stanch.scan.lead import Lead, Leads, NameLeads, end_lead
from stanch.scan.offsets import OffsetMap
from stanch.scan.recogniser import Recogniser

_SLACK = 4096
_NEAR = 48  # bytes of a text in which it may answer the one before: further on it has words of its own


def anchor_pattern(rule: Recogniser) -> Pattern:
    """Return what the engine looks for on behalf of a rule."""
    return Pattern(rule.id, rule.anchor.encode(), rule.caseless, rule.lead, rule.trail)


class RuleSearch:
    """Compiled recognisers: one engine over all anchors, one confirmer for each rule."""

    def __init__(self, recognisers: Sequence[Recogniser], make: EngineMaker) -> None:
        self.confirmers = tuple(Confirmer(recogniser) for recogniser in recognisers)
        self.engine = make([anchor_pattern(rule) for rule in recognisers], cached=True)
        self.names = NameLeads(self.engine, self.confirmers)
        streamed = [c for c in self.confirmers if not c.recogniser.whole_only]
        literal = (c for c in streamed if isinstance(c.recogniser.hold, LiteralHold | SwallowHold))
        trailing = [c.recogniser.hold for c in streamed if isinstance(c.recogniser.hold, TrailingHold)]
        self.held_ends = HeldEnds(trailing, itertools.chain.from_iterable(c.shape.literals or () for c in literal))
        self.history = max((confirmer.history for confirmer in streamed), default=0)

    def find(self, block: bytes, text: "FoldedText", hits: Sequence[Hit]) -> list[Found]:
        """Return what the hits inside one text of a block stand for."""
        found: list[Found] = []
        offsets: OffsetMap | None = None
        places: dict[int, Place] = {}
        for end, index in hits:
            confirmer = self.confirmers[index]
            first, close = confirmer.first(block, text.low, end), confirmer.close(block, end, text.high)
            window = (first, text.high if close is None else close)
            last = places.get(index)
            if last is not None and last.covers(window, end):
                continue
            located = confirmer.locate(block, text.low, window, end)
            if located is None:
                continue
            places[index] = Place(window, located)
            if last is not None and last.located == located:
                continue
            match = confirmer.judge(block, (text.low, text.high), located, text.field)
            if match is not None and match.start >= text.start:
                stop = confirmer.extend(block, match.end, text.high, final=True)[0] if match.open else match.end
                if not found:
                    offsets = text.way_back()
                span = (match.start - text.start, stop - text.start)
                found.append(found_at(span if offsets is None else offsets.span(*span), confirmer.recogniser, match))
        return found

    def find_all(self, block: FoldedBlock, hits: Sequence[Hit], field: Callable[[int], str]) -> dict[int, list[Found]]:
        """Return by the number of a text what the hits in a block stand for in it; ``field`` names a text's field.

        Rule by rule, because what a rule needs is then still near the processor when it is asked again.
        """
        found: dict[int, list[Found]] = {}
        texts: dict[int, FoldedText] = {}
        for _, own in itertools.groupby(sorted(hits, key=itemgetter(1)), itemgetter(1)):
            for number, near in block.split(own):
                if number not in texts:
                    texts[number] = FoldedText.of(block, number, field(number))
                if more := self.find(block.folded, texts[number], near):
                    found.setdefault(number, []).extend(more)
        return found

    def find_named(self, block: FoldedBlock, number: int, field: str, leads: Leads) -> list[Found]:
        """Return what the name of its field announces in one text of a block."""
        text = FoldedText.of(block, number, field)
        return [entry for lead in leads for entry in self.find_led(lead, block.folded, text)]

    def find_answer(
        self, block: FoldedBlock, number: int, field: str, near: Sequence[Hit], end: Lead | None
    ) -> list[Found]:
        """Return what the end of the text before announces at the beginning of a text, and what it says of that.

        ``near`` are the hits there; ``end`` is that end, if it announces anything.
        """
        if end is None and not near:
            return []
        lead = end or end_lead(block.folded, *block.bounds(number - 1), (), self.confirmers)
        return self.find_led(lead, block.folded, FoldedText.of(block, number, field), near)

    def end_leads(self, block: FoldedBlock, hits: Mapping[int, Sequence[Hit]], of: Iterable[int]) -> dict[int, Lead]:
        """Return by the number of a text the lead that its end makes, of those asked for that announce anything."""
        leads = {
            number: end_lead(block.folded, *block.bounds(number), hits[number], self.confirmers)
            for number in of
            if hits[number][-1][0] > block.ends[number] - WIDTH
        }
        return {number: lead for number, lead in leads.items() if lead.hits}

    def near(
        self, block: FoldedBlock, number: int, hits: Sequence[Hit], but: Collection[str] = frozenset()
    ) -> list[Hit]:
        """Return those of a text's hits that stand near enough to what is said before, but for those of some rules."""
        end = block.bounds(number)[0] + _NEAR
        return [hit for hit in hits if hit[0] < end and self.confirmers[hit[1]].recogniser.id not in but]

    def find_led(self, lead: Lead, block: bytes, text: "FoldedText", hits: Sequence[Hit] = ()) -> list[Found]:
        """Return what the hits in a lead stand for in the text behind it, and what those in the text do there."""
        size = len(lead.folded)
        joined = lead.folded + block[text.low : text.high]
        later = [(end - text.low + size, index) for end, index in hits]
        return self.find(joined, FoldedText(text.field, text.way_back, 0, size, len(joined)), [*lead.hits, *later])


class Place(NamedTuple):
    """Where a rule's expression matched last, and the window it was searched in."""

    window: tuple[int, int]
    located: Located

    def covers(self, window: tuple[int, int], end: int) -> bool:
        """Tell whether a later anchor that ends at ``end`` leads to the same match.

        In the same window the search passes over the same matches up to this one, which covers the later end as well.
        """
        return self.window == window and end <= self.located.stop


class FoldedText(NamedTuple):
    """A text's place ``start`` to ``high`` in a block of folded bytes; from ``low`` to there stands what leads to it.

    ``way_back`` makes the map to its code points.
    """

    field: str
    way_back: Callable[[], OffsetMap | None]
    low: int
    start: int
    high: int

    @classmethod
    def of(cls, block: FoldedBlock, number: int, field: str) -> "FoldedText":
        """Return the place of a text in a block, with nothing before it."""
        low, high = block.bounds(number)
        return cls(field, partial(block.offsets, number), low, low, high)


def found_at(span: tuple[int, int], rule: Recogniser, match: Match) -> Found:
    """Return a match as a finding at a span of the original text."""
    return Found(*span, rule.kind, match.severity, match.score, rule.id, rule.version, match.reason, match.open)


@dataclass(slots=True)
class _Candidate:
    """An anchor that has ended at ``end``, whose value starts at ``first`` or later; absolute folded offsets."""

    confirmer: Confirmer
    end: int
    first: int


@dataclass(slots=True)
class _Run:
    """An unbounded finding that has been carried on to ``position``."""

    confirmer: Confirmer
    found: Found
    position: int


class RuleLane:
    """The rules' part of a stream: folds, finds, and says from where on text must be held.

    Attributes:
        stream: The search for anchors.
    """

    def __init__(self, search: RuleSearch, location: Location, min_score: float) -> None:
        self._search, self._location, self._min_score = search, location, min_score
        self._folder = Folder("detect", gap=GAP)
        self.stream = search.engine.open_stream()
        self._text = bytearray()
        self._most = search.history + 2 * _SLACK
        self._base = 0
        self._pending: list[_Candidate] = []
        self._runs: list[_Run] = []
        self._places: dict[str, Place] = {}
        self._held = b""  # the end that the hold rules hold; its start never moves back
        self._heard: Sequence[Hit] | None = None  # in the piece that comes next
        self._taken: list[Found] = []  # findings of the piece that comes next, which was taken before
        self._leads = search.names[location.field]  # that wait for the beginning of the text
        self._final = False

    @property
    def rests(self) -> bool:
        """Whether no anchor waits for what it announces, and no finding goes on."""
        return not (self._pending or self._runs or self._leads or self._final)

    @property
    def held(self) -> bytes:
        """The end that the hold rules hold."""
        return self._held

    @property
    def prefix(self) -> int:
        """The state of the anchors' literals after the end that is held: as after the whole text."""
        return self._search.held_ends.prefixes.step(0, self._held)

    @property
    def position(self) -> int:
        """Code points that were taken."""
        return self._folder.code_points

    def takes(self, text: str, hits: Sequence[Hit]) -> bool:
        """Take the next piece; False if something is found in it, for which it must then be fed as well.

        Args:
            text: The piece.
            hits: The anchors that end in it, which the stream was asked for.
        """
        self._heard = hits
        self._taken = self.feed(text)
        return not self._taken

    def skip(self, text: str, held: int) -> None:
        """Take ASCII text in which no anchor was heard, and of which so many bytes are held, with those held before."""
        data = self._folder.push(text)
        self._text += data
        end = self._held + data
        self._held = end[len(end) - held :]
        if len(self._text) > self._most:
            self._trim()

    def feed(self, text: str) -> list[Found]:
        """Take the next piece of text and return the findings that are now certain."""
        if self._taken:
            found, self._taken = self._taken, []
            return found
        data = self._folder.push(text)
        if not data:
            return []
        self._text += data
        hits, self._heard = self.stream.feed(data) if self._heard is None else self._heard, None
        if hits:
            self._add(hits)
        end = self._held + data
        self._held = end[len(end) - self._search.held_ends[end] :]
        found = [] if self.rests else self._settle()
        if len(self._text) > self._most:
            self._trim()
        return found

    def finish(self) -> list[Found]:
        """Say that the text ends here and return what that decides."""
        self._final = True
        self._add(self.stream.close())
        return self._settle()

    def _add(self, hits: Sequence[Hit]) -> None:
        """Remember what anchors announce."""
        for end, index in hits:
            confirmer = self._search.confirmers[index]
            if confirmer.recogniser.whole_only:
                continue
            first = confirmer.first(self._text, 0, end - self._base)
            self._pending.append(_Candidate(confirmer, end, first + self._base))

    def floor(self) -> int:
        """Return the code point before which no finding still to come can start.

        An unbounded finding that goes on needs no place here: its cluster stays open and nothing behind it is released.
        """
        if self._leads:
            return 0
        folder = self._folder
        folded = folder.folded if self._final else folder.folded - len(self._held)
        if self._pending:
            folded = min(folded, *(candidate.first for candidate in self._pending))
        return folder.offsets.start(folded) if folded < folder.folded else folder.code_points

    def _settle(self) -> list[Found]:
        """Decide the candidates whose windows have closed and carry the unbounded findings on."""
        size, found, waiting = len(self._text), self._settle_leads() if self._leads else [], []
        for candidate in self._pending:
            confirmer, end = candidate.confirmer, candidate.end - self._base
            close = confirmer.close(self._text, end, size)
            if close is None and not self._final:
                waiting.append(candidate)
                continue
            close = size if close is None else close
            window, last = (candidate.first, close + self._base), self._places.get(confirmer.recogniser.id)
            if last is not None and last.covers(window, candidate.end):
                continue
            located = confirmer.locate(self._text, 0, (candidate.first - self._base, close), end)
            if located is None:
                continue
            place = Place(window, located.moved(self._base))
            self._places[confirmer.recogniser.id] = place
            if last is not None and last.located == place.located:
                continue
            match = confirmer.judge(self._text, (0, size), located, self._location.field)
            if match is not None and match.score >= self._min_score:
                found.append(self._found(confirmer, match))
        self._pending = waiting
        if self._runs:
            self._runs = [run for run in self._runs if not self._carry_on(run)]
        return found

    def _settle_leads(self) -> list[Found]:
        """Decide what the name of the field announces, once there is text enough for all of it."""
        found = []
        for lead in self._leads:
            joined, confirmers = lead.folded + self._text, self._search.confirmers
            hits = [hit for hit in lead.hits if not confirmers[hit[1]].recogniser.whole_only]
            if not self._final and any(confirmers[i].close(joined, end, len(joined)) is None for end, i in hits):
                return []
            place = FoldedText(self._location.field, self._map, 0, len(lead.folded), len(joined))
            found += [entry for entry in self._search.find(joined, place, hits) if entry.score >= self._min_score]
        self._leads = ()
        return found

    def _map(self) -> OffsetMap:
        return self._folder.offsets

    def _found(self, confirmer: Confirmer, match: Match) -> Found:
        start, end = match.start + self._base, match.end + self._base
        found = found_at(self._folder.offsets.span(start, end), confirmer.recogniser, match)
        if match.open:
            found.open = True
            self._runs.append(_Run(confirmer, found, end))
        return found

    def _carry_on(self, run: _Run) -> bool:
        """Extend an unbounded finding over what has arrived; tell whether it is complete."""
        position, complete = run.confirmer.extend(
            self._text, run.position - self._base, len(self._text), final=self._final
        )
        if position + self._base > run.position:
            run.found.end = self._folder.offsets.span(run.position, position + self._base)[1]
            run.position = position + self._base
        run.found.open = not complete
        return complete

    def _trim(self) -> None:
        """Forget folded text that no rule can look at any more."""
        if self._leads:
            return
        size = len(self._text)
        oldest = min([c.first for c in self._pending] + [r.position for r in self._runs], default=self._base + size)
        cut = oldest - self._search.history - self._base
        if cut >= _SLACK:
            del self._text[:cut]
            self._base += cut
            self._folder.offsets.forget(self._base)
