"""Policies: parsed and validated once, then two small sets for each action."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self

from cedarpy import PolicySet, Schema, policies_to_json_str, validate_policies

from stanch.access.facts import Uid
from stanch.errors import InvalidInput
from stanch.terms import Digest

_ACTION = re.compile(r'"([a-z]+:[a-z-]+)"')
_MAX_POLICIES = 1 << 20
_DEEPEST, _LONGEST = 50, 2000
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|[()\[\]{};.+*-]|&&|\|\||\bif\b', re.DOTALL)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_PERMIT_ALL = '@id("permit-all") permit (principal, action, resource);'


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy: its id, its effect, the actions that its scope can match, and its parsed form."""

    id: str
    effect: Literal["permit", "forbid"]
    actions: frozenset[str]
    parsed: dict[str, Any]

    @property
    def asks_for_approvals(self) -> bool:
        """Whether its condition looks at ``context.approvals``, which may change from one moment to the next."""
        return '"attr": "approvals"' in json.dumps(self.parsed["conditions"])

    @property
    def looks_at_context(self) -> bool:
        """Whether its condition looks at the situation at all."""
        return '{"Var": "context"}' in json.dumps(self.parsed["conditions"])


class ActionPolicies(NamedTuple):
    """The policies that can match one action, in two disjoint sets.

    Attributes:
        lasting: Those that look only at who asks and for what: their answer holds in every situation.
        passing: Those that look at the situation too; None if there are none.
    """

    lasting: PolicySet
    passing: PolicySet | None

    def link(self, links: list[dict[str, Any]]) -> Self:
        """Return the sets with those links that a template of theirs is there for."""
        return type(self)(_link(self.lasting, links), self.passing and _link(self.passing, links))


def _link(policies: PolicySet, links: list[dict[str, Any]]) -> PolicySet:
    known = {template["id"] for template in policies.templates()}
    wanted = [link for link in links if link["template_id"] in known]
    return policies.with_linked_batch(wanted) if wanted else policies


@dataclass(frozen=True, slots=True, eq=False)
class ActivePolicies:
    """A validated set of policies; made only by :func:`parse_policies`.

    Attributes:
        digest: SHA-256 of the policies' text.
        policies: The policies by their id.
        actions: All actions of the schema.
        schema: The parsed schema; given with every request.
        by_action: For each action those policies whose action scope can match it, and the templates
            ``scoped-<role>`` of the permits among them.
    """

    digest: Digest
    policies: Mapping[str, Policy]
    actions: frozenset[str]
    schema: Schema
    by_action: Mapping[str, ActionPolicies]

    def matching(self, action: str) -> tuple[Policy, ...]:
        """Return the policies whose action scope can match an action."""
        return tuple(policy for policy in self.policies.values() if action in policy.actions)

    def asks_for_approvals(self, action: str) -> bool:
        """Say whether a decision about an action depends on how many people approved the request."""
        return any(policy.asks_for_approvals for policy in self.matching(action))

    def only(self, policy: Policy, action: str) -> "ActivePolicies":
        """Return one of these policies alone, for one action; a forbid stands beside a permit for everything."""
        alone = split([policy])
        if policy.effect == "forbid":
            alone = alone._replace(lasting=alone.lasting.with_added_str(_PERMIT_ALL))
        return ActivePolicies(self.digest, {policy.id: policy}, self.actions, self.schema, {action: alone})

    def sets_for(self, action: str, principal: Uid, resource: Uid, scoped: frozenset[str]) -> ActionPolicies:
        """Return the sets that decide about a request; ``scoped`` are the roles granted for this one resource.

        For each of these roles the template ``scoped-<role>`` is linked to the principal and the resource.
        """
        values = {"?principal": _uid(principal), "?resource": _uid(resource)}
        # The link's name is what a decision reports as its reason.
        links = [
            {"template_id": f"scoped-{role}", "new_id": f"scoped-{role}-here", "values": values} for role in scoped
        ]
        return self.by_action[action].link(links) if links else self.by_action[action]


def _uid(entity: Uid) -> dict[str, str]:
    return {"type": entity[0], "id": entity[1]}


@cache
def default_policies() -> ActivePolicies:
    """Return the policies that stanch comes with."""
    return parse_policies(default_text())


def default_text() -> str:
    """Return the text of the policies that stanch comes with."""
    return _resource("default.cedar")


def schema_digest() -> Digest:
    """Return the SHA-256 of the schema's text."""
    return Digest.sha256(_resource("schema.cedarschema").encode())


def parse_policies(text: str, *, without: Collection[str] = ()) -> ActivePolicies:
    """Parse and validate a set of policies.

    Every policy needs an ``@id`` of its own, and the set needs every forbid of the default set, word for word.

    Args:
        text: The policies in Cedar's syntax.
        without: Ids of forbids of the default set that may be missing or changed.

    Raises:
        InvalidInput: It does not parse, the schema refuses it, or one of these rules is broken.
    """
    policies, schema = _validate(text)
    if text != default_text():
        _check_forbids(policies, frozenset(without))
    actions = schema_actions()
    try:
        by_action = {
            action: split([policy for policy in policies.values() if action in policy.actions]) for action in actions
        }
    except (ValueError, RecursionError) as error:
        raise _too_deep() from error
    return ActivePolicies(Digest.sha256(text.encode()), policies, actions, schema, by_action)


