"""What stands in the place of a found value."""

from dataclasses import dataclass, field, replace

from stanch.scan.canonical import label_name, pseudonym
from stanch.scan.found import Found, ScanFinding
from stanch.scan.policy import Operator, Policy
from stanch.terms import Severity

_MASK = "****"
_SHOWN, _SHOWN_FROM = 4, 12


def replacement(policy: Policy, found: Found, value: str, *, alone: bool) -> str:
    """Return the replacement of a finding's cluster.

    Args:
        policy: Gives the operator of the finding's kind.
        found: The finding that names the cluster.
        value: Its text; empty for an unbounded one, which is then never more than labelled.
        alone: Whether nothing else overlaps it; only then a mask shows anything.
    """
    match policy.operator(found.kind):
        case Operator.DROP:
            return ""
        case Operator.MASK:
            shown = alone and len(value) >= _SHOWN_FROM and found.severity.rank < Severity.HIGH.rank
            return _MASK + value[-_SHOWN:] if shown else _MASK
        case Operator.PSEUDONYM if value and policy.pseudonym_key is not None:
            return pseudonym(policy.pseudonym_key, found.kind, value)
    return f"<{label_name(found.kind)}>"


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
