"""From an alarm to a contained incident: each step is an act, and the door refuses right after."""

import hashlib
import json
import shutil
import time
from dataclasses import replace

import life
import pytest
from sqlalchemy import select

from stanch.access import ApiKeyOrder
from stanch.access.authenticator import Bearer
from stanch.errors import InvalidInput, NotAuthenticated, NotFound, NotPermitted, OutcomeNotRecorded
from stanch.gateway.budgets import Amounts, Budgets, Charge, Limits
from stanch.gateway.desk import INFER, Desk
from stanch.gateway.problem import QuotaExhausted
from stanch.ledger import TrustPolicy, verify_proof
from stanch.release import RevocationList
from stanch.sign import TrustedKeys
from stanch.store.schema.alerts import alert as alert_rows
from stanch.store.schema.gateway import budget_lowered
from stanch.terms import ArtifactRef, Digest
from stanch.watch import Alarm, Containment, Severity
from stanch.watch.alert import AlertState, Conclusion
from stanch.watch.incident import HOUR_MS, IncidentState
from stanch.workspace import Request, Workspace, verbs_alerts, verbs_contain
from stanch.workspace.verbs_access import Newcomer, issue_key, register_newcomer
from stanch.workspace.verbs_alerts import (
    Change,
    Quiet,
    deliver_alerts,
    find_alerts,
    move_alert,
    raise_alarms,
    show_alert,
    suppress_alerts,
)
from stanch.workspace.verbs_artifact import classify_model, restore_model
from stanch.workspace.verbs_casework import note_notice
from stanch.workspace.verbs_contain import (
    ContainOrder,
    contain_incident,
    lower_budget,
    quarantine_model,
    restore_budget,
)
from stanch.workspace.verbs_deliver import deliver_copy
from stanch.workspace.verbs_incident import (
    end_incident,
    export_incident,
    find_incidents,
    open_incident,
    remind_incidents,
    show_incident,
)
from stanch.workspace.verbs_person import clear_principal

MODEL = ArtifactRef("model", "bot", Digest.sha256(b"the model"))


class Clock:
    """The machine's clock, and how much later it is."""

    late = 0.0

    def __call__(self):
        return time.time() + self.late


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "w"
    with Workspace.init(folder):
        pass
    settings = folder / "stanch.toml"
    sink = '\n[[alerts.sinks]]\nname = "siem"\nkind = "ocsf-file"\nurl = "events.jsonl"\n'
    settings.write_text(settings.read_text() + sink)
    return folder


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def workspace(made, tmp_path, clock):
    with Workspace.open(shutil.copytree(made, tmp_path / "w"), clock=clock) as opened:
        yield opened


@pytest.fixture
def bot(workspace):
    """A service with a key for the model, as the gateway lets it in; and the key's id."""
    principal = register_newcomer(workspace, Newcomer(name="bot", kind="service", roles=("consumer",)))
    order = ApiKeyOrder(principal=principal, models=(str(MODEL.digest),), networks=("127.0.0.0/8",))
    record, secret = issue_key(workspace, order)
    return principal, record.id, secret.text


def alarm(workspace, principal="p_a", **changes):
    now = int(workspace.door.clock())
    found = Alarm(
        "D1", "canary", principal, str(MODEL.digest), now - now % 3600, now, Severity.CRITICAL, 1.0, 1.0, (0, 1),
        Containment.QUARANTINE_MODEL,
    )  # fmt: skip
    return replace(found, **changes)


def incident_of(workspace):
    (raised,) = raise_alarms(workspace, [alarm(workspace)])
    return open_incident(workspace, int(workspace.door.clock() * 1000) - HOUR_MS, [raised.id])


def acts(workspace, start):
    return [(phase, kind) for phase, kind, _, _ in life.entries(workspace, start)]


