"""What a detector says when its statistic crosses its threshold."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How fast a person should look, from the least urgent up."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Containment(StrEnum):
    """An act that a detector proposes and only the workspace performs."""

    REVOKE_KEY = "revoke_key"
    QUARANTINE_MODEL = "quarantine_model"
    LOWER_BUDGET = "lower_budget"
    WITHDRAW_RELEASE = "withdraw_release"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One crossing of one detector's threshold, without any text of a prompt or an answer.

    `at` and `window_start` are Unix seconds taken from the entries, never from the wall clock, so that a replay gives
    the same alarm. `entries` are indexes in the ledger: the evidence.
    """

    detector: str
    signal: str
    principal: str | None
    model: str | None
    window_start: int
    at: int
    severity: Severity
    statistic: float
    threshold: float
    entries: tuple[int, ...]
    containment: Containment | None = None
