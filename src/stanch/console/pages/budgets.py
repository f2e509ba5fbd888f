"""Budgets: what each principal has used of each model, against what the settings allow."""

from typing import Annotated

from msgspec import Meta, Struct
from sqlalchemy import ColumnElement, case, func, select, true

from stanch.console.desk import Call
from stanch.console.pages.paging import Paged, take
from stanch.store.schema.gateway import budget_drawn, budget_use

DRAWN = "protected-windows"
MINUTE_MS, DAY_MS = 60_000, 86_400_000
Share = Annotated[int, Meta(ge=0)]


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
    shown, after = take(_uses(call, true(), true()), _key, asked)
    return BudgetList(shown, after)


def uses_of(call: Call, principal: str) -> tuple[Used, ...]:
    """Return what one principal used."""
    mine = (budget_use.c.principal == principal, budget_drawn.c.principal == principal)
    return tuple(sorted(_uses(call, *mine), key=_key))


def _key(use: Used) -> str:
    return f"{use.principal} {use.model} {use.budget} {use.since_ms:015}"


def _uses(call: Call, of_use: ColumnElement[bool], of_drawn: ColumnElement[bool]) -> list[Used]:
    settings, now_ms = call.workspace.config.gateway, call.now_ms
    limits = {
        "requests": settings.requests_per_minute, "tokens": settings.tokens_per_day, DRAWN: settings.protected_windows
    }  # fmt: skip
    drawn = budget_drawn.c
    with call.workspace.tables.read() as connection:
        timed = connection.execute(
            select(budget_use).where(
                of_use,
                budget_use.c.window_ms + _size(budget_use.c.budget) > now_ms,
            )
        ).all()
        windows = connection.execute(
            select(drawn.principal, drawn.model, func.count()).where(of_drawn).group_by(drawn.principal, drawn.model)
        ).all()
    names = call.names()
    rows = [(row.principal, row.model, row.budget, row.window_ms, row.used) for row in timed]
    rows += [(principal, model, DRAWN, 0, count) for principal, model, count in windows]
    return [
        Used(
            principal, names.get(principal, principal), model, budget, since, used, limits.get(budget, 0),
            100 * used // limits[budget] if limits.get(budget) else 0,
        )
        for principal, model, budget, since, used in rows
    ]  # fmt: skip


def _size(budget: ColumnElement[str]) -> ColumnElement[int]:
    return case((budget == "requests", MINUTE_MS), else_=DAY_MS)
