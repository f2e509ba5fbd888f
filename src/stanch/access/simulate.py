"""What a change of the policies would have decided otherwise, shown before it is made.

The log keeps who asked for what and what was decided, not the whole situation of that moment. Each past request is
therefore decided under both sets, with the facts of now, in two situations: the best one (second factor, two approvals,
no part in making it) and the plainest one (nothing of that). A difference in either is reported.
"""

import heapq
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from stanch.access.alike import Likeness
from stanch.access.decision import decide
from stanch.access.facts import WORKSPACE, Context, Facts, ResourceFacts
from stanch.access.policy import ActivePolicies
from stanch.access.roll import Crowd
from stanch.errors import InvalidInput

SHOWN = 50

Asked = Mapping[tuple[str, ResourceFacts], Collection[str]]
"""Past requests: who asked, by action and resource."""


class Difference(NamedTuple):
    """A past request that the two sets decide differently, in the best or the plainest situation."""

    principal: str
    action: str
    scope: str
    situation: str
    after: bool


@dataclass(frozen=True, slots=True)
class Simulation:
    """How a change would have worked.

    Attributes:
        requests: How many different past requests were decided.
        newly_allowed: How many of them, counted in both situations, the change opens.
        newly_denied: How many it closes.
        differences: The first of those, in order; at most :data:`SHOWN`.
    """

    requests: int
    newly_allowed: int
    newly_denied: int
    differences: tuple[Difference, ...]


def situations(*, team: bool) -> dict[str, Context]:
    """Return the best and the plainest situation of a request."""
    return {
        "best": Context(team=team, mfa=True, approvals=2),
        "plain": Context(team=team, mfa=False, involved=True, approvals=0),
    }


def simulate(asked: Asked, before: ActivePolicies, after: ActivePolicies, crowd: Crowd, *, team: bool) -> Simulation:
    """Decide past requests under two sets; those of principals who are gone are left out.

    Requests that neither set can tell apart are decided once; ``crowd`` was read with the likeness of both sets.
    """
    likeness, known = Likeness(before, after), dict[Hashable, list[tuple[str, bool]]]()
    count, group_of, changed = 0, crowd.group_of, list[tuple[list[str], str, str, str, bool]]()
    for (action, resource), principals in asked.items():
        members = defaultdict[int, list[str]](list)
        for principal in group_of.keys() & principals:
            members[group_of[principal]].append(principal)
        for group, some in members.items():
            count += len(some)
            facts = crowd.groups[group]
            alike = action, likeness.of(facts, resource)
            if alike not in known:
                known[alike] = _changes(facts, action, resource, before, after, team=team)
            changed += [(some, action, resource.scope, situation, new) for situation, new in known[alike]]
    opened, closed = (sum(len(some) for some, *_, new in changed if new is way) for way in (True, False))
    # The first differences are of the first principals; of all others none is made.
    first = set(heapq.nsmallest(SHOWN, set[str]().union(*(some for some, *_ in changed))))
    shown = sorted(
        Difference(one, action, scope, situation, new)
        for some, action, scope, situation, new in changed
        for one in first.intersection(some)
    )
    return Simulation(count, opened, closed, tuple(shown[:SHOWN]))


def _changes(
    facts: Facts, action: str, resource: ResourceFacts, before: ActivePolicies, after: ActivePolicies, *, team: bool
) -> list[tuple[str, bool]]:
    """Return the situations in which a request comes out otherwise, and how."""
    found = []
    for name, context in situations(team=team).items():
        old, new = (decide(facts, action, resource, context, each).allowed for each in (before, after))
        if old != new:
            found.append((name, new))
    return found


def require_a_way_back(people: Iterable[Facts], after: ActivePolicies, *, team: bool) -> None:
    """Refuse policies under which nobody who is registered could change the policies again.

    Raises:
        InvalidInput: They would lock everybody out.
    """
    best = situations(team=team)["best"]
    likeness = Likeness(after)
    different = {likeness.of(facts, WORKSPACE): facts for facts in people}
    if not any(decide(facts, "policy:write", WORKSPACE, best, after).allowed for facts in different.values()):
        raise InvalidInput(
            "policies: under them nobody could change the policies again",
            why="no registered principal is permitted policy:write, even with a second factor and two approvals",
        )
