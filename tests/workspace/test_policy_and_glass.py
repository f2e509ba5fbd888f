"""A change of policies in a team, and an emergency, through the verbs: approvals, entries, reviews."""

import life
import pytest

from stanch.access import ApprovalStatement, PolicyChange, PolicyVersions, sign_approval
from stanch.access.policy import default_text
from stanch.cli.frame import run
from stanch.data import open_dataset
from stanch.errors import ApprovalsMissing, InvalidInput, NotFound, NotPermitted, SeparationOfDuties
from stanch.ledger import EntryQuery, decode_entry
from stanch.ledger.asked import LastAsked
from stanch.scan import Policy, Scanner
from stanch.store.postgresql import PostgresqlTables
from stanch.terms import ArtifactRef, Digest
from stanch.workspace import Workspace
from stanch.workspace.kinds import KINDS
from stanch.workspace.past_requests import past_requests
from stanch.workspace.verbs_access import (
    DAY_MS,
    add_person,
    explain_access,
    grant_role,
    revoke_grant,
    unused_grants,
    workspace_ref,
)
from stanch.workspace.verbs_data import scan_data
from stanch.workspace.verbs_glass import REASON, break_glass, find_due, overdue_reviews, review_glass
from stanch.workspace.verbs_log import list_entries
from stanch.workspace.verbs_policy import activate_policies, approve_policies, check_policies, rollback_policies

OURS = default_text() + (
    '@id("ours") permit (principal in Stanch::Role::"auditor", action == Stanch::Action::"serve:run", resource);'
)
MODEL = ArtifactRef("model", "m", Digest.sha256(b"m"))

pytestmark = pytest.mark.on_both_grounds


@pytest.fixture
def team(case):
    """The team with two more administrators."""
    with case.acting("olga") as olga:
        for name in ("adam", "anke"):
            add_person(olga, name, ["platform_admin"], passphrase=life.passphrase(name))

        yield lambda name: olga.acting_as(name, unlock=lambda: life.passphrase(name))


def last(workspace, phase, kind):
    reader = workspace.ledger.reader()
    entries = [decode_entry(reader.entry(index)) for index in range(reader.size())]
    ours = [(entry, entry["unmapped"]["stanch"]) for entry in entries]
    return next((e, o) for e, o in reversed(ours) if (o["phase"], o["kind"]) == (phase, kind))


def test_two_other_administrators_approve_a_change(team):
    olga = team("olga")
    checked = check_policies(olga, OURS)
    assert (checked.added, checked.removed, checked.changed) == (("ours",), (), ())
    with pytest.raises(ApprovalsMissing):
        activate_policies(olga, OURS)
    approve_policies(olga, OURS)  # her own does not count for her own change
    assert approve_policies(team("adam"), OURS).change.digest == checked.change.digest
    with pytest.raises(ApprovalsMissing):
        activate_policies(olga, OURS)
    approve_policies(team("anke"), OURS)
    with pytest.raises(ApprovalsMissing):
        activate_policies(olga, OURS + "\n")
    assert activate_policies(olga, OURS).version == 1
    assert explain_access(team("ada"), "serve:run", workspace_ref(olga)).decision.allowed
    rollback_policies(team("anke"))
    assert not explain_access(team("ada"), "serve:run", workspace_ref(olga)).decision.allowed
    with pytest.raises(ApprovalsMissing):
        activate_policies(olga, OURS)  # used up, and the version before is another one


