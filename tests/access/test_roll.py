"""The roll equals what is read of each principal alone; and principals that policies cannot tell apart."""

import dataclasses

import pytest

from stanch.access import WORKSPACE, Context, ResourceFacts, decide, default_policies, parse_policies
from stanch.access.alike import Likeness
from stanch.access.policy import default_text
from stanch.access.roll import (
    count_principals,
    facts_after,
    facts_of,
    first_names,
    holders,
    ids_called,
    names_of,
    read_crowd,
)
from stanch.terms import ArtifactRef, Digest

MODEL = ResourceFacts.of(ArtifactRef("model", "m", Digest.sha256(b"m")))
BEST = Context(team=True, mfa=True, approvals=2)


@pytest.fixture
def crowd(people):
    """Anna audits, ben and bot use models, cleo uses one model."""
    ids = {name: people.add(name) for name in ("anna", "ben", "cleo")} | {"bot": people.add("bot", kind="service")}
    for name, role, scope in (
        ("anna", "auditor", "workspace"), ("ben", "consumer", "workspace"), ("bot", "consumer", "workspace"),
        ("cleo", "consumer", MODEL.scope),
    ):  # fmt: skip
        people.directory.grant(ids[name], role, granted_by=ids["anna"], team=False, scope=scope)
    return ids


@pytest.mark.usefixtures("crowd")
def test_the_roll_in_parts_equals_each_alone(people):
    directory, now_ms = people.directory, now_of(people)
    alone = [directory.facts_of(one.id) for one in directory.principals()]
    with people.tables.read() as connection:
        assert list(facts_of(connection, [one.principal.id for one in alone[::-1]] + ["p_nobody"], now_ms)) == alone
        parts, after = [], ""
        while part := facts_after(connection, now_ms, after=after, limit=3):
            parts += part
            after = part[-1].principal.id
        assert parts == alone
        assert count_principals(connection) == len(alone)


def test_names_and_holders(people, crowd):
    with people.tables.read() as connection:
        assert names_of(connection, [crowd["anna"], crowd["ben"], "p_nobody"]) == {
            crowd["anna"]: "anna", crowd["ben"]: "ben",
        }  # fmt: skip
        assert ids_called(connection, "ben") == ids_called(connection, crowd["ben"]) == (crowd["ben"],)
        assert ids_called(connection, "nobody") == ()
        assert first_names(connection, 2) == ("anna", "ben")
        now_ms = now_of(people)
        assert holders(connection, "consumer", ("workspace",), now_ms, limit=1) == (("ben",), 2)
        assert holders(connection, "consumer", ("workspace", MODEL.scope), now_ms, limit=9)[1] == 3


def test_the_roll_is_the_same_however_many_are_read_at_once(people, crowd, monkeypatch):
    ids, now_ms = sorted(crowd.values()), now_of(people)
    with people.tables.read() as connection:
        whole = names_of(connection, ids), facts_of(connection, ids, now_ms)
        for many in (3, 1):
            monkeypatch.setattr("stanch.access.roll._PIECE", many)
            assert (names_of(connection, ids), facts_of(connection, ids, now_ms)) == whole
        assert names_of(connection, []) == {}
        assert first_names(connection, 9) == ("anna", "ben", "bot", "cleo")


def test_an_erased_person_is_shown_by_id(people, crowd):
    with people.tables.write() as connection:
        connection.exec_driver_sql("UPDATE principal SET display = NULL WHERE id = ?", (crowd["ben"],))
    with people.tables.read() as connection:
        assert names_of(connection, [crowd["ben"]]) == {crowd["ben"]: crowd["ben"]}
        assert first_names(connection, 9) == ("anna", "bot", "cleo")
        shown, count = holders(connection, "consumer", ("workspace",), now_of(people), limit=9)
        assert (shown, count) == (tuple(sorted(["bot", crowd["ben"]])), 2)


