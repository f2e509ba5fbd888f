"""Budgets: what each principal has used of each model, against what the settings allow."""

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct
from sqlalchemy import ColumnElement, case, func, literal, select, tuple_

from stanch.console.desk import Call
from stanch.console.pages.paging import Paged
from stanch.store.schema.gateway import budget_drawn, budget_use

DRAWN = "protected-windows"
MINUTE_MS, DAY_MS = 60_000, 86_400_000
Share = Annotated[int, Meta(ge=0)]
Cursor: TypeAlias = tuple[str, str, str, int]
"""A row by its principal, model, budget and the beginning of its window."""


class Used(Struct, frozen=True):
    """What one principal used of one budget of one model since ``since_ms`` (0: ever); limit 0: the model's default."""

    principal: str
    name: str
    model: str
    budget: str
    since_ms: int
    used: int
    limit: int
    percent: Share


class BudgetList(Struct, frozen=True):
    """Uses, and where the next part of the list begins."""

    uses: tuple[Used, ...]
    next: str


def list_budgets(call: Call, asked: Paged) -> BudgetList:
    """Show what was used in the windows of time that run now."""
    found = _uses(call, _cursor(asked.after), limit=asked.limit + 1)
    shown = found[: asked.limit]
    return BudgetList(shown, _key(shown[-1]) if len(found) > asked.limit else "")


def uses_of(call: Call, principal: str) -> tuple[Used, ...]:
    """Return what one principal used."""
    return _uses(call, ("", "", "", 0), principal=principal)


def _key(use: Used) -> str:
    return f"{use.principal} {use.model} {use.budget} {use.since_ms}"


def _cursor(text: str) -> Cursor:
    """Return the row that a key names; what is none stands before all rows, or after them, as text does."""
    principal, model, budget, since = [*text.split(" "), "", "", ""][:4]
    return principal, model, budget, int(since) if since.isascii() and since.isdecimal() and len(since) < 17 else 0


def _uses(call: Call, after: Cursor, *, principal: str = "", limit: int | None = None) -> tuple[Used, ...]:
    """Return the uses that follow a row, in the order of principal, model, budget and time."""
    use, drawn = budget_use.c, budget_drawn.c
    timed = select(use.principal, use.model, use.budget, use.window_ms, use.used).where(
        tuple_(use.principal, use.model, use.budget, use.window_ms) > tuple_(*map(literal, after)),
        use.window_ms + _size(use.budget) > call.now_ms,
    )
    windows = select(drawn.principal, drawn.model, literal(DRAWN), literal(0), func.count()).where(
        tuple_(drawn.principal, drawn.model, literal(DRAWN), literal(0)) > tuple_(*map(literal, after))
    )
    if principal:
        timed, windows = timed.where(use.principal == principal), windows.where(drawn.principal == principal)
    timed = timed.order_by(use.principal, use.model, use.budget, use.window_ms).limit(limit)
    windows = windows.group_by(drawn.principal, drawn.model).order_by(drawn.principal, drawn.model).limit(limit)
    with call.workspace.tables.read() as connection:
        rows = sorted(tuple(row) for query in (timed, windows) for row in connection.execute(query))[:limit]
    names, limits = call.names(row[0] for row in rows), _limits(call)
    return tuple(
        Used(
            who, names.get(who, who), model, budget, since, used, limits.get(budget, 0),
            100 * used // limits[budget] if limits.get(budget) else 0,
        )
        for who, model, budget, since, used in rows
    )  # fmt: skip


def _limits(call: Call) -> dict[str, int]:
    settings = call.workspace.config.gateway
    return {
        "requests": settings.requests_per_minute, "tokens": settings.tokens_per_day, DRAWN: settings.protected_windows
    }  # fmt: skip


def _size(budget: ColumnElement[str]) -> ColumnElement[int]:
    return case((budget == "requests", MINUTE_MS), else_=DAY_MS)