def test_a_life_of_an_alert_is_in_the_log_and_its_reasons_are_commitments(workspace):
    (raised,) = raise_alarms(workspace, [alarm(workspace)])
    (again,) = raise_alarms(workspace, [alarm(workspace)])
    assert (again.id, again.count) == (raised.id, 2)
    start = workspace.ledger.reader().size()
    me = workspace.people.session.principal
    assert move_alert(workspace, raised.id, Change(AlertState.ACKNOWLEDGED)).owner == me
    assert move_alert(workspace, raised.id, Change(AlertState.CLOSED, Conclusion.FALSE)).state is AlertState.CLOSED
    assert move_alert(workspace, raised.id, Change(AlertState.OPEN, reason="it came back")).waiting
    assert show_alert(workspace, raised.id) == find_alerts(workspace, AlertState.OPEN)[0]
    assert acts(workspace, start)[:6] == [("intent", "watch.alert.state"), ("outcome", "watch.alert.state")] * 3
    reader = workspace.ledger.reader()
    written = [reader.entry(index) for index in range(start, reader.size())]
    assert not any(b"it came back" in entry for entry in written)
    assert any(b'"from":"acknowledged"' in entry and b'"to":"closed"' in entry for entry in written)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (Change(AlertState.CLOSED), InvalidInput),
        (Change(AlertState.OPEN, reason="why not"), InvalidInput),
        (Change(AlertState.SUPPRESSED), InvalidInput),
    ],
)
def test_a_step_that_is_none_changes_nothing(workspace, change, error):
    (raised,) = raise_alarms(workspace, [alarm(workspace)])
    with pytest.raises(error):
        move_alert(workspace, raised.id, change)
    assert show_alert(workspace, raised.id) == raised
    with pytest.raises(NotFound):
        show_alert(workspace, "0" * 32)
    with pytest.raises(InvalidInput):
        show_alert(workspace, "a text that would be in the log")


def test_two_who_step_at_once_one_wins(workspace, monkeypatch):
    (raised,) = raise_alarms(workspace, [alarm(workspace)])
    real = verbs_alerts._step

    def slow(*arguments):
        with workspace.tables.write() as connection:
            connection.execute(alert_rows.update().values(state="investigating"))
        return real(*arguments)

    monkeypatch.setattr(verbs_alerts, "_step", slow)
    with pytest.raises(OutcomeNotRecorded):
        move_alert(workspace, raised.id, Change(AlertState.ACKNOWLEDGED))
    assert show_alert(workspace, raised.id).state is AlertState.INVESTIGATING


def test_a_suppression_and_what_it_cannot_hide(workspace):
    until = int(workspace.door.clock() * 1000) + 86_400_000
    quiet = Quiet(detector="D2", principal=None, model=None, until_ms=until, reason="a load test")
    assert suppress_alerts(workspace, quiet).owner == workspace.people.session.principal
    (low,) = raise_alarms(workspace, [alarm(workspace, detector="D2", severity=Severity.LOW)])
    assert low.state is AlertState.SUPPRESSED
    with pytest.raises(InvalidInput, match="90 days"):
        suppress_alerts(workspace, replace(quiet, until_ms=until * 2))


def test_an_alert_reaches_the_sink_with_the_attestation_of_its_evidence(workspace):
    (raised,) = raise_alarms(workspace, [alarm(workspace)])
    assert deliver_alerts(workspace)[1].sent == 1
    assert deliver_alerts(workspace)[1].sent == 0
    (line,) = (workspace.folder / "events.jsonl").read_text().splitlines()
    event = json.loads(line)
    reader = workspace.ledger.reader()
    assert event["finding_info"]["uid"] == raised.id
    assert [one["fingerprint"]["value"] for one in event["attestation_list"]] == [
        hashlib.sha256(reader.entry(index)).hexdigest() for index in (0, 1)
    ]


def test_an_incident_that_is_opened_or_changed_reaches_the_sink_with_its_entries(workspace):
    incident = open_incident(workspace, int(workspace.door.clock() * 1000) - HOUR_MS)
    end_incident(workspace, incident.id, "kept by us")
    assert deliver_alerts(workspace)[1].sent == 2
    text = (workspace.folder / "events.jsonl").read_text()
    assert "kept by us" not in text
    opened, closed = sorted(map(json.loads, text.splitlines()), key=lambda event: event["activity_id"])
    assert [event["type_uid"] for event in (opened, closed)] == [200501, 200503]
    assert {event["unmapped"]["stanch"]["incident"] for event in (opened, closed)} == {incident.id}
    assert opened["metadata"]["uid"] != closed["metadata"]["uid"]
    reader = workspace.ledger.reader()
    for one in closed["attestation_list"]:
        assert one["fingerprint"]["value"] == hashlib.sha256(reader.entry(int(one["uid"]))).hexdigest()
    assert len(closed["attestation_list"]) == 2


