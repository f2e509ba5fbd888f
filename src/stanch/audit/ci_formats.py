"""The gate's decision as SARIF 2.1.0, JUnit XML and Markdown, for build servers and review comments."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from xml.etree import ElementTree as ET

import stanch
from stanch.audit.gate import GateDecision, Outcome, RuleOutcome
from stanch.terms import JsonValue

SARIF_RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "membership": "Members can be told from non-members",
        "exposure": "Inserted secrets are ranked high",
        "extraction": "Rows or secrets can be drawn out of the model",
        "reconstruction": "Personal data can be reconstructed",
        "dp-claim": "The claim of differential privacy is contradicted",
        "inconclusive": "The audit cannot decide",
        "certificate": "The certificate does not cover these files, this time or this use",
    }
)

_LEVELS: Final[Mapping[Outcome, str]] = MappingProxyType(
    {Outcome.BREACH: "error", Outcome.INCONCLUSIVE: "warning", Outcome.PASS: "note"}
)
_RULE_OF: Final[Mapping[str, str]] = MappingProxyType(
    {
        "model_digest": "certificate",
        "certificate_validity": "certificate",
        "attack_pack": "certificate",
        "verdict": "inconclusive",
        "dp_claim": "dp-claim",
        "require_mode": "inconclusive",
        "require_witnessed_commitment": "inconclusive",
        "min_rows": "inconclusive",
        "attack_effort": "inconclusive",
        "max_extraction_rate": "extraction",
        "near_verbatim": "extraction",
        "repeated_rows": "extraction",
        "max_extractable_secrets": "extraction",
        "min_secrets": "inconclusive",
        "max_epsilon_lower_bound": "membership",
        "min_coins": "inconclusive",
        "min_power": "inconclusive",
        "max_auc": "membership",
    }
)


def to_sarif(decision: GateDecision, *, location: str = "leakcert.json") -> str:
    """Return a SARIF 2.1.0 log: error for a breach, warning for an inconclusive rule, note for a pass.

    Args:
        decision: The decision.
        location: Relative URI of the training file or certificate that results point to; nothing of it is quoted.
    """
    rules: list[JsonValue] = [{"id": name, "shortDescription": {"text": text}} for name, text in SARIF_RULES.items()]
    results: list[JsonValue] = [
        {
            "ruleId": _sarif_rule(decision, rule),
            "level": _LEVELS[rule.outcome],
            "message": {"text": f"{rule.rule}: {rule.found}"},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": location}, "region": {"startLine": 1}}}],
            "properties": {"outcome": str(rule.outcome)},
        }
        for rule in decision.rules
    ]
    driver: dict[str, JsonValue] = {"name": "stanch", "version": stanch.__version__, "rules": rules}
    log: dict[str, JsonValue] = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(log, indent=2, allow_nan=False) + "\n"


def _sarif_rule(decision: GateDecision, rule: RuleOutcome) -> str:
    if rule.rule == "verdict" and decision.verdict == "DP CLAIM FALSIFIED":
        return "dp-claim"
    return _RULE_OF[rule.rule]


def to_junit(decision: GateDecision) -> str:
    """Return JUnit XML, one test case per rule: a breach is a failure, what is inconclusive an error."""
    count = {outcome: sum(rule.outcome is outcome for rule in decision.rules) for outcome in Outcome}
    suite = ET.Element(
        "testsuite",
        name="stanch audit gate",
        tests=str(len(decision.rules)),
        failures=str(count[Outcome.BREACH]),
        errors=str(count[Outcome.INCONCLUSIVE]),
        skipped="0",
    )
    for rule in decision.rules:
        case = ET.SubElement(suite, "testcase", classname="stanch.gate", name=rule.rule)
        if rule.outcome is Outcome.BREACH:
            ET.SubElement(case, "failure", message=_printable(rule.found))
        elif rule.outcome is Outcome.INCONCLUSIVE:
            ET.SubElement(case, "error", message=_printable(rule.found))
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """Return the text without characters that XML 1.0 cannot hold; a file name may have some."""
    return "".join(char if char.isprintable() else "?" for char in text)


def to_markdown(decision: GateDecision) -> str:
    """Return one table of at most 20 lines, worst rules first."""
    order = [Outcome.BREACH, Outcome.INCONCLUSIVE, Outcome.PASS]
    rules = sorted(decision.rules, key=lambda rule: order.index(rule.outcome))
    lines = [
        f"**Release gate: {decision.outcome}** ({_cell(decision.release_context)}), audit says {decision.verdict}",
        "",
        "| rule | outcome | found |",
        "|---|---|---|",
        *(f"| {rule.rule} | {rule.outcome} | {_cell(rule.found)} |" for rule in rules),
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return the text so that it cannot leave its cell or carry markup."""
    kept = _printable(text).replace("\\", "\\\\")
    for mark in "|`*_<>[]":
        kept = kept.replace(mark, f"\\{mark}")
    return kept
