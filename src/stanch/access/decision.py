"""The decision whether a principal may do something: a pure function of facts and policies.

Allowed means that Cedar says Allow *and* no policy failed to evaluate. A forbid whose condition fails to evaluate is
skipped by Cedar, which then may say Allow; and policies that do not parse give no decision at all instead of an error.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, NoReturn, Self

from cedarpy import PolicySet, Schema
from cedarpy._internal import Entities, is_authorized
from msgspec import Struct
from msgspec.json import Decoder

from stanch.access.facts import Context, Facts, Grant, ResourceFacts, Uid
from stanch.access.policy import ActivePolicies
from stanch.access.principal import Principal
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
    "credential-bounds": "use a key that was issued for this model and this act",
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
        glass: Id of the emergency access that was open; empty if none was.
    """

    allowed: bool
    principal: str
    action: str
    resource: str
    reasons: tuple[str, ...]
    errors: tuple[str, ...]
    policy: Digest
    glass: str = ""

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
    # What no policy can lift: a credential's own bounds and, beside the forbid of that name, suspension.
    if facts.bounds is not None and not facts.bounds.cover(action, resource):
        return _refused(facts, action, resource, context, policies, "credential-bounds")
    try:
        answer = evaluate(facts, action, resource, context, policies)
    except ValueError as error:  # a fact that Cedar cannot hold, for example an integer beyond 64 bits
        return _refused(facts, action, resource, context, policies, error=str(error)[:300])
    errors = answer.diagnostics.errors
    reasons = tuple(sorted([reason.removesuffix("-here") for reason in answer.diagnostics.reason]))
    allowed = answer.decision == "Allow" and not errors and not facts.principal.suspended
    return Decision(
        allowed, facts.principal.id, action, resource.scope, reasons, errors, policies.digest, context.glass
    )


def _refused(
    facts: Facts,
    action: str,
    resource: ResourceFacts,
    context: Context,
    policies: ActivePolicies,
    reason: str = "",
    *,
    error: str = "",
) -> Decision:
    reasons, errors = ((reason,) if reason else ()), ((error,) if error else ())
    return Decision(False, facts.principal.id, action, resource.scope, reasons, errors, policies.digest, context.glass)


class Diagnostics(Struct, frozen=True):
    """Why Cedar answered so: the ids of the policies that decided, and what could not be evaluated."""

    reason: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class Answer(Struct, frozen=True):
    """What Cedar answered; by itself it permits nothing, :func:`decide` looks at the errors too."""

    decision: Literal["Allow", "Deny", "NoDecision"]
    diagnostics: Diagnostics

    def join(self, other: "Answer") -> "Answer":
        """Return what Cedar would answer about the policies of both: no answer, else a forbid, else a permit decides.

        The answers are about one request. Deny with a reason is a forbid that holds, Deny without one means that no
        permit holds.
        """
        both = (self, other)
        undecided = [one for one in both if one.decision == "NoDecision"]
        refusing = [one for one in both if one.decision == "Deny" and one.diagnostics.reason]
        decisive = undecided or refusing or [one for one in both if one.decision == "Allow"]
        return Answer(
            decisive[0].decision if decisive else "Deny",
            Diagnostics(
                tuple([reason for one in decisive for reason in one.diagnostics.reason]),
                self.diagnostics.errors + other.diagnostics.errors,
            ),
        )


_ANSWER = Decoder(Answer)


def evaluate(facts: Facts, action: str, resource: ResourceFacts, context: Context, policies: ActivePolicies) -> Answer:
    """Ask Cedar about one request.

    Raises:
        ValueError: A fact does not fit its type in the schema.
    """
    return _evaluate(facts.principal, facts.grants, action, resource, context, policies)


# A pure function of its arguments, so remembering its results changes no decision: a row, a grant, an approval or a
# policy that changed is another argument. A failed evaluation is not remembered.
@lru_cache(8192)
def _evaluate(
    principal: Principal,
    grants: tuple[Grant, ...],
    action: str,
    resource: ResourceFacts,
    context: Context,
    policies: ActivePolicies,
) -> Answer:
    case = _case(principal, grants, action, resource, policies)
    if case.passing is None:
        return case.lasting
    request = case.request | {"context": _context(context)}
    return case.lasting.join(_ask(request, case.passing, case.entities))


def _ask(request: dict[str, Any], policies: PolicySet, entities: Entities, schema: Schema | None = None) -> Answer:
    # cedarpy's own wrapper reads the same text into objects that cost a quarter of a decision. The answer is read by a
    # strict type, so that one of another shape raises, and a test compares the two.
    return _ANSWER.decode(is_authorized(request, policies, entities, schema, verbose=False))


class _Case(NamedTuple):
    """A request but for its context, in the form that Cedar takes, and what is decided about it already."""

    request: dict[str, Any]
    lasting: Answer
    passing: PolicySet | None
    entities: Entities


def _context(context: Context) -> str:
    mfa, team, involved = _JSON[context.mfa], _JSON[context.team], _JSON[context.involved]
    glass, approvals = _JSON[context.break_glass], context.approvals
    return f'{{"mfa":{mfa},"team":{team},"involved":{involved},"break_glass":{glass},"approvals":{approvals:d}}}'


_JSON = {False: "false", True: "true"}


# A pure function too. Reading the entities, checking the request against the schema and asking the policies that do not
# look at the situation takes longer than a decision, and all of it stays when the situation changes.
@lru_cache(4096)
def _case(
    principal: Principal, grants: tuple[Grant, ...], action: str, resource: ResourceFacts, policies: ActivePolicies
) -> _Case:
    facts = Facts(principal, grants)
    attributes: dict[str, Any] = {}
    if resource.kind in {"Dataset", "Run", "Model", "Release"}:
        attributes = {"sensitivity": resource.sensitivity, "quarantined": resource.quarantined}
    if resource.kind in {"Model", "Release"}:
        attributes["gate"] = resource.gate
    who, what = _uid(facts.uid), _uid(resource.uid)
    parents = [_uid(("Stanch::Role", role)) for role in facts.roles]
    known = [
        {
            "uid": who,
            "attrs": {"suspended": principal.suspended, "clearance": principal.clearance},
            "parents": parents,
        },
        {"uid": what, "attrs": attributes, "parents": []},
    ]
    request = {"principal": who, "action": _uid(("Stanch::Action", action)), "resource": what}
    entities = Entities.from_json_str(json.dumps(known), policies.schema)
    lasting, passing = policies.sets_for(action, facts.uid, resource.uid, facts.scoped_roles(resource))
    # Any context does, the policies do not look at it. From here on the types of the request are known to be the
    # schema's, and a context has no other types than :func:`_context` gives it.
    some = request | {"context": _context(Context(team=True))}
    answer = _ask(some, lasting, entities, policies.schema)
    return _Case(request, answer, None if answer.decision == "NoDecision" else passing, entities)


def _uid(entity: Uid) -> dict[str, str]:
    return {"type": entity[0], "id": entity[1]}