def test_a_quarantined_model_answers_nobody_within_a_second(workspace, bot):
    desk = Desk.of(workspace)
    session = session_of(desk, bot[2])
    assert desk.may_infer(session, MODEL)
    incident = incident_of(workspace)
    order = ContainOrder(action=Containment.QUARANTINE_MODEL, target=str(MODEL.digest))
    after = contain_incident(workspace, incident.id, order)
    assert after.state is IncidentState.CONTAINED
    time.sleep(0.6)  # what was read of a model is believed for half a second
    assert not desk.may_infer(session, MODEL)
    judge = desk.judge(session, MODEL, INFER[1:])
    with pytest.raises(NotPermitted):
        desk.door(session, judge).act(Request(INFER[0], INFER[1], MODEL), lambda _ref: pytest.fail("it ran"))
    # Under another name the bytes are the same.
    assert workspace.people.resource_facts(ArtifactRef("model", "other", MODEL.digest)).quarantined


def test_a_restored_model_answers_again(workspace, bot):
    desk = Desk.of(workspace)
    session = session_of(desk, bot[2])
    quarantine_model(workspace, ArtifactRef("model", "other", MODEL.digest))
    assert not desk.may_infer(session, MODEL)
    with pytest.raises(InvalidInput, match="is not in quarantine"):
        restore_model(workspace, Digest.sha256(b"another"))
    restore_model(workspace, MODEL.digest)
    time.sleep(0.6)
    assert desk.may_infer(session, MODEL)


def test_a_sensitive_model_answers_whoever_is_cleared_for_it(workspace, bot):
    desk = Desk.of(workspace)
    session = session_of(desk, bot[2])
    classify_model(workspace, MODEL.digest, 40)
    time.sleep(0.6)
    assert not desk.may_infer(session, MODEL)
    clear_principal(workspace, bot[0], 39)
    assert not desk.may_infer(session_of(desk, bot[2]), MODEL)
    clear_principal(workspace, bot[0], 40)
    assert desk.may_infer(session_of(desk, bot[2]), MODEL)
    assert workspace.people.resource_facts(ArtifactRef("model", "other", MODEL.digest)).sensitivity == 40


def test_a_revoked_key_lets_nobody_in_and_a_lowered_budget_holds(workspace, bot):
    principal, key, secret = bot
    desk = Desk.of(workspace)
    assert session_of(desk, secret)
    budgets, limits = Budgets(workspace.tables), Limits()
    charge = Charge(principal, str(MODEL.digest), Amounts(tokens=10), int(workspace.door.clock() * 1000))
    incident = incident_of(workspace)
    with workspace.tables.write() as connection:
        budgets.reserve(connection, charge, limits)
    lower = ContainOrder(
        action=Containment.LOWER_BUDGET, target="bot", model=str(MODEL.digest), requests_per_minute=1, tokens_per_day=5
    )
    contain_incident(workspace, incident.id, lower)
    with pytest.raises(QuotaExhausted), workspace.tables.write() as connection:
        budgets.reserve(connection, charge, limits)
    other = replace(charge, model="another")
    with workspace.tables.write() as connection:
        budgets.reserve(connection, other, limits)
    after = contain_incident(workspace, incident.id, ContainOrder(action=Containment.REVOKE_KEY, target=key))
    with pytest.raises(NotAuthenticated):
        session_of(desk, secret)
    assert [one.action for one in after.contained] == ["lower_budget", "revoke_key"]
    assert [one.target for one in after.contained] == [principal, key]
    kinds = [acts(workspace, one.entry)[0] for one in after.contained]
    assert kinds == [("outcome", "gateway.limit"), ("outcome", "key.revoke")]


