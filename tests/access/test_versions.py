"""Versions of the policies, the node's authority over them, and decisions that are remembered for a second."""

import dataclasses
import hashlib
import json

import pytest

from stanch.access import WORKSPACE, Authority, Context, PolicyChange, PolicyVersions, ResourceFacts, parse_policies
from stanch.access.alike import Likeness
from stanch.access.cache import DecisionCache, Question
from stanch.access.policy import default_text, missing_forbids, schema_digest
from stanch.access.revision import Revision, read_revision
from stanch.access.roll import read_crowd
from stanch.access.simulate import SHOWN, Simulation, require_a_way_back, simulate, situations
from stanch.access.versions import PolicyVersion, versions_by_digest
from stanch.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, NotPermitted, StoreError

EXTRA = '@id("ours") permit (principal, action == Stanch::Action::"model:logprobs", resource);'
OURS = default_text() + EXTRA
MODEL = ResourceFacts("Model", "m@sha256:" + "00" * 32)
TEAM = Context(team=True, mfa=True)


@pytest.fixture
def versions(people):
    return PolicyVersions(people.tables)


def change(versions, text, without=()):
    return PolicyChange("example.com/stanch", text, without, versions.active())


def activate(versions, text, without=()):
    return versions.activate(change(versions, text, without), by="p_admin", now_ms=1)


def test_the_shipped_set_is_version_0(versions):
    assert versions.active() == PolicyVersion(0, default_text(), (), "active", 0, "", 0)
    assert versions.history() == ()
    with pytest.raises(NotFound):
        versions.rollback(by="p", now_ms=1)


def test_a_rollback_goes_back_and_never_forth(versions):
    second = OURS + EXTRA.replace("ours", "more")
    assert [activate(versions, OURS).version, activate(versions, second).version] == [1, 2]
    assert versions.active().text == second
    back = [versions.rollback(by="p", now_ms=2) for _ in range(2)]
    assert [(one.version, one.text) for one in back] == [(3, OURS), (4, default_text())]
    assert [one.state for one in versions.history()] == ["retired"] * 3 + ["active"]


def test_a_version_says_who_put_it_in_force_and_when_and_what_it_may_lack(versions):
    text = default_text().replace("context.approvals >= 2", "context.approvals >= 1").replace('"gate"', '"door"', 1)
    made = activate(versions, text, ("two-people", "gate"))
    assert made == versions.active() == PolicyVersion(1, text, ("gate", "two-people"), "active", 0, "p_admin", 1)
    back = versions.rollback(by="p_ben", now_ms=2)
    assert versions.history() == (dataclasses.replace(made, state="retired"), back)
    assert back == PolicyVersion(2, default_text(), (), "active", 0, "p_ben", 2)
    with pytest.raises(NotFound):
        versions.rollback(by="p", now_ms=3)


def test_the_digest_of_a_change_is_that_of_its_specification(versions):
    after, proposed = activate(versions, OURS), default_text()
    plain = {
        "type": "urn:stanch:policy-change:v1", "origin": "example.com/stanch",
        "policy": f"sha256:{hashlib.sha256(proposed.encode()).hexdigest()}", "schema": str(schema_digest()),
        "without": ["a", "b"], "after": {"version": 1, "policy": f"sha256:{hashlib.sha256(OURS.encode()).hexdigest()}"},
    }  # fmt: skip
    wanted = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert str(PolicyChange("example.com/stanch", proposed, ("b", "a"), after).digest) == f"sha256:{wanted}"


def test_versions_by_the_digest_of_their_text_whatever_the_column_says(people, versions):
    made = activate(versions, OURS)
    with people.tables.write() as connection:
        connection.exec_driver_sql("UPDATE policy SET digest = 'sha256:00'")
        (found,) = versions_by_digest(connection).items()
    assert (found[0], found[1].text, found[1].version) == (str(made.digest), OURS, 1)


def test_a_change_is_of_one_version_and_one_text(versions):
    first, other = change(versions, OURS), change(versions, OURS + "\n")
    assert first.digest != other.digest
    assert dataclasses.replace(first, origin="x").digest != first.digest
    assert dataclasses.replace(first, without=("gate",)).digest != first.digest
    versions.activate(first, by="p", now_ms=1)
    with pytest.raises(Conflict):
        versions.activate(other, by="p", now_ms=1)
    assert change(versions, OURS + "\n").digest != other.digest


def test_a_forbid_is_left_out_only_by_name(versions):
    text = default_text().replace("context.approvals >= 2", "context.approvals >= 1")
    assert missing_forbids(text) == ("two-people",)
    with pytest.raises(InvalidInput, match="two-people"):
        activate(versions, text)
    with pytest.raises(InvalidInput, match="gate need not"):
        activate(versions, text, ("two-people", "gate"))
    made = activate(versions, text, ("two-people",))
    assert made.parse().digest == made.digest


def test_a_changed_row_is_not_believed_but_can_be_left(people, versions):
    activate(versions, OURS)
    with people.tables.write() as connection:
        connection.exec_driver_sql("UPDATE policy SET text = 'permit (principal, action, resource);'")
    for read in (versions.active, versions.history):
        with pytest.raises(InvalidInput, match="not the one"):
            read()
    assert versions.rollback(by="p", now_ms=1).text == default_text()


