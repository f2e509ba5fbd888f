"""Why a principal may or may not do something, policy by policy (``stanch access why``)."""

from dataclasses import dataclass

from stanch.access.decision import Decision, decide, evaluate
from stanch.access.facts import Context, Facts, Grant, ResourceFacts
from stanch.access.policy import ActivePolicies, Policy
from stanch.errors import NotPermitted


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """What one policy says by itself.

    Attributes:
        policy: Its id.
        effect: ``permit`` or ``forbid``.
        holds: Whether its condition holds; a forbid that holds blocks.
        grant: For a permit through a role: the grant that gives it.
        failed: Whether it could not be evaluated.
        fact: The fact that a forbid looked at, in plain words; empty for a permit.
    """

    policy: str
    effect: str
    holds: bool
    grant: Grant | None
    failed: bool
    fact: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, what each policy contributes to it, the facts that were used, and the next step."""

    decision: Decision
    permits: tuple[PolicyAnswer, ...]
    forbids: tuple[PolicyAnswer, ...]
    facts: Facts
    resource: ResourceFacts
    context: Context
    next_step: str


def explain(
    facts: Facts, action: str, resource: ResourceFacts, context: Context, policies: ActivePolicies
) -> Explanation:
    """Explain a decision by evaluating each policy alone; forbids are evaluated beside a permit for everything.

    Raises:
        InvalidInput: The policies know no such action.
    """
    decision = decide(facts, action, resource, context, policies)
    answers = [
        _ask(policy, facts, action, resource, context, policies)
        for policy in sorted(policies.matching(action), key=lambda policy: policy.id)
    ]
    return Explanation(
        decision,
        tuple(answer for answer in answers if answer.effect == "permit"),
        tuple(answer for answer in answers if answer.effect == "forbid"),
        facts,
        resource,
        context,
        _next_step(decision, answers),
    )


def _ask(
    policy: Policy, facts: Facts, action: str, resource: ResourceFacts, context: Context, policies: ActivePolicies
) -> PolicyAnswer:
    try:
        result = evaluate(facts, action, resource, context, policies.only(policy, action))
    except ValueError:
        return PolicyAnswer(policy.id, policy.effect, holds=False, grant=None, failed=True)
    failed = bool(result.diagnostics.errors)
    wanted = "Allow" if policy.effect == "permit" else "Deny"
    holds = result.decision == wanted  # one that failed neither permits nor forbids
    role = policy.id.removeprefix("role-")
    grant = next((grant for grant in facts.grants_for(resource) if grant.role == role), None)
    fact = _fact(policy.id, facts, resource, context) if policy.effect == "forbid" else ""
    return PolicyAnswer(policy.id, policy.effect, holds, grant if holds else None, failed, fact)


def _fact(policy: str, facts: Facts, resource: ResourceFacts, context: Context) -> str:
    """Return the fact that a forbid of the default set looks at; a forbid of one's own shows none."""
    known = {
        "suspended": f"suspended: {_yes(facts.principal.suspended)}",
        "quarantined": f"quarantined: {_yes(resource.quarantined)}",
        "gate": f"the gate: {resource.gate or 'not passed yet'}",
        "two-people": f"approvals for this exact request: {context.approvals} of 2",
        "not-your-own": f"took part in making, auditing or requesting it: {_yes(context.involved)}",
        "second-factor": f"second factor: {_yes(context.mfa)}",
        "clearance": f"clearance {facts.principal.clearance}, sensitivity {resource.sensitivity}",
        "admin-no-data": f"platform administrator: {_yes('platform_admin' in facts.roles)}",
    }
    return known.get(policy, "")


def _yes(value: bool) -> str:  # noqa: FBT001 - a truth value to its word
    return "yes" if value else "no"


def _next_step(decision: Decision, answers: list[PolicyAnswer]) -> str:
    """Return the smallest next step; a missing role comes first, since nothing else helps without one.

    Where policies could not be evaluated nothing is known of roles.
    """
    permitted = any(answer.holds for answer in answers if answer.effect == "permit")
    if not (permitted or decision.errors):
        roles = [answer.policy.removeprefix("role-") for answer in answers if answer.policy.startswith("role-")]
        return (
            f"ask a platform administrator for one of these roles: {', '.join(roles)}"
            if roles
            else ("no role permits this by default; the policies would have to be changed")
        )
    try:
        decision.require()
    except NotPermitted as error:
        return error.next_step
    return ""
