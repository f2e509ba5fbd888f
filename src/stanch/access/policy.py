"""Policies: parsed and validated once, then one small set for each action."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from cedarpy import PolicySet, Schema, policies_to_json_str, validate_policies

from stanch.errors import InvalidInput
from stanch.terms import Digest

_ACTION = re.compile(r'"([a-z]+:[a-z-]+)"')
_MAX_POLICIES = 1 << 20


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy: its id, its effect, the actions that its scope can match, and its parsed form."""

    id: str
    effect: Literal["permit", "forbid"]
    actions: frozenset[str]
    parsed: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ActivePolicies:
    """A validated set of policies; made only by :func:`parse_policies`.

    Attributes:
        digest: SHA-256 of the policies' text.
        policies: The policies by their id.
        actions: All actions of the schema.
        schema: The parsed schema; given with every request.
        by_action: For each action the set of those policies whose action scope can match it.
    """

    digest: Digest
    policies: Mapping[str, Policy]
    actions: frozenset[str]
    schema: Schema
    by_action: Mapping[str, PolicySet]

    def matching(self, action: str) -> tuple[Policy, ...]:
        """Return the policies whose action scope can match an action."""
        return tuple(policy for policy in self.policies.values() if action in policy.actions)


@cache
def default_policies() -> ActivePolicies:
    """Return the policies that stanch comes with."""
    return parse_policies(_resource("default.cedar"))


def parse_policies(text: str) -> ActivePolicies:
    """Parse and validate a set of policies.

    Every policy needs an ``@id`` of its own, and the set needs every forbid of the default set, word for word.

    Raises:
        InvalidInput: It does not parse, the schema refuses it, or one of these rules is broken.
    """
    policies, schema = _validate(text)
    if text != _resource("default.cedar"):
        _check_forbids(policies)
    actions = _schema_actions()
    by_action = {
        action: policy_set([policy for policy in policies.values() if action in policy.actions]) for action in actions
    }
    return ActivePolicies(Digest.sha256(text.encode()), policies, actions, schema, by_action)


def policy_set(policies: list[Policy]) -> PolicySet:
    """Return the evaluable set of some policies, whose reasons are the policies' own ids."""
    parsed = {policy.id: policy.parsed for policy in policies}
    return PolicySet.from_json_str(json.dumps({"staticPolicies": parsed, "templates": {}, "templateLinks": []}))


def _validate(text: str) -> tuple[dict[str, Policy], Schema]:
    if len(text) > _MAX_POLICIES:
        raise InvalidInput(f"policies: expected at most {_MAX_POLICIES} characters, found {len(text)}")
    schema = Schema.from_str(_resource("schema.cedarschema"))
    try:
        parsed = json.loads(policies_to_json_str(text))
    except ValueError as error:
        raise InvalidInput("policies: do not parse as Cedar", why=str(error)[:300]) from error
    result = validate_policies(text, schema)
    if not result.validation_passed:
        raise InvalidInput("policies: the schema refuses them", why="; ".join(e.error for e in result.errors)[:300])
    if parsed.get("templates") or parsed.get("templateLinks"):
        raise InvalidInput("policies: hold a template", why="grants for one resource need none")
    policies: dict[str, Policy] = {}
    for one in parsed["staticPolicies"].values():
        name = (one.get("annotations") or {}).get("id")
        if not name or name in policies:
            raise InvalidInput(f"policies: expected an @id of its own for each policy, found {name!r}")
        policies[name] = Policy(name, one["effect"], _scope_actions(one["action"]), one)
    return policies, schema


def _check_forbids(policies: Mapping[str, Policy]) -> None:
    for policy in default_policies().policies.values():
        if policy.effect == "forbid" and getattr(policies.get(policy.id), "parsed", None) != policy.parsed:
            raise InvalidInput(
                f"policies: the forbid {policy.id!r} of the default set is missing or changed",
                why="without it a stated guarantee would not hold",
            )


def _scope_actions(scope: dict[str, Any]) -> frozenset[str]:
    """Return the actions that a policy's scope can match; the schema has no action groups."""
    if scope["op"] == "All":
        return _schema_actions()
    entities = scope["entities"] if "entities" in scope else [scope["entity"]]
    return frozenset(entity["id"] for entity in entities)


@cache
def _schema_actions() -> frozenset[str]:
    return frozenset(_ACTION.findall(_resource("schema.cedarschema")))


@cache
def _resource(name: str) -> str:
    return (files("stanch.access") / name).read_text(encoding="utf-8")
