"""Rule packs: strict YAML in, recognisers out.

A pack is a mapping ``format: stanch-pack/1``, ``name`` and ``recognisers``, a list of mappings with the attributes of
:class:`stanch.scan.recogniser.Recogniser`. Byte sets are written as classes, ``hold`` as :mod:`stanch.scan.hold` says.
No anchors, aliases, tags or repeated keys; at most 5 MB and 5,000 rules. A pack holds no code.
"""

from collections.abc import Hashable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import yaml

from stanch.crypto import canonical_json
from stanch.errors import InvalidInput
from stanch.scan.anchor import parse_anchor, parse_byte_set
from stanch.scan.hold import HeadedHold, LiteralHold, RunHold, SwallowHold, parse_hold
from stanch.scan.recogniser import Context, Recogniser, Source
from stanch.terms import Digest, JsonValue, Severity

FORMAT = "stanch-pack/1"
SHIPPED = (
    "secrets.yaml",
    "secrets-cloud.yaml",
    "secrets-code.yaml",
    "secrets-models.yaml",
    "secrets-business.yaml",
    "secrets-generic.yaml",
    "private-keys.yaml",
    "personal.yaml",
    "personal-contact.yaml",
    "personal-finance.yaml",
    "personal-ids.yaml",
    "personal-labelled.yaml",
)
_MAX_BYTES, _MAX_RULES = 5 << 20, 5000
MAX_BEFORE, MAX_AFTER = 512, 4096
_Read: TypeAlias = tuple[tuple[Recogniser, ...], list[tuple[str, InvalidInput]]]
"""The rules of a pack that are well formed, and the id and error of each that is not."""


