"""What a change of the policies would have decided otherwise, shown before it is made.

The log keeps who asked for what and what was decided, not the whole situation of that moment. Each past request is
therefore decided under both sets, with the facts of now, in two situations: the best one (second factor, two approvals,
no part in making it) and the plainest one (nothing of that). A difference in either is reported.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from stanch.access.alike import Likeness
from stanch.access.decision import decide
from stanch.access.facts import WORKSPACE, Context, Facts, ResourceFacts
from stanch.access.policy import ActivePolicies
from stanch.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class PastRequest:
    """Who asked for what."""

    principal: str
    action: str
    resource: ResourceFacts


@dataclass(frozen=True, slots=True)
class Difference:
    """A past request that the two sets decide differently, in the best or the plainest situation."""

    request: PastRequest
    situation: str
    before: bool
    after: bool


@dataclass(frozen=True, slots=True)
class Simulation:
    """How a change would have worked.

    Attributes:
        requests: How many different past requests were decided.
        differences: Those that come out otherwise.
    """

    requests: int
    differences: tuple[Difference, ...]

    @property
    def newly_allowed(self) -> int:
        """How many differences open something."""
        return sum(difference.after for difference in self.differences)

    @property
    def newly_denied(self) -> int:
        """How many differences close something."""
        return len(self.differences) - self.newly_allowed


def situations(*, team: bool) -> dict[str, Context]:
    """Return the best and the plainest situation of a request."""
    return {
        "best": Context(team=team, mfa=True, approvals=2),
        "plain": Context(team=team, mfa=False, involved=True, approvals=0),
    }


def simulate(
    requests: Iterable[PastRequest],
    before: ActivePolicies,
    after: ActivePolicies,
    *,
    facts_of: Callable[[str], Facts | None],
    team: bool,
) -> Simulation:
    """Decide past requests under two sets; those of principals who are gone are left out.

    Requests that neither set can tell apart are decided once.
    """
    likeness, known = Likeness(before, after), dict[Hashable, list[tuple[str, bool]]]()
    found, count = [], 0
    for past in set(requests):
        facts = facts_of(past.principal)
        if facts is None:
            continue
        count += 1
        alike = past.action, likeness.of(facts, past.resource)
        if alike not in known:
            known[alike] = [
                (name, new)
                for name, context in situations(team=team).items()
                for old, new in [
                    [decide(facts, past.action, past.resource, context, each).allowed for each in (before, after)]
                ]
                if old != new
            ]
        found += [Difference(past, name, not new, new) for name, new in known[alike]]
    order = ("best", "plain")
    found.sort(key=lambda one: (
        one.request.principal, one.request.action, one.request.resource.scope, order.index(one.situation)
    ))  # fmt: skip
    return Simulation(count, tuple(found))


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
