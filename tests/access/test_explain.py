"""``why``: what it says agrees with the decision, for every action and situation."""

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
