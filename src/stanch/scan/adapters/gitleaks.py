"""Rule files of gitleaks (TOML; https://github.com/gitleaks/gitleaks#configuration): ``read_gitleaks``.

What a rule asks of file names is decided when the file is read, for the one file that is going to be scanned. Rule sets
that a file extends are refused rather than fetched.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from stanch.config.toml import load_toml
from stanch.errors import InvalidInput
from stanch.scan.adapters.conditions import Allowance, Conditions, Target, found_in
from stanch.scan.adapters.expression import Expression, compile_foreign
from stanch.scan.adapters.foreign import ForeignRules, conditions_of, make_recogniser
from stanch.scan.recogniser import Recogniser, Source

ORIGIN = "gitleaks"
_MAX_BYTES, _MAX_RULES = 5 << 20, 5000


# gitleaks does not mind the case of a key, so the names here are in lower case.
class _Allowlist(msgspec.Struct, forbid_unknown_fields=True):
    description: str = ""
    condition: str = "OR"
    commits: list[str] = []
    paths: list[str] = []
    regextarget: str = ""
    regexes: list[str] = []
    stopwords: list[str] = []
    targetrules: list[str] = []


class _Rule(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    description: str = ""
    regex: str = ""
    secretgroup: int = 0
    entropy: float = 0.0
    keywords: list[str] = []
    path: str = ""
    tags: list[str] = []
    allowlist: _Allowlist | None = None
    allowlists: list[_Allowlist] = []
    required: list[dict[str, str | int]] = []
    skipreport: bool = False


class _Extend(msgspec.Struct, forbid_unknown_fields=True):
    usedefault: bool = False
    path: str = ""
    url: str = ""
    disabledrules: list[str] = []


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    title: str = ""
    description: str = ""
    minversion: str = ""
    extend: _Extend = msgspec.field(default_factory=_Extend)
    allowlist: _Allowlist | None = None
    allowlists: list[_Allowlist] = []
    rules: list[_Rule] = []


@dataclass(frozen=True, slots=True)
class _Lists:
    """Allow-lists, decided for one file: ``everything`` allows the whole file."""

    allowances: tuple[Allowance, ...] = ()
    everything: bool = False


def read_gitleaks(path: Path, *, scanned: str = "") -> ForeignRules:
    """Read a rule file of gitleaks.

    Args:
        path: The file.
        scanned: Path of the file that is going to be scanned. Rules that are bound to other files are left out, and
            without a name all that are bound to any.

    Raises:
        InvalidInput: Not such a file, or a rule in it is malformed; the rule is named.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read", why=error.strerror or "") from error
    return parse_gitleaks(data, name=path.name, scanned=scanned)


def parse_gitleaks(data: bytes, *, name: str, scanned: str = "") -> ForeignRules:
    """Read a rule file from its bytes; ``name`` stands in messages.

    Raises:
        InvalidInput: As :func:`read_gitleaks`.
    """
    document = _document(data, name)
    disabled = set(document.extend.disabledrules)
    recognisers: list[Recogniser] = []
    skipped: list[tuple[str, str]] = []
    for rule in document.rules:
        if rule.id in disabled:
            continue
        try:
            made = _recogniser(rule, document, scanned, Source(f"{ORIGIN} rules {name}", "", "never"))
        except InvalidInput as error:
            raise InvalidInput(f"{name}: rule {rule.id[:80]}: {error.what}", why=error.why) from error
        if isinstance(made, Recogniser):
            recognisers.append(made)
        else:
            skipped.append((rule.id, made))
    return ForeignRules(ORIGIN, tuple(recognisers), tuple(skipped))


def _document(data: bytes, name: str) -> _Document:
    if len(data) > _MAX_BYTES:
        raise InvalidInput(f"{name}: a rule file has at most {_MAX_BYTES} bytes, found {len(data)}")
    try:
        document = msgspec.convert(_lowered(load_toml(data.decode())), type=_Document)
    except ValueError as error:  # a ValidationError is one
        raise InvalidInput(f"{name}: not a gitleaks rule file", why=" ".join(str(error).split())[:300]) from error
    extend = document.extend
    if extend.usedefault or extend.path or extend.url:
        raise InvalidInput(
            f"{name}: extends another rule set",
            why="stanch reads the given file alone and fetches nothing",
            next_step="write the other set's rules into the file, and keep only disabledRules in [extend]",
        )
    if not 0 < len(document.rules) <= _MAX_RULES:
        raise InvalidInput(f"{name}: expected 1 to {_MAX_RULES} rules, found {len(document.rules)}")
    if len({rule.id for rule in document.rules}) != len(document.rules):
        raise InvalidInput(f"{name}: two rules have the same id")
    return document


