"""What to look for and what to do with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType

from stanch.crypto import canonical_json, random_bytes
from stanch.errors import InvalidInput
from stanch.scan.canonical import canonical_value, letters_of
from stanch.scan.dictionary import Dictionary
from stanch.scan.fake import FAKES, is_fake
from stanch.scan.finder import Finder
from stanch.scan.fold import fold_text
from stanch.scan.pack import load_pack, pack_digest
from stanch.scan.recogniser import Recogniser
from stanch.scan.vault import Vault
from stanch.terms import Digest, JsonValue, Severity

LITERAL_KIND = "canary"
_SHORTEST_LITERAL, _LONGEST_LITERAL = 4, 4096
_LONGEST_ALLOWED = 512


class Operator(StrEnum):
    """What replaces a found value.

    Its kind (``label``), its kind with a number that is the same for equal values of a record (``numbered``), its last
    characters (``mask``), nothing (``drop``), a keyed name that stays the same (``pseudonym``), such a name of a value
    that lies sealed in a vault (``vault``), or a made-up value that belongs to nobody (``fake``). ``drop-record`` takes
    the whole record out of a dataset; in a single text, which has no record, it labels.
    """

    LABEL = "label"
    NUMBERED = "numbered"
    MASK = "mask"
    DROP = "drop"
    DROP_RECORD = "drop-record"
    PSEUDONYM = "pseudonym"
    FAKE = "fake"
    VAULT = "vault"


KEYED = frozenset({Operator.PSEUDONYM, Operator.FAKE, Operator.VAULT})
"""Operators that need a key."""


@dataclass(frozen=True)
class Policy:
    """Rules, thresholds and operators of a scanner.

    Attributes:
        recognisers: The rules; by default the shipped pack.
        finders: Further searches over whole texts, such as a model; streams leave them out.
        kinds: The only kinds to look for; None means all.
        without: Kinds that are turned off.
        min_score: Least score of a finding, from 0.2 to 1; what scores from 0.2 up to it is a residual.
        operators: Operator by kind; ``"*"`` is the one of all other kinds and ``label`` by default.
        literals: Texts to be found wherever they appear, whatever the case, spacing and punctuation, also reversed.
            They stay in memory only. Each needs at least four letters or digits.
        literal_severity: Severity of a literal that is found.
        decode_depth: 1 also searches what runs of base64, hexadecimal digits, percent and JSON escapes say
            (:mod:`stanch.scan.decode`); 0 does not.
        dictionaries: The customer's own terms, as keyed hashes; the label of each is a kind.
        allowed: Values that everybody may know and that are no findings, a literal aside. A value is one of them if,
            as of its kind, both have one canonical form (:func:`stanch.scan.canonical.canonical_value`) and the same
            letters.
        pseudonym_key: 32 bytes; needed by the operators in ``KEYED``.
        vault: Takes the values of the operator ``vault``, sealed.
        report_key: 32 bytes under which equal values get equal fingerprints; random by default, so that fingerprints
            compare only within one policy object.
    """

    recognisers: tuple[Recogniser, ...] = field(default_factory=load_pack)
    kinds: frozenset[str] | None = None
    without: frozenset[str] = frozenset()
    min_score: float = 0.5
    finders: tuple[Finder, ...] = ()
    operators: Mapping[str, Operator] = field(default_factory=lambda: MappingProxyType({}))
    literals: tuple[str, ...] = field(default=(), repr=False)
    literal_severity: Severity = Severity.CRITICAL
    decode_depth: int = 0
    dictionaries: tuple[Dictionary, ...] = ()
    allowed: tuple[str, ...] = ()
    pseudonym_key: bytes | None = field(default=None, repr=False)
    vault: Vault | None = None
    report_key: bytes = field(default_factory=lambda: random_bytes(32), repr=False)

    def __post_init__(self) -> None:
        if not 0.2 <= self.min_score <= 1:
            raise InvalidInput(f"min_score: expected 0.2 to 1, found {self.min_score}")
        if self.decode_depth not in {0, 1}:
            raise InvalidInput(f"decode_depth: expected 0 or 1, found {self.decode_depth}")
        used = set(self.operators.values())
        if used & KEYED and len(self.pseudonym_key or b"") != 32:
            raise InvalidInput(
                f"the operator {min(used & KEYED)} needs a key of 32 bytes", next_step="give Policy a pseudonym_key"
            )
        if Operator.VAULT in used and self.vault is None:
            raise InvalidInput("the operator vault needs a vault", next_step="give --vault FILE and --vault-to")
        unknown = ((self.kinds or frozenset()) | self.without | set(self.operators)) - self.known
        if unknown:
            raise InvalidInput(
                f"unknown kind {min(unknown)!r}", next_step=f"use one of {', '.join(sorted(self.known - {'*'}))}"
            )
        for number, value in enumerate(self.allowed):
            if not (letters_of(value) or any(map(str.isdigit, value))) or len(value) > _LONGEST_ALLOWED:
                raise InvalidInput(
                    f"allowed value {number}: expected a letter or digit and at most {_LONGEST_ALLOWED} characters"
                )
        for number, literal in enumerate(self.literals):
            size = len(fold_text(literal, "squeezed"))
            if not _SHORTEST_LITERAL <= size <= _LONGEST_LITERAL:
                raise InvalidInput(
                    f"literal {number}: {size} letters and digits, expected {_SHORTEST_LITERAL} to {_LONGEST_LITERAL}",
                    why="a shorter text would be found everywhere",
                )

    @property
    def known(self) -> frozenset[str]:
        """Every kind that this policy can find, and ``*``."""
        made = {LITERAL_KIND, "*"} | {dictionary.label for dictionary in self.dictionaries}
        made = made.union(*(finder.kinds for finder in self.finders))
        return frozenset(made | {recogniser.kind for recogniser in self.recognisers})

    def wants(self, kind: str) -> bool:
        """Tell whether a kind is turned on."""
        return (self.kinds is None or kind in self.kinds) and kind not in self.without

    def active(self) -> tuple[Recogniser, ...]:
        """Return the recognisers of the kinds that are turned on."""
        return tuple(recogniser for recogniser in self.recognisers if self.wants(recogniser.kind))

    def operator(self, kind: str) -> Operator:
        """Return the operator of a kind."""
        return self.operators.get(kind, self.operators.get("*", Operator.LABEL))

    @cached_property
    def faked(self) -> frozenset[str]:
        """The kinds whose values are replaced by made-up ones."""
        return frozenset(kind for kind in FAKES if self.operator(kind) == Operator.FAKE)

    @cached_property
    def _allowed(self) -> "_Allowed":
        return _Allowed(self.allowed)

    @property
    def spares_some(self) -> bool:
        """Whether there may be values for which :meth:`spares` is true."""
        return bool(self.allowed or self.faked)

    def spares(self, kind: str, value: str) -> bool:
        """Tell whether a value is no finding: it is allowed, or one of those that the operator ``fake`` writes."""
        if self.allowed and kind != LITERAL_KIND and _form(kind, value) in self._allowed[kind]:
            return True
        return any(is_fake(faked, value) for faked in self.faked)

    def digest(self) -> Digest:
        """Return the digest of everything but the keys and the literals, of which only the number counts."""
        facts: dict[str, JsonValue] = {
            "pack": str(pack_digest(self.recognisers)),
            "rules": [*sorted(recogniser.id for recogniser in self.active())],
            "min_score": self.min_score,
            "operators": {kind: operator.value for kind, operator in sorted(self.operators.items())},
            "literals": len(self.literals),
            "dictionaries": [[entry.label, entry.key_id, len(entry)] for entry in self.dictionaries],
        }
        if self.allowed:
            facts["allowed"] = [*sorted(self.allowed)]
        if self.decode_depth:
            facts["decode_depth"] = self.decode_depth
        if self.finders:
            facts["finders"] = [[finder.name, finder.facts()] for finder in self.finders]
        return Digest.sha256(canonical_json(facts))


class _Allowed(dict[str, frozenset[tuple[bytes, str]]]):
    """By kind, in what form allowed values stand where they are found as that kind."""

    def __init__(self, values: tuple[str, ...]) -> None:
        super().__init__()
        self._values = values

    def __missing__(self, kind: str) -> frozenset[tuple[bytes, str]]:
        forms = self[kind] = frozenset(_form(kind, value) for value in self._values)
        return forms


def _form(kind: str, value: str) -> tuple[bytes, str]:
    # The canonical form of some kinds is digits alone: an address with a year in it is not a code of four digits.
    return canonical_value(kind, value), letters_of(value)
