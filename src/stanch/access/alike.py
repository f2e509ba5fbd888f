"""Which principals a set of policies cannot tell apart: what is decided of one of them is decided of all.

A decision rests on the principal's kind, clearance and suspension, on its roles in the workspace and for the very
resource, and on the resource's kind and attributes (:mod:`stanch.access.decision`). The name of a principal or of a
resource enters only where a policy spells it out.
"""

import json
import re
from collections.abc import Hashable
from functools import lru_cache

from stanch.access.facts import Facts, ResourceFacts
from stanch.access.policy import ActivePolicies

_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


@lru_cache(16)
def _spelled(policies: ActivePolicies) -> frozenset[str]:
    """Return every string that a set of policies holds."""
    texts = [json.dumps(policy.parsed) for policy in policies.policies.values()]
    return frozenset(json.loads(f'"{found}"') for text in texts for found in _STRING.findall(text))


class Likeness:
    """Sorts requests into those that one or several sets of policies must decide alike.

    Attributes:
        spelled_names: Every string that one of them holds.
    """

    def __init__(self, *policies: ActivePolicies) -> None:
        self.spelled_names = frozenset[str]().union(*map(_spelled, policies))

    def spelled(self, name: str) -> str:
        """Return a name that a policy spells out; nothing for all others."""
        return name if name in self.spelled_names else ""

    def of(self, facts: Facts, resource: ResourceFacts) -> Hashable:
        """Return what a decision about this principal and this resource can depend on, the situation apart."""
        one = facts.principal
        return (
            one.kind, one.suspended, one.clearance, facts.roles, facts.scoped_roles(resource), facts.bounds,
            self.spelled(one.id), resource.kind, resource.sensitivity, resource.quarantined,
            resource.gate, self.spelled(resource.id),
        )  # fmt: skip
