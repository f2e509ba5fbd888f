"""Times as the documents of a bundle write them: RFC 3339, UTC, whole seconds, ``Z``."""

import re
from datetime import UTC, datetime

from stanch.errors import InvalidInput

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_SHAPE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def now_utc() -> datetime:
    """Return the system's time."""
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """Return the text of an aware time, cut to whole seconds.

    Raises:
        InvalidInput: The time has no zone.
    """
    if moment.tzinfo is None:
        raise InvalidInput("time: expected one with a time zone")
    return moment.astimezone(UTC).strftime(_FORMAT)


def parse_time(text: str, *, what: str) -> datetime:
    """Read a time.

    Raises:
        InvalidInput: Another form, or no such day or hour.
    """
    try:
        if _SHAPE.fullmatch(text):
            return datetime.strptime(text, _FORMAT).replace(tzinfo=UTC)
    except ValueError:
        pass
    raise InvalidInput(f"{what}: expected a time like 2026-12-31T00:00:00Z")
