"""``why``: what it says agrees with the decision, for every action and situation."""

import dataclasses
import itertools

import pytest

from stanch.access import (
    ROLES,
    Context,
    Facts,
    Grant,
    Principal,
    ResourceFacts,
    decide,
    default_policies,
    explain,
)
from stanch.access.explain import PolicyAnswer, _fact
from stanch.errors import InvalidInput

MODEL = ResourceFacts("Model", "support-bot@sha256:00", gate="passed")


def holder(*roles, suspended=False):
    principal = Principal(
        id="p_" + "a" * 26, kind="user", issuer="i", subject="s", display="d", clearance=5, suspended=suspended
    )
    return Facts(principal, tuple(Grant(f"g_{r}", principal.id, r, "workspace", 7, "p_mia") for r in roles))


def answers(explanation):
    return {answer.policy: answer.holds for answer in (*explanation.permits, *explanation.forbids)}


def test_one_approval_is_missing():
    context = Context(team=True, mfa=True, approvals=1)
    explanation = explain(holder("release_manager"), "release:export", MODEL, context, default_policies())
    assert answers(explanation) == {
        "role-release_manager": True,
        "admin-no-data": False,
        "gate": False,
        "quarantined": False,
        "second-factor": False,
        "suspended": False,
        "two-people": True,
    }
    grant = explanation.permits[0].grant
    assert (grant.granted_by, grant.expires_ms) == ("p_mia", 7)
    assert "another release manager" in explanation.next_step
    assert not explanation.decision.allowed


def test_a_missing_role_comes_first():
    context = Context(team=True, mfa=False, approvals=0)
    explanation = explain(holder("auditor"), "release:create", MODEL, context, default_policies())
    assert "release_manager" in explanation.next_step
    assert explanation.permits[0].grant is None


def test_what_no_role_permits():
    explanation = explain(holder(*ROLES), "model:logprobs", MODEL, Context(team=False), default_policies())
    assert explanation.permits == ()
    assert "policies would have to be changed" in explanation.next_step


def test_an_allowed_act_needs_no_next_step():
    explanation = explain(holder("release_manager"), "release:create", MODEL, Context(team=False), default_policies())
    assert explanation.decision.allowed
    assert explanation.next_step == ""


def test_a_policy_that_cannot_be_evaluated_is_shown_as_failed():
    dataset = ResourceFacts("Dataset", "d")
    explanation = explain(holder("release_manager"), "release:create", dataset, Context(team=False), default_policies())
    assert all(answer.failed for answer in (*explanation.permits, *explanation.forbids))
    assert not explanation.decision.allowed
    assert explanation.next_step == "check the policies"


FACTS = {
    "suspended": ({"suspended": True}, {}, {}, "suspended: yes", "suspended: no"),
    "quarantined": ({}, {"quarantined": True}, {}, "quarantined: yes", "quarantined: no"),
    "gate": ({}, {"gate": "failed"}, {}, "the gate: failed", "the gate: passed"),
    "two-people": (
        {}, {}, {"approvals": 1},
        "approvals for this exact request: 1 of 2", "approvals for this exact request: 2 of 2",
    ),
    "second-factor": ({}, {}, {"mfa": False}, "second factor: no", "second factor: yes"),
}  # fmt: skip


@pytest.mark.parametrize("policy", FACTS)
def test_a_forbid_shows_the_fact_that_it_looked_at(policy):
    who, what, how, bad, good = FACTS[policy]
    for changes, fact in ((True, bad), (False, good)):
        facts = holder("release_manager", **(who if changes else {}))
        target = dataclasses.replace(MODEL, **(what if changes else {}))
        context = Context(**({"team": True, "mfa": True, "approvals": 2} | (how if changes else {})))
        explanation = explain(facts, "release:export", target, context, default_policies())
        answer = next(one for one in explanation.forbids if one.policy == policy)
        assert (answer.fact, answer.holds, answer.failed, answer.grant) == (fact, changes, False, None)
        assert all(one.fact == "" for one in explanation.permits)


