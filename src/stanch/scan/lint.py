"""The pack linter: what a pack promises is tried out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stanch.errors import StanchError
from stanch.scan.examples import ExampleMaker
from stanch.scan.hold import SwallowHold
from stanch.scan.pack import read_pack
from stanch.scan.policy import Policy
from stanch.scan.recogniser import Recogniser
from stanch.scan.scanner import Scanner

_LEAST = 3


@dataclass(frozen=True, slots=True)
class PackError:
    """What is wrong with a rule, and what to do; ``rule`` is empty where the pack as a whole cannot be read."""

    rule: str
    message: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """How the examples of a rule did: their numbers, and what went wrong with some of them."""

    rule: str
    examples: int
    counterexamples: int
    errors: tuple[PackError, ...]


def lint_pack(path: Path) -> list[PackError]:
    """Read a pack, try every example and counter-example, and return all that is wrong; an empty list: nothing."""
    try:
        rules, malformed = read_pack(path)
    except StanchError as error:
        return [PackError("", _said(error), error.next_step)]
    return [*(PackError(rule, _said(error), error.next_step) for rule, error in malformed), *lint_rules(rules)]


def lint_rules(rules: Sequence[Recogniser]) -> list[PackError]:
    """As :func:`lint_pack`, for rules that are already read."""
    errors = []
    swallowing = Counter((rule.kind, isinstance(rule.hold, SwallowHold)) for rule in rules)
    for rule in rules:
        if (rule.kind, not isinstance(rule.hold, SwallowHold)) in swallowing:
            message = f"kind {rule.kind}: either all rules of a kind swallow or none"
            errors.append(PackError(rule.id, message, "give the rule a kind of its own"))
        errors += _lint_rule(rule)
    return errors


def _lint_rule(rule: Recogniser) -> list[PackError]:
    errors = []
    if len(rule.examples) < _LEAST or len(rule.counterexamples) < _LEAST:
        message = f"expected at least {_LEAST} examples and {_LEAST} counter-examples"
        errors.append(PackError(rule.id, message, "add texts that hold a value, and near misses that hold none"))
    if not rule.source.title or not rule.source.url.startswith("https://") or not rule.source.read:
        message = "source: expected a title, an https address and the day it was read, or 'never'"
        errors.append(PackError(rule.id, message, "name the public page that states the format"))
    return [*errors, *try_rule(rule).errors]


def try_rule(rule: Recogniser, *, engine: Literal["auto", "hyperscan", "re2"] = "auto") -> Trial:
    """Scan for each example and counter-example of a rule by this rule alone."""
    errors = []
    try:
        scanner = Scanner(Policy(recognisers=(rule,)), engine=engine)
        for number, template in enumerate(rule.examples):
            if not scanner.scan(ExampleMaker(f"{rule.id}/{number}").fill(template)).findings:
                step = "correct it, or the confirming expression, the boundaries or the validator"
                errors.append(PackError(rule.id, f"example {number} is not found", step))
        for number, template in enumerate(rule.counterexamples):
            if scanner.scan(ExampleMaker(f"{rule.id}/-{number}").fill(template)).findings:
                step = "narrow the confirming expression or the boundaries, or lower the score"
                errors.append(PackError(rule.id, f"counter-example {number} is found", step))
    except StanchError as error:
        errors.append(PackError(rule.id, _said(error), error.next_step))
    return Trial(rule.id, len(rule.examples), len(rule.counterexamples), tuple(errors))


def _said(error: StanchError) -> str:
    return f"{error.what}: {error.why}" if error.why else error.what
