"""What the watch does again and again: each check is an act, and the log says when each was last done.

So a restart forgets nothing, and of several hosts each sees what the others did. A check that was never done is due at
once. One that finds something, fails, or was not done for twice its time is an alarm.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from stanch.ledger import EntryQuery, decode_entry
from stanch.watch import Alarm, Severity
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_check import CheckState, Found, record_check
from stanch.workspace.verbs_log import verify_log

KIND = "watch.check"
DETECTOR = "check"
_HOUR = 3600
_LATE = 2
"""A check is late after so many times its time."""


@dataclass(frozen=True, slots=True)
class Check:
    """Something that is done every so many hours; :class:`stanch.errors.StanchError` says that it failed.

    Attributes:
        model: Digest of the model that it is about, if one.
    """

    name: str
    every_hours: int
    run: Callable[[], Found]
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Last:
    """When a check was last done (Unix seconds), and the entry that says so."""

    at: float
    entry: int


def verify_check(workspace: Workspace) -> Check:
    """Return the check that recomputes the log and compares it with all that others kept of it."""

    def run() -> Found:
        verify_log(workspace)
        return Found(CheckState.GOOD)

    return Check("log verification", workspace.config.watch.verify_hours, run)


def due_checks(workspace: Workspace, checks: Sequence[Check]) -> Iterator[Check]:
    """Yield what is due; it is asked again before each, since another host may have done it meanwhile."""
    for check in checks:
        last = last_done(workspace, check)
        # A time that lies ahead was changed, or the clock was: it puts no check off.
        if last is None or not 0 <= workspace.door.clock() - last.at < check.every_hours * _HOUR:
            yield check


def do_check(workspace: Workspace, check: Check) -> Alarm | None:
    """Do a check as an act, which is recorded; return an alarm if it found something or failed."""
    found = record_check(workspace, check.name, check.run)
    last = last_done(workspace, check)
    if found.state is not CheckState.BAD or last is None:
        return None
    return _alarm(check, found.what, int(last.at), last)


def late_checks(workspace: Workspace, checks: Sequence[Check], started: float) -> Iterator[Alarm]:
    """Yield an alarm for each check that is late; one that was never done counts from ``started``."""
    now = workspace.door.clock()
    for check in checks:
        last = last_done(workspace, check)
        since = started if last is None else last.at
        if now - since >= _LATE * check.every_hours * _HOUR:
            yield _alarm(check, "late", int(since), last)


def last_done(workspace: Workspace, check: Check) -> Last | None:
    """Return when a check last came to an end, as the log says."""
    reader = workspace.ledger.reader()
    for ref in reader.query(EntryQuery(kind=KIND, phase="outcome", newest_first=True)):
        entry = decode_entry(reader.entry(ref.index))
        payload = entry["unmapped"]["stanch"].get("payload", {})
        if payload.get("check") == check.name and payload.get("state") in {CheckState.GOOD, CheckState.BAD}:
            return Last(entry["time"] / 1000, ref.index)
    return None


def _alarm(check: Check, what: str, at: int, last: Last | None) -> Alarm:
    return Alarm(
        detector=DETECTOR, signal=f"{check.name}: {what}"[:200], principal=None, model=check.model, window_start=at,
        at=at, severity=Severity.HIGH, statistic=1.0, threshold=1.0, entries=() if last is None else (last.entry,),
    )  # fmt: skip
