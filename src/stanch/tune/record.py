"""What a run tells the outside: events for a log that must be durable."""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Protocol

from stanch import __version__
from stanch.errors import StanchError
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


def versions_of(*packages: str) -> Mapping[str, str]:
    """Return the versions of stanch and of the packages that take part in a run."""
    return {"stanch": __version__, **{name: version(name) for name in packages}}


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


class RunRecord:
    """The events of one run, under one random id.

    Args:
        recorder: Where they go.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._id = secrets.token_hex(16)

    def record(self, kind: str, facts: Mapping[str, JsonValue]) -> None:
        """Make an event durable, or raise."""
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._recorder.record(TrainEvent(kind, self._id, at, facts))

    def record_failure(self, error: BaseException) -> None:
        """Record that the run failed; the failure itself matters more than a recorder that fails too."""
        with suppress(StanchError):
            self.record("train.failed", {"error": type(error).__name__})
