"""Decisions that are remembered for at most a second.

The key holds everything that a decision depends on: who with which credential, what, on what, in which situation, and
the versions of the policies and of the facts. Decisions that depend on approvals are never remembered.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from stanch.access.decision import Decision
from stanch.access.facts import Context, ResourceFacts
from stanch.access.revision import Revision
from stanch.access.session import Session

LIFE_MS = 1000
CAPACITY = 65_536


@dataclass(frozen=True, slots=True)
class Question:
    """What a decision answers; two equal questions within a second have the same answer."""

    session: Session
    action: str
    resource: ResourceFacts
    context: Context
    revision: Revision


class DecisionCache:
    """At most ``capacity`` decisions, the least recently made ones dropped first. Safe to share between threads."""

    def __init__(self, *, capacity: int = CAPACITY, life_ms: int = LIFE_MS) -> None:
        self._capacity = capacity
        self._life_ms = life_ms
        self._kept: OrderedDict[Question, tuple[int, Decision]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, question: Question, now_ms: int) -> Decision | None:
        """Return the decision if one was made within the last second."""
        found = self._kept.get(question)
        if found is None or not 0 <= now_ms - found[0] < self._life_ms:
            return None
        return found[1]

    def put(self, question: Question, decision: Decision, now_ms: int) -> None:
        """Remember a decision."""
        with self._lock:
            self._kept[question] = (now_ms, decision)
            self._kept.move_to_end(question)
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kept)
