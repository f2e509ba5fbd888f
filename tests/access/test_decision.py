"""Decisions: the matrix of roles and actions against a table written by hand, each condition, and the failure modes."""

import dataclasses
import itertools
import json
import re
from pathlib import Path

import cedarpy
import pytest
from cedarpy import PolicySet
from hypothesis import given, settings
from hypothesis import strategies as st

import stanch.access
from stanch.access import (
    ROLES,
    WORKSPACE,
    Context,
    Decision,
    Facts,
    Grant,
    Principal,
    ResourceFacts,
    decide,
    default_policies,
    parse_policies,
)
from stanch.access.decision import Answer, Diagnostics, _case, _context, evaluate
from stanch.access.facts import Bounds
from stanch.access.policy import (
    ActionPolicies,
    _resource,
    default_text,
    permits_role,
    schema_actions,
    schema_digest,
    split,
)
from stanch.errors import ApprovalsMissing, InvalidInput, NotPermitted, SeparationOfDuties
from stanch.terms import ArtifactRef, Digest

# Written from the design by hand; rows are roles, and what does not stand here is denied.
MATRIX = {
    "data_steward": "data:read data:query data:add",
    "ml_engineer": "model:tune model:audit",
    "consumer": "model:infer model:embed",
    "release_manager": "release:approve release:create release:export release:revoke",
    "platform_admin": "policy:read policy:write access:grant serve:run log:write",
    "security_analyst": "log:read finding:read finding:act model:quarantine",
    "incident_lead": (
        "log:read finding:read finding:act model:quarantine release:revoke case:trace case:read data:reveal"
    ),
    "auditor": "log:read policy:read case:read finding:read",
    "legal_reader": "case:read",
    "break_glass": "access:break-glass",
    "server": "serve:run",
}
FOLDER = Path(stanch.access.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "roles.md"
KINDS = {
    "data:read": ("Dataset", "Workspace"),
    "data:query": ("Dataset", "Workspace"),
    "data:add": ("Dataset", "Workspace"),
    "data:reveal": ("Dataset", "Workspace"),
    "model:tune": ("Dataset", "Workspace"),
    "model:audit": ("Run", "Model"),
    **{f"model:{verb}": ("Model", "Release") for verb in ("infer", "embed", "logprobs", "quarantine")},
    **{f"release:{verb}": ("Model", "Release") for verb in ("create", "export", "revoke")},
    "release:approve": ("Model", "Release", "Workspace"),
    "case:trace": ("Case",),
    "case:read": ("Case", "Workspace"),
    **{f"policy:{verb}": ("Workspace",) for verb in ("read", "write")},
    **{f"access:{verb}": ("Workspace",) for verb in ("grant", "break-glass")},
    **{f"finding:{verb}": ("Workspace",) for verb in ("read", "act")},
    "serve:run": ("Workspace",),
    "log:write": ("Workspace",),
    "log:read": ("Workspace",),
}
ALL_KINDS = ("Workspace", "Dataset", "Run", "Model", "Release", "Case")
IDEAL = Context(team=True, mfa=True, approvals=2)


def holder(*roles, suspended=False, clearance=5, kind="user", scope="workspace"):
    principal = Principal(
        id="p_" + "a" * 26, kind=kind, issuer="i", subject="s", display="d", clearance=clearance, suspended=suspended
    )
    return Facts(principal, tuple(Grant(f"g_{r}", principal.id, r, scope, None, "p_x") for r in roles))


def resource(kind="Model", **facts):
    options = {"gate": "passed"} if kind in {"Model", "Release"} else {}
    return ResourceFacts(kind, "support-bot", **(options | facts))


def allowed(facts, action, target=None, context=IDEAL):
    return decide(facts, action, target or resource(KINDS[action][0]), context, default_policies()).allowed


def test_the_schema_has_exactly_these_actions():
    assert default_policies().actions == frozenset(KINDS)
    assert frozenset(MATRIX) == ROLES
    assert len(default_policies().policies) == 20


@pytest.mark.parametrize("kind", ["user", "service"])
@pytest.mark.parametrize("role", sorted(ROLES))
def test_role_by_action_matrix(role, kind):
    for action in KINDS:
        assert allowed(holder(role, kind=kind), action) == (action in MATRIX[role].split()), action


def test_nobody_without_a_role_may_do_anything():
    for action in KINDS:
        assert not allowed(holder(), action)


def test_an_action_on_a_resource_of_another_kind_is_denied():
    for action, kind in itertools.product(KINDS, ALL_KINDS):
        decision = decide(holder(*ROLES - {"platform_admin"}), action, resource(kind), IDEAL, default_policies())
        if kind not in KINDS[action]:
            assert not decision.allowed
            assert decision.errors


CONDITIONS = [
    ("suspended", KINDS, {"suspended": True}, {}, {}),
    (
        "quarantined",
        ("release:create", "release:export", "model:infer", "model:embed"),
        {},
        {"quarantined": True},
        {},
    ),
    ("gate", ("release:create", "release:export"), {}, {"gate": ""}, {}),
    ("gate", ("release:create", "release:export"), {}, {"gate": "failed"}, {}),
    ("two-people", ("release:export", "policy:write"), {}, {}, {"approvals": 1}),
    ("two-people", ("release:export", "policy:write"), {}, {}, {"approvals": 0}),
    ("not-your-own", ("release:approve",), {}, {}, {"involved": True}),
    (
        "second-factor",
        (
            "release:approve",
            "release:create",
            "release:export",
            "access:grant",
            "access:break-glass",
            "policy:write",
            "data:reveal",
            "log:write",
        ),
        {},
        {},
        {"mfa": False},
    ),
    ("clearance", ("model:infer", "model:embed"), {"clearance": 4}, {"sensitivity": 5}, {}),
]
TEAM_RULES = {"two-people", "not-your-own", "second-factor"}


@pytest.mark.parametrize(("rule", "actions", "who", "what", "how"), CONDITIONS)
def test_each_condition_forbids_its_actions_and_no_other(rule, actions, who, what, how):
    policies = default_policies()
    for role, granted in MATRIX.items():
        for action in granted.split():
            kind = KINDS[action][0]
            facts_of_kind = {
                "Workspace": set(),
                "Case": set(),
                "Dataset": {"sensitivity", "quarantined"},
                "Run": {"sensitivity", "quarantined"},
            }.get(kind, {"sensitivity", "quarantined", "gate"})
            target = resource(kind, **{name: value for name, value in what.items() if name in facts_of_kind})
            values = {"mfa": True, "approvals": 2} | how
            decision = decide(holder(role, **who), action, target, Context(team=True, **values), policies)
            assert decision.allowed == (action not in actions), (role, action)
            assert (rule in decision.reasons) == (action in actions), (role, action)
            solo = decide(holder(role, **who), action, target, Context(team=False, **values), policies)
            assert solo.allowed == (rule in TEAM_RULES or action not in actions), (role, action)


def test_an_administrator_of_a_team_touches_no_data():
    both = holder("platform_admin", "data_steward", "release_manager")
    for action in ("data:read", "release:export"):
        assert not allowed(both, action)
        assert allowed(both, action, context=Context(team=False))
    assert allowed(both, "data:add")


def test_log_probabilities_are_open_to_nobody_by_default():
    assert not allowed(holder(*ROLES), "model:logprobs", context=Context(team=False))


def test_an_open_glass_stops_and_looks_and_never_releases():
    context = Context(team=True, glass="gl_x")
    opened = {action for action in KINDS if allowed(holder(), action, context=context)}
    assert opened == {"data:read", "model:quarantine", "release:revoke", "case:read"}
    assert not allowed(holder(suspended=True), "data:read", context=context)


def test_a_grant_for_one_resource_counts_there_only():
    facts = holder("release_manager", scope=resource().scope)
    assert allowed(facts, "release:create", resource())
    assert not allowed(facts, "release:create", ResourceFacts("Model", "other-bot", gate="passed"))
    assert not allowed(facts, "release:create", resource("Release"))


def test_a_suspended_principal_is_refused_even_by_policies_that_forgot():
    policies = default_policies()
    permit = split([policies.policies["role-data_steward"]])
    careless = dataclasses.replace(policies, by_action={"data:add": permit})
    assert decide(holder("data_steward"), "data:add", WORKSPACE, IDEAL, careless).allowed
    assert not decide(holder("data_steward", suspended=True), "data:add", WORKSPACE, IDEAL, careless).allowed


def with_set(text, *, lasting=True):
    """The default policies, but with any text in force for one action, as if validation had been passed by."""
    sets = ActionPolicies(text, None) if lasting else ActionPolicies(NONE, text)
    return dataclasses.replace(default_policies(), by_action={"release:create": sets})


NONE = split([]).lasting


@pytest.mark.parametrize("lasting", [True, False])
def test_a_forbid_that_fails_to_evaluate_does_not_allow(lasting):
    """Cedar skips it and says Allow; the decision rule looks at the errors as well."""
    text = """
        permit (principal, action, resource);
        forbid (principal, action, resource) when { resource.gate.contains("x") };
    """
    policies = with_set(PolicySet.from_str(text), lasting=lasting)
    result = evaluate(holder("release_manager"), "release:create", resource(), IDEAL, policies)
    assert result.decision == "Allow"  # what the library alone would do
    decision = decide(holder("release_manager"), "release:create", resource(), IDEAL, policies)
    assert not decision.allowed
    assert decision.errors
    with pytest.raises(NotPermitted, match="may not") as caught:
        decision.require()
    assert caught.value.why == "the policies could not be evaluated"


@pytest.mark.parametrize("lasting", [True, False])
def test_policies_that_do_not_parse_do_not_allow(lasting):
    """Cedar answers NoDecision and raises nothing."""
    policies = with_set("permit (nonsense", lasting=lasting)
    decision = decide(holder("release_manager"), "release:create", resource(), IDEAL, policies)
    assert not decision.allowed
    with pytest.raises(NotPermitted):
        decision.require()


def test_two_answers_join_to_what_cedar_would_answer_both():
    allow, forbid = Answer("Allow", Diagnostics(("p",))), Answer("Deny", Diagnostics(("f",), ("e",)))
    nothing, undecided = Answer("Deny", Diagnostics()), Answer("NoDecision", Diagnostics((), ("u",)))
    for one, other, wanted in (
        (allow, nothing, allow), (allow, forbid, forbid), (nothing, nothing, nothing), (nothing, forbid, forbid),
        (allow, undecided, undecided), (nothing, undecided, undecided), (undecided, undecided, "NoDecision"),
        (forbid, undecided, "NoDecision"),
    ):  # fmt: skip
        for joined in (one.join(other), other.join(one)):
            assert wanted in {joined, joined.decision}


def test_what_is_not_told_is_the_least():
    assert ResourceFacts("Model", "m") == ResourceFacts("Model", "m", 0, False, "")
    assert Context(team=True) == Context(team=True, mfa=False, involved=False, glass="", approvals=0)
    assert Grant("g", "p", "auditor", "workspace", None, "x").granted_ms == 0
    assert Decision(False, "p", "a", "r", (), (), Digest.sha256(b"")).glass == ""


def test_values_outside_cedars_integers_do_not_allow():
    context = Context(team=True, mfa=True, approvals=2**64)
    assert not allowed(holder("release_manager"), "release:create", context=context)


def test_a_principal_whom_cedar_cannot_hold_may_do_nothing():
    decision = decide(holder("auditor", clearance=2**64), "log:read", WORKSPACE, IDEAL, default_policies())
    assert not decision.allowed
    assert decision.reasons == ()
    assert len(decision.errors) == 1
    assert len(decision.errors[0]) <= 300


def test_an_unknown_action_is_refused():
    with pytest.raises(InvalidInput):
        decide(holder(*ROLES), "release:everything", resource(), IDEAL, default_policies())


@pytest.mark.parametrize("name", ['x" || true', "a\nb", "\\", "日本", "x" * 5000, ""])
def test_names_are_values_and_never_syntax(name):
    target = ResourceFacts("Model", name, gate="passed")
    assert decide(holder("release_manager"), "release:create", target, IDEAL, default_policies()).allowed
    assert not decide(holder("auditor"), "release:create", target, IDEAL, default_policies()).allowed


def test_require_returns_the_decision_or_the_right_error():
    policies = default_policies()
    good = decide(holder("release_manager"), "release:create", resource(), IDEAL, policies)
    assert good.require() is good
    assert good.reasons == ("role-release_manager",)
    assert good.policy == Digest.sha256(_resource("default.cedar").encode())
    cases = [
        (holder("release_manager"), "release:export", {"mfa": True, "approvals": 1}, ApprovalsMissing),
        (holder("release_manager"), "release:approve", {"mfa": True, "involved": True}, SeparationOfDuties),
        (holder("release_manager"), "release:export", {"mfa": False, "approvals": 1}, NotPermitted),
        (holder(), "release:create", {"mfa": True, "approvals": 2}, NotPermitted),
    ]
    for facts, action, context, error in cases:
        with pytest.raises(NotPermitted) as caught:
            decide(facts, action, resource(), Context(team=True, **context), policies).require()
        assert type(caught.value) is error
        assert caught.value.next_step


def test_resources_of_artifacts():
    digest = Digest.sha256(b"x")
    for kind, expected in (
        ("model", "Model"), ("dataset", "Dataset"), ("release", "Release"), ("case", "Case"), ("run", "Run"),
        ("other", "Run"),
    ):  # fmt: skip
        made = ResourceFacts.of(ArtifactRef(kind, "n", digest), sensitivity=3, quarantined=True, gate="passed")
        assert made == ResourceFacts(expected, f"n@{digest}", 3, True, "passed")
        assert (made.scope, made.uid) == (f"{expected}:n@{digest}", (f"Stanch::{expected}", f"n@{digest}"))
        assert made.digest == str(digest)
        assert ResourceFacts.of(ArtifactRef(kind, "n", digest)) == ResourceFacts(expected, f"n@{digest}", 0, False, "")
    assert (WORKSPACE.scope, WORKSPACE.uid, WORKSPACE.digest) == (
        "Workspace:workspace", ("Stanch::Workspace", "workspace"), "",
    )  # fmt: skip


def test_a_role_for_one_resource_adds_nothing_to_the_same_role_for_all():
    facts = Facts(
        holder().principal, (*holder("auditor", "consumer").grants, *holder("consumer", scope="Model:m").grants)
    )
    model, other = ResourceFacts("Model", "m"), ResourceFacts("Model", "n")
    assert facts.roles == {"auditor", "consumer"}
    assert facts.scoped_roles(model) == frozenset()
    alone = holder("consumer", scope="Model:m")
    assert (alone.roles, alone.scoped_roles(model), alone.scoped_roles(other)) == (
        frozenset(),
        {"consumer"},
        frozenset(),
    )
    assert facts.grants_for(model) == facts.grants
    assert facts.grants_for(other) == facts.grants[:2]


@pytest.mark.parametrize(
    "reason", [policy.id for policy in default_policies().policies.values() if policy.effect == "forbid"]
)
def test_each_forbid_has_a_next_step(reason):
    decision = Decision(False, "p_a", "release:create", "Model:m", (reason,), (), Digest.sha256(b""))
    with pytest.raises(NotPermitted) as caught:
        decision.require()
    assert caught.value.next_step
    assert caught.value.why == f"forbidden by {reason}"


def test_bounds_of_a_credential_are_refused_by_name_whatever_the_policies_say():
    facts = dataclasses.replace(holder("release_manager"), bounds=Bounds(frozenset({"log:read"}), frozenset()))
    context = Context(team=True, mfa=True, approvals=2, glass="gl_x")
    decision = decide(facts, "release:create", resource(), context, default_policies())
    assert decision == Decision(
        False, facts.principal.id, "release:create", resource().scope, ("credential-bounds",), (),
        default_policies().digest, "gl_x",
    )  # fmt: skip
    with pytest.raises(NotPermitted) as caught:
        decision.require()
    assert caught.value.next_step


def test_a_decision_says_what_was_asked_and_under_which_emergency():
    context = Context(team=True, mfa=True, approvals=2, glass="gl_x")
    facts = holder("release_manager")
    decision = decide(facts, "release:create", resource(), context, default_policies())
    assert decision == Decision(
        True, facts.principal.id, "release:create", resource().scope, ("role-release_manager",), (),
        default_policies().digest, "gl_x",
    )  # fmt: skip
    assert decide(facts, "release:create", resource(), IDEAL, default_policies()).glass == ""


def test_several_forbids_are_told_in_order_with_each_next_step():
    who = holder("release_manager", suspended=True)
    decision = decide(who, "release:export", resource(gate=""), Context(team=True), default_policies())
    assert decision.reasons == ("gate", "second-factor", "suspended", "two-people")
    with pytest.raises(NotPermitted) as caught:
        decision.require()
    assert type(caught.value) is NotPermitted
    assert caught.value.next_step.count("; ") == 3


SHIPPED = default_policies()


def in_one_set(policies):
    parsed = {policy.id: policy.parsed for policy in policies.policies.values()}
    return PolicySet.from_json_str(json.dumps({"staticPolicies": parsed, "templates": {}, "templateLinks": []}))


WHOLE = in_one_set(SHIPPED)
FULL = dataclasses.replace(SHIPPED, by_action=dict.fromkeys(SHIPPED.actions, ActionPolicies(NONE, WHOLE)))
"""The shipped policies, with all of them in one set, asked in every situation."""


def same(facts, action, target, context):
    whole, part = evaluate(facts, action, target, context, FULL), evaluate(facts, action, target, context, SHIPPED)
    assert (whole.decision, sorted(whole.diagnostics.reason)) == (part.decision, sorted(part.diagnostics.reason))
    assert len(whole.diagnostics.errors) == len(part.diagnostics.errors)


def test_the_set_of_an_action_decides_as_the_full_set():
    """Every action × role × kind of resource × profile × situation, with good facts and with bad ones."""
    for action, role, kind, team, glass, good in itertools.product(
        KINDS, [*sorted(ROLES), None], ALL_KINDS, *[(False, True)] * 3
    ):
        facts = holder(*([role] if role else []), suspended=not good, clearance=5 * good)
        target = ResourceFacts(kind, "x", 1, not good, "passed" if good else "failed")
        context = Context(team=team, glass="gl_x" * glass, mfa=good, involved=not good, approvals=2 * good)
        same(facts, action, target, context)


@settings(max_examples=200, deadline=None)
@given(
    action=st.sampled_from(sorted(KINDS)),
    roles=st.sets(st.sampled_from(sorted(ROLES))),
    kind=st.sampled_from(ALL_KINDS),
    context=st.builds(
        Context,
        team=st.booleans(),
        mfa=st.booleans(),
        involved=st.booleans(),
        glass=st.sampled_from(["", "gl_x"]),
        approvals=st.integers(0, 3),
    ),
    numbers=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    flags=st.tuples(st.booleans(), st.booleans(), st.sampled_from(["", "passed", "failed"])),
)
def test_the_same_for_any_facts(action, roles, kind, context, numbers, flags):
    facts = holder(*roles, suspended=flags[0], clearance=numbers[0])
    same(facts, action, ResourceFacts(kind, "x", numbers[1], flags[1], flags[2]), context)


def test_the_answer_is_what_cedarpys_own_wrapper_says():
    for action, role, good in itertools.product(KINDS, sorted(ROLES), (False, True)):
        facts, target = holder(role, suspended=not good), resource(KINDS[action][0])
        case = _case(facts.principal, facts.grants, action, target, SHIPPED)
        request = case.request | {"context": _context(IDEAL)}
        theirs = cedarpy.is_authorized(request, WHOLE, cedarpy.Entities(case.entities), SHIPPED.schema)
        ours = evaluate(facts, action, target, IDEAL, SHIPPED)
        assert ours.decision == theirs.decision.value
        assert sorted(ours.diagnostics.reason) == sorted(theirs.diagnostics.reasons)
        assert list(ours.diagnostics.errors) == theirs.diagnostics.errors


OWN = """
@id("a") permit (principal, action == Stanch::Action::"release:create", resource) when { CONDITION };
@id("b") forbid (principal, action == Stanch::Action::"release:create", resource) when { CONDITION };
"""
CONDITIONS = [
    "true", "false", "context.mfa", "!context.involved", "resource.quarantined", "principal.clearance > 3",
    "context.approvals > 1", 'context has mfa && resource.gate == "passed"',
    "if context.team then resource.quarantined else principal.suspended",
    'resource.gate == "context.mfa {\\"Var\\": \\"context\\"}"',
]  # fmt: skip


def test_ones_own_policies_decide_alike_in_two_sets_and_in_one():
    """Each pair of conditions for a permit and a forbid beside the shipped set."""
    head, tail = OWN.strip().splitlines()
    for permit, forbid in itertools.product(CONDITIONS, repeat=2):
        text = "\n".join([default_text(), head.replace("CONDITION", permit), tail.replace("CONDITION", forbid)])
        policies = parse_policies(text)
        sets = ActionPolicies(NONE, in_one_set(policies))
        joined = dataclasses.replace(policies, by_action={"release:create": sets})
        for flags in itertools.product((False, True), repeat=3):
            context = Context(team=flags[0], mfa=flags[1], approvals=2 * flags[1])
            target = ResourceFacts("Model", "x", 1, flags[2], "passed")
            one, two = (
                evaluate(holder("release_manager"), "release:create", target, context, which)
                for which in (joined, policies)
            )
            assert (one.decision, sorted(one.diagnostics.reason)) == (two.decision, sorted(two.diagnostics.reason))


@pytest.mark.parametrize(
    ("policy", "permitted"),
    [
        ('permit (principal in Stanch::Role::"ours", action == Stanch::Action::"log:read", resource);', True),
        ('permit (principal, action, resource) when { principal in Stanch::Role::"ours" };', True),
        ("permit (principal, action, resource);", True),
        ("permit (principal, action, resource) when { principal.clearance > 7 };", False),
        ('permit (principal == Stanch::User::"ours", action, resource);', False),
        ('forbid (principal in Stanch::Role::"ours", action == Stanch::Action::"log:read", resource);', False),
        ("forbid (principal, action, resource);", False),
    ],
)
def test_a_role_may_do_something_if_a_permit_names_it_or_everybody(policy, permitted):
    assert permits_role(parse_policies(f'{default_text()}@id("x") {policy}'), "ours") is permitted
    assert permits_role(default_policies(), "auditor")


@pytest.mark.parametrize(
    ("scope", "actions"),
    [
        ("action", set(KINDS)),
        ('action == Stanch::Action::"log:read"', {"log:read"}),
        ('action in Stanch::Action::"log:read"', {"log:read"}),
        ('action in [Stanch::Action::"log:read", Stanch::Action::"case:read"]', {"log:read", "case:read"}),
    ],
)
def test_a_policy_is_asked_about_the_actions_of_its_scope(scope, actions):
    policies = parse_policies(f'{default_text()}@id("x") permit (principal, {scope}, resource);')
    assert policies.policies["x"].actions == actions
    assert {action for action in KINDS if policies.policies["x"] in policies.matching(action)} == actions


def test_which_acts_depend_on_approvals():
    assert {action for action in KINDS if default_policies().asks_for_approvals(action)} == {
        "release:export", "policy:write",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ('@id("scoped-x") permit (principal, action, resource);', "found 'scoped-x'"),
        ('@id("x") permit (principal, action, resource == ?resource);', "hold a template"),
        ("permit (principal, action, resource);", "found None"),
        ('@note("x") permit (principal, action, resource);', "found None"),
        ('@id("gate") permit (principal, action, resource);', "found 'gate'"),
        ('@id("x") permit (principal, action, resource) when { resource.gate == 7 };', "the schema refuses them"),
        ('@id("x") permit (nonsense', "do not parse as Cedar"),
    ],
)
def test_each_rule_of_a_set_has_its_own_complaint(policy, complaint):
    with pytest.raises(InvalidInput, match=complaint):
        parse_policies(default_text() + policy)


