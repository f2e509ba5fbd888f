"""The rules of ``kingfisher-secret-scanner`` (extra ``rules``), read through its public ``Rules`` class alone.

Nothing of the rules is copied: they are read from the installed package each time. Its filters are evaluated as far as
they can be here; a part that cannot drops nothing.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import ge, gt, le, lt
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from stanch.errors import ExternalError, InvalidInput, MissingExtraError
from stanch.scan.adapters.conditions import REACH, checksum_verdict, found_in
from stanch.scan.adapters.expression import Expression
from stanch.scan.adapters.foreign import ForeignRules, make_recogniser
from stanch.scan.check import Candidate
from stanch.scan.recogniser import Recogniser, Source
from stanch.scan.validators.entropy import entropy
from stanch.scan.validators.verdict import REJECT, Verdict
from stanch.terms import JsonValue

if TYPE_CHECKING:
    from kingfisher_sdk import Rules

ORIGIN = "kingfisher"
_MAX_RULES = 5000
_Value: TypeAlias = bool | float | None
_Node: TypeAlias = Callable[[Candidate], _Value]
_Subject: TypeAlias = Callable[[Candidate], bytes]
_DEEPEST = 60


class _Detail(msgspec.Struct):
    """The facts of a rule that are used here; a missing one is an error of the contract."""

    id: str
    detection_regex: str
    visible: bool
    path: str | None
    betterleaks_filter: dict[str, Any] | None
    betterleaks_secret_group: int | None
    min_entropy: float | None
    pattern_requirements: dict[str, Any] | None


def load_kingfisher() -> "Rules":
    """Load the rules that come with the package, without touching any cache folder.

    Raises:
        MissingExtraError: The extra ``rules`` is not installed.
    """
    try:
        from kingfisher_sdk import Rules  # noqa: PLC0415 - an optional part
    except ImportError as error:
        raise MissingExtraError("rules") from error
    return Rules(cache=False)


def read_kingfisher(rules: "Rules") -> ForeignRules:
    """Read the rules; those that only help others, or ask for what stanch does not know, are skipped by name.

    Raises:
        ExternalError: The package describes its rules in another way than version 1.5.0.
    """
    recognisers: list[Recogniser] = []
    skipped: list[tuple[str, str]] = []
    names = [str(entry["id"]) for entry in rules.metadata()]
    if len(names) > _MAX_RULES:
        raise InvalidInput(f"a rule set has at most {_MAX_RULES} rules, found {len(names)}")
    for name in names:
        try:
            detail = msgspec.convert(rules.detail(name), type=_Detail)
        except msgspec.ValidationError as error:
            raise ExternalError(
                f"rule {name}: kingfisher-secret-scanner describes it in an unknown way", why=str(error)[:200],
                next_step="install kingfisher-secret-scanner 1.5.0",
            ) from error  # fmt: skip
        made = _recogniser(detail)
        if isinstance(made, Recogniser):
            recognisers.append(made)
        else:
            skipped.append((name, made))
    return ForeignRules(ORIGIN, tuple(recognisers), tuple(skipped))


def _recogniser(detail: _Detail) -> Recogniser | str:
    if not detail.visible:
        return "only helps other rules"
    if detail.path:
        return "is for files of certain names"
    if detail.pattern_requirements:
        return "has requirements that stanch does not know"
    check = FilterCheck(json.dumps(detail.betterleaks_filter, sort_keys=True), detail.min_entropy or 0.0)
    try:
        expression = Expression(detail.detection_regex, detail.betterleaks_secret_group or 0)
        around = '"line"' in check.filter
        return make_recogniser(detail.id, expression, check, looks_around=around, source=_SOURCE)
    except InvalidInput as error:
        return error.what


_SOURCE = Source(
    f"{ORIGIN} rules of the installed package", "https://pypi.org/project/kingfisher-secret-scanner/", "never"
)


@dataclass(frozen=True, slots=True)
class FilterCheck:
    """A rule's filter, the JSON form of an expression tree that is true of what is to be dropped, and its entropy."""

    filter: str
    entropy: float

    def judge(self, candidate: Candidate) -> Verdict:
        """Reject what the filter drops; what is left is judged by our own checksums."""
        if self.entropy and entropy(candidate.value) < self.entropy:
            return REJECT
        if _compiled(self.filter)(candidate) is True:
            return REJECT
        return checksum_verdict(candidate.value)

    def facts(self) -> JsonValue:
        """Return the filter as it is written, and the entropy."""
        return {"filter": self.filter, "entropy": self.entropy}


