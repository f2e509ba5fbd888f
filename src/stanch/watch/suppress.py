"""Suppressions: alarms that somebody answers for not being told of, for a while. They are still recorded."""

from dataclasses import dataclass

from stanch.errors import InvalidInput
from stanch.watch.alarm import Alarm, Severity
from stanch.watch.alert import check_reason

MAX_DAYS = 90
DAY_MS = 86_400_000
DELIVERY = "delivery"
"""The detector that says an alert could not be delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """Which alarms are kept quiet, who answers for it, why, and until when.

    Attributes:
        id: Its id.
        detector: Alarms of this detector.
        principal: About this principal only; None: about any.
        model: About this model only; None: about any.
        owner: Who answers for it.
        reason: Why, in plain words.
        created_ms: Since when.
        expires_ms: Until when.
    """

    id: str
    detector: str
    principal: str | None
    model: str | None
    owner: str
    reason: str
    created_ms: int
    expires_ms: int

    def covers(self, alarm: Alarm, at_ms: int) -> bool:
        """Say whether an alarm is kept quiet at a time. What is critical, and a failed delivery, never is."""
        return (
            not _always_told(alarm)
            and self.created_ms <= at_ms < self.expires_ms
            and self.detector == alarm.detector
            and self.principal in {None, alarm.principal}
            and self.model in {None, alarm.model}
        )


def check_suppression(suppression: Suppression) -> Suppression:
    """Return a suppression that may be made.

    Raises:
        InvalidInput: It lasts longer than 90 days or ends before it begins, has no owner or no reason, or is about
            failed deliveries, which nothing may hide.
    """
    if suppression.detector == DELIVERY:
        raise InvalidInput("suppression: a failed delivery cannot be kept quiet", why="then nobody would learn of it")
    if not suppression.detector or not suppression.owner:
        raise InvalidInput("suppression: expected a detector and an owner")
    check_reason(suppression.reason)
    if not 0 < suppression.expires_ms - suppression.created_ms <= MAX_DAYS * DAY_MS:
        raise InvalidInput(
            f"suppression: expected an end within {MAX_DAYS} days from now",
            why="what is quiet for ever is forgotten",
            next_step="choose an earlier --until; it can be made again then",
        )
    return suppression


def _always_told(alarm: Alarm) -> bool:
    """Canaries are the alarms that are critical: they have no innocent explanation."""
    return alarm.severity is Severity.CRITICAL or alarm.detector == DELIVERY
