"""The gate of log-probabilities: rounded, few, only about text that was released, and counted in bits.

Numbers that a model gives for tokens let a client rebuild its last layer (Carlini et al. 2024, arXiv 2403.06634) and
test whether a text was in its training set, so each is cut to one of 2,001 levels and charged.
"""

import math
import re
from collections import deque

from stanch.gateway.dialect import Entry
from stanch.guard import Action, Guard, check_text

_LONE = re.compile("[\ud800-\udfff]")
LEAST = -20.0
LEVELS = 2001
"""Of steps of 0.01 from -20 to 0."""


def bits_of(alternatives: int, vocabulary: int) -> float:
    """Return the information in one token's entry: ``(1 + k)·log2(2001) + k·log2(V)`` bits."""
    return (1 + alternatives) * math.log2(LEVELS) + alternatives * math.log2(vocabulary)


class LogprobGate:
    """The log-probabilities of one channel. Sans-IO.

    An entry comes out when all characters of its token have been released as the model said them; its string is cut
    out of the released text. Entries whose tokens are not the text that they came with are dropped, and once anything
    of a channel was replaced, so are all that follow.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._waiting: deque[Entry] = deque()
        self._given = 0
        self._tail = ""
        self._tail_at = 0
        self._is_open = True

    def push(self, text: str, entries: list[Entry]) -> None:
        """Take text of the channel, and the entries of its tokens."""
        if "".join(entry.token for entry in entries) != text:
            entries = []  # they cannot be aligned with the text
        at = self._given
        for entry in entries:
            if entry.token and math.isfinite(entry.logprob) and not _LONE.search(entry.token):
                self._waiting.append(entry._replace(at=at))
            at += len(entry.token)
        self._given += len(text)

    def release(self, text: str, action: Action) -> list[Entry]:
        """Take what the guard released of the channel, and return the entries that may go out with it."""
        if action != Action.ALLOW:
            self._is_open = False
        if not self._is_open:
            self._waiting.clear()
            return []
        self._tail += text
        ready = []
        while self._waiting and self._end(self._waiting[0]) <= self._tail_at + len(self._tail):
            entry = self._waiting.popleft()
            token = self._tail[entry.at - self._tail_at : self._end(entry) - self._tail_at]
            if token == entry.token:
                ready.append(self._cleaned(entry, token))
        released = self._tail_at + len(self._tail)
        # Before the token that waits there may be text without an entry, of which the rest is still to come.
        kept = min(self._waiting[0].at, released) if self._waiting else released
        self._tail, self._tail_at = self._tail[max(0, kept - self._tail_at) :], max(kept, self._tail_at)
        return ready

    @staticmethod
    def _end(entry: Entry) -> int:
        return entry.at + len(entry.token)

    def _cleaned(self, entry: Entry, token: str) -> Entry:
        """Return an entry with rounded numbers and without alternatives that are no clean text by themselves."""
        others = tuple(
            (other, _rounded(number))
            for other, number in entry.alternatives
            if not _LONE.search(other) and check_text(self._guard, other).action == Action.ALLOW
        )
        return Entry(token, _rounded(entry.logprob), others, entry.at)


def _rounded(number: float) -> float:
    return round(min(0.0, max(LEAST, number)), 2) + 0.0  # no negative zero
