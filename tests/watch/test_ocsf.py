"""Events: whatever an alert or an incident is, what is sent keeps to the profile's schema."""

import copy
import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from stanch.crypto import canonical_json
from stanch.watch import Alarm, Severity
from stanch.watch.alert import AlertState, raise_alert
from stanch.watch.incident import IncidentState, extend, new_incident
from stanch.watch.ocsf import Attested, alert_event, notice_event
from stanch.watch.outbox import Notice, describe, describe_incident

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/spec/ocsf-profile.json").read_text())
ATTESTED = (Attested(7, hashlib.sha256(b"entry").hexdigest(), "stanch.local/x", "ed25519:ab"),)
EVENTS = ("raised", "escalated-1")


def check(event):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(canonical_json(event)))


def alert_of(state, severity, principal="p_a"):
    alarm = Alarm("D2", "requests", principal, None, 0, 5, severity, 1.0, 1.0, (1,))
    return replace(raise_alert(alarm, at_ms=9), state=state)


@pytest.mark.parametrize(("state", "severity", "event"), list(itertools.product(AlertState, Severity, EVENTS)))
def test_every_event_of_an_alert_keeps_to_the_schema(state, severity, event):
    notice = Notice("ab" * 16, describe(alert_of(state, severity), event))
    made = alert_event(notice, ATTESTED)
    check(made)
    check(alert_event(notice))
    assert made["attestation_list"][0]["uid"] == "7"
    assert made["type_uid"] == 200400 + made["activity_id"]


@pytest.mark.parametrize("state", IncidentState)
@pytest.mark.parametrize("alerts", [(), ("a", "b")])
def test_every_event_of_an_incident_keeps_to_the_schema(state, alerts):
    made = extend(new_incident(5, by="p_x", at_ms=9), alerts=alerts)
    notice = Notice("ab" * 16, describe_incident(structs.replace(made, state=state), "opened", 10))
    event = notice_event(notice, ATTESTED)
    check(event)
    check(notice_event(notice))
    assert len(event["finding_info_list"]) == max(1, len(alerts))
    assert event["type_uid"] == 200500 + event["activity_id"]


@pytest.mark.parametrize(
    "path",
    [("class_uid",), ("type_uid",), ("metadata", "uid"), ("attestation_list", 0, "fingerprint"), ("finding_info",)],
)
def test_the_schema_refuses_what_lacks_a_part(path):
    event = copy.deepcopy(
        alert_event(Notice("k", describe(alert_of(AlertState.OPEN, Severity.LOW), "raised")), ATTESTED)
    )
    place = event
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    with pytest.raises(jsonschema.ValidationError):
        check(event)


@pytest.mark.parametrize("change", [{"class_uid": 2005}, {"activity_id": 2}, {"extra": 1}, {"status_id": 9}])
def test_the_schema_refuses_what_does_not_belong_together(change):
    event = alert_event(Notice("k", describe(alert_of(AlertState.OPEN, Severity.LOW), "raised")), ATTESTED)
    with pytest.raises(jsonschema.ValidationError):
        check(event | change)
