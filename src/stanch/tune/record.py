"""What a run tells the outside: events for a log that must be durable."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from stanch.terms import JsonValue


@dataclass(frozen=True, slots=True)
class TrainEvent:
    """Something that happened in a run.

    Attributes:
        kind: ``train.begin``, ``train.progress``, ``checkpoint.saved``, ``train.end`` or ``train.failed``.
        run: Random id of the run (hex).
        at: When (RFC 3339, UTC).
        facts: Digests, counts and versions; never a row of the data, and with privacy never a loss.
    """

    kind: str
    run: str
    at: str
    facts: Mapping[str, JsonValue]


class Recorder(Protocol):
    """Where events go."""

    def record(self, event: TrainEvent) -> None:
        """Make the event durable, or raise."""
        ...


class NullRecorder:
    """Keeps nothing."""

    def record(self, event: TrainEvent) -> None:
        """Forget the event."""


NULL: Recorder = NullRecorder()
