"""The rules of ``kingfisher-secret-scanner`` (extra ``rules``), read through its public ``Rules`` class alone.

Nothing of the rules is copied: they are read from the installed package each time. Its filters are evaluated as far as
they can be here; a part that cannot drops nothing.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
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
        if _Evaluation(candidate).of(_parsed(self.filter)) is True:
            return REJECT
        return checksum_verdict(candidate.value)

    def facts(self) -> JsonValue:
        """Return the filter as it is written, and the entropy."""
        return {"filter": self.filter, "entropy": self.entropy}


@lru_cache(maxsize=_MAX_RULES)
def _parsed(text: str) -> object:
    return json.loads(text)


class _Evaluation:
    """Evaluates a tree for one candidate in the logic of three values; None stands for what is not known."""

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate

    def of(self, node: object, depth: int = 0) -> _Value:
        """Return the value of a node."""
        if depth > _DEEPEST:
            return None
        match node:
            case {"kind": "bool", "value": bool() as value}:
                return value
            case {"kind": "float", "value": str() as value}:
                return float(value)
            case {"kind": "unary", "operator": "!", "node": inner}:
                negated = self.of(inner, depth + 1)
                return None if negated is None else not negated
            case {"kind": "binary", "operator": str() as operator, "left": left, "right": right}:
                return self._binary(operator, self.of(left, depth + 1), self.of(right, depth + 1))
            case {"kind": "call", "callee": {"value": str() as name}, "arguments": [subject, *rest]}:
                return self._call(name, self._subject(subject), rest)
        return None

    @staticmethod
    def _binary(operator: str, left: _Value, right: _Value) -> bool | None:
        decisive = {"||": True, "&&": False}.get(operator)
        if decisive is not None:
            if decisive in {left, right}:
                return decisive
            return None if left is None or right is None else not decisive
        if left is None or right is None:
            return None
        order = {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}
        return order.get(operator)

    def _call(self, name: str, subject: bytes | None, rest: list[object]) -> _Value:
        if subject is None:
            return None
        if name == "entropy":
            return entropy(subject) if subject else 0.0
        match rest:
            case [{"kind": "array", "nodes": list() as nodes}] if name in {"matchesAny", "containsAny"}:
                texts = tuple(str(node["value"]) for node in nodes if node.get("kind") == "string")
                if name == "containsAny":
                    lowered = subject.lower()
                    return any(text.lower().encode() in lowered for text in texts)
                try:
                    return found_in(texts, subject)
                except InvalidInput:
                    return None
        return None

    def _subject(self, node: object) -> bytes | None:
        """Return what ``finding.secret``, ``finding.match`` or ``finding.line`` stands for."""
        match node:
            case {"kind": "member", "node": {"value": "finding"}, "property": {"value": str() as name}}:
                candidate = self._candidate
                if name == "line":
                    return candidate.line(REACH)
                return {"secret": candidate.value, "match": candidate.match}.get(name)
        return None
