"""Answers that the guard ended, by what it found in them: canaries, secrets, runs of training text."""

import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from stanch.ledger import EntryQuery, LedgerReader, decode_entry

_HOLDS = b'"verdict":"block"'
"""What stands in the entry of each: quotes in a text are escaped, so nothing but the verdict reads so."""
_OTHER = "other"


class Blocked(NamedTuple):
    """Answers of one month in which one kind was found, by the entries of their outcomes.

    Attributes:
        month: Such as ``2027-01``, in UTC.
        kind: As the guard names it: ``canary``, ``training-text``, ``aws-access-key-id``.
    """

    month: str
    kind: str
    entries: tuple[int, ...]


@dataclass(slots=True)
class BlockedAnswers:
    """The blocked answers of one log. Entries never change, so each is looked at once."""

    _found: list[tuple[int, int, tuple[str, ...]]] = field(default_factory=list)
    _next: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, reader: LedgerReader) -> None:
        """Look at the answers since the last call."""
        with self._lock:
            end = reader.size()
            query = EntryQuery(kind="gateway.infer", phase="outcome", first=self._next, before=end, holds=_HOLDS)
            for index, data in reader.select(query):
                entry = decode_entry(data)
                kinds = entry["unmapped"]["stanch"]["payload"].get("findings") or {_OTHER: 1}
                self._found.append((index, entry["time"], tuple(kinds)))
            self._next = end

    def within(self, reader: LedgerReader, since_ms: int, until_ms: int, size: int) -> tuple[Blocked, ...]:
        """Return those of a period among the first ``size`` entries; an answer with two kinds counts for both."""
        self.read(reader)
        with self._lock:
            wanted = [one for one in self._found if one[0] < size and since_ms <= one[1] < until_ms]
        return _grouped(wanted)


def _grouped(found: Iterable[tuple[int, int, tuple[str, ...]]]) -> tuple[Blocked, ...]:
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, time_ms, kinds in found:
        month = f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m}"
        for kind in kinds:
            groups[month, kind].append(index)
    return tuple(Blocked(month, kind, tuple(entries)) for (month, kind), entries in sorted(groups.items()))
