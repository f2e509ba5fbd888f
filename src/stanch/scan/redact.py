"""What stands in the place of a found value."""

from dataclasses import dataclass, field, replace

from stanch.scan.canonical import canonical_value, label_name, pseudonym
from stanch.scan.fake import FAKES, fake
from stanch.scan.found import Found, ScanFinding
from stanch.scan.policy import Operator, Policy
from stanch.terms import Severity

_MASK = "****"
_SHOWN, _SHOWN_FROM = 4, 12


class Replacer:
    """Writes what stands in the place of values. One object serves one record, over which it numbers labels."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._numbers: dict[str, dict[bytes, int]] = {}

    def write(self, found: Found, value: str, *, alone: bool) -> str:
        """Return the replacement of a finding's cluster.

        Args:
            found: The finding that names the cluster.
            value: Its text; empty for an unbounded one, which is then never more than labelled.
            alone: Whether nothing else overlaps it; only then a mask shows anything.
        """
        operator, key, label = self._policy.operator(found.kind), self._policy.pseudonym_key, label_name(found.kind)
        match operator:
            case Operator.DROP:
                return ""
            case Operator.MASK:
                shown = alone and len(value) >= _SHOWN_FROM and found.severity.rank < Severity.HIGH.rank
                return _MASK + value[-_SHOWN:] if shown else _MASK
            case Operator.NUMBERED:
                return f"<{label}_{self._number(found.kind, value)}>"
            case Operator.PSEUDONYM | Operator.VAULT if value and key is not None:
                name = pseudonym(key, found.kind, value)
                if operator == Operator.VAULT and self._policy.vault is not None:
                    self._policy.vault.add(found.kind, name, value)
                return name
            case Operator.FAKE if value and key is not None and found.kind in FAKES:
                return fake(key, found.kind, value)
        return f"<{label}>"

    def _number(self, kind: str, value: str) -> int:
        """Return 1 for the first value of a kind, 2 for the next other one; unbounded values are never equal."""
        seen = self._numbers.setdefault(kind, {})
        canonical = canonical_value(kind, value) if value else b"\0%d" % len(seen)
        return seen.setdefault(canonical, len(seen) + 1)


@dataclass(frozen=True, slots=True)
class Replacement:
    """A span of the original text and the span of the output that stands for it, both half-open, in code points."""

    kind: str
    start: int
    end: int
    output_start: int
    output_end: int


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text without its findings.

    ``replacements`` is the way back: outside them, output and original advance together. Findings have original spans.
    """

    text: str = field(repr=False)
    findings: tuple[ScanFinding, ...]
    replacements: tuple[Replacement, ...]

    def original(self, position: int) -> int:
        """Return the original position of an output position; inside a replacement, where the replaced span starts."""
        shift = 0
        for entry in self.replacements:
            if position < entry.output_start:
                break
            if position < entry.output_end:
                return entry.start
            shift = entry.end - entry.output_end
        return position + shift

    def original_end(self, position: int) -> int:
        """Return the original end of an output span that ends at ``position``; after a replacement, the span's end."""
        for entry in self.replacements:
            if entry.output_start < position <= entry.output_end:
                return entry.end
        return self.original(position - 1) + 1 if position else 0

    def then(self, again: "Redacted") -> "Redacted":
        """Return the result of redacting this output once more, with all positions in the first original."""
        later = [
            replace(entry, start=self.original(entry.start), end=self.original_end(entry.end))
            for entry in again.replacements
        ]
        earlier = [
            replace(entry, output_start=again.output(entry.output_start), output_end=again.output(entry.output_end))
            for entry in self.replacements
            if not any(
                other.start < entry.output_end and entry.output_start < other.end for other in again.replacements
            )
        ]
        found = [replace(f, start=self.original(f.start), end=self.original_end(f.end)) for f in again.findings]
        return Redacted(
            again.text,
            tuple(sorted((*self.findings, *found), key=lambda f: (f.start, f.end, f.kind))),
            tuple(sorted((*earlier, *later), key=lambda entry: (entry.output_start, entry.output_end))),
        )

    def output(self, position: int) -> int:
        """Return the output position of an original position outside the replaced spans."""
        shift = 0
        for entry in self.replacements:
            if position < entry.end:
                break
            shift = entry.output_end - entry.end
        return position + shift
