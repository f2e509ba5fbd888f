"""The decision whether a principal may do something: a pure function of facts and policies.

Allowed means that Cedar says Allow *and* no policy failed to evaluate. A forbid whose condition fails to evaluate is
skipped by Cedar, which then may say Allow; and policies that do not parse give no decision at all instead of an error.
"""

from dataclasses import dataclass
from typing import Any, NoReturn, Self

from cedarpy import AuthzResult, PolicySet, Schema, is_authorized
from cedarpy import Decision as CedarDecision

from stanch.access.facts import Context, Facts, ResourceFacts
from stanch.access.policy import ActivePolicies
from stanch.errors import ApprovalsMissing, InvalidInput, NotPermitted, SeparationOfDuties
from stanch.terms import Digest

_NEXT_STEP = {
    "two-people": "ask another release manager: stanch release approve",
    "not-your-own": "ask somebody who took no part in making, auditing or requesting it",
    "gate": "audit the model and let it pass the gate: stanch audit gate",
    "second-factor": "sign in with a second factor",
    "quarantined": "ask a security analyst why it is quarantined",
    "suspended": "ask a platform administrator",
    "clearance": "ask for a higher clearance",
    "admin-no-data": "ask a data steward or a release manager",
}
_ERRORS: dict[str, type[NotPermitted]] = {"two-people": ApprovalsMissing, "not-your-own": SeparationOfDuties}


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and why.

    Attributes:
        allowed: Whether the act may happen.
        principal: Pseudonymous id of who asked.
        action: What was asked for.
        resource: On what.
        reasons: Ids of the policies that decided: the permits of an allowed act, the forbids of a refused one.
        errors: Why the policies could not be evaluated; empty when they could.
        policy: Digest of the policies.
    """

    allowed: bool
    principal: str
    action: str
    resource: str
    reasons: tuple[str, ...]
    errors: tuple[str, ...]
    policy: Digest

    def require(self) -> Self:
        """Return the decision if it allows the act.

        Raises:
            ApprovalsMissing: Too few people approved this request.
            SeparationOfDuties: Somebody else has to do this.
            NotPermitted: It is not allowed for another reason.
        """
        return self if self.allowed else self._refuse()

    def _refuse(self) -> NoReturn:
        what = f"{self.principal} may not {self.action} on {self.resource}"
        if self.errors:
            raise NotPermitted(what, why="the policies could not be evaluated", next_step="check the policies")
        if not self.reasons:
            raise NotPermitted(
                what,
                why="no role that it holds permits this",
                next_step=f"see: stanch access why {self.principal} {self.action}",
            )
        kinds = [_ERRORS[reason] for reason in self.reasons if reason in _ERRORS]
        steps = [_NEXT_STEP[reason] for reason in self.reasons if reason in _NEXT_STEP]
        # The special class only where it is the whole reason: whoever lacks a role too is not helped by approvals.
        kind = kinds[0] if len(self.reasons) == 1 and kinds else NotPermitted
        raise kind(what, why=f"forbidden by {', '.join(self.reasons)}", next_step="; ".join(steps))


def decide(facts: Facts, action: str, resource: ResourceFacts, context: Context, policies: ActivePolicies) -> Decision:
    """Decide whether a principal may do ``action`` on a resource.

    Raises:
        InvalidInput: The policies know no such action.
    """
    if action not in policies.actions:
        raise InvalidInput(f"action: expected one of the schema's, found {action[:80]!r}")
    result = evaluate(facts, action, resource, context, policies.by_action[action], schema=policies.schema)
    errors = tuple(result.diagnostics.errors)
    reasons = tuple(sorted(result.diagnostics.reasons))
    # Suspension is tested here as well, so that no policy file can lift it.
    allowed = result.decision == CedarDecision.Allow and not errors and not facts.principal.suspended
    return Decision(allowed, facts.principal.id, action, resource.scope, reasons, errors, policies.digest)


def evaluate(
    facts: Facts, action: str, resource: ResourceFacts, context: Context, policies: PolicySet, schema: Schema
) -> AuthzResult:
    """Ask Cedar about one request."""
    principal = {"type": f"Stanch::{facts.principal.kind.capitalize()}", "id": facts.principal.id}
    target = {"type": f"Stanch::{resource.kind}", "id": resource.id}
    request = {
        "principal": principal,
        "action": {"type": "Stanch::Action", "id": action},
        "resource": target,
        "context": {
            "mfa": context.mfa,
            "team": context.team,
            "involved": context.involved,
            "break_glass": context.break_glass,
            "approvals": context.approvals,
        },
    }
    return is_authorized(request, policies, _entities(facts, resource, principal, target), schema)


def _entities(
    facts: Facts, resource: ResourceFacts, principal: dict[str, str], target: dict[str, str]
) -> list[dict[str, Any]]:
    """Return the entities of a request. A grant for one resource counts as its role on that resource only."""
    roles = sorted({grant.role for grant in facts.grants_for(resource)})
    attributes: dict[str, Any] = {}
    if resource.kind in {"Dataset", "Run", "Model", "Release"}:
        attributes = {"sensitivity": resource.sensitivity, "quarantined": resource.quarantined}
    if resource.kind in {"Model", "Release"}:
        attributes["gate"] = resource.gate
    return [
        {
            "uid": principal,
            "attrs": {"suspended": facts.principal.suspended, "clearance": facts.principal.clearance},
            "parents": [{"type": "Stanch::Role", "id": role} for role in roles],
        },
        {"uid": target, "attrs": attributes, "parents": []},
    ]
