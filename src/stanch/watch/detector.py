"""What a detector is, and what it promises about its false alarms."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from stanch.watch.alarm import Alarm
from stanch.watch.events import Event


class Measure(StrEnum):
    """How a promise about false alarms is counted."""

    RUN_LENGTH = "run length"
    RATE = "rate"
    FALSE_DISCOVERY = "false discovery rate"
    EXACT = "none"


@dataclass(frozen=True, slots=True)
class FalseAlarm:
    """A promise: run length at least ``value`` hours a stream, or a rate of at most ``value`` per ``unit``.

    ``needs`` says what must be there before the detector can say anything.
    """

    measure: Measure
    value: float
    unit: str
    needs: str

    @property
    def most(self) -> float:
        """The promise as the highest rate of false alarms per unit."""
        return 1 / self.value if self.measure is Measure.RUN_LENGTH else self.value


class Detector(Protocol):
    """Pure: the same state and entries give the same state and alarms, however the entries are cut into steps.

    Time is that of the entries. An entry that is older than one before it counts as if it came with that one.
    """

    @property
    def name(self) -> str:
        """``D1`` … ``D7``; the saved state is kept under it."""

    @property
    def signals(self) -> tuple[str, ...]:
        """What alarms of this detector are about."""

    @property
    def promise(self) -> FalseAlarm:
        """What is promised about false alarms."""

    def step(self, state: bytes, entries: Sequence[Event]) -> tuple[bytes, list[Alarm]]:
        """Take entries in the order of the log; ``state`` is empty at first."""