def test_a_lowered_budget_is_never_raised_by_lowering_it(workspace, bot, monkeypatch):
    def lowered():
        with workspace.tables.read() as connection:
            return [tuple(row)[2:] for row in connection.execute(select(budget_lowered))]

    lower_budget(workspace, bot[0], MODEL.digest, requests=5, tokens=50)
    for requests, tokens in ((6, 50), (5, 51), (10**9, 10**12)):
        with pytest.raises(InvalidInput, match="at most 5 requests a minute and 50 tokens"):
            lower_budget(workspace, bot[0], MODEL.digest, requests=requests, tokens=tokens)
    lower_budget(workspace, bot[0], MODEL.digest, requests=5, tokens=40)
    assert lowered() == [(5, 40)]
    real = verbs_contain._limit

    def meanwhile(*arguments):
        monkeypatch.setattr(verbs_contain, "_limit", real)
        lower_budget(workspace, bot[0], MODEL.digest, requests=0, tokens=0)
        return real(*arguments)

    monkeypatch.setattr(verbs_contain, "_limit", meanwhile)
    with pytest.raises(OutcomeNotRecorded):
        lower_budget(workspace, bot[0], MODEL.digest, requests=5, tokens=30)
    assert lowered() == [(0, 0)]


def test_a_lowered_budget_is_given_back_by_whoever_grants_access(workspace, bot):
    principal = bot[0]
    budgets, limits = Budgets(workspace.tables), Limits()
    charge = Charge(principal, str(MODEL.digest), Amounts(tokens=10), int(workspace.door.clock() * 1000))
    lower_budget(workspace, principal, MODEL.digest, requests=0, tokens=0)
    with pytest.raises(QuotaExhausted), workspace.tables.write() as connection:
        budgets.reserve(connection, charge, limits)
    with pytest.raises(InvalidInput, match="nobody lowered"):
        restore_budget(workspace, principal, Digest.sha256(b"another"))
    restore_budget(workspace, "bot", MODEL.digest)
    with workspace.tables.write() as connection:
        budgets.reserve(connection, charge, limits)
    with pytest.raises(InvalidInput, match="nobody lowered"):
        restore_budget(workspace, principal, MODEL.digest)


def test_nobody_is_told_a_name_or_a_password(workspace, bot, tmp_path):
    """Neither a sink nor whoever reads the export; each act is cited by its own entry, whatever else was done."""
    incident = incident_of(workspace)
    lower = ContainOrder(action=Containment.LOWER_BUDGET, target="bot", model=str(MODEL.digest))
    after = contain_incident(workspace, incident.id, lower)
    assert '"bot"' not in json.dumps(after.summary())
    export_incident(workspace, incident.id, tmp_path / "out")
    exported = (tmp_path / "out/incident.json").read_text() + (tmp_path / "out/incident.html").read_text()
    assert bot[0] in exported
    assert ">bot<" not in exported
    assert '"bot"' not in exported
    wheres = {
        "s3://user:SECRET@bucket.example:9000/copies?token=SECRET#x": "s3://bucket.example:9000/copies",
        "file:/srv/copies": "file:/srv/copies",
    }
    assert [verbs_contain._without_secrets(uri) for uri in wheres] == [*wheres.values()]


def test_of_two_acts_at_once_each_incident_cites_its_own(workspace, monkeypatch):
    incident, real = incident_of(workspace), verbs_contain._outcome_of

    def meanwhile(*arguments):
        quarantine_model(workspace, ArtifactRef("model", "other", Digest.sha256(b"another")))
        return real(*arguments)

    monkeypatch.setattr(verbs_contain, "_outcome_of", meanwhile)
    order = ContainOrder(action=Containment.QUARANTINE_MODEL, target=str(MODEL.digest))
    (done,) = contain_incident(workspace, incident.id, order).contained
    entry = workspace.ledger.reader().entry(done.entry)
    assert MODEL.digest.hex.encode() in entry


def session_of(desk, secret):
    return desk.authenticate(Bearer(secret, "127.0.0.1"))