def test_some_share_a_name(people, crowd):
    twin = people.directory.register_subject("https://i.example", "ben", display="ben").id
    with people.tables.read() as connection:
        assert ids_called(connection, "ben") == tuple(sorted([crowd["ben"], twin]))


def now_of(people):
    return int(people.clock() * 1000)


def test_those_who_are_alike_are_decided_alike(people, crowd):
    policies = default_policies()
    facts = {name: people.directory.facts_of(key) for name, key in crowd.items()}
    likeness = Likeness(policies)
    for resource, actions in ((MODEL, ("model:infer", "release:export")), (WORKSPACE, ("log:read", "policy:write"))):
        decided = {}
        for one in facts.values():
            answers = [decide(one, action, resource, BEST, policies).allowed for action in actions]
            assert decided.setdefault(likeness.of(one, resource), answers) == answers
        assert len(decided) >= 3
    ben = facts["ben"]
    twin = dataclasses.replace(ben, principal=dataclasses.replace(ben.principal, id="p_" + "a" * 26, display="x"))
    assert likeness.of(ben, MODEL) == likeness.of(twin, MODEL)


def test_a_group_of_the_crowd_is_decided_alike_on_every_resource(people, crowd):
    twin, late = people.add("dora"), people.add("eve", clearance=2)
    people.directory.grant(twin, "auditor", granted_by=crowd["anna"], team=False)
    people.directory.grant(late, "consumer", granted_by=crowd["anna"], team=False, days=1)
    people.clock.seconds += 2 * 86_400
    ended = people.add("fay", clearance=2)
    policies, now_ms = default_policies(), now_of(people)
    with people.tables.read() as connection:
        read = read_crowd(connection, now_ms, Likeness(policies))
    assert list(read.group_of) == sorted([*crowd.values(), twin, late, ended])
    groups = [{"anna", twin}, {"ben"}, {"bot"}, {"cleo"}, {late, ended}]
    wanted = {frozenset(crowd.get(one, one) for one in group) for group in groups}
    found = {}
    for key, group in read.group_of.items():
        found.setdefault(group, set()).add(key)
        mine, its = people.directory.facts_of(key), read.groups[group]
        for resource, action in ((MODEL, "model:infer"), (WORKSPACE, "log:read")):
            assert Likeness(policies).of(mine, resource) == Likeness(policies).of(its, resource)
            assert decide(mine, action, resource, BEST, policies).allowed is (
                decide(its, action, resource, BEST, policies).allowed
            )
    assert {frozenset(group) for group in found.values()} == wanted
    people.directory.suspend(twin)
    named = parse_policies(
        f'{default_text()}@id("x")\nforbid(principal == Stanch::User::"{late}", action, resource);\n'
    )
    with people.tables.read() as connection:
        assert len(read_crowd(connection, now_ms, Likeness(named)).groups) == len(groups) + 2


def test_the_same_grants_in_another_order_make_one_group(people):
    roles = ["consumer", "ml_engineer"]
    for who, order in ((people.add("anna"), roles), (people.add("ben"), roles[::-1])):
        for role in order:
            people.directory.grant(who, role, granted_by="p_x", team=False)
    with people.tables.read() as connection:
        assert len(read_crowd(connection, now_of(people), Likeness(default_policies())).groups) == 1


def test_whom_a_policy_names_is_told_apart(people, crowd):
    ben = people.directory.facts_of(crowd["ben"])
    twin = dataclasses.replace(ben, principal=dataclasses.replace(ben.principal, id="p_" + "a" * 26))
    named = f'@id("not-ben")\nforbid(principal == Stanch::User::"{crowd["ben"]}", action, resource);\n'
    policies = parse_policies(default_text() + named)
    allowed = [
        decide(one, "model:infer", dataclasses.replace(MODEL, gate="passed"), BEST, policies).allowed
        for one in (ben, twin)
    ]
    assert allowed == [False, True]
    assert Likeness(policies).of(ben, MODEL) != Likeness(policies).of(twin, MODEL)
