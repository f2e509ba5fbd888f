"""A copy needs two people who took no part in making it, each with a second factor."""

import json

import life
import pytest

from stanch.access import ApprovalStatement, sign_approval
from stanch.errors import ApprovalsMissing, Conflict, InvalidInput, NotPermitted, SeparationOfDuties
from stanch.ledger import decode_entry
from stanch.workspace import Workspace, verbs_model
from stanch.workspace.verbs_access import add_person, grant_role, revoke_grant
from stanch.workspace.verbs_release import (
    ReleaseState,
    approve_release,
    create_release,
    propose_release,
    release_folder,
)

pytestmark = pytest.mark.on_both_grounds


@pytest.fixture
def team(case):
    """Return a function that gives the one opened workspace with somebody acting."""
    with case.acting("nina") as workspace:

        def acting(name):
            return workspace.acting_as(name, unlock=lambda: life.passphrase(name))

        acting.case = case
        acting.log = workspace
        yield acting


def create(workspace, out, *, name="r1", recipient="acme"):
    return create_release(workspace, name, recipient, out, life.POLICY)


def force_approval(workspace, name, recipient="acme"):
    """Hand in a valid signed approval by whoever acts, past the policies."""
    people, request = workspace.people, ReleaseState.load(release_folder(workspace, name)).facts.request(recipient)
    statement = ApprovalStatement(
        request=request.digest, approver=people.session.principal, origin=workspace.ledger.origin,
        created_ms=int(workspace.door.clock() * 1000), expires_ms=int(request.expires.timestamp() * 1000),
    )  # fmt: skip
    people.approvals.record_approval(sign_approval(people.local.key, statement))


