"""One thing that the doctor looked at: how it is, what was found, and what to do."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what, how it is, what was found, and what to do."""

    name: str
    state: State
    found: str
    next_step: str = ""