def test_approvals_of_a_change_count_while_their_approvers_may_still_approve_one(team):
    """Rows that somebody wrote with signatures of people without a role, and a role that ended since, count nothing."""
    olga, now_ms = team("olga"), int(team("olga").door.clock() * 1000)
    checked = approve_policies(team("adam"), OURS)
    for name in ("rita", "nina"):
        people = team(name).people
        statement = ApprovalStatement(
            request=checked.change.digest, approver=people.session.principal, origin=olga.ledger.origin,
            created_ms=now_ms, expires_ms=now_ms + DAY_MS,
        )  # fmt: skip
        people.approvals.record_approval(sign_approval(people.local.key, statement))
    assert check_policies(olga, OURS).approvals == 1
    with pytest.raises(ApprovalsMissing):
        activate_policies(olga, OURS)
    approve_policies(team("anke"), OURS)
    assert check_policies(olga, OURS).approvals == 2
    for grant in olga.people.directory.facts_of(olga.people.find("adam")).grants:
        revoke_grant(olga, grant.id)
    assert check_policies(olga, OURS).approvals == 1
    with pytest.raises(ApprovalsMissing):
        activate_policies(olga, OURS)


def test_the_requests_of_a_week_are_those_of_the_log(team, case, tmp_path):
    olga = team("olga")
    with pytest.raises(NotPermitted):
        scan_data(team("nina"), open_dataset(case.material.data), Scanner(Policy()), tmp_path / "clean.jsonl")
    reader, now_ms = olga.ledger.reader(), int(olga.door.clock() * 1000)
    wanted = {}
    for _, data in reader.tail():
        entry = decode_entry(data)
        ours = entry["unmapped"]["stanch"]
        if ours["phase"] in {"intent", "denied"} and ours["kind"] in KINDS and entry["time"] >= now_ms - 7 * DAY_MS:
            for one in ours.get("subject", ()):
                ref = ArtifactRef(one["kind"], one["name"], Digest.parse(one["digest"]))
                asked = KINDS[ours["kind"]].action, olga.people.resource_facts(ref)
                wanted.setdefault(asked, set()).add(entry["actor"]["user"]["uid"])
    last = LastAsked()
    assert past_requests(olga.people, reader, now_ms, last) == wanted
    assert {action for action, _ in wanted} >= {"access:grant", "data:read"}
    check_policies(olga, OURS, last=last)  # which asks itself, and is seen by the next that is told of the first
    again = past_requests(olga.people, reader, now_ms, last)
    assert again == past_requests(olga.people, reader, now_ms, LastAsked()) != wanted
    assert {action for action, _ in again} == {action for action, _ in wanted} | {"policy:read"}
    assert past_requests(olga.people, reader, now_ms + 8 * DAY_MS, last) == {}
    assert past_requests(olga.people, reader, now_ms, last) == again  # a clock that goes back


def test_who_is_no_administrator_neither_approves_nor_rolls_back(team):
    for name in ("rita", "ada", "nina"):
        with pytest.raises(NotPermitted):
            approve_policies(team(name), OURS)
        with pytest.raises(NotPermitted):
            rollback_policies(team(name))
    with pytest.raises(NotFound):
        rollback_policies(team("olga"))


def test_a_rollback_works_under_policies_that_forbid_it(team):
    head = '@id("shut") forbid (principal, action == Stanch::Action::"policy:write", resource)'
    shut = f"{OURS}{head} when {{ context.mfa }};"
    olga = team("olga")
    with pytest.raises(InvalidInput, match="nobody could change"):
        check_policies(olga, shut)
    store = PolicyVersions(olga.tables)
    store.activate(PolicyChange(olga.ledger.origin, shut, (), store.active()), by="p_x", now_ms=1)
    assert rollback_policies(olga).text == default_text()


def test_a_missing_forbid_needs_two_people_in_profile_solo_too(tmp_path):
    text = default_text().replace("context.approvals >= 2", "context.approvals >= 1")
    with Workspace.init(tmp_path / "solo") as solo:
        assert activate_policies(solo, OURS).version == 1
        with pytest.raises(InvalidInput, match="two-people"):
            activate_policies(solo, text)
        with pytest.raises(ApprovalsMissing):
            activate_policies(solo, text, ("two-people",))


