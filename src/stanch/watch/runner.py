"""Runs detectors over a log from where each of them stopped.

What a detector remembers, its place in the log and its alarms are written in one transaction, together with whatever
the receiver of the alarms writes: a kill at any moment repeats nothing and loses nothing. So that the receiver's record
of an act can be a part of it, the transaction is the receiver's.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from stanch.errors import Conflict, InvalidInput
from stanch.ledger import LedgerReader
from stanch.store import Tables
from stanch.store.schema.watch import watch_alarm, watch_state
from stanch.watch.alarm import Alarm
from stanch.watch.detector import Detector
from stanch.watch.events import Event, read_entries

BATCH = 16_384
"""Most entries between two savings. What detectors remember of 10,000 principals is 20 MB, and is written each time."""
PAUSE_SECONDS = 1.0
_MANY = 4096
"""So many entries are worth the writing of what is remembered of 10,000 principals; of fewer, more are waited for."""
_LEASE = "watch"

Save = Callable[[Connection], None]
"""Writes what detectors remember, where they are and what they raised; raises ``Conflict`` if another run did so."""

Deliver = Callable[[Sequence[Alarm], Save], None]
"""Takes new alarms, and saves in the transaction in which it writes them; raising undoes all, and they come again."""

Wait = Callable[[float], bool]
"""Waits so many seconds; returns true when the run is to end (``threading.Event.wait``)."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a detector has come.

    Attributes:
        next_index: The first entry that it has not read.
        alarms: How many alarms it has raised in all.
        last_at: When the last one was, Unix seconds; None if there was none.
        state_bytes: Size of what it remembers.
    """

    detector: str
    next_index: int
    alarms: int
    last_at: int | None
    state_bytes: int


def run(reader: LedgerReader, tables: Tables, detectors: Sequence[Detector], *, deliver: Deliver, wait: Wait) -> None:
    """Follow the log until ``wait`` says to end; of several hosts, one works while the others wait.

    After a batch of few entries it waits for a second, and for as long as the batch took: the more there is to
    remember, the more entries are read at once.

    Raises:
        InvalidInput: An entry is not of the form that this release reads; the message names it.
        StoreError: The database failed; nothing of the batch was saved.
    """
    while True:
        began, read = time.monotonic(), 0
        with tables.lease(_LEASE) as held:
            for events, behind in _batches(reader, tables, detectors) if held else ():
                _take(tables, reader.origin, events, behind, deliver)
                read = len(events)
                break
        if wait(0.0 if read >= _MANY else max(PAUSE_SECONDS, time.monotonic() - began)):
            return


def catch_up(reader: LedgerReader, tables: Tables, detectors: Sequence[Detector], *, deliver: Deliver) -> int:
    """Read to the end of the log and return how many alarms were raised."""
    raised = 0
    for events, behind in _batches(reader, tables, detectors):
        raised += _take(tables, reader.origin, events, behind, deliver)
    return raised


def progress(tables: Tables, origin: str, detectors: Sequence[Detector]) -> list[Progress]:
    """Return how far each detector has come."""
    with tables.read() as connection:
        places = _places(connection, origin)
        rows = connection.execute(
            select(watch_alarm.c.detector, func.count(), func.max(watch_alarm.c.at_ms))
            .where(watch_alarm.c.origin == origin)
            .group_by(watch_alarm.c.detector)
        ).all()
        sizes = {
            name: int(size)
            for name, size in connection.execute(
                select(watch_state.c.detector, func.length(watch_state.c.state)).where(watch_state.c.origin == origin)
            ).all()
        }
    counts = {name: (count, last) for name, count, last in rows}
    found = []
    for detector in detectors:
        count, last = counts.get(detector.name, (0, None))
        at = None if last is None else last // 1000
        name = detector.name
        found.append(Progress(name, places.get(name, 0), count, at, sizes.get(name, 0)))
    return found


def state_of(tables: Tables, origin: str, detector: str) -> bytes:
    """Return what a detector remembers of a log; empty: nothing yet."""
    wanted = select(watch_state.c.state).where(watch_state.c.origin == origin, watch_state.c.detector == detector)
    with tables.read() as connection:
        return bytes(connection.execute(wanted).scalar() or b"")


def alarms_of(tables: Tables, origin: str) -> list[Alarm]:
    """Return all alarms that were raised, by detector and in its order."""
    with tables.read() as connection:
        rows = connection.scalars(
            select(watch_alarm.c.alarm)
            .where(watch_alarm.c.origin == origin)
            .order_by(watch_alarm.c.detector, watch_alarm.c.number)
        ).all()
    return [msgspec.msgpack.decode(row, type=Alarm) for row in rows]


def _places(connection: Connection, origin: str) -> dict[str, int]:
    rows = connection.execute(
        select(watch_state.c.detector, watch_state.c.next_idx).where(watch_state.c.origin == origin)
    ).all()
    return {name: int(place) for name, place in rows}


def _batches(
    reader: LedgerReader, tables: Tables, detectors: Sequence[Detector]
) -> Iterator[tuple[list[Event], list[Detector]]]:
    """Yield entries with the detectors that read them next; those that are behind read alone until they are level."""
    while True:
        with tables.read() as connection:
            places = _places(connection, reader.origin)
        start = min((places.get(detector.name, 0) for detector in detectors), default=0)
        behind = [detector for detector in detectors if places.get(detector.name, 0) == start]
        others = [places.get(detector.name, 0) - start for detector in detectors if detector not in behind]
        events = list(read_entries(reader.tail(start, min([BATCH, *others]))))
        if not events:
            return
        if events[0].index != start:
            raise InvalidInput(f"log {reader.origin}: expected entry {start}, found {events[0].index}")
        yield events, behind


def _take(tables: Tables, origin: str, events: list[Event], detectors: Sequence[Detector], deliver: Deliver) -> int:
    """Let detectors take entries, then save all that comes of it at once.

    They are pure, so the database is not held while they work: what was saved meanwhile by another host is seen.
    """
    start, after = events[0].index, events[-1].index + 1
    steps, raised = [], list[Alarm]()
    for detector in detectors:
        before = _state(tables, origin, detector.name)
        state, alarms = detector.step(before or b"", events)
        steps.append((detector.name, before is None, None if state == before else state))
        raised += alarms

    def save(connection: Connection) -> None:
        places = _places(connection, origin)
        if any(places.get(name, 0) != start for name, _, _ in steps):
            raise Conflict(f"watch: another run has read entry {start} meanwhile")
        for name, is_new, changed in steps:
            changes = {"next_idx": after} | ({} if changed is None else {"state": changed})
            mine = (watch_state.c.origin == origin) & (watch_state.c.detector == name)
            change = (
                insert(watch_state).values(origin=origin, detector=name) if is_new else update(watch_state).where(mine)
            )
            connection.execute(change.values(**changes))
        _save(connection, origin, raised)

    try:
        if raised:
            deliver(raised, save)
        else:
            with tables.write() as connection:
                save(connection)
    except Conflict:
        return 0
    return len(raised)


def _state(tables: Tables, origin: str, detector: str) -> bytes | None:
    mine = (watch_state.c.origin == origin) & (watch_state.c.detector == detector)
    with tables.read() as connection:
        found: bytes | None = connection.scalar(select(watch_state.c.state).where(mine))
    return found


def _save(connection: Connection, origin: str, alarms: Sequence[Alarm]) -> None:
    for alarm in alarms:
        mine = (watch_alarm.c.origin == origin) & (watch_alarm.c.detector == alarm.detector)
        last = connection.scalar(select(func.max(watch_alarm.c.number)).where(mine))
        connection.execute(
            insert(watch_alarm).values(
                origin=origin, detector=alarm.detector, number=0 if last is None else last + 1, at_ms=alarm.at * 1000,
                alarm=msgspec.msgpack.encode(alarm),
            )
        )  # fmt: skip