class _SourceDocument(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    url: str
    read: str


class _ContextDocument(msgspec.Struct, forbid_unknown_fields=True):
    near: list[str] = []
    never: list[str] = []
    fields: list[str] = []
    required: bool = False


class _RuleDocument(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    kind: str
    version: int
    family: str
    anchor: str
    before: int
    after: int
    confirm: str
    score: float
    severity: Severity
    examples: list[str]
    counterexamples: list[str]
    source: _SourceDocument
    caseless: bool = False
    lead: str = ""
    trail: str = ""
    left: str = ""
    right: str = ""
    cont: str = ""
    hold: str = "literal"
    validator: str = ""
    context: _ContextDocument = msgspec.field(default_factory=_ContextDocument)


class _PackDocument(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    name: str
    recognisers: list[_RuleDocument]


class _StrictLoader(yaml.SafeLoader):
    """The safe loader without anchors, aliases, tags and repeated keys; every key is a text."""

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401 - the loader's own signature
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs give it no type
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError("anchors and aliases are not allowed")
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError("tags are not allowed")
        if isinstance(event, yaml.ScalarEvent):
            event.value.encode()  # an escape can write what is no Unicode
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:  # noqa: ANN401, FBT001, FBT002 - ditto
        if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            raise yaml.YAMLError("a key is no text")
        keys = [key.value for key, _ in node.value]
        if len(set(keys)) != len(keys):
            raise yaml.YAMLError("a key is given twice")
        return super().construct_mapping(node, deep)


def load_pack(path: Path | None = None) -> tuple[Recogniser, ...]:
    """Read a pack; without a path, the packs that stanch ships.

    Raises:
        InvalidInput: Not a pack of this format, or a rule in it is malformed; the rule is named.
    """
    if path is not None:
        return parse_pack(_read(path), name=str(path))
    return _load_shipped()


@cache
def _load_shipped() -> tuple[Recogniser, ...]:
    # The strict loader is in Python, bounded in depth, and takes a second for these. They are our own words, and a test
    # reads them with both.
    loader = getattr(yaml, "CSafeLoader", _StrictLoader)
    packs = ((name, shipped_pack(name)) for name in SHIPPED)
    return tuple(rule for name, data in packs for rule in _well_formed(_parse(data, name, loader)))


def shipped_pack(name: str) -> bytes:
    """Return the text of one of the packs that stanch ships."""
    return resources.files("stanch.scan").joinpath("packs", name).read_bytes()


def parse_pack(data: bytes, *, name: str) -> tuple[Recogniser, ...]:
    """Read a pack from its bytes; ``name`` stands in messages.

    Raises:
        InvalidInput: As :func:`load_pack`.
    """
    return _well_formed(_parse(data, name))


def _well_formed(read: _Read) -> tuple[Recogniser, ...]:
    rules, malformed = read
    if malformed:
        raise malformed[0][1]
    return rules


def join_packs(*packs: tuple[Recogniser, ...]) -> tuple[Recogniser, ...]:
    """Return the rules of several packs, which one scanner is to look for.

    Raises:
        InvalidInput: Two rules have the same id, or of one kind some swallow and some do not.
    """
    rules = tuple(rule for pack in packs for rule in pack)
    ids, swallowing = set[str](), dict[str, bool]()
    for rule in rules:
        if rule.id in ids:
            raise InvalidInput(f"rule {rule.id}: another pack has a rule of that id", next_step="give it another id")
        ids.add(rule.id)
        swallows = isinstance(rule.hold, SwallowHold)
        if swallowing.setdefault(rule.kind, swallows) != swallows:
            raise InvalidInput(
                f"rule {rule.id}: of the kind {rule.kind}, either all rules swallow or none",
                next_step="give it a kind of its own",
            )
    return rules


def read_pack(path: Path) -> _Read:
    """Read a pack; return the rules that are well formed, and the id and error of each that is not.

    Raises:
        InvalidInput: Not a pack of this format.
    """
    return _parse(_read(path), str(path))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read", why=error.strerror or "") from error


def _parse(data: bytes, name: str, loader: Any = _StrictLoader) -> _Read:  # noqa: ANN401 - a loader of either kind
    if len(data) > _MAX_BYTES:
        raise InvalidInput(f"{name}: a pack has at most {_MAX_BYTES} bytes")
    try:
        document = msgspec.convert(yaml.load(data, Loader=loader), type=_PackDocument)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError, ValueError) as error:
        raise InvalidInput(f"{name}: not a rule pack", why=" ".join(str(error).split())[:300]) from error
    if document.format != FORMAT:
        raise InvalidInput(f"{name}: expected format {FORMAT}, found {document.format[:40]!r}")
    if len(document.recognisers) > _MAX_RULES:
        raise InvalidInput(f"{name}: a pack has at most {_MAX_RULES} rules")
    if len({rule.id for rule in document.recognisers}) != len(document.recognisers):
        raise InvalidInput(f"{name}: two rules have the same id")
    rules: list[Recogniser] = []
    malformed: list[tuple[str, InvalidInput]] = []
    for rule in document.recognisers:
        try:
            rules.append(_recogniser(rule, name))
        except InvalidInput as error:
            malformed.append((rule.id, error))
    return tuple(rules), malformed


def _recogniser(rule: _RuleDocument, name: str) -> Recogniser:
    try:
        made = Recogniser(
            id=rule.id,
            kind=rule.kind,
            version=rule.version,
            family=rule.family,
            anchor=rule.anchor,
            caseless=rule.caseless,
            lead=parse_byte_set(rule.lead),
            trail=parse_byte_set(rule.trail),
            before=rule.before,
            after=rule.after,
            confirm=rule.confirm,
            left=parse_byte_set(rule.left),
            right=parse_byte_set(rule.right),
            cont=parse_byte_set(rule.cont),
            hold=parse_hold(rule.hold),
            validator=rule.validator,
            context=Context(
                near=frozenset(word.casefold() for word in rule.context.near),
                never=frozenset(word.casefold() for word in rule.context.never),
                fields=frozenset(word.casefold() for word in rule.context.fields),
                required=rule.context.required,
            ),
            score=rule.score,
            severity=rule.severity,
            examples=tuple(rule.examples),
            counterexamples=tuple(rule.counterexamples),
            source=Source(rule.source.title, rule.source.url, rule.source.read),
        )
        _check_limits(made)
    except InvalidInput as error:
        raise InvalidInput(f"{name}: rule {rule.id}: {error.what}", why=error.why, next_step=error.next_step) from error
    return made


def _check_limits(rule: Recogniser) -> None:
    """Refuse what would make the streaming guarantee false."""
    shape = parse_anchor(rule.anchor)
    if not (shape.longest <= rule.before <= MAX_BEFORE and 1 <= rule.after <= MAX_AFTER):
        raise InvalidInput(f"expected before from {shape.longest} to {MAX_BEFORE} and after from 1 to {MAX_AFTER}")
    if not 0 <= rule.score <= 1:
        raise InvalidInput(f"score: expected 0 to 1, found {rule.score}")
    touching = rule.lead + rule.trail
    if rule.caseless and set(touching.lower()) | set(touching.upper()) != set(touching):
        raise InvalidInput("lead and trail of a caseless anchor: expected letters in both cases or in none")
    if rule.trail and not isinstance(rule.hold, RunHold):
        raise InvalidInput("trail: only what is held as a run can wait for the byte behind the anchor")
    if isinstance(rule.hold, LiteralHold | SwallowHold):
        if shape.literals is None:
            raise InvalidInput("the anchor stands for too many strings to hold them as literals", next_step="use run:")
        if rule.before != shape.longest:
            raise InvalidInput(f"before: expected {shape.longest}, the longest literal, found {rule.before}")
    elif isinstance(rule.hold, RunHold | HeadedHold):
        # A byte behind the anchor decides when the value's last byte has been held already.
        most = rule.hold.longest + (0 if rule.trail else 1)
        if rule.before > most:
            raise InvalidInput(f"before: expected at most {most} for what is held, found {rule.before}")
        _check_run(rule, bytes(shape.members if rule.trail else shape.inner), rule.hold.members)


def _check_run(rule: Recogniser, waiting: bytes, held: bytes) -> None:
    """Refuse a run that does not hold the bytes of its anchor for which a value waits."""
    if released := set(waiting + waiting.swapcase() if rule.caseless else waiting) - set(held):
        raise InvalidInput(
            f"hold: the byte {bytes([min(released)])!r} may stand in the anchor and not in the run",
            why="a stream would release what stands before it, and find the value then",
            next_step="add it to the set of the run",
        )


def pack_digest(rules: tuple[Recogniser, ...]) -> Digest:
    """Return the digest of what rules do: their attributes without examples and sources."""
    facts: list[JsonValue] = [_facts(rule) for rule in rules]
    return Digest.sha256(canonical_json(facts))


def _facts(rule: Recogniser) -> JsonValue:
    context = rule.context
    foreign: dict[str, JsonValue] = {} if rule.check is None else {"check": rule.check.facts()}
    return foreign | {
        "id": f"{rule.id} {rule.kind} {rule.version} {rule.family}",
        "anchor": [rule.anchor, rule.caseless, rule.lead.hex(), rule.trail.hex(), rule.before, rule.after],
        "confirm": [rule.confirm, rule.validator],
        "sets": [rule.left.hex(), rule.right.hex(), rule.cont.hex()],
        "hold": repr(rule.hold),
        "score": [rule.score, rule.severity.value],
        "context": [[*sorted(words)] for words in (context.near, context.never, context.fields)],
        "required": context.required,
    }
