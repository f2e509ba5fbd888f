import json
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest

from stanch.audit.ci_formats import SARIF_RULES, to_junit, to_markdown, to_sarif
from stanch.audit.gate import GateDecision, Outcome, RuleOutcome, decide_gate
from stanch.audit.gate_policy import GatePolicy
from stanch.audit.leakcert import model_subjects, predicate
from stanch.terms import ArtifactRef, Digest, Verdict


def make(*rules, verdict=Verdict.NO_LEAK_DETECTED, context="partner"):
    items = tuple(RuleOutcome(name, Outcome(outcome), found) for name, outcome, found in rules)
    worst = next(o for o in (Outcome.BREACH, Outcome.INCONCLUSIVE, Outcome.PASS) if o in {i.outcome for i in items})
    return GateDecision(worst, Digest.sha256(b"model"), "00ff", context, verdict, items)


@pytest.fixture
def decision():
    return make(
        ("model_digest", "pass", "2 files as audited"),
        ("max_extraction_rate", "breach", "9 of 3,000 rows"),
        ("min_power", "inconclusive", "power at least 0.5"),
    )


def test_sarif_levels_rules_and_location(decision):
    log = json.loads(to_sarif(decision, location="train.jsonl"))
    assert log["version"] == "2.1.0"
    run = log["runs"][0]
    declared = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert declared == set(SARIF_RULES) >= {
        "membership", "exposure", "extraction", "reconstruction", "dp-claim", "inconclusive",
    }  # fmt: skip
    assert [(item["ruleId"], item["level"]) for item in run["results"]] == [
        ("certificate", "note"),
        ("extraction", "error"),
        ("inconclusive", "warning"),
    ]
    for item in run["results"]:
        place = item["locations"][0]["physicalLocation"]
        assert place["artifactLocation"] == {"uri": "train.jsonl"}
        assert set(place["region"]) == {"startLine"}  # no snippet of a training row
        assert item["ruleId"] in declared


def test_sarif_names_a_falsified_claim():
    falsified = make(("verdict", "breach", "the accounting is wrong"), verdict=Verdict.DP_CLAIM_FALSIFIED)
    log = json.loads(to_sarif(falsified))
    assert log["runs"][0]["results"][0]["ruleId"] == "dp-claim"


def test_every_rule_of_the_gate_has_a_sarif_rule(quiet_report, model):
    now = datetime(2026, 1, 2, tzinfo=UTC)
    cert = predicate(quiet_report, ArtifactRef("model", "m", model.root), now=now)
    subjects = {subject.name: subject.digest for subject in model_subjects(model)}
    found = decide_gate(cert, subjects, model, GatePolicy.for_context(), now=now)
    assert len(json.loads(to_sarif(found))["runs"][0]["results"]) == len(found.rules)
    assert len(to_markdown(found).splitlines()) <= 20


def test_junit_breach_fails_and_inconclusive_errs(decision):
    suite = ET.fromstring(to_junit(decision).encode())  # noqa: S314 - our own output
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "3", "failures": "1", "errors": "1", "skipped": "0"}
    children = {case.get("name"): [child.tag for child in case] for case in suite}
    assert children == {"model_digest": [], "max_extraction_rate": ["failure"], "min_power": ["error"]}


def test_markdown_lists_the_worst_first(decision):
    lines = to_markdown(decision).splitlines()
    assert lines[0].startswith("**Release gate: breach**")
    assert [line.split(" | ")[1] for line in lines[4:]] == ["breach", "inconclusive", "pass"]


def test_hostile_file_names_stay_text():
    name = 'x|<img src=x onerror=alert(1)>`](http://evil)"&\x00\x1b[31m\n| pass |'
    decision = make(("model_digest", "breach", f"{name} is another file"))
    suite = ET.fromstring(to_junit(decision).encode())  # noqa: S314 - our own output
    assert "\x00" not in suite[0][0].get("message")
    row = to_markdown(decision).splitlines()[4:]
    assert len(row) == 1
    assert "\\|\\<img" in row[0]
    assert "\x1b" not in row[0]
    assert name in json.loads(to_sarif(decision))["runs"][0]["results"][0]["message"]["text"]
