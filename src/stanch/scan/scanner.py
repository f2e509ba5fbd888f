"""The scanner: whole texts and many texts; it opens the streams that give the same answers."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import groupby
from typing import Literal

from stanch.errors import ExternalError, LeakFound
from stanch.scan.canonical import Fingerprint, canonical_value
from stanch.scan.confirm import RESIDUAL
from stanch.scan.dictionary import DictionaryLane
from stanch.scan.engine import EngineMaker
from stanch.scan.engine_re2 import Re2Engine
from stanch.scan.finder import search
from stanch.scan.fold import GAP, SEPARATOR, CodePoints, Folder, fold_text, may_have_gap
from stanch.scan.found import Found, Location, ScanFinding, ScanResult
from stanch.scan.literals import LiteralLane, LiteralSearch
from stanch.scan.offsets import OffsetMap
from stanch.scan.policy import LITERAL_KIND, Policy
from stanch.scan.raw import RawLines
from stanch.scan.redact import Redacted, Replacement, Replacer
from stanch.scan.resolve import Keep, Resolver
from stanch.scan.rules import FoldedText, RuleLane, RuleSearch
from stanch.scan.stream import Lane, StreamSession

_BLOCK = 1 << 20
_ROUNDS = 8
_SEPARATOR = bytes([SEPARATOR])
_NOWHERE = Location()


class _Item:
    """One of the texts of a block: what it was given as, its folded bytes, and its size in UTF-8.

    The way back from the folded bytes is only made when something was found.
    """

    __slots__ = ("folded", "given", "location", "size")

    def __init__(self, location: Location, given: str | bytes) -> None:
        self.location = location
        self.given = given
        if given.isascii():
            self.size = len(given)
            plain = given if isinstance(given, bytes) else given.encode()
            self.folded = plain.replace(_SEPARATOR, b" ")
            return
        if isinstance(given, bytes):
            self.size = len(given)
            text = given.decode("utf-8", "surrogateescape")
        else:
            points = CodePoints()
            text = points.push(given) + points.finish()
            self.size = len(text.encode("utf-8", "surrogatepass"))
        self.given = text
        self.folded = Folder("detect", gap=GAP).push(text) if may_have_gap(text) else fold_text(text)

    @property
    def text(self) -> str:
        """The text in code points."""
        return self.given if isinstance(self.given, str) else self.given.decode("ascii")

    def offsets(self) -> OffsetMap | None:
        """Return the way from folded bytes to code points; None where they are the same."""
        if self.given.isascii():
            return None
        folder = Folder("detect", gap=GAP)
        folder.push(self.text)
        return folder.offsets


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
        return next(self._scan_block([_Item(location or _NOWHERE, text)]))

    def scan_many(self, items: Iterable[tuple[Location, str | bytes]]) -> Iterator[ScanResult]:
        """Return the results of many texts in their order; texts are joined to blocks of 1 MiB for speed."""
        block: list[_Item] = []
        size = 0
        for location, text in items:
            block.append(_Item(location, text))
            size += len(block[-1].folded) + 1
            if size >= _BLOCK:
                yield from self._scan_block(block)
                block, size = [], 0
        if block:
            yield from self._scan_block(block)

    def suspect_lines(self, lines: Sequence[bytes]) -> set[int]:
        """Return the numbers of the JSON lines that must be parsed to be scanned.

        :meth:`scan` finds nothing, not even a residual, in any string, key name or number of the other lines. They are
        not checked for being JSON.
        """
        if self._dictionaries or self.policy.finders:  # no line shows by itself that these find nothing in its strings
            return set(range(len(lines)))
        return self._raw_lines.suspects(lines)

    @property
    def by_rules_alone(self) -> bool:
        """Whether the policy has rules only: no literals, dictionaries or finders."""
        return not (self._dictionaries or self.policy.finders or self._literals.present)

    def scan_folded(
        self, block: bytes, ends: Sequence[int], where: Callable[[int], Location], text: Callable[[int], str]
    ) -> Iterator[tuple[int, ScanResult]]:
        """Yield what :meth:`scan` returns for those texts of a block in which something is found, with their numbers.

        Only for a policy that is :attr:`by_rules_alone`.

        Args:
            block: Texts folded in the view ``detect``, with the byte ``SEPARATOR`` between two.
            ends: Where each of them ends.
            where: Returns a text's location by its number; only asked where an anchor was found.
            text: Returns a text by its number; only asked where something was found.
        """
        for number, hits in groupby(self._rules.engine.scan(block), lambda hit: bisect_left(ends, hit[0])):
            location = where(number)
            way_back = partial(_offsets_of, location, text, number)
            place = FoldedText(location.field, way_back, ends[number - 1] + 1 if number else 0, ends[number])
            if found := self._rules.find(block, place, list(hits)):
                item = _Item(location, text(number))
                if found := self._real(item, found):
                    yield number, self._result(item, found)

    @cached_property
    def _raw_lines(self) -> RawLines:
        return RawLines(self._rules.confirmers, self._literals, self._make)

    def open_stream(self, *, location: Location | None = None) -> StreamSession:
        """Start a session for one text that arrives in chunks."""
        lanes: list[Lane] = [RuleLane(self._rules, location or _NOWHERE, self.policy.min_score)]
        if self._literals.present:
            lanes.append(LiteralLane(self._literals))
        lanes += [DictionaryLane(dictionary) for dictionary in self._dictionaries]
        return StreamSession(self.policy, lanes)

    def replace(self, text: str, *, location: Location | None = None, replacer: Replacer | None = None) -> Redacted:
        """Replace the findings of one text, once: what a stream releases for the same text."""
        replacer = replacer or Replacer(self.policy)
        item = _Item(location or _NOWHERE, text)
        found = [f for f in next(self._search([item])) if f.score >= self.policy.min_score]
        resolver = Resolver()
        for entry in found:
            resolver.add(entry)
        parts: list[str] = []
        places: list[tuple[int, int]] = []
        size = 0
        for step in resolver.advance(len(item.text)):
            if isinstance(step, Keep):
                parts.append(item.text[step.start : step.end])
            else:
                value = "" if step.found.swallows else item.text[step.found.start : step.found.end]
                parts.append(replacer.write(step.found, value, alone=step.alone))
                places.append((size, size + len(parts[-1])))
            size += len(parts[-1])
        replaced = tuple(
            Replacement(cluster.label.kind, cluster.label.start, cluster.end, *place)
            for cluster, place in zip(resolver.closed, places, strict=True)
        )
        return Redacted("".join(parts), self._report(item, found), replaced)

    def redact(self, text: str, *, location: Location | None = None, replacer: Replacer | None = None) -> Redacted:
        """Replace the findings of one text until a scan of the result finds nothing.

        Where taking a value out brings another to light (it touched the first one, say), it is replaced as well. The
        texts of one record share a ``replacer``, so that its labels are numbered through.

        Raises:
            LeakFound: Findings remain after eight rounds.
        """
        replacer = replacer or Replacer(self.policy)
        done = self.replace(text, location=location, replacer=replacer)
        for _ in range(_ROUNDS):
            again = self.replace(done.text, location=location, replacer=replacer)
            if not again.findings:
                return done
            done = done.then(again)
        raise LeakFound(
            f"redaction: {len(again.findings)} findings remain in the output after {_ROUNDS} rounds",
            why=f"the first is of kind {again.findings[0].kind}",
            next_step="use the operator label for that kind",
        )

    def _scan_block(self, block: Sequence[_Item]) -> Iterator[ScanResult]:
        for item, found in zip(block, self._search(block), strict=True):
            yield self._result(item, found) if found else ScanResult(item.location, (), (), item.size)

    def _result(self, item: _Item, found: Sequence[Found]) -> ScanResult:
        sure = [entry for entry in found if entry.score >= self.policy.min_score]
        unsure = [entry for entry in found if entry.score < self.policy.min_score]
        return ScanResult(item.location, self._report(item, sure), self._report(item, unsure), item.size)

    def _search(self, block: Sequence[_Item]) -> Iterator[list[Found]]:
        """Return what is in each text of a block, after one call of each engine for all of them."""
        joined = _SEPARATOR.join([item.folded for item in block])
        hits = self._rules.engine.scan(joined)
        suspects = self._literals.suspects([item.text for item in block]) if self._literals.present else ()
        low = first = 0
        for number, item in enumerate(block):
            high = low + len(item.folded)
            last = first
            while last < len(hits) and hits[last][0] <= high:
                last += 1
            found: list[Found] = []
            if last > first:
                place = FoldedText(item.location.field, item.offsets, low, high)
                found += self._rules.find(joined, place, hits[first:last])
            if number in suspects:
                found += self._literals.find(item.text)
            for dictionary in self._dictionaries:
                found += dictionary.find(item.text)
            if self.policy.finders:
                found += self._seen(item)
            yield self._real(item, found)
            low, first = high + 1, last

    def _real(self, item: _Item, found: list[Found]) -> list[Found]:
        """Leave out the fakes that an earlier redaction put in the place of values."""
        if not self.policy.faked:
            return found
        return [entry for entry in found if not self.policy.is_fake(item.text[entry.start : entry.end])]

    def _seen(self, item: _Item) -> list[Found]:
        """Return what the finders see in a text."""
        found = [entry for finder in self.policy.finders for entry in search(finder, item.text)]
        return [entry for entry in found if self.policy.wants(entry.kind) and entry.score >= RESIDUAL]

    def _report(self, item: _Item, found: Sequence[Found]) -> tuple[ScanFinding, ...]:
        best = {entry.identity: entry for entry in sorted(found, key=lambda f: f.report_order, reverse=True)}
        reports = []
        for entry in sorted(best.values(), key=lambda f: f.report_order):
            value = item.text[entry.start : entry.end]
            mark = Fingerprint(self.policy.report_key, entry.kind)
            mark.update(fold_text(value) if entry.swallows else canonical_value(entry.kind, value))
            reports.append(entry.report(mark.hex()))
        return tuple(reports)


def _offsets_of(location: Location, text: Callable[[int], str], number: int) -> OffsetMap | None:
    return _Item(location, text(number)).offsets()


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