def test_a_role_for_one_resource_gives_what_the_role_gives_and_no_policy_of_another_kind():
    """Only permits `role-…` have a template: what names no role, or forbids, is not multiplied."""
    text = f"""{default_text()}
        @id("ours") permit (principal == Stanch::User::"nobody", action == Stanch::Action::"log:read", resource);
        @id("role-x") forbid (principal == Stanch::User::"nobody", action == Stanch::Action::"log:read", resource);
    """
    sets = parse_policies(text).by_action["log:read"]
    assert {template["id"] for one in sets if one for template in one.templates()} == {
        "scoped-auditor", "scoped-incident_lead", "scoped-security_analyst",
    }  # fmt: skip
    facts = holder("auditor", scope=WORKSPACE.scope)
    decision = decide(facts, "log:read", WORKSPACE, IDEAL, parse_policies(text))
    assert (decision.allowed, decision.reasons) == (True, ("scoped-auditor",))


def test_a_role_for_one_resource_holds_where_its_permit_looks_at_the_situation():
    text = (
        default_text().replace('@id("role-server")', '@id("before")')
        + """
        @id("role-server") permit (principal in Stanch::Role::"server", action == Stanch::Action::"model:logprobs",
          resource) when { context.mfa };
    """
    )
    policies = parse_policies(text)
    facts = holder("server", scope=resource().scope)
    for mfa in (True, False):
        context = dataclasses.replace(IDEAL, mfa=mfa)
        assert decide(facts, "model:logprobs", resource(), context, policies).allowed is mfa


