"""SARIF 2.1.0: the structure that the standard asks for, written here as a schema of the parts that are used."""

import json
from importlib.util import find_spec

import pytest

from stanch import __version__
from stanch.scan import Location, Policy, ReportBuilder, Scanner, to_sarif

TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
RANK = {"type": "number", "minimum": -1, "maximum": 100}


def closed(required, **properties):
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def listed(items, **more):
    return {"type": "array", "items": items, **more}


STRING, OBJECT, INDEX = {"type": "string"}, {"type": "object"}, {"type": "integer", "minimum": -1}
PLACE = closed([], uri=STRING, index=INDEX)
RULE = closed(["id"], id=STRING, shortDescription=TEXT, defaultConfiguration=closed([], level=LEVEL, rank=RANK))
LOCATION = closed(
    [],
    physicalLocation=closed(["artifactLocation"], artifactLocation=PLACE),
    logicalLocations=listed(closed([], fullyQualifiedName=STRING, kind=STRING), uniqueItems=True),
)
RESULT = closed(
    ["message"],
    ruleId=STRING,
    ruleIndex=INDEX,
    level=LEVEL,
    rank=RANK,
    message=TEXT,
    properties=OBJECT,
    locations=listed(LOCATION),
    partialFingerprints={"type": "object", "additionalProperties": STRING},
)
NOTICE = closed(["message"], level=LEVEL, message=TEXT)
RUN = closed(
    ["tool"],
    tool=closed(
        ["driver"],
        driver=closed(["name"], name=STRING, version=STRING, rules=listed(RULE, uniqueItems=True)),
    ),
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    artifacts=listed(closed([], location=PLACE, length=INDEX), uniqueItems=True),
    invocations=listed(
        closed(
            ["executionSuccessful"],
            executionSuccessful={"type": "boolean"},
            toolExecutionNotifications=listed(NOTICE),
        )
    ),
    results=listed(RESULT),
    properties=OBJECT,
)
LOG = closed(["version", "runs"], **{"$schema": STRING, "version": {"enum": ["2.1.0"]}, "runs": listed(RUN)})


@pytest.fixture(scope="module")
def log():
    scanner = Scanner(Policy(report_key=bytes(32)))
    builder = ReportBuilder(scanner.policy, scanner.engine)
    for number, text in enumerate(["ana@correo.es", "card 4539148803436467, Ana@correo.es", "nothing"]):
        builder.record()
        builder.add(scanner.scan(text, location=Location(f"r{number}", "messages[0].content")))
    builder.skip("line 7: too long")
    return to_sarif(builder.build(), "train.jsonl")


def test_it_has_the_form_of_the_standard(log):
    if find_spec("jsonschema") is None:
        pytest.skip("jsonschema is not installed")
    import jsonschema  # noqa: PLC0415 - a test may do without it

    jsonschema.Draft7Validator(LOG).validate(json.loads(json.dumps(log)))


def test_findings_are_results_with_places_and_fingerprints(log):
    (run,) = log["runs"]
    assert run["tool"]["driver"]["name"] == "stanch"
    assert run["tool"]["driver"]["version"] == __version__
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    results = run["results"]
    assert [result["ruleId"] for result in results] == ["email", "payment-card", "email"]
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in results)
    assert [result["level"] for result in results] == ["warning", "error", "warning"]
    first, _, last = results
    assert first["partialFingerprints"] == last["partialFingerprints"]
    place = last["locations"][0]
    assert place["physicalLocation"]["artifactLocation"] == {"uri": "train.jsonl", "index": 0}
    assert place["logicalLocations"][0]["fullyQualifiedName"] == "r1/messages[0].content"
    assert (last["properties"]["start"], last["properties"]["end"]) == (23, 36)
    assert "correo" not in json.dumps(log)


def test_what_was_skipped_is_a_notification(log):
    (invocation,) = log["runs"][0]["invocations"]
    assert invocation["toolExecutionNotifications"] == [{"level": "warning", "message": {"text": "line 7: too long"}}]
    assert invocation["executionSuccessful"]


def test_an_empty_report_has_no_rules_and_no_results():
    run = to_sarif(ReportBuilder(Policy(), "hyperscan").build(), "x")["runs"][0]
    assert (run["results"], run["tool"]["driver"]["rules"]) == ([], [])
