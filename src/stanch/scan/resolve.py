"""From overlapping findings to clusters, each with one replacement; a sans-IO state machine.

Findings whose spans overlap form one cluster, which is replaced as a whole and named after the finding that starts
first (:attr:`Found.order`). The replacement is written as soon as that finding is certain and, unless it is unbounded,
known whole; the rest of the cluster is dropped as it arrives. So the output does not depend on how the text was cut,
and no more text is held than the rules of :mod:`stanch.scan.hold` ask for.
"""

from bisect import insort
from dataclasses import dataclass, field
from typing import NamedTuple

from stanch.scan.found import Found


class Keep(NamedTuple):
    """Release the text from ``start`` to ``end``."""

    start: int
    end: int


class Replace(NamedTuple):
    """Write the replacement of ``found``; ``alone`` says that nothing else overlaps it."""

    found: Found
    alone: bool


@dataclass(slots=True)
class Cluster:
    """Overlapping findings and where they end so far."""

    label: Found
    members: list[Found] = field(default_factory=list)

    @property
    def end(self) -> int:
        """Where the longest member ends so far."""
        return max(member.end for member in self.members)


class Resolver:
    """Turns findings, and the promise that none will start before a floor, into steps over the text."""

    def __init__(self) -> None:
        self.position = 0
        self.closed: list[Cluster] = []
        self._waiting: list[Found] = []
        self._cluster: Cluster | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing waits and no cluster is open: text up to the floor may go as it is."""
        return not self._waiting and self._cluster is None

    def add(self, found: Found) -> None:
        """Take a finding that starts at the last floor or later."""
        insort(self._waiting, found, key=lambda other: other.order)

    def advance(self, floor: int) -> list[Keep | Replace]:
        """Return the next steps, given that every finding still to come starts at ``floor`` or later."""
        steps: list[Keep | Replace] = []
        while self._cover(floor):
            label = self._waiting[0] if self._waiting and self._waiting[0].start < floor else None
            if label is None or (not label.swallows and floor < label.end):
                self._keep(steps, floor if label is None else label.start)
                break
            self._keep(steps, label.start)
            others = [other for other in self._waiting[1:] if other.start < label.end]
            alone = all((o.kind, o.start, o.end) == (label.kind, label.start, label.end) for o in others)
            steps.append(Replace(label, alone))
            self._cluster = Cluster(label, [label])
            del self._waiting[0]
        return steps

    def _cover(self, floor: int) -> bool:
        """Move over the open cluster; tell whether none is open any more."""
        cluster = self._cluster
        if cluster is None:
            return True
        while self._waiting and self._waiting[0].start < cluster.end:
            cluster.members.append(self._waiting.pop(0))
        complete = floor >= cluster.end and not any(member.open for member in cluster.members)
        self.position = max(self.position, min(floor, cluster.end))
        if complete:
            self.closed.append(cluster)
            self._cluster = None
        return complete

    def _keep(self, steps: list[Keep | Replace], end: int) -> None:
        if self.position < end:
            steps.append(Keep(self.position, end))
            self.position = end
