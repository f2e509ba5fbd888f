"""Reports of an incident: every sentence rests on entries whose proofs verify, and what is not recorded is unknown."""

import json
import re
from html.parser import HTMLParser

import life
import pytest

from stanch.errors import InvalidInput, NotFound
from stanch.ledger import TrustPolicy, decode_entry, verify_proof
from stanch.terms import ArtifactRef, Digest
from stanch.trace.incident_page import render_incident
from stanch.trace.incident_report import QUESTIONS, UNKNOWN, Audience
from stanch.watch import Containment
from stanch.watch.frameworks import FRAMEWORKS
from stanch.watch.incident import HOUR_MS, Matter, Told
from stanch.watch.incident_export import Sentence
from stanch.watch.leak import FindingDetector
from stanch.watch.runner import catch_up
from stanch.workspace import Done, Request, Workspace
from stanch.workspace.verbs_alerts import find_alerts, raise_alarms
from stanch.workspace.verbs_casework import note_notice, state_matter
from stanch.workspace.verbs_contain import ContainOrder, contain_incident
from stanch.workspace.verbs_incident import end_incident, join_incident, open_incident
from stanch.workspace.verbs_incident_report import write_report

MODEL = ArtifactRef("model", "bot", Digest.sha256(b"the model"))
OUTCOME = {
    "verdict": "block", "findings": {"canary": 1, "email": 2}, "released": 120, "drawn": 3, "prompt_tokens": 4,
    "completion_tokens": 9,
}  # fmt: skip


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A workspace whose gateway stopped two answers, and their alert."""
    with Workspace.init(tmp_path_factory.mktemp("report") / "w") as workspace:
        for _ in range(2):
            request = Request("gateway.infer", "model:infer", MODEL, {"dialect": "chat"})
            workspace.door.act(request, lambda _ref: Done(None, OUTCOME))
        reader = workspace.ledger.reader()
        catch_up(
            reader, workspace.tables, [FindingDetector()],
            deliver=lambda alarms, save: raise_alarms(workspace, alarms, within=save),
        )  # fmt: skip
        (alert,) = (one for one in find_alerts(workspace) if one.signal == "canary")
        assert alert.count == 2  # the value that each holds too is another alert
        yield workspace, alert.id


@pytest.fixture
def leaked(watched):
    """The workspace, and a new incident of the alert."""
    workspace, alert = watched
    return workspace, open_incident(workspace, _now(workspace) - 2 * HOUR_MS, [alert])


def _now(workspace):
    return int(workspace.door.clock() * 1000)


def read(workspace, incident, out, audience=Audience.AUTHORITY):
    write_report(workspace, incident.id, audience, out)
    return json.loads((out / "report.json").read_text()), (out / "report.html").read_text()


def answers(report):
    return {one["id"]: " ".join(line["text"] for line in one["sentences"]) for one in report["questions"]}


def test_an_authority_is_told_what_the_log_shows_and_each_sentence_names_its_entries(leaked, tmp_path):
    workspace, incident = leaked
    order = ContainOrder(action=Containment.QUARANTINE_MODEL, target=str(MODEL.digest))
    contained = contain_incident(workspace, incident.id, order).contained[0].entry
    note_notice(workspace, incident.id, _now(workspace))
    report, page = read(workspace, incident, tmp_path / "out")
    told = answers(report)
    assert "2 answers of a model gave an alarm: 2 were stopped, 0 had parts removed. 240 characters" in told["data"]
    assert "6 protected windows of training text went out with them at most." in told["data"]
    assert "The filter found email in them, 4 times" in told["data"]
    assert "Detector D1 gave an alarm about canary" in told["nature"]
    assert "within 72" in told["notice"]
    assert told["delay"] == "There was no delay."
    assert "quarantine" in told["measures"]
    assert str(MODEL.digest) in told["models"]
    assert "may be known to whoever asked" in told["consequences"]
    unknown = {one["id"] for one in report["questions"] if not one["known"]}
    assert {"people", "contact", "tests"} <= unknown
    assert page.count(UNKNOWN) == len(unknown)
    assert [one["id"] for one in report["identifiers"]] == [
        "AML.T0057", "LLM02:2026", "NISTAML.038", "EDPB 28/2024 55(iii)"
    ]  # fmt: skip
    assert "sign, not a proof" in told["EDPB 28/2024 55(iii)"]
    assert told["EDPB 28/2024 55(i)"] == ""
    measures = next(one for one in report["questions"] if one["id"] == "measures")
    assert measures["sentences"][0]["entries"] == [contained]


def test_every_entry_that_is_named_is_in_the_log_and_every_link_leads_somewhere(leaked, tmp_path):
    workspace, incident = leaked
    end_incident(workspace, incident.id, "<b>nobody's</b> data")
    report, page = read(workspace, incident, tmp_path / "out")
    reader, policy = workspace.ledger.reader(), TrustPolicy.of([workspace.ledger.verifier.vkey])
    shown = {one["index"]: one for one in report["records"]}
    named = {index for one in report["questions"] for line in one["sentences"] for index in line["entries"]}
    named |= {index for one in report["identifiers"] for index in one["entries"]}
    assert named == set(shown)
    for index, row in shown.items():
        proof = (tmp_path / f"out/proofs/{index}.tlog-proof").read_bytes()
        assert verify_proof(proof, reader.entry(index), policy).leaf_hash.hex() == row["leaf"]
        assert decode_entry(reader.entry(index))["unmapped"]["stanch"]["kind"] == row["kind"]
    assert {path.name for path in (tmp_path / "out/proofs").iterdir()} == {f"{index}.tlog-proof" for index in shown}
    links = re.findall(r'href="([^"]+)"', page)
    assert {link for link in links if link.startswith("#")} == {f"#e{index}" for index in named}
    assert set(re.findall(r'id="e(\d+)"', page)) == {str(index) for index in named}
    assert all((tmp_path / "out" / link).is_file() for link in links if not link.startswith("#"))
    assert "&lt;b&gt;nobody" in page
    assert "<b>nobody" not in page
    HTMLParser().feed(page)


def test_a_customer_is_told_no_name_no_key_and_no_words_of_a_person(leaked, tmp_path):
    workspace, incident = leaked
    order = ContainOrder(action=Containment.LOWER_BUDGET, target=workspace.people.name, model=str(MODEL.digest))
    contain_incident(workspace, incident.id, order)
    end_incident(workspace, incident.id, "kept by us")
    report, page = read(workspace, incident, tmp_path / "out", Audience.CUSTOMER)
    assert "was limited" in answers(report)["measures"]
    for secret in (workspace.people.session.principal, "kept by us", f"({workspace.people.name})"):
        assert secret not in page
        assert secret not in json.dumps(report)
    asked = {question.id for question in QUESTIONS if question.of is None}
    assert {one["id"] for one in report["questions"]} == asked
    assert not {"notice", "delay", "told"} & asked


def test_a_notice_that_the_log_does_not_hold_is_unknown(leaked, tmp_path):
    """The row of the incident says one time, the log another: what the log does not show is not said."""
    workspace, incident = leaked
    note_notice(workspace, incident.id, _now(workspace))
    from sqlalchemy import text  # noqa: PLC0415 - used here alone

    with workspace.tables.write() as connection:
        mine = {"id": incident.id}
        (document,) = connection.execute(text("SELECT document FROM incident WHERE id = :id"), mine).one()
        later = json.loads(document)
        later["notified_ms"] += 1
        later["notices"][0]["at_ms"] += 1
        changed = text("UPDATE incident SET document = :made WHERE id = :id")
        connection.execute(changed, mine | {"made": json.dumps(later).encode()})
    report, _ = read(workspace, incident, tmp_path / "out")
    assert answers(report)["notice"] == ""


def test_what_a_person_states_and_why_a_notice_came_late_are_answers(watched, tmp_path):
    workspace, alert = watched
    made = open_incident(workspace, _now(workspace) - 80 * HOUR_MS)
    joined = join_incident(workspace, made.id, [alert])
    assert (joined.alerts, joined.artifacts) == ((alert,), (str(MODEL.digest),))
    stated = {
        Matter.PEOPLE: "about 400 customers", Matter.CONTACT: "privacy@example.com",
        Matter.CONSEQUENCES: "somebody may know what they asked for",
    }  # fmt: skip
    for matter, words in stated.items():
        state_matter(workspace, made.id, matter, words)
    note_notice(workspace, made.id, _now(workspace), late_because="the model's owner was away")
    note_notice(workspace, made.id, _now(workspace), to=Told.PEOPLE)
    note_notice(workspace, made.id, _now(workspace))
    told = answers(read(workspace, made, tmp_path / "authority")[0])
    assert all(f"Stated: {words}" in told[matter] for matter, words in stated.items())
    assert "may be known to whoever asked" in told["consequences"]
    assert "80.0 hours after the discovery: after 72." in told["notice"]
    assert "The authority was told more at" in told["notice"]
    assert told["delay"].endswith("came late, for this reason: the model's owner was away")
    assert told["told"].startswith("The people concerned were told at")
    report, page = read(workspace, made, tmp_path / "customer", Audience.CUSTOMER)
    assert all(f"Stated: {words}" in answers(report)[matter] for matter, words in stated.items())
    assert "owner was away" not in page
    entries = [workspace.ledger.reader().entry(one["index"]) for one in report["records"]]
    assert not any(b"400 customers" in data for data in entries)


def test_audits_of_the_model_before_the_discovery_are_named(leaked, tmp_path):
    workspace, _ = leaked
    workspace.door.act(Request("audit.run", "model:audit", MODEL), lambda _ref: Done(None, {"verdict": "LEAK PROVEN"}))
    alert = find_alerts(workspace)[0]
    later = open_incident(workspace, _now(workspace), [alert.id])
    told = answers(read(workspace, later, tmp_path / "out")[0])
    assert re.fullmatch(r"An audit of the model for leaks was run, until .*: LEAK PROVEN\.", told["tests"])


def test_an_incident_without_an_alert_leaves_nearly_all_unknown(leaked, tmp_path):
    workspace, _ = leaked
    bare = open_incident(workspace, 5)
    report, _ = read(workspace, bare, tmp_path / "out")
    assert [one["id"] for one in report["questions"] if one["known"]] == ["discovery"]
    assert report["identifiers"] == []
    with pytest.raises(InvalidInput, match="exists already"):
        write_report(workspace, bare.id, Audience.CUSTOMER, tmp_path / "out")
    with pytest.raises(NotFound):
        write_report(workspace, "i_x", Audience.CUSTOMER, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_same_report_gives_the_same_page(leaked, tmp_path):
    workspace, incident = leaked
    made = write_report(workspace, incident.id, Audience.AUTHORITY, tmp_path / "a")
    assert render_incident(made) == render_incident(made) == (tmp_path / "a/report.html").read_text()
    assert all(FRAMEWORKS[name] for name, _ in made.identifiers)
    assert life.entries(workspace)[-1][:2] == ("outcome", "watch.incident.report")


def test_there_is_no_sentence_without_an_entry():
    with pytest.raises(InvalidInput, match="no entry shows"):
        Sentence("It happened.", ())