def _lowered(value: object) -> object:
    """Return a TOML value with all keys in lower case.

    Raises:
        ValueError: Two keys of a table differ in case alone.
    """
    if isinstance(value, dict):
        lowered = {key.lower(): _lowered(item) for key, item in value.items()}
        if len(lowered) != len(value):
            raise ValueError("a key is given twice")
        return lowered
    return [_lowered(item) for item in value] if isinstance(value, list) else value


def _recogniser(rule: _Rule, document: _Document, scanned: str, source: Source) -> Recogniser | str:
    """Return the recogniser of a rule, or why it has none here."""
    if not rule.id or not (rule.regex or rule.path):
        raise InvalidInput("a rule has an id, and a regex or a path")
    if rule.entropy < 0 or rule.secretgroup < 0:
        raise InvalidInput("entropy and secretGroup are not negative")
    if not rule.regex:
        return "looks at file names alone"
    if rule.required or rule.skipreport:
        return "works only together with other rules"
    expression = Expression(rule.regex, rule.secretgroup)
    if rule.path and not _fits([rule.path], scanned):
        return "is for other files than the scanned one"
    lists = _allowlists(_one_form(rule.allowlist, rule.allowlists), rule.id, scanned, targeted=False)
    shared = _allowlists(_one_form(document.allowlist, document.allowlists), rule.id, scanned, targeted=True)
    if lists.everything or shared.everything:
        return "its allow-list names the scanned file"
    conditions = conditions_of(
        expression, Conditions(rule.entropy, tuple(rule.keywords), lists.allowances + shared.allowances)
    )
    return make_recogniser(rule.id, expression, conditions, looks_around=conditions.looks_around, source=source)


def _one_form(old: _Allowlist | None, new: list[_Allowlist]) -> list[_Allowlist]:
    if old is not None and new:
        raise InvalidInput("allowlist and allowlists exclude each other")
    return new if old is None else [old]


def _allowlists(lists: Iterable[_Allowlist], rule: str, scanned: str, *, targeted: bool) -> _Lists:
    allowances: list[Allowance] = []
    everything = False
    for entry in lists:
        if entry.targetrules and not targeted:
            raise InvalidInput("targetRules belong to the allow-lists of the whole file")
        allowance = _allowance(entry, scanned)
        if entry.targetrules and rule not in entry.targetrules:
            continue
        if isinstance(allowance, Allowance):
            allowances.append(allowance)
        else:
            everything = everything or allowance
    return _Lists(tuple(allowances), everything)


def _allowance(entry: _Allowlist, scanned: str) -> Allowance | bool:
    """Return what an allow-list lets through, or whether it lets the whole file through."""
    if not (entry.commits or entry.paths or entry.regexes or entry.stopwords):
        raise InvalidInput("an allow-list names commits, paths, regexes or stopwords")
    condition = entry.condition.upper()
    if condition not in {"OR", "||", "AND", "&&"}:
        raise InvalidInput(f"condition: expected OR or AND, found {entry.condition[:40]!r}")
    target = entry.regextarget.lower() or "secret"
    if target not in set(Target):
        raise InvalidInput(f"regexTarget: expected secret, match or line, found {entry.regextarget[:40]!r}")
    for expression in entry.regexes:
        compile_foreign(expression)
    together = condition in {"AND", "&&"}
    named = _fits(entry.paths, scanned)
    if not together and named:
        return True
    # What is scanned belongs to no commit, so that a list that also asks for one never lets anything through.
    if together and (entry.commits or (entry.paths and not named)):
        return False
    if not (entry.regexes or entry.stopwords):
        return together
    stopwords = tuple(word.lower() for word in entry.stopwords)
    return Allowance(Target(target), tuple(entry.regexes), stopwords, together)


def _fits(expressions: list[str], scanned: str) -> bool:
    """Tell whether one of the expressions is found in the path of the scanned file."""
    for expression in expressions:
        compile_foreign(expression)
    return bool(scanned) and found_in(tuple(expressions), scanned.encode("utf-8", "surrogateescape"))