@pytest.fixture
def node(people):
    return Authority(people.tables, people.directory, clock=people.clock)


def test_a_node_follows_the_version_within_a_second(people, versions, node):
    session = people.sign_in(people.add("anna"))
    assert not node.decide(session, "model:logprobs", MODEL, TEAM).allowed
    activate(versions, OURS)
    people.clock.seconds += 1
    assert node.decide(session, "model:logprobs", MODEL, TEAM).allowed
    versions.rollback(by="p", now_ms=1)
    people.clock.seconds += 1
    assert not node.decide(session, "model:logprobs", MODEL, TEAM).allowed


def unreadable(_connection):
    raise StoreError("gone")


def test_a_node_that_cannot_confirm_refuses_after_a_minute(people, node, monkeypatch):
    session = people.sign_in(people.add("anna"))
    node.decide(session, "log:read", WORKSPACE, TEAM)

    monkeypatch.setattr("stanch.access.authority.read_revision", unreadable)
    people.clock.seconds += 59.9
    node.decide(session, "log:read", WORKSPACE, TEAM)
    people.clock.seconds += 0.1
    with pytest.raises(NotPermitted, match="nothing is permitted"):
        node.decide(session, "log:read", WORKSPACE, TEAM)
    with pytest.raises(StoreError):
        Authority(people.tables, people.directory, clock=people.clock).policies()


@pytest.mark.parametrize("seconds", [0, 0.001])
def test_a_node_goes_on_at_once_where_it_cannot_confirm(people, monkeypatch, seconds):
    node = Authority(people.tables, people.directory, refresh_ms=0, clock=people.clock)
    first = node.policies()
    monkeypatch.setattr("stanch.access.authority.read_revision", unreadable)
    people.clock.seconds += seconds
    assert node.policies() is first


def test_a_node_whose_clock_was_set_back_cannot_confirm_either(people, node, monkeypatch):
    node.policies()
    monkeypatch.setattr("stanch.access.authority.read_revision", unreadable)
    people.clock.seconds -= 0.001
    with pytest.raises(NotPermitted):
        node.policies()


def test_a_node_reads_again_after_a_second_or_when_it_is_told(people, versions, node):
    first = node.policies()
    activate(versions, OURS)
    for seconds in (0, 0.001, 0.998):
        people.clock.seconds += seconds
        assert node.policies() is first
        assert node.policies() is first
    assert node.revision().policy == 0
    node.refresh()
    assert node.policies().digest == versions.active().digest
    assert node.revision().policy == 1
    versions.rollback(by="p", now_ms=1)
    people.clock.seconds += 1
    assert node.policies().digest == first.digest
    activate(versions, OURS)
    assert (
        Authority(people.tables, people.directory, refresh_ms=0, clock=people.clock).policies().digest != first.digest
    )


def test_policies_are_parsed_once_however_often_facts_change(people, versions, node):
    activate(versions, OURS)
    first = node.policies()
    people.add("anna")
    people.clock.seconds += 1
    assert node.revision().facts == 1
    assert node.policies() is first


def test_a_decision_is_remembered_for_a_second_and_no_change_is_missed(people, node, monkeypatch):
    anna = people.add("anna")
    grant = people.directory.grant(anna, "auditor", granted_by="p_x", team=True)
    session, loads, original = people.sign_in(anna), [], people.directory.facts
    monkeypatch.setattr(people.directory, "facts", lambda s: loads.append(1) or original(s))

    def ask(action="log:read", resource=WORKSPACE):
        return node.decide(session, action, resource, TEAM).allowed

    assert ask()
    assert ask()
    assert len(loads) == 1
    people.clock.seconds += 1
    assert ask()
    assert len(loads) == 2
    people.directory.revoke(grant.id)
    people.clock.seconds += 1
    assert not ask()
    ask("policy:write")
    ask("policy:write")
    assert len(loads) == 5  # what depends on approvals is never remembered


def test_a_session_that_ended_is_not_served_from_memory(people, node):
    session = people.sign_in(people.add("anna"))
    short = dataclasses.replace(session, expires_ms=session.started_ms + 500)
    node.decide(short, "log:read", WORKSPACE, TEAM)
    people.clock.seconds += 0.5
    with pytest.raises(NotAuthenticated):
        node.decide(short, "log:read", WORKSPACE, TEAM)


def test_the_memory_is_bounded(people):
    session, cache = people.sign_in(people.add("anna")), DecisionCache(capacity=3)
    questions = [Question(session, str(n), WORKSPACE, TEAM, Revision()) for n in range(5)]
    for question in questions:
        cache.put(question, "decision", 0)
    assert len(cache) == 3
    assert [cache.get(question, 0) for question in questions] == [None, None, *["decision"] * 3]
    cache.put(questions[2], "newer", 500)
    cache.put(questions[0], "decision", 500)  # the one that was made longest ago goes
    assert [cache.get(question, 500) for question in questions] == ["decision", None, "newer", None, "decision"]
    assert cache.get(questions[4], 999) == "decision"
    assert cache.get(questions[4], 1000) is None
    assert cache.get(questions[4], -1) is None


