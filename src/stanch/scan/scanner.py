"""The scanner: whole texts and many texts; it opens the streams that give the same answers."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

from stanch.errors import ExternalError, LeakFound
from stanch.scan.block import FoldedBlock, TextBlock
from stanch.scan.canonical import canonical_value, fingerprint
from stanch.scan.confirm import RESIDUAL
from stanch.scan.decode import DecodedLane, decoded_views
from stanch.scan.dictionary import DictionaryLane
from stanch.scan.engine import EngineMaker
from stanch.scan.engine_re2 import Re2Engine
from stanch.scan.finder import search
from stanch.scan.fold import fold_text
from stanch.scan.found import Found, Location, ScanFinding, ScanResult
from stanch.scan.lead import Leads
from stanch.scan.literals import LiteralLane, LiteralSearch
from stanch.scan.policy import LITERAL_KIND, Policy
from stanch.scan.raw import RawLines
from stanch.scan.redact import Redacted, Replacement, Replacer
from stanch.scan.resolve import Keep, Resolver
from stanch.scan.rules import RuleLane, RuleSearch
from stanch.scan.sheet import Sheet, sheet_of
from stanch.scan.stream import Lane, StreamSession

_BLOCK = 1 << 20
_ROUNDS = 8
_BEFORE = 512  # code points of the text before that are searched; only its last 96 bytes are looked at
_NOWHERE = Location()


class Scanner:
    """Finds and redacts what a policy names. One object serves many threads.

    Attributes:
        policy: What it looks for and what replaces it.
        engine: The library that searches: ``hyperscan``, or ``re2`` where that is not at hand. Both find the same.
    """

    def __init__(self, policy: Policy, *, engine: Literal["auto", "hyperscan", "re2"] = "auto") -> None:
        """Compile the policy's rules and literals.

        Raises:
            InvalidInput: A rule does not compile; it is named.
            ExternalError: Hyperscan was asked for by name and cannot be loaded.
        """
        self.policy = policy
        make = self._make = _engine_maker(engine)
        self._rules = RuleSearch(policy.active(), make)
        self._dictionaries = tuple(entry for entry in policy.dictionaries if policy.wants(entry.label))
        chosen = policy.literals if policy.wants(LITERAL_KIND) else ()
        self._literals = LiteralSearch(chosen, make, kind=LITERAL_KIND, severity=policy.literal_severity)
        self.engine = self._rules.engine.name

    def scan(self, text: str | bytes, *, location: Location | None = None) -> ScanResult:
        """Return the findings in one text, with positions in its code points.

        Bytes are read as UTF-8; a byte that is none counts as one code point.
        """
        return next(self.scan_many([(location or _NOWHERE, text)]))

    def scan_many(self, items: Iterable[tuple[Location, str | bytes]]) -> Iterator[ScanResult]:
        """Return the results of many texts in their order; texts are joined to blocks of 1 MiB for speed.

        What a text says is searched with the name of its field before it, and with the end of the text that it
        follows: both may announce what its first words are (:mod:`stanch.scan.lead`).
        """
        for block in _blocks(items):
            locations, texts = [location for location, _ in block], TextBlock([text for _, text in block])
            found = dict(self._results(texts, locations.__getitem__, self._before(locations)))
            for number, location in enumerate(locations):
                yield found.get(number) or ScanResult(location, (), (), texts.size(number))

    def scan_block(
        self, texts: Sequence[str | bytes], fields: Iterable[str], locate: Callable[[int], Location]
    ) -> Iterator[tuple[int, ScanResult]]:
        """Yield the number and the result of each text in which something is found, be it a residual.

        All texts are searched at once, so they should not be much more than 1 MiB together.

        Args:
            texts: The texts; none counts as following another.
            fields: The path of the field of each.
            locate: Returns a text's location by its number; only asked where an anchor was found.
        """
        return self._results(TextBlock(texts), locate, _Before(self._named(fields)))

    def suspect_lines(self, lines: Sequence[bytes]) -> set[int]:
        """Return the numbers of the JSON lines that must be parsed to be scanned.

        :meth:`scan` finds nothing, not even a residual, in any string, key name or number of the other lines. They are
        not checked for being JSON.
        """
        # No line shows by itself that these find nothing in its strings.
        if self._dictionaries or self.policy.finders or self.policy.decode_depth:
            return set(range(len(lines)))
        return self._raw_lines.suspects(lines)

    @property
    def by_rules_alone(self) -> bool:
        """Whether the policy has rules only: no literals, dictionaries, finders or decoded views."""
        return not (self._dictionaries or self.policy.finders or self._literals.present or self.policy.decode_depth)

    def scan_folded(
        self, block: FoldedBlock, locate: Callable[[int], Location], field: str, *, spoken: bool
    ) -> Iterator[tuple[int, ScanResult]]:
        """Yield what :meth:`scan_block` yields, for texts of one field that are folded and joined already.

        Only for a policy that is :attr:`by_rules_alone`.

        Args:
            block: The texts.
            locate: Returns a text's location by its number; only asked where an anchor was found.
            field: The path of the field, without positions in lists.
            spoken: Whether these texts may answer others or be answered: one that has an anchor at its beginning or
                end, which may matter to that, is then yielded (once more) with nothing found.
        """
        leads = self._rules.names[field]
        named = dict.fromkeys(range(len(block)), leads) if leads else {}
        return self._results(block, locate, _Before(named, spoken=spoken))

    @cached_property
    def _raw_lines(self) -> RawLines:
        return RawLines(self._rules, self._literals, self._make)

    def open_stream(self, *, location: Location | None = None) -> StreamSession:
        """Start a session for one text that arrives in chunks."""
        lanes: list[Lane] = [RuleLane(self._rules, location or _NOWHERE, self.policy.min_score)]
        if self._literals.present:
            lanes.append(LiteralLane(self._literals))
        lanes += [DictionaryLane(dictionary) for dictionary in self._dictionaries]
        if self.policy.decode_depth and (self._literals.present or self._dictionaries):
            lanes.append(DecodedLane(self._literals, self._dictionaries))
        return StreamSession(self.policy, lanes)

    def sheet(self, members: bytes, limit: int) -> Sheet | None:
        """Return what a glance must know; see :func:`stanch.scan.sheet.sheet_of`."""
        return sheet_of(self._rules.held_ends, self._literals.prefixes, members, limit)

    def replace(
        self, text: str, *, location: Location | None = None, replacer: Replacer | None = None, before: str = ""
    ) -> Redacted:
        """Replace the findings of one text, once; ``before`` is the text that it follows.

        Without that, it is what a stream releases for the same text.
        """
        replacer = replacer or Replacer(self.policy)
        place = location or _NOWHERE
        located = [_NOWHERE, Location(place.record, place.field, follows=True)] if before else [place]
        block = TextBlock([before[-_BEFORE:], text] if before else [text])
        number = len(located) - 1
        text = block.text(number)
        found = [
            entry
            for at, entries in self._search(block, located.__getitem__, self._before(located))
            for entry in entries
            if at == number and entry.score >= self.policy.min_score
        ]
        resolver = Resolver()
        for entry in found:
            resolver.add(entry)
        parts: list[str] = []
        places: list[tuple[int, int]] = []
        size = 0
        for step in resolver.advance(len(text)):
            if isinstance(step, Keep):
                parts.append(text[step.start : step.end])
            else:
                hidden = step.found.swallows or step.found.decoded
                value = "" if hidden else text[step.found.start : step.found.end]
                parts.append(replacer.write(step.found, value, alone=step.alone))
                places.append((size, size + len(parts[-1])))
            size += len(parts[-1])
        replaced = tuple(
            Replacement(cluster.label.kind, cluster.label.start, cluster.end, *place)
            for cluster, place in zip(resolver.closed, places, strict=True)
        )
        return Redacted("".join(parts), self._report(text, found), replaced)

    def redact(
        self, text: str, *, location: Location | None = None, replacer: Replacer | None = None, before: str = ""
    ) -> Redacted:
        """Replace the findings of one text until a scan of the result finds nothing.

        Where taking a value out brings another to light (it touched the first one, say), it is replaced as well. The
        texts of one record share a ``replacer``, so that its labels are numbered through. ``before`` is the text that
        this one follows, if any.

        Raises:
            LeakFound: Findings remain after eight rounds.
        """
        replacer = replacer or Replacer(self.policy)
        done = self.replace(text, location=location, replacer=replacer, before=before)
        for _ in range(_ROUNDS):
            again = self.replace(done.text, location=location, replacer=replacer, before=before)
            if not again.findings:
                return done
            done = done.then(again)
        raise LeakFound(
            f"redaction: {len(again.findings)} findings remain in the output after {_ROUNDS} rounds",
            why=f"the first is of kind {again.findings[0].kind}",
            next_step="use the operator label for that kind",
        )

    def _before(self, locations: Sequence[Location]) -> "_Before":
        """Return what stands before texts."""
        follows = {number for number, place in enumerate(locations) if place.follows and number}
        return _Before(self._named(place.field for place in locations), follows)

    def _named(self, fields: Iterable[str]) -> dict[int, Leads]:
        """Return by the number of a text the leads that the name of its field makes, where it makes any."""
        names = self._rules.names
        return {number: leads for number, field in enumerate(fields) if (leads := names[field])}

    def _results(
        self, block: FoldedBlock, locate: Callable[[int], Location], before: "_Before"
    ) -> Iterator[tuple[int, ScanResult]]:
        for number, entries in self._search(block, locate, before):
            text = block.text(number)
            sure = [entry for entry in entries if entry.score >= self.policy.min_score]
            known = {entry.identity for entry in sure}
            unsure = [entry for entry in entries if entry.score < self.policy.min_score and entry.identity not in known]
            yield (
                number,
                ScanResult(locate(number), self._report(text, sure), self._report(text, unsure), block.size(number)),
            )

    def _search(
        self, block: FoldedBlock, locate: Callable[[int], Location], before: "_Before"
    ) -> Iterator[tuple[int, list[Found]]]:
        """Yield what is in each text that holds anything, as it stands there and, where the policy says so, decoded."""
        if not self.policy.decode_depth:
            yield from self._search_plain(block, locate, before)
            return
        found = dict(self._search_plain(block, locate, before))
        views = [(number, view) for number in range(len(block)) for view in decoded_views(block.text(number))]
        inner = TextBlock([view.text for _, view in views])
        alone = _Before({})
        for place, entries in self._search_plain(
            inner, lambda place: Location("", locate(views[place][0]).field), alone
        ):
            number, view = views[place]
            if more := [entry for entry in map(view.encloses, entries) if entry is not None]:
                found.setdefault(number, []).extend(more)
        yield from sorted(found.items(), key=lambda item: item[0])

    def _search_plain(
        self, block: FoldedBlock, locate: Callable[[int], Location], before: "_Before"
    ) -> Iterator[tuple[int, list[Found]]]:
        """Yield what stands in each text that holds anything, after one call of each engine for all of them."""
        named, follows, spoken = before
        heard = self._rules.engine.scan(block.folded)
        every = self._rules.find_all(block, heard, lambda number: locate(number).field)
        hits = dict(block.split(heard)) if spoken or follows else {}
        ends = self._rules.end_leads(block, hits, of=hits if spoken else [n for n in hits if n + 1 in follows])
        texts = range(len(block))
        literal = self._literals.suspects([block.text(n) for n in texts]) if self._literals.present else frozenset()
        answers = {number + 1 for number in ends if number + 1 in follows}
        looked = {*every, *hits, *literal, *named, *answers}
        for number in texts if self._dictionaries or self.policy.finders else sorted(looked):
            found, own = every.get(number, []), hits.get(number, ())
            if number in named:
                found += self._rules.find_named(block, number, locate(number).field, named[number])
            if number in follows:
                sure = {entry.recogniser for entry in found if entry.score >= self.policy.min_score}
                near = self._rules.near(block, number, own, but=sure)
                found += self._rules.find_answer(block, number, locate(number).field, near, ends.get(number - 1))
            if number in literal:
                found += self._literals.find(block.text(number))
            for dictionary in self._dictionaries:
                found += dictionary.find(block.text(number))
            if self.policy.finders:
                found += self._seen(block.text(number))
            if found and self.policy.spares_some:
                text = block.text(number)
                found = [
                    entry
                    for entry in found
                    if entry.swallows
                    or entry.decoded
                    or not self.policy.spares(entry.kind, text[entry.start : entry.end])
                ]
            if found:
                yield number, found
            if spoken and (number in ends or self._rules.near(block, number, own)):
                yield number, []

    def _seen(self, text: str) -> list[Found]:
        """Return what the finders see in a text."""
        found = [entry for finder in self.policy.finders for entry in search(finder, text)]
        return [entry for entry in found if self.policy.wants(entry.kind) and entry.score >= RESIDUAL]

    def _report(self, text: str, found: Sequence[Found]) -> tuple[ScanFinding, ...]:
        if len(found) > 1:
            best = {entry.identity: entry for entry in sorted(found, key=lambda f: f.report_order, reverse=True)}
            found = sorted(best.values(), key=lambda f: f.report_order)
        key, reports = self.policy.report_key, []
        for entry in found:
            value = text[entry.start : entry.end]
            canonical = fold_text(value) if entry.swallows else canonical_value(entry.kind, value)
            reports.append(entry.report(fingerprint(key, entry.kind, canonical)))
        return tuple(reports)


class _Before(NamedTuple):
    """What may announce the values in texts.

    Attributes:
        named: By the number of a text the leads that the name of its field makes.
        follows: The numbers of the texts that follow the one before them.
        spoken: Whether any of them may follow another that is not here; see :meth:`Scanner.scan_folded`.
    """

    named: Mapping[int, Leads]
    follows: Collection[int] = frozenset()
    spoken: bool = False


def _blocks(items: Iterable[tuple[Location, str | bytes]]) -> Iterator[list[tuple[Location, str | bytes]]]:
    """Group items to blocks of about 1 MiB; a text is in that of the text it follows."""
    block: list[tuple[Location, str | bytes]] = []
    size = 0
    for item in items:
        if size >= _BLOCK and not item[0].follows:
            yield block
            block, size = [], 0
        block.append(item)
        size += len(item[1])
    if block:
        yield block


def _engine_maker(engine: Literal["auto", "hyperscan", "re2"]) -> EngineMaker:
    """Return what compiles patterns.

    Raises:
        ExternalError: Hyperscan was asked for by name and cannot be loaded.
    """
    if engine == "re2":
        return Re2Engine
    try:
        from stanch.scan.engine_hyperscan import HyperscanEngine  # noqa: PLC0415 - not there for every processor
    except ImportError as error:
        if engine == "hyperscan":
            raise ExternalError(
                "the engine hyperscan cannot be loaded",
                why=str(error),
                next_step="leave the choice to stanch, or take re2",
            ) from error
        return Re2Engine
    return HyperscanEngine
