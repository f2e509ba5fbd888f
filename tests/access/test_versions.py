"""Versions of the policies, the node's authority over them, and decisions that are remembered for a second."""

import dataclasses

import pytest

from stanch.access import WORKSPACE, Authority, Context, PolicyChange, PolicyVersions, ResourceFacts, parse_policies
from stanch.access.alike import Likeness
from stanch.access.cache import DecisionCache, Question
from stanch.access.policy import default_text, missing_forbids
from stanch.access.revision import Revision, read_revision
from stanch.access.roll import read_crowd
from stanch.access.simulate import Simulation, require_a_way_back, simulate
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
    assert versions.active().version == 0
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
    with pytest.raises(InvalidInput, match="not the one"):
        versions.active()
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


def test_a_node_that_cannot_confirm_refuses_after_a_minute(people, node, monkeypatch):
    session = people.sign_in(people.add("anna"))
    node.decide(session, "log:read", WORKSPACE, TEAM)

    def fail(*_):
        raise StoreError("gone")

    monkeypatch.setattr("stanch.access.authority.read_revision", fail)
    people.clock.seconds += 59.9
    node.decide(session, "log:read", WORKSPACE, TEAM)
    people.clock.seconds += 0.1
    with pytest.raises(NotPermitted, match="nothing is permitted"):
        node.decide(session, "log:read", WORKSPACE, TEAM)
    with pytest.raises(StoreError):
        Authority(people.tables, people.directory, clock=people.clock).policies()


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
    assert cache.get(questions[4], 1000) is None
    assert cache.get(questions[4], -1) is None


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


def test_policies_that_lock_everybody_out_are_refused(people):
    admin = people.add("admin")
    people.directory.grant(admin, "platform_admin", granted_by="p_x", team=True)
    everybody = [people.directory.facts_of(admin)]
    require_a_way_back(everybody, parse_policies(OURS), team=True)
    locked = OURS + '@id("shut") forbid (principal, action == Stanch::Action::"policy:write", resource);'
    with pytest.raises(InvalidInput, match="nobody could change"):
        require_a_way_back(everybody, parse_policies(locked), team=True)