def split(policies: list[Policy]) -> ActionPolicies:
    """Return the evaluable sets of the policies of one action; their reasons are the policies' own ids."""
    lasting = [policy for policy in policies if not policy.looks_at_context]
    passing = [policy for policy in policies if policy.looks_at_context]
    return ActionPolicies(_evaluable(lasting), _evaluable(passing) if passing else None)


def _evaluable(policies: list[Policy]) -> PolicySet:
    parsed = {policy.id: policy.parsed for policy in policies}
    return PolicySet.from_json_str(
        json.dumps({"staticPolicies": parsed, "templates": _templates(policies), "templateLinks": []})
    )


def _templates(policies: list[Policy]) -> dict[str, dict[str, Any]]:
    """Return ``scoped-<role>`` for each permit ``role-<role>``: the same permit for one principal on one resource."""
    return {
        f"scoped-{policy.id.removeprefix('role-')}": policy.parsed
        | {
            "annotations": {"id": f"scoped-{policy.id.removeprefix('role-')}"},
            "principal": {"op": "==", "slot": "?principal"},
            "resource": {"op": "==", "slot": "?resource"},
        }
        for policy in policies
        if policy.effect == "permit" and policy.id.startswith("role-")
    }


@lru_cache(maxsize=4)
def _validate(text: str) -> tuple[Mapping[str, Policy], Schema]:
    """Return the policies of a text by their id, and the schema; what is in force is looked at again and again."""
    if len(text) > _MAX_POLICIES:
        raise InvalidInput(f"policies: expected at most {_MAX_POLICIES} characters, found {len(text)}")
    _check_nesting(text)
    schema = Schema.from_str(_resource("schema.cedarschema"))
    try:
        parsed = json.loads(policies_to_json_str(text))
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise InvalidInput("policies: do not parse as Cedar", why=str(error)[:300]) from error
    result = validate_policies(text, schema)
    if not result.validation_passed:
        raise InvalidInput("policies: the schema refuses them", why="; ".join(e.error for e in result.errors)[:300])
    if parsed.get("templates"):
        raise InvalidInput(
            "policies: hold a template", why="those of grants for one resource are made from the permits"
        )
    policies: dict[str, Policy] = {}
    for one in parsed["staticPolicies"].values():
        name = (one.get("annotations") or {}).get("id")
        if not name or name in policies or name.startswith("scoped-"):
            raise InvalidInput(
                f"policies: expected an @id of its own for each policy, found {name!r}",
                why="names that begin with scoped- are those of grants for one resource",
            )
        policies[name] = Policy(name, one["effect"], _scope_actions(one["action"]), one)
    return MappingProxyType(policies), schema


def _check_nesting(text: str) -> None:
    """Refuse a text whose depth would overflow the stack of Cedar's parser, which ends the whole process."""
    depth = length = 0
    for word in _NESTING.findall(text):
        depth += (word in _OPENING) - (word in _CLOSING)
        length = 0 if word == ";" else length + 1
        if depth > _DEEPEST or length > _LONGEST:
            raise _too_deep()


def _too_deep() -> InvalidInput:
    return InvalidInput(
        f"policies: nested too deeply; expected at most {_DEEPEST} brackets in one another, 100 operators in a row",
        next_step="write a list: principal in [a, b], or split the policy",
    )


def missing_forbids(text: str) -> tuple[str, ...]:
    """Return the ids of the default set's forbids that a valid text lacks or changes."""
    return _missing(_validate(text)[0])


def permits_role(policies: ActivePolicies, role: str) -> bool:
    """Say whether some permit names a role, or everybody; without one whoever holds it may do nothing by it."""
    name = json.dumps({"type": "Stanch::Role", "id": role})
    permits = [policy.parsed for policy in policies.policies.values() if policy.effect == "permit"]
    return any(
        name in json.dumps(parsed) or (parsed["principal"]["op"] == "All" and not parsed["conditions"])
        for parsed in permits
    )


def _missing(policies: Mapping[str, Policy]) -> tuple[str, ...]:
    return tuple(
        policy.id
        for policy in default_policies().policies.values()
        if policy.effect == "forbid" and getattr(policies.get(policy.id), "parsed", None) != policy.parsed
    )


def _check_forbids(policies: Mapping[str, Policy], without: frozenset[str]) -> None:
    missing = frozenset(_missing(policies))
    if broken := missing - without:
        raise InvalidInput(
            f"policies: forbids of the default set are missing or changed: {', '.join(sorted(broken))}",
            why="without them a stated guarantee would not hold",
            next_step="put them back, or name each with --without and let two people approve the change",
        )
    if idle := without - missing:
        raise InvalidInput(f"policies: {', '.join(sorted(idle))} need not be named, nothing of it is missing")


def _scope_actions(scope: dict[str, Any]) -> frozenset[str]:
    """Return the actions that a policy's scope can match; the schema has no action groups."""
    if scope["op"] == "All":
        return schema_actions()
    entities = scope["entities"] if "entities" in scope else [scope["entity"]]
    return frozenset(entity["id"] for entity in entities)


@cache
def schema_actions() -> frozenset[str]:
    """Return every action that there is."""
    return frozenset(_ACTION.findall(_resource("schema.cedarschema")))


@cache
def _resource(name: str) -> str:
    return (files("stanch.access") / name).read_text(encoding="utf-8")
