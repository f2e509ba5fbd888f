"""The transparency report: what the log holds of a period, in counts that lead to their entries."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from msgspec import Meta, Struct

from stanch.console.desk import Call
from stanch.errors import InvalidInput
from stanch.trace import Period, report_transparency
from stanch.trace.transparency import STATEMENTS

_MOST = 50
Day = Annotated[str, Meta(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?\Z")]


class Span(Struct, frozen=True, forbid_unknown_fields=True):
    """From the day ``since`` to the day ``until``, both counted; empty: the last 30 days."""

    since: Day = ""
    until: Day = ""


class Told(Struct, frozen=True):
    """One sentence, its count, and the first of its entries."""

    id: str
    text: str
    count: int
    entries: tuple[int, ...]


class BlockedKind(Struct, frozen=True):
    """Blocked answers of one month in which one kind was found, and the first of their entries."""

    month: str
    kind: str
    count: int
    entries: tuple[int, ...]


class Report(Struct, frozen=True):
    """The report of a period, and the checkpoint that it rests on."""

    since: str
    until: str
    log: str
    size: int
    root: str
    statements: tuple[Told, ...]
    blocked: tuple[BlockedKind, ...]
    spent: int
    bound: str


def report(call: Call, asked: Span) -> Report:
    """Count the published entries of a period; every sentence leads to its entries.

    Raises:
        InvalidInput: The period ends before it begins.
        NotFound: No checkpoint was published.
    """
    today = call.workspace.now().replace(hour=0, minute=0, second=0, microsecond=0)
    until = _day(asked.until) if asked.until else today
    since = _day(asked.since) if asked.since else until - timedelta(days=29)
    call.workspace.ledger.publish()
    period = Period(since, until + timedelta(days=1))
    made = report_transparency(call.workspace.ledger.reader(), period, call.desk.blocked)
    told = tuple(
        Told(name, text, len(made.entries[name]), made.entries[name][:_MOST]) for name, text in STATEMENTS.items()
    )
    blocked = tuple(BlockedKind(one.month, one.kind, len(one.entries), one.entries[:_MOST]) for one in made.blocked)
    spent = made.epsilon[0]
    return Report(
        f"{since:%Y-%m-%d}",
        f"{until:%Y-%m-%d}",
        made.log,
        made.size,
        made.root,
        told,
        blocked,
        len(spent.spent),
        spent.total,
    )


def _day(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidInput(f"expected a day such as 2026-01-31, found {text}") from error