def test_what_is_shipped_is_read_as_it_lies_there():
    for name in ("default.cedar", "schema.cedarschema"):
        assert _resource.__wrapped__(name) == (FOLDER / name).read_text(encoding="utf-8")
    assert schema_digest() == Digest.sha256((FOLDER / "schema.cedarschema").read_bytes())
    assert schema_actions.__wrapped__() == default_policies().actions


def test_custom_policies_are_validated():
    default = _resource("default.cedar")
    extra = '@id("ours") permit (principal, action == Stanch::Action::"model:logprobs", resource);'
    custom = parse_policies(default + extra)
    assert decide(holder(), "model:logprobs", resource(), Context(team=False), custom).allowed
    assert custom.digest != default_policies().digest


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "permit (nonsense",
        lambda text: text + "permit (principal, action, resource);",
        lambda text: text + '@id("gate") permit (principal, action, resource);',
        lambda text: text + '@id("x") permit (principal, action == Stanch::Action::"model:fly", resource);',
        lambda text: text + '@id("x") permit (principal, action, resource) when { resource.gate == 7 };',
        lambda text: text + '@id("x") permit (principal == ?principal, action, resource);',
        lambda text: text.replace("when { principal.suspended }", "when { principal.suspended && false }"),
        lambda text: text.replace('@id("gate")', '@id("door")'),
        lambda text: text.replace("context.approvals >= 2", "context.approvals >= 0"),
        lambda text: text[: text.index('@id("admin-no-data")')],
        lambda text: text + "x" * (1 << 20),
        lambda text: text[:0],
    ],
)
def test_policies_that_break_a_rule_are_refused(change):
    text = _resource("default.cedar")
    assert change(text) != text
    with pytest.raises(InvalidInput):
        parse_policies(change(text))


def test_the_page_of_roles_has_this_matrix_and_every_condition():
    may, _, conditions = PAGE.read_text().partition("## Actions")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", may, re.MULTILINE)
    assert {role: " ".join(sorted(re.findall("`(.*?)`", row))) for role, row in rows} == {
        role: " ".join(sorted(actions.split())) for role, actions in MATRIX.items()
    }
    named = re.findall(r"^\| `([\w-]+)` \| (?:permit|forbid) \|", conditions, re.MULTILINE)
    assert {*named, *(f"role-{role}" for role in MATRIX)} == set(default_policies().policies)