def told(facts, action, target, policy, **context):
    explanation = explain(facts, action, target, Context(team=True, **context), default_policies())
    return next(one.fact for one in explanation.forbids if one.policy == policy)


def test_the_facts_of_the_other_forbids():
    workspace = ResourceFacts("Workspace", "workspace")
    words = "took part in making, auditing or requesting it"
    for involved, word in ((True, "yes"), (False, "no")):
        fact = told(holder(), "release:approve", workspace, "not-your-own", involved=involved)
        assert fact == f"{words}: {word}"
    model = dataclasses.replace(MODEL, sensitivity=7)
    assert told(holder(), "model:infer", model, "clearance") == "clearance 5, sensitivity 7"
    for roles, word in ((("platform_admin", "auditor"), "yes"), (("auditor",), "no")):
        assert told(holder(*roles), "release:export", MODEL, "admin-no-data") == f"platform administrator: {word}"
    assert told(holder(), "release:export", dataclasses.replace(MODEL, gate=""), "gate") == "the gate: not passed yet"


def test_a_forbid_of_ones_own_shows_no_fact():
    assert _fact("ours", holder(), MODEL, Context(team=True)) == ""


def test_a_grant_is_named_where_its_permit_holds():
    named = Grant("g_m", "p_" + "a" * 26, "release_manager", MODEL.scope, 7, "p_mia")
    facts = dataclasses.replace(holder("auditor"), grants=(*holder("auditor").grants, named))
    context = Context(team=False)
    here = explain(facts, "release:create", MODEL, context, default_policies())
    assert [answer.grant for answer in here.permits] == [named]
    assert (here.facts, here.resource, here.context) == (facts, MODEL, context)
    elsewhere = dataclasses.replace(MODEL, id="other@sha256:00")
    there = explain(facts, "release:create", elsewhere, context, default_policies())
    assert [(answer.holds, answer.grant) for answer in there.permits] == [(False, None)]


def test_a_fact_that_no_policy_can_hold_is_a_failure_of_each():
    facts = holder("release_manager")
    beyond = dataclasses.replace(facts, principal=dataclasses.replace(facts.principal, clearance=2**64))
    explanation = explain(beyond, "release:export", MODEL, Context(team=True), default_policies())
    for effect, answers in (("permit", explanation.permits), ("forbid", explanation.forbids)):
        assert answers == tuple(
            PolicyAnswer(one.policy, effect, holds=False, grant=None, failed=True, fact="") for one in answers
        )
        assert answers
    assert not explanation.decision.allowed


def test_policies_are_told_in_the_order_of_their_names():
    explanation = explain(holder(), "release:export", MODEL, Context(team=True), default_policies())
    names = [answer.policy for answer in explanation.forbids]
    assert names == sorted(names)
    assert explanation.next_step == "ask a platform administrator for one of these roles: release_manager"
    reading = explain(holder(), "log:read", ResourceFacts("Workspace", "w"), Context(team=True), default_policies())
    assert reading.next_step.endswith("these roles: auditor, incident_lead, security_analyst")


def test_the_answers_always_add_up_to_the_decision():
    policies = default_policies()
    kinds = {"data": "Dataset", "model": "Model", "release": "Model", "case": "Case"}
    for action, role, team, good in itertools.product(
        sorted(policies.actions),
        ["release_manager", "platform_admin", "incident_lead", "consumer"],
        *[(False, True)] * 2,
    ):
        kind = "Dataset" if action == "model:tune" else kinds.get(action.split(":")[0], "Workspace")
        target = ResourceFacts(kind, "x", gate="passed" if good and kind == "Model" else "")
        facts, context = holder(role, suspended=not good), Context(team=team, mfa=good, approvals=2 * good)
        explanation = explain(facts, action, target, context, policies)
        said = any(a.holds for a in explanation.permits) and not any(a.holds for a in explanation.forbids)
        assert said == explanation.decision.allowed == decide(facts, action, target, context, policies).allowed
        assert bool(explanation.next_step) != explanation.decision.allowed


def test_an_unknown_action_is_refused():
    with pytest.raises(InvalidInput):
        explain(holder(), "release:everything", MODEL, Context(team=False), default_policies())