def test_an_emergency(team, case, tmp_path):
    grant_role(team("olga"), "rita", "break_glass", 3)
    rita = team("rita")
    dataset, scanner = open_dataset(case.material.data), Scanner(Policy())
    with pytest.raises(NotPermitted):
        scan_data(rita, dataset, scanner, tmp_path / "a.jsonl")
    glass = break_glass(rita, "the pager rang", 15)
    event, ours = last(rita, "intent", "access.break-glass")
    assert (event["severity_id"], list(ours["commitments"])) == (5, [REASON])
    assert "pager" not in str(event)
    assert glass.act == event["metadata"]["correlation_uid"]
    scan_data(rita, dataset, scanner, tmp_path / "b.jsonl")
    assert last(rita, "outcome", "data.scan")[1]["glass"] == glass.id
    assert [one.id for one in find_due(rita).unreviewed] == [glass.id]
    with pytest.raises(NotPermitted):
        break_glass(team("rolf"), "me too", 15)


def test_a_review_that_is_late_fails_the_status(case, capsys):
    with case.acting("olga") as olga:
        grant_role(olga, "rita", "break_glass", 3)
        grant_role(olga, "ines", "break_glass", 3)
    early = life.in_days(-4).timestamp
    with Workspace.open(case.folder, principal="rita", unlock=lambda: life.passphrase("rita")) as rita:
        glasses = type(rita.people.glasses)(rita.tables, clock=early)
        glass = glasses.open_glass(rita.people.session.principal, act="a", reason_commitment="c", minutes=15)
        assert [one.id for one in overdue_reviews(rita)] == [glass.id]
    assert run(["--workspace", str(case.folder), "--as", "ada", "status"]) == 1
    assert glass.id in capsys.readouterr().out
    with case.acting("ada") as ada:
        review_glass(ada, glass.id)
        assert overdue_reviews(ada) == ()
    assert run(["--workspace", str(case.folder), "--as", "ada", "status"]) == 0


def test_nobody_reviews_his_own_emergency(case):
    with case.acting("ines") as ines:
        glasses = type(ines.people.glasses)(ines.tables, clock=lambda: ines.door.clock() - 3600)
        glass = glasses.open_glass(ines.people.session.principal, act="a", reason_commitment="c", minutes=15)
        with pytest.raises(SeparationOfDuties):
            review_glass(ines, glass.id)


def test_unused_grants_are_those_that_permitted_nothing(case, monkeypatch):
    later, theirs = life.in_days(10).timestamp, PostgresqlTables.server_ms
    monkeypatch.setattr(PostgresqlTables, "server_ms", f"{theirs} + 864000000")  # ten days there, too
    with Workspace.open(case.folder, principal="ada", clock=later) as ada:
        list_entries(ada, EntryQuery(limit=1))
        unused = {(grant.principal, grant.role) for grant in unused_grants(ada, 5)}
        mine = ada.people.session.principal
        assert (mine, "auditor") not in unused
        assert (ada.people.find("rita"), "release_manager") in unused
        assert unused_grants(ada, 60) == ()
    assert DAY_MS == 86_400_000


def test_a_grant_for_one_model_counts_there_only(team):
    made = grant_role(team("olga"), "nina", "release_manager", 3, on=MODEL)
    assert made.scope == f"Model:m@{MODEL.digest}"
    nina = team("nina")
    found = explain_access(nina, "release:approve", MODEL)
    assert [(answer.policy, answer.holds) for answer in found.permits] == [("role-release_manager", True)]
    other = ArtifactRef("model", "m", Digest.sha256(b"other"))
    assert not explain_access(nina, "release:approve", other).permits[0].holds


def test_why_about_another_needs_permission_and_is_recorded(team):
    ada, nina = team("ada"), team("nina")
    found = explain_access(ada, "release:export", MODEL, who="rita", request=Digest.sha256(b"request"))
    facts = {answer.policy: (answer.holds, answer.fact) for answer in found.forbids}
    assert facts["two-people"] == (True, "approvals for this exact request: 0 of 2")
    assert found.permits[0].grant.granted_by == team("olga").people.session.principal
    assert last(ada, "intent", "policy.read")[1]["payload"]["about"] == found.facts.principal.id
    with pytest.raises(NotPermitted):
        explain_access(nina, "release:create", MODEL, who="rita")