@lru_cache(maxsize=_MAX_RULES)
def _compiled(text: str) -> _Node:
    """Return what evaluates a tree for one candidate in the logic of three values; None says that it is not known."""
    return _compile(json.loads(text), 0)


def _compile(node: object, depth: int) -> _Node:
    if depth > _DEEPEST:
        return _unknown
    match node:
        case {"kind": "bool", "value": bool() as value}:
            return _always(value)
        case {"kind": "float", "value": str() as value}:
            return _always(float(value))
        case {"kind": "unary", "operator": "!", "node": inner}:
            return _negation(_compile(inner, depth + 1))
        case {"kind": "binary", "operator": str() as operator, "left": left, "right": right}:
            return _binary(operator, _compile(left, depth + 1), _compile(right, depth + 1))
        case {"kind": "call", "callee": {"value": str() as name}, "arguments": [subject, *rest]}:
            return _call(name, _subject(subject), rest)
    return _unknown


def _unknown(_candidate: Candidate) -> _Value:
    return None


def _always(value: _Value) -> _Node:
    return lambda _candidate: value


def _negation(inner: _Node) -> _Node:
    def negation(candidate: Candidate) -> bool | None:
        value = inner(candidate)
        return None if value is None else not value

    return negation


def _binary(operator: str, left: _Node, right: _Node) -> _Node:
    decisive = {"||": True, "&&": False}.get(operator)

    def joined(candidate: Candidate) -> bool | None:
        first, second = left(candidate), right(candidate)
        if decisive in {first, second}:
            return decisive
        return None if first is None or second is None else not decisive

    compare = {"<": lt, "<=": le, ">": gt, ">=": ge}.get(operator)

    def compared(candidate: Candidate) -> bool | None:
        first, second = left(candidate), right(candidate)
        return None if first is None or second is None or compare is None else bool(compare(first, second))

    return compared if decisive is None else joined


def _call(name: str, subject: _Subject | None, rest: list[object]) -> _Node:
    if subject is None:
        return _unknown
    if name == "entropy":
        return lambda candidate: entropy(value) if (value := subject(candidate)) else 0.0
    match rest:
        case [{"kind": "array", "nodes": list() as nodes}] if name in {"matchesAny", "containsAny"}:
            texts = tuple(str(node["value"]) for node in nodes if node.get("kind") == "string")
            return _contains(texts, subject) if name == "containsAny" else _matches(texts, subject)
    return _unknown


def _contains(texts: tuple[str, ...], subject: _Subject) -> _Node:
    lowered = [text.lower().encode() for text in texts]

    def contains(candidate: Candidate) -> bool:
        value = subject(candidate).lower()
        return any(text in value for text in lowered)

    return contains


def _matches(texts: tuple[str, ...], subject: _Subject) -> _Node:
    def matches(candidate: Candidate) -> bool | None:
        try:
            return found_in(texts, subject(candidate))
        except InvalidInput:
            return None

    return matches


def _subject(node: object) -> _Subject | None:
    """Return what ``finding.secret``, ``finding.match`` or ``finding.line`` stands for."""
    match node:
        case {"kind": "member", "node": {"value": "finding"}, "property": {"value": str() as name}}:
            return _SUBJECTS.get(name)
    return None


_SUBJECTS: dict[str, _Subject] = {
    "secret": lambda candidate: candidate.value,
    "match": lambda candidate: candidate.match,
    "line": lambda candidate: candidate.line(REACH),
}
