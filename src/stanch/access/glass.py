"""Break-glass: emergency rights for an hour at most, with an alarm before them and a review by somebody else after.

The caller makes the log entry that asks for them durable first. The workspace then runs :meth:`Glasses.open_glass` in
the transaction of the outcome: alarm, rights and outcome are durable together, or none is. On tables that are in no
transaction the alarm is durable before the rights. A crash between any two steps leaves less than was asked for.
"""

import base64
import json
import time
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from stanch.access.clock import Clock, milliseconds
from stanch.access.revision import advance_facts
from stanch.crypto import RandomBytes, random_bytes
from stanch.errors import Conflict, InvalidInput, NotFound, SeparationOfDuties
from stanch.store import Tables
from stanch.store.schema import access as schema
from stanch.store.statement import run
from stanch.store.tables import column_names
from stanch.terms import JsonValue

MAX_MINUTES = 60
REVIEW_HOURS = 72
ALARM = "access.break-glass"
SEVERITY = 5
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Glass:
    """One use of emergency rights.

    Attributes:
        id: ``gl_…``; every act of its time carries it.
        principal: Who broke it.
        act: The act in the log that began it.
        reason_commitment: Commitment to the reason; the reason itself can be erased.
        from_ms: When the rights began.
        until_ms: When they end.
        review_due_ms: By when another principal must have reviewed it.
        reviewed_by: Who did; None until then.
        reviewed_ms: When.
    """

    id: str
    principal: str
    act: str
    reason_commitment: str
    from_ms: int
    until_ms: int
    review_due_ms: int
    reviewed_by: str | None
    reviewed_ms: int | None

    def overdue(self, now_ms: int) -> bool:
        """Say whether the review is missing although its time is over."""
        return self.reviewed_by is None and now_ms >= self.review_due_ms


@dataclass(frozen=True, slots=True)
class GlassAlarm:
    """The alarm of one use of emergency rights: its id, whose they are, the act that began it, and when."""

    glass: str
    principal: str
    act: str
    raised_ms: int


class Glasses:
    """The emergency rights of one workspace."""

    def __init__(self, tables: Tables, *, clock: Clock = time.time, rng: RandomBytes = random_bytes) -> None:
        self._tables = tables
        self._now = milliseconds(clock)
        self._rng = rng

    def open_glass(self, principal: str, *, act: str, reason_commitment: str, minutes: int) -> Glass:
        """Raise the alarm, then give the rights; the entry of ``act`` must be durable already.

        Raises:
            InvalidInput: Not 1 to 60 minutes, or rights of this principal are open already.
        """
        check_minutes(minutes)
        if self.open_of(principal) is not None:
            raise InvalidInput("break-glass: emergency rights are open already")
        now_ms = self._now()
        name, due = f"gl_{base64.b32encode(self._rng(10)).decode().lower()}", now_ms + REVIEW_HOURS * 60 * MINUTE_MS
        until = now_ms + minutes * MINUTE_MS
        glass = Glass(name, principal, act, reason_commitment, now_ms, until, due, None, None)
        raised: dict[str, JsonValue] = {
            "glass": glass.id,
            "until_ms": glass.until_ms,
            "review_due_ms": glass.review_due_ms,
        }
        with self._tables.write() as connection:
            connection.execute(
                insert(schema.alarm_outbox).values(
                    id=glass.id, kind=ALARM, severity=SEVERITY, principal=principal, act=act,
                    payload=json.dumps(raised, sort_keys=True), created_ms=now_ms,
                )
            )  # fmt: skip
        with self._tables.write() as connection:
            connection.execute(
                insert(schema.glass).values(
                    id=glass.id, principal=principal, act=act, reason_commitment=reason_commitment,
                    from_ms=glass.from_ms, until_ms=glass.until_ms, review_due_ms=glass.review_due_ms,
                )
            )  # fmt: skip
            advance_facts(connection)
        return glass

    def open_of(self, principal: str) -> Glass | None:
        """Return the emergency rights of a principal that are open now."""
        now_ms = self._now()
        with self._tables.read() as connection:
            rows = run(connection, _OPEN_OF, (now_ms, now_ms, principal))
        return Glass(*rows[0]) if rows else None

    def open_now(self) -> dict[str, str]:
        """Return by principal the id of the emergency rights that are open now."""
        now_ms = self._now()
        with self._tables.read() as connection:
            return dict(run(connection, _OPEN_NOW, (now_ms, now_ms)))

    def untold(self) -> tuple[GlassAlarm, ...]:
        """Return the alarms that nobody took from the outbox yet, the oldest first."""
        table = schema.alarm_outbox.c
        waiting = select(table.id, table.principal, table.act, table.created_ms).where(table.taken_ms.is_(None))
        with self._tables.read() as connection:
            return tuple(GlassAlarm(*row) for row in connection.execute(waiting.order_by(table.created_ms, table.id)))

    def unreviewed(self) -> tuple[Glass, ...]:
        """Return what nobody has reviewed yet, the most urgent first."""
        table = schema.glass
        with self._tables.read() as connection:
            rows = connection.execute(
                select(table).where(table.c.reviewed_by.is_(None)).order_by(table.c.review_due_ms, table.c.id)
            ).all()
        return tuple(Glass(*row) for row in rows)

    def review(self, glass_id: str, *, by: str) -> Glass:
        """Note that another principal looked at what was done under emergency rights.

        Raises:
            NotFound: There is no such use, or it was reviewed already.
            SeparationOfDuties: By the one who used them.
            InvalidInput: The rights are still open.
        """
        table, now_ms = schema.glass, self._now()
        with self._tables.write() as connection:
            row = connection.execute(select(table).where(table.c.id == glass_id)).one_or_none()
            if row is None or row.reviewed_by is not None:
                raise NotFound(f"break-glass {glass_id[:40]}: does not exist or was reviewed already")
            if row.principal == by:
                raise SeparationOfDuties(
                    f"review of {glass_id}: not by the one who broke the glass", next_step="ask an auditor"
                )
            if now_ms < row.until_ms:
                raise InvalidInput(f"review of {glass_id}: the emergency rights are still open")
            connection.execute(update(table).where(table.c.id == glass_id).values(reviewed_by=by, reviewed_ms=now_ms))
            return Glass(*connection.execute(select(table).where(table.c.id == glass_id)).one())


def take_alarm(connection: Connection, alarm: GlassAlarm, now_ms: int) -> None:
    """Take an alarm from the outbox; belongs into the transaction that hands it on.

    Raises:
        Conflict: Somebody else took it.
    """
    table = schema.alarm_outbox
    waiting = update(table).where(table.c.id == alarm.glass, table.c.taken_ms.is_(None))
    if not connection.execute(waiting.values(taken_ms=now_ms)).rowcount:
        raise Conflict(f"break-glass {alarm.glass}: its alarm was taken already")


def check_minutes(minutes: int) -> None:
    """Raise :class:`stanch.errors.InvalidInput` unless emergency rights may last so long."""
    if not 1 <= minutes <= MAX_MINUTES:
        raise InvalidInput(f"break-glass: expected 1 to {MAX_MINUTES} minutes, found {minutes}")


# A row that says the rights last longer than an hour opens none.
_OPEN = f"FROM glass WHERE from_ms <= ? AND until_ms > ? AND until_ms <= from_ms + {MAX_MINUTES * MINUTE_MS}"
_OPEN_OF = f"SELECT {column_names(schema.glass)} {_OPEN} AND principal = ? ORDER BY until_ms DESC"
_OPEN_NOW = f"SELECT principal, id {_OPEN} ORDER BY until_ms"