def test_the_incident_lead_takes_a_copy_back_and_may_not_revoke_a_key(case, tmp_path):
    copy, store = tmp_path / "copy", f"file:{tmp_path}/store"
    with life.acting(case.folder, "rolf") as workspace:
        case.create(workspace, copy, recipient="bolt")
        for name in life.APPROVERS:
            life.acting_in(workspace, name, lambda acting: case.approve(acting, recipient="bolt"))
        trusted = TrustedKeys(workspace.keys.publics("publisher"))
        made = deliver_copy(workspace, copy, store, trusted, before_receipt=True)
    order = ContainOrder(
        action=Containment.WITHDRAW_RELEASE, target=f"{store}/{made.bundle_id}",
        recipient=case.material.other.recipient.key_id,
    )  # fmt: skip
    with life.acting(case.folder, "ines") as workspace:
        incident = open_incident(workspace, 5)
        with pytest.raises(InvalidInput, match="taken back from"):
            contain_incident(workspace, incident.id, replace(order, recipient=""))
        after = contain_incident(workspace, incident.id, order)
        with pytest.raises(NotPermitted):
            contain_incident(workspace, incident.id, ContainOrder(action=Containment.REVOKE_KEY, target="k"))
        assert show_incident(workspace, incident.id) == after
        assert acts(workspace, after.contained[0].entry)[0] == ("outcome", "release.revoke")
    (revocations,) = (tmp_path / "store").rglob("revocations.json")
    (entry,) = RevocationList.verify(revocations.read_bytes(), trusted).entries
    assert (entry.bundle_id, entry.key_id) == (made.bundle_id, order.recipient)


def test_reminders_come_once_each_and_end_with_the_notice(workspace, clock):
    incident = open_incident(workspace, int(clock() * 1000) - 23 * HOUR_MS)
    assert remind_incidents(workspace) == ()
    clock.late = 3600
    (first,) = remind_incidents(workspace)
    assert (first.signal, first.severity, remind_incidents(workspace)) == ("24-hours", "high", ())
    old = open_incident(workspace, int(clock() * 1000) - 70 * HOUR_MS)
    (last,) = remind_incidents(workspace)
    assert (last.signal, last.detector) == ("66-hours", f"incident:{old.id}")
    assert remind_incidents(workspace) == ()
    with pytest.raises(InvalidInput, match="nobody was notified"):
        end_incident(workspace, incident.id)
    note_notice(workspace, incident.id, int(clock() * 1000))
    assert end_incident(workspace, incident.id).state is IncidentState.CLOSED
    clock.late = 2 * 3600
    assert remind_incidents(workspace) == ()


def test_an_export_proves_every_entry_of_the_timeline(workspace, tmp_path):
    incident = incident_of(workspace)
    contain_incident(
        workspace, incident.id, ContainOrder(action=Containment.QUARANTINE_MODEL, target=str(MODEL.digest))
    )
    end_incident(workspace, incident.id, "<b>nobody's data</b>")
    assert find_incidents(workspace) == (show_incident(workspace, incident.id),)
    export_incident(workspace, incident.id, tmp_path / "out")
    document = json.loads((tmp_path / "out/incident.json").read_text())
    policy = TrustPolicy.of([workspace.ledger.verifier.vkey])
    reader = workspace.ledger.reader()
    indexes = [row["index"] for row in document["timeline"]]
    assert indexes == sorted({*indexes})
    assert {0, 1} <= set(indexes)
    for row in document["timeline"]:
        proof = (tmp_path / f"out/proofs/{row['index']}.tlog-proof").read_bytes()
        found = verify_proof(proof, reader.entry(row["index"]), policy)
        assert found.leaf_hash.hex() == row["leaf"]
    for fact in document["facts"]:
        assert fact["entries"]
        assert set(fact["entries"]) <= set(indexes)
    page = (tmp_path / "out/incident.html").read_text()
    assert "<b>nobody" not in page
    assert "&lt;b&gt;nobody" in page
    with pytest.raises(InvalidInput, match="exists already"):
        export_incident(workspace, incident.id, tmp_path / "out")