def test_two_people_rule(team, tmp_path):
    rolf, rita = team("rolf"), team("rita")
    with pytest.raises(ApprovalsMissing):
        create(rolf, tmp_path / "copy")
    assert approve_release(rita, "r1", "acme") == 1
    assert approve_release(rita, "r1", "acme") == 1  # the same person twice is one person
    with pytest.raises(ApprovalsMissing):
        create(rolf, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert approve_release(rolf, "r1", "acme") == 2
    with pytest.raises(ApprovalsMissing):
        create(rolf, tmp_path / "copy", recipient="bolt")  # approved was acme's copy
    assert create(rolf, tmp_path / "copy").path == tmp_path / "copy"
    with pytest.raises(ApprovalsMissing):
        create(rolf, tmp_path / "again")  # used up
    with pytest.raises(Conflict, match="used already"):
        approve_release(rita, "r1", "acme")


def test_the_intent_that_used_approvals_up_is_named_beside_them(team, tmp_path):
    for name in ("rita", "rolf"):
        approve_release(team(name), "r1", "acme")
    create(team("rolf"), tmp_path / "copy")
    created = [act for _, kind, act, _ in life.entries(team.log) if kind == "release.create"]
    with team.log.tables.read() as connection:
        used = connection.exec_driver_sql("SELECT DISTINCT consumed_by FROM approval").scalars().all()
    assert len(set(created)) == 1
    assert used == [created[0]]


def test_an_existing_destination_uses_no_approval_up(team, tmp_path):
    for name in ("rita", "rolf"):
        approve_release(team(name), "r1", "acme")
    (tmp_path / "copy").mkdir()
    with pytest.raises(InvalidInput, match="exists already"):
        create(team("rolf"), tmp_path / "copy")
    assert create(team("rolf"), tmp_path / "other").path.is_dir()


def test_who_proposed_it_may_not_approve_it_and_is_not_counted(team, tmp_path):
    grant_role(team("olga"), "rolf", "ml_engineer", 3)
    rolf = team("rolf")
    propose_release(rolf, team.case.proposal("r2"))
    with pytest.raises(SeparationOfDuties):
        approve_release(rolf, "r2", "acme")
    force_approval(rolf, "r2")
    approve_release(team("rita"), "r2", "acme")
    with pytest.raises(ApprovalsMissing):
        create(team("rita"), tmp_path / "copy", name="r2")


def test_who_audited_it_may_not_approve_it_and_is_not_counted(team, tmp_path, monkeypatch):
    case = team.case
    grant_role(team("olga"), "rita", "ml_engineer", 3)
    for name in ("rita", "rolf"):
        approve_release(team(name), "r1", "acme")
    monkeypatch.setattr(verbs_model, "audit", lambda *_, **__: case.material.result)
    order = verbs_model.AuditOrder(
        case.material.model, lambda: None, lambda: None, verbs_model.AuditInput(), verbs_model.AuditParams(),
        tmp_path / "report",
    )  # fmt: skip
    verbs_model.run_audit(team("rita"), order)
    with pytest.raises(SeparationOfDuties):
        approve_release(team("rita"), "r1", "bolt")
    with pytest.raises(ApprovalsMissing):  # her earlier approval counts no more
        create(team("rolf"), tmp_path / "copy")


def test_a_key_without_passphrase_is_no_second_factor(team, tmp_path):
    with pytest.raises(NotPermitted, match="release:approve") as caught:
        approve_release(team("ruth"), "r1", "acme")
    assert "second-factor" in caught.value.why
    for name in ("rita", "rolf"):
        approve_release(team(name), "r1", "acme")
    with pytest.raises(NotPermitted) as caught:
        create(team("ruth"), tmp_path / "copy")
    assert "second-factor" in caught.value.why
    create(team("rolf"), tmp_path / "copy")  # the refusal used nothing up


def test_nobody_grants_to_himself(team):
    with pytest.raises(SeparationOfDuties):
        grant_role(team("olga"), "olga", "ml_engineer", 3)


def test_an_administrator_may_not_release(team, tmp_path):
    with pytest.raises(NotPermitted):
        approve_release(team("olga"), "r1", "acme")
    with pytest.raises(NotPermitted):
        create(team("olga"), tmp_path / "copy")


def test_an_expired_request_is_neither_approved_nor_created(case, tmp_path):
    clock = life.in_days(0).timestamp
    with Workspace.open(case.folder, principal="rita", unlock=lambda: life.passphrase("rita")) as rita:
        approve_release(rita, "r1", "acme")

    def later():
        return clock() + 31 * 86_400

    with Workspace.open(
        case.folder, principal="olga", unlock=lambda: life.passphrase("olga"), clock=later
    ) as olga:  # the roles of thirty days have ended too: renew them
        for name in ("rita", "rolf"):
            grant_role(olga, name, "release_manager", 30)
        rita, rolf = (olga.acting_as(name, unlock=lambda name=name: life.passphrase(name)) for name in ("rita", "rolf"))
        with pytest.raises(InvalidInput, match="expired"):
            approve_release(rita, "r1", "acme")
        with pytest.raises(ApprovalsMissing):
            create(rolf, tmp_path / "copy")


def test_a_model_that_did_not_pass_the_gate_is_not_released(team, tmp_path):
    rolf = team("rolf")
    for name in ("rita", "rolf"):
        approve_release(team(name), "r1", "acme")
    ref = verbs_model.model_ref(team.case.material.model)
    rolf.people.set_gate(ref, "failed")
    with pytest.raises(NotPermitted) as caught:
        create(rolf, tmp_path / "copy")
    assert "gate" in caught.value.why
    rolf.people.set_gate(ref, "passed")
    create(rolf, tmp_path / "copy")


def test_a_suspended_person_may_nothing(team):
    team.log.people.directory.suspend(team("rita").people.session.principal)
    with pytest.raises(NotPermitted):
        approve_release(team("rita"), "r1", "acme")


def test_a_request_that_was_changed_after_the_approvals_has_none(team, tmp_path):
    for name in ("rita", "rolf"):
        approve_release(team(name), "r1", "acme")
    facts = release_folder(team.log, "r1") / "release.json"
    document = json.loads(facts.read_bytes())
    document["requests"]["acme"]["recipient_key"] = str(team.case.material.other.recipient)
    facts.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    with pytest.raises(ApprovalsMissing):
        create(team("rolf"), tmp_path / "copy")


def test_one_person_suffices_in_profile_solo(case, tmp_path):
    with Workspace.init(tmp_path / "solo") as workspace:
        cert = life.certify(
            case.material.result, case.material.model, workspace.keys.signer("publisher"), tmp_path / "cert.json"
        )
        propose_release(workspace, case.proposal(certificate=cert))
        with pytest.raises(NotPermitted) as caught:
            create(workspace, tmp_path / "copy")
        assert "gate" in caught.value.why
        verbs_model.pass_gate(workspace, case.material.model, cert, life.POLICY)
        create(workspace, tmp_path / "copy")
        add_person(workspace, "new", ["auditor", "ml_engineer"])


def test_the_log_names_request_and_manifest_of_a_copy(team, tmp_path):
    for name in ("rita", "rolf"):
        approve_release(team(name), "r1", "acme")
    copy = create(team("rolf"), tmp_path / "copy")
    reader = team.log.ledger.reader()
    entry = decode_entry(reader.entry(reader.size() - 1))["unmapped"]["stanch"]
    assert entry["payload"]["manifest"] == str(copy.manifest)
    assert entry["egress_bytes"] == copy.size


def test_the_log_says_whose_rights_were_changed(team):
    """OCSF ``user``: an outcome names the person concerned, and an intent does not yet know."""
    olga = team("olga")
    start = olga.ledger.reader().size()
    new = add_person(olga, "newcomer", ("data_steward",))
    made = grant_role(olga, "newcomer", "ml_engineer", 3)
    revoke_grant(olga, made.id)
    reader = olga.ledger.reader()
    events = [decode_entry(reader.entry(index)) for index in range(start, reader.size())]
    assert [event["user"]["uid"] for event in events] == ["unknown", new] * 3
    assert {event["actor"]["user"]["uid"] for event in events} == {olga.people.session.principal}
