"""The scanner: whole texts and many texts; it opens the streams that give the same answers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stanch.errors import LeakFound
from stanch.scan.canonical import Fingerprint, canonical_value
from stanch.scan.fold import GAP, SEPARATOR, CodePoints, Folder, fold_text
from stanch.scan.found import Found, Location, ScanFinding, ScanResult
from stanch.scan.literals import LiteralLane, LiteralSearch
from stanch.scan.policy import LITERAL_KIND, Policy
from stanch.scan.redact import Redacted, Replacement, replacement
from stanch.scan.resolve import Keep, Resolver
from stanch.scan.rules import FoldedText, RuleLane, RuleSearch
from stanch.scan.stream import Lane, StreamSession

_BLOCK = 1 << 20
_ROUNDS = 8
_NOWHERE = Location()


@dataclass(frozen=True, slots=True)
class _Item:
    """One of the texts of a block: its code points, their folded bytes, and the size it came with."""

    location: Location
    text: str
    folder: Folder
    folded: bytes
    size: int


class Scanner:
    """Finds and redacts what a policy names. One object serves many threads."""

    def __init__(self, policy: Policy) -> None:
        """Compile the policy's rules and literals.

        Raises:
            InvalidInput: A rule does not compile; it is named.
        """
        self.policy = policy
        self._rules = RuleSearch(policy.active())
        wanted = policy.kinds is None or LITERAL_KIND in policy.kinds
        chosen = policy.literals if wanted and LITERAL_KIND not in policy.without else ()
        self._literals = LiteralSearch(chosen, kind=LITERAL_KIND, severity=policy.literal_severity)

    def scan(self, text: str | bytes, *, location: Location | None = None) -> ScanResult:
        """Return the findings in one text, with positions in its code points.

        Bytes are read as UTF-8; a byte that is none counts as one code point.
        """
        return next(self._scan_block([_item(location or _NOWHERE, text)]))

    def scan_many(self, items: Iterable[tuple[Location, str | bytes]]) -> Iterator[ScanResult]:
        """Return the results of many texts in their order; texts are joined to blocks of 1 MiB for speed."""
        block: list[_Item] = []
        size = 0
        for location, text in items:
            block.append(_item(location, text))
            size += len(block[-1].folded) + 1
            if size >= _BLOCK:
                yield from self._scan_block(block)
                block, size = [], 0
        if block:
            yield from self._scan_block(block)

    def anchors(self, block: bytes) -> list[int] | None:
        """Return where in a block of folded bytes an anchor ends, sorted: where none does, nothing is found.

        None: the policy looks for what no anchor announces.
        """
        return None if self._literals.present else [end for end, _ in self._rules.engine.scan(block)]

    def open_stream(self, *, location: Location | None = None) -> StreamSession:
        """Start a session for one text that arrives in chunks."""
        lanes: list[Lane] = [RuleLane(self._rules, location or _NOWHERE, self.policy.min_score)]
        if self._literals.present:
            lanes.append(LiteralLane(self._literals))
        return StreamSession(self.policy, lanes)

    def replace(self, text: str, *, location: Location | None = None) -> Redacted:
        """Replace the findings of one text, once: what a stream releases for the same text."""
        item = _item(location or _NOWHERE, text)
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
                parts.append(replacement(self.policy, step.found, value, alone=step.alone))
                places.append((size, size + len(parts[-1])))
            size += len(parts[-1])
        replaced = tuple(
            Replacement(cluster.label.kind, cluster.label.start, cluster.end, *place)
            for cluster, place in zip(resolver.closed, places, strict=True)
        )
        return Redacted("".join(parts), self._report(item, found), replaced)

    def redact(self, text: str, *, location: Location | None = None) -> Redacted:
        """Replace the findings of one text until a scan of the result finds nothing.

        Where taking a value out brings another to light (it touched the first one, say), it is replaced as well.

        Raises:
            LeakFound: Findings remain after eight rounds.
        """
        done = self.replace(text, location=location)
        for _ in range(_ROUNDS):
            again = self.replace(done.text, location=location)
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
            sure = [entry for entry in found if entry.score >= self.policy.min_score]
            unsure = [entry for entry in found if entry.score < self.policy.min_score]
            yield ScanResult(item.location, self._report(item, sure), self._report(item, unsure), item.size)

    def _search(self, block: Sequence[_Item]) -> Iterator[list[Found]]:
        """Return what is in each text of a block, after one call of the engine for all of them."""
        joined = bytes([SEPARATOR]).join(item.folded for item in block)
        hits = self._rules.engine.scan(joined)
        low = first = 0
        for item in block:
            high = low + len(item.folded)
            last = first
            while last < len(hits) and hits[last][0] <= high:
                last += 1
            place = FoldedText(item.location, item.folder, low, high)
            yield self._rules.find(joined, place, hits[first:last]) + self._literals.find(item.text)
            low, first = high + 1, last

    def _report(self, item: _Item, found: Sequence[Found]) -> tuple[ScanFinding, ...]:
        best = {entry.identity: entry for entry in sorted(found, key=lambda f: f.report_order, reverse=True)}
        reports = []
        for entry in sorted(best.values(), key=lambda f: f.report_order):
            value = item.text[entry.start : entry.end]
            mark = Fingerprint(self.policy.report_key, entry.kind)
            mark.update(fold_text(value) if entry.swallows else canonical_value(entry.kind, value))
            reports.append(entry.report(mark.hex()))
        return tuple(reports)


def _item(location: Location, text: str | bytes) -> _Item:
    if isinstance(text, bytes):
        size, text = len(text), text.decode("utf-8", "surrogateescape")
    else:
        points = CodePoints()
        text = points.push(text) + points.finish()
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    folder = Folder("detect", gap=GAP)
    return _Item(location, text, folder, folder.push(text), size)
