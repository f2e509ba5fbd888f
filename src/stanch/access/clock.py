"""The clock of whoever asks what holds now: seconds since 1970 are handed in, whole milliseconds are compared."""

from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Returns the seconds since 1970, as ``time.time`` does."""


def milliseconds(clock: Clock) -> Callable[[], int]:
    """Return a clock of whole milliseconds since 1970; a part of one is cut off."""
    return lambda: int(clock() * 1000)