def test_facts_and_policies_stand_at_0_and_are_counted_under_names_that_stay(people, versions):
    """Nodes of several releases read the same rows while one replaces the other."""
    with people.tables.read() as connection:
        assert read_revision(connection) == Revision(0, 0)
    people.add("anna")
    activate(versions, OURS)
    people.add("ben")
    versions.rollback(by="p", now_ms=1)
    with people.tables.read() as connection:
        rows = {tuple(row) for row in connection.exec_driver_sql("SELECT of, value FROM access_revision")}
        assert read_revision(connection) == Revision(2, 2)
    assert rows == {("facts", 2), ("policy", 2)}


def test_every_change_of_facts_is_counted(people):
    def revision():
        with people.tables.read() as connection:
            return read_revision(connection).facts

    anna, seen = people.add("anna"), [revision()]
    grant = people.directory.grant(anna, "auditor", granted_by="p_x", team=True)
    for step in (
        lambda: None,
        lambda: people.directory.revoke(grant.id),
        lambda: people.directory.suspend(anna),
        lambda: people.replace_key(people.keys[anna].key_id),
        lambda: people.directory.register_subject("https://i.example", "s", display="s"),
    ):
        step()
        seen.append(revision())
    assert seen == sorted(set(seen))


def test_a_change_is_simulated_in_two_situations(people):
    anna, ben = sorted([people.add("anna"), people.add("ben")])
    before, after = parse_policies(default_text()), parse_policies(OURS)
    with people.tables.read() as connection:
        crowd = read_crowd(connection, int(people.clock() * 1000), Likeness(before, after))
    past = {("model:logprobs", MODEL): {anna, ben}, ("log:read", WORKSPACE): {"p_gone"}}
    found = simulate(past, before, after, crowd, team=True)
    assert (found.requests, found.newly_allowed, found.newly_denied) == (2, 4, 0)
    assert [(one.principal, one.situation, one.after) for one in found.differences] == [
        (anna, "best", True), (anna, "plain", True), (ben, "best", True), (ben, "plain", True),
    ]  # fmt: skip
    back = simulate(past, after, before, crowd, team=True)
    assert (back.newly_allowed, back.newly_denied) == (0, 4)
    assert simulate(past, before, before, crowd, team=True) == Simulation(2, 0, 0, ())


def test_of_many_differences_the_first_are_shown_and_all_are_counted(people):
    before, after = parse_policies(default_text()), parse_policies(OURS)
    ids = sorted(people.add(f"p{n}") for n in range(SHOWN // 2 + 1))
    with people.tables.read() as connection:
        crowd = read_crowd(connection, people.now_ms, Likeness(before, after))
    other = ResourceFacts("Model", "n@sha256:" + "00" * 32)
    asked = {("model:logprobs", resource): set(ids) for resource in (other, MODEL)}
    found = simulate(asked, before, after, crowd, team=True)
    assert (found.requests, found.newly_allowed, found.newly_denied) == (2 * len(ids), 4 * len(ids), 0)
    assert len(found.differences) == SHOWN == 50
    shown = [(one.principal, one.action, one.scope, one.situation) for one in found.differences]
    each = [(scope, situation) for scope in (MODEL.scope, other.scope) for situation in ("best", "plain")]
    assert shown == [(one, "model:logprobs", *rest) for one in ids for rest in each][:SHOWN]


def test_a_request_that_one_situation_alone_decides_otherwise_is_counted_once(people):
    text = default_text() + EXTRA.replace(";", " when { context.mfa };")
    before, after = parse_policies(default_text()), parse_policies(text)
    anna = people.add("anna")
    with people.tables.read() as connection:
        crowd = read_crowd(connection, people.now_ms, Likeness(before, after))
    found = simulate({("model:logprobs", MODEL): {anna}}, before, after, crowd, team=True)
    assert (found.newly_allowed, found.newly_denied) == (1, 0)
    assert [(one.situation, one.after) for one in found.differences] == [("best", True)]


def test_the_best_and_the_plainest_situation():
    for team in (True, False):
        assert situations(team=team) == {
            "best": Context(team=team, mfa=True, involved=False, glass="", approvals=2),
            "plain": Context(team=team, mfa=False, involved=True, glass="", approvals=0),
        }


def test_policies_that_lock_everybody_out_are_refused(people):
    admin = people.add("admin")
    people.directory.grant(admin, "platform_admin", granted_by="p_x", team=True)
    everybody = [people.directory.facts_of(one) for one in (people.add("anna"), admin)]
    with pytest.raises(InvalidInput, match="nobody could change"):
        require_a_way_back(everybody[:1], parse_policies(OURS), team=True)
    require_a_way_back(everybody, parse_policies(OURS), team=True)
    locked = OURS + '@id("shut") forbid (principal, action == Stanch::Action::"policy:write", resource);'
    with pytest.raises(InvalidInput, match="nobody could change"):
        require_a_way_back(everybody, parse_policies(locked), team=True)
