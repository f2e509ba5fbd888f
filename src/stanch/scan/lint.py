"""The pack linter: what a pack promises is tried out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stanch.errors import StanchError
from stanch.scan.examples import ExampleMaker
from stanch.scan.hold import SwallowHold
from stanch.scan.pack import load_pack
from stanch.scan.policy import Policy
from stanch.scan.recogniser import Recogniser
from stanch.scan.scanner import Scanner

_LEAST = 3


@dataclass(frozen=True, slots=True)
class PackError:
    """What is wrong with a rule; ``rule`` is empty where the pack as a whole cannot be read."""

    rule: str
    message: str


def lint_pack(path: Path) -> list[PackError]:
    """Read a pack, try every example and counter-example, and return what is wrong; an empty list: nothing."""
    try:
        rules = load_pack(path)
    except StanchError as error:
        return [PackError("", f"{error.what} {error.why}".strip())]
    return lint_rules(rules)


def lint_rules(rules: Sequence[Recogniser]) -> list[PackError]:
    """As :func:`lint_pack`, for rules that are already read."""
    errors = []
    swallowing = Counter((rule.kind, isinstance(rule.hold, SwallowHold)) for rule in rules)
    for rule in rules:
        if (rule.kind, not isinstance(rule.hold, SwallowHold)) in swallowing:
            errors.append(PackError(rule.id, f"kind {rule.kind}: either all rules of a kind swallow or none"))
        errors += _lint_rule(rule)
    return errors


def _lint_rule(rule: Recogniser) -> list[PackError]:
    messages = []
    if len(rule.examples) < _LEAST or len(rule.counterexamples) < _LEAST:
        messages.append(f"expected at least {_LEAST} examples and {_LEAST} counter-examples")
    if not rule.source.title or not rule.source.url.startswith("https://") or not rule.source.read:
        messages.append("source: expected a title, an https address and the day it was read, or 'never'")
    try:
        scanner = Scanner(Policy(recognisers=(rule,)))
        for number, template in enumerate(rule.examples):
            if not scanner.scan(ExampleMaker(f"{rule.id}/{number}").fill(template)).findings:
                messages.append(f"example {number} is not found")
        for number, template in enumerate(rule.counterexamples):
            if scanner.scan(ExampleMaker(f"{rule.id}/-{number}").fill(template)).findings:
                messages.append(f"counter-example {number} is found")
    except StanchError as error:
        messages.append(error.what)
    return [PackError(rule.id, message) for message in messages]
