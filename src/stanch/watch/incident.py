"""An incident: alerts that belong together, a clock of 72 hours, and a timeline of entries by reference.

The clock starts when the leak was discovered, which a person states, and not when it was typed in; both are recorded.
States are ``open → contained → notified → closed``; steps may be skipped, and none goes back.
"""

from collections.abc import Container, Iterable
from enum import StrEnum
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from stanch.crypto import RandomBytes, random_bytes
from stanch.errors import InvalidInput
from stanch.terms import JsonValue
from stanch.watch.alarm import Containment
from stanch.watch.alert import ERASED, check_reason

HOUR_MS = 3_600_000
DEADLINE_MS = 72 * HOUR_MS
"""GDPR Art. 33(1): without undue delay and, where feasible, not later than 72 hours after having become aware."""
REMINDER_HOURS = (24, 48, 66)


class IncidentState(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    CONTAINED = "contained"
    NOTIFIED = "notified"
    CLOSED = "closed"


_ORDER = list(IncidentState)


class Told(StrEnum):
    """Whom a notice went to: the supervisory authority (GDPR Art. 33), or the people concerned (Art. 34)."""

    AUTHORITY = "authority"
    PEOPLE = "people"


class Matter(StrEnum):
    """What a person states of an incident, since no entry of the log shows it."""

    NATURE = "nature"
    DATA = "data"
    PEOPLE = "people"
    CONTACT = "contact"
    CONSEQUENCES = "consequences"
    MEASURES = "measures"


class Contained(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One act of containment: what was done, to what, and the entry that permitted and recorded it."""

    action: Containment
    target: str
    entry: int


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that somebody does about it.

    Attributes:
        entry: The intent that gave the task; its number.
        what: What is to be done, in a person's own words.
        who: Pseudonymous id of who does it.
        due_ms: By when.
        done_ms: When somebody said that it is done; None: it is not.
        done_entry: The intent that said so.
    """

    entry: int
    what: str
    who: str
    due_ms: int
    done_ms: int | None = None
    done_entry: int | None = None


class Holding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One link of a chain of custody: who holds a piece of evidence from when on.

    Attributes:
        entry: The intent that stated it.
        digest: The evidence by the digest of its bytes.
        what: What it is, in a person's own words.
        holder: Pseudonymous id of who holds it from then on, until the next link of the same digest.
        since_ms: From when on, as somebody stated.
    """

    entry: int
    digest: str
    what: str
    holder: str
    since_ms: int


class Notice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One notice; what is not known yet follows in further ones (GDPR Art. 33(4)).

    Attributes:
        entry: The intent that stated it.
        to: Whom it went to.
        at_ms: When, as somebody stated.
        what: Why it came late, in a person's own words; empty: it did not.
    """

    entry: int
    to: Told
    at_ms: int
    what: str = ""


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a person stated: entry ``entry``, about ``matter``, in these words."""

    entry: int
    matter: Matter
    what: str


_Said = TypeVar("_Said", Task, Holding, Notice, Statement)
"""What a person says in words that can be erased."""


class Incident(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An incident as it is now.

    Attributes:
        id: ``i_`` and 26 characters.
        discovered_ms: When it was discovered, as somebody stated.
        opened_ms: When that was typed in.
        opened_by: By whom.
        state: Where it stands.
        alerts: Ids of its alerts.
        principals: Whom they are about.
        artifacts: Digests of the models that they are about.
        entries: The timeline: indexes of entries in the ledger.
        contained: What was done to contain it.
        notified_ms: When the authority was told first.
        no_notice: Why nobody was told, in a person's own words.
        reminded: How many reminders were sent.
        tasks: Who does what by when.
        custody: Who held which evidence, in the order in which it was stated.
        notices: Who was told when, in the order in which it was stated; earlier releases kept the first alone.
        statements: What people stated of it.
    """

    schema: str = "urn:stanch:incident:v1"
    id: str
    discovered_ms: int
    opened_ms: int
    opened_by: str
    state: IncidentState = IncidentState.OPEN
    alerts: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    entries: tuple[int, ...] = ()
    contained: tuple[Contained, ...] = ()
    notified_ms: int | None = None
    no_notice: str = ""
    reminded: int = 0
    tasks: tuple[Task, ...] = ()
    custody: tuple[Holding, ...] = ()
    notices: tuple[Notice, ...] = ()
    statements: tuple[Statement, ...] = ()

    @property
    def deadline_ms(self) -> int:
        """When the authority must have been told."""
        return self.discovered_ms + DEADLINE_MS

    @property
    def ticking(self) -> bool:
        """Whether the clock runs: nobody was told, and no reason for that is given."""
        return self.notified_ms is None and not self.no_notice

    def summary(self) -> dict[str, JsonValue]:
        """Return what others may be told: ids, times and counts, and no words of a person."""
        return {
            "schema": self.schema, "incident": self.id, "state": self.state.value,
            "discovered_ms": self.discovered_ms, "opened_ms": self.opened_ms, "deadline_ms": self.deadline_ms,
            "notified_ms": self.notified_ms, "alerts": list(self.alerts), "principals": list(self.principals),
            "artifacts": list(self.artifacts), "entries": list(self.entries),
            "contained": [
                {"action": one.action.value, "target": one.target, "entry": one.entry} for one in self.contained
            ],
            "tasks": [
                {"task": one.entry, "who": one.who, "due_ms": one.due_ms, "done_ms": one.done_ms} for one in self.tasks
            ],
            "custody": [
                {"digest": one.digest, "holder": one.holder, "since_ms": one.since_ms, "entry": one.entry}
                for one in self.custody
            ],
            "notices": [{"to": one.to.value, "at_ms": one.at_ms, "entry": one.entry} for one in self.notices],
            "statements": [{"matter": one.matter.value, "entry": one.entry} for one in self.statements],
        }  # fmt: skip


def new_incident(discovered_ms: int, *, by: str, at_ms: int, rng: RandomBytes = random_bytes) -> Incident:
    """Return a new incident.

    Raises:
        InvalidInput: It would have been discovered in the future.
    """
    if not 0 <= discovered_ms <= at_ms:
        raise InvalidInput("incident: it cannot have been discovered in the future")
    return Incident(id=f"i_{rng(16).hex()}", discovered_ms=discovered_ms, opened_ms=at_ms, opened_by=by)


def extend(
    incident: Incident,
    *,
    alerts: Iterable[str] = (),
    principals: Iterable[str] = (),
    artifacts: Iterable[str] = (),
    entries: Iterable[int] = (),
) -> Incident:
    """Return the incident with more that belongs to it; what it holds already stays single.

    Raises:
        InvalidInput: It is closed.
    """
    check_open(incident)
    return replace(
        incident,
        alerts=tuple(dict.fromkeys((*incident.alerts, *alerts))),
        principals=tuple(dict.fromkeys((*incident.principals, *principals))),
        artifacts=tuple(dict.fromkeys((*incident.artifacts, *artifacts))),
        entries=tuple(sorted({*incident.entries, *entries})),
    )


def contain(incident: Incident, action: Containment, target: str, entry: int) -> Incident:
    """Return the incident after an act of containment, which entry ``entry`` recorded."""
    check_open(incident)
    state = max(incident.state, IncidentState.CONTAINED, key=_ORDER.index)
    done = (*incident.contained, Contained(action=action, target=target, entry=entry))
    return replace(extend(incident, entries=(entry,)), state=state, contained=done)


def notify(incident: Incident, notice: Notice, at_ms: int) -> Incident:
    """Return the incident after a notice; the first one to the authority stops the clock.

    Raises:
        InvalidInput: The incident is closed, the notice lies before the discovery or in the future, it is the first one
            to the authority, later than 72 hours, and gives no reason for that, or it gives one though it is not late.
    """
    check_open(incident)
    if not incident.discovered_ms <= notice.at_ms <= at_ms:
        raise InvalidInput("incident: the notice lies before the discovery or in the future")
    first = notice.to is Told.AUTHORITY and incident.notified_ms is None
    late = notice.to is Told.AUTHORITY and notice.at_ms > incident.deadline_ms
    if notice.what and not late:
        raise InvalidInput(f"incident {incident.id}: the notice came in time; a reason is given for a late one only")
    if first and late and not notice.what:
        raise InvalidInput(
            f"incident {incident.id}: the notice came later than 72 hours after the discovery, without a reason",
            why="GDPR Art. 33(1): a later notice is accompanied by the reasons for the delay",
            next_step="stanch incident notify, with --reason REASON",
        )
    kept = replace(notice, what=check_reason(notice.what) if notice.what else "")
    told = replace(incident, notices=(*incident.notices, kept))
    if notice.to is Told.PEOPLE:
        return told
    state = max(incident.state, IncidentState.NOTIFIED, key=_ORDER.index)
    return replace(told, state=state, notified_ms=notice.at_ms if first else incident.notified_ms)


def waive_notice(incident: Incident, reason: str) -> Incident:
    """Return the incident with the reason for which nobody is told (GDPR Art. 33(1), (5)); the clock stops."""
    check_open(incident)
    if not incident.ticking:
        raise InvalidInput(f"incident {incident.id}: its notice is settled already")
    return replace(incident, no_notice=check_reason(reason))


def close_incident(incident: Incident) -> Incident:
    """Return the closed incident.

    Raises:
        InvalidInput: It is closed, or nobody was told and no reason is given.
    """
    check_open(incident)
    if incident.ticking:
        raise InvalidInput(
            f"incident {incident.id}: nobody was notified",
            why="an incident is closed with a notice or with the reason for none",
            next_step="stanch incident notify, or: stanch incident close --no-notice REASON",
        )
    return replace(incident, state=IncidentState.CLOSED)


def forget_words(incident: Incident, entries: Container[int], *, waiver: bool = False) -> Incident:
    """Return the incident without a person's words that some entries stated.

    What the words were about stays, and that there were some; ``waiver`` takes the reason for no notice as well.
    """
    return replace(
        incident,
        tasks=_without(incident.tasks, entries),
        custody=_without(incident.custody, entries),
        notices=_without(incident.notices, entries),
        statements=_without(incident.statements, entries),
        no_notice=ERASED if waiver and incident.no_notice else incident.no_notice,
    )


def _without(said: tuple[_Said, ...], entries: Container[int]) -> tuple[_Said, ...]:
    return tuple(replace(one, what=ERASED) if one.what and one.entry in entries else one for one in said)


def reminders_due(incident: Incident, at_ms: int) -> tuple[int, ...]:
    """Return the hours of the reminders that are due and were not sent; none once the clock stopped."""
    if not incident.ticking or incident.state is IncidentState.CLOSED:
        return ()
    passed = (at_ms - incident.discovered_ms) // HOUR_MS
    return tuple(hours for hours in REMINDER_HOURS[incident.reminded :] if hours <= passed)


def check_open(incident: Incident) -> None:
    """Refuse what is done to a closed incident.

    Raises:
        InvalidInput: It is closed.
    """
    if incident.state is IncidentState.CLOSED:
        raise InvalidInput(f"incident {incident.id}: is closed", next_step="open another one")
