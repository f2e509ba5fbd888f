"""Budgets: what each principal has used of each model, against what the settings allow."""

from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct
from sqlalchemy import ColumnElement, case, func, literal, select, tuple_

from stanch.config import GatewaySection
from stanch.console.desk import Call
from stanch.console.pages.paging import Paged
from stanch.store.schema.gateway import budget_lowered, budget_use, budget_window

DRAWN, CUT = "protected-windows", "cut-windows"
MINUTE_MS, DAY_MS = 60_000, 86_400_000
Share = Annotated[int, Meta(ge=0)]
Cursor: TypeAlias = tuple[str, str, str, int]
"""A row by its principal, model, budget and the beginning of its window."""


class Used(Struct, frozen=True):
    """What one principal used of one budget of one model since ``since_ms`` (0: ever); no limit: the model's own."""

    principal: str
    name: str
    model: str
    budget: str
    since_ms: int
    used: int
    limit: int | None
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
    use, window = budget_use.c, budget_window.c
    timed = select(use.principal, use.model, use.budget, use.window_ms, use.used).where(
        tuple_(use.principal, use.model, use.budget, use.window_ms) > tuple_(*map(literal, after)),
        (use.window_ms == 0) | (use.window_ms + _size(use.budget) > call.now_ms),
    )
    kinds = (window.principal, window.corpus, window.budget)
    windows = select(*kinds, literal(0), func.count()).where(tuple_(*kinds, literal(0)) > tuple_(*map(literal, after)))
    if principal:
        timed, windows = timed.where(use.principal == principal), windows.where(window.principal == principal)
    timed = timed.order_by(use.principal, use.model, use.budget, use.window_ms).limit(limit)
    windows = windows.group_by(*kinds).order_by(*kinds).limit(limit)
    with call.workspace.tables.read() as connection:
        rows = sorted(tuple(row) for query in (timed, windows) for row in connection.execute(query))[:limit]
        asked = budget_lowered.c.principal.in_({row[0] for row in rows})
        lowered = {(row.principal, row.model): row for row in connection.execute(select(budget_lowered).where(asked))}
    names, settings = call.names(row[0] for row in rows), call.workspace.config.gateway
    found = []
    for who, model, budget, since, used in rows:
        most = _limit(settings, lowered.get((who, model)), budget)
        percent = 0 if most is None else 100 * used // most if most else 100
        found.append(Used(who, names.get(who, who), model, budget, since, used, most, percent))
    return tuple(found)


def _limit(settings: GatewaySection, lowered: Any, row: str) -> int | None:  # noqa: ANN401 - a row of SQLAlchemy
    """Return the limit of what a row counts, such as ``tokens/day``: the settings', or what somebody lowered it to."""
    if row in {DRAWN, CUT}:
        return (settings.protected_windows if row == DRAWN else settings.cut_windows) or None
    budget, _, window = row.partition("/")
    name = f"{budget}_{'in' if window == 'total' else 'per'}_{window}"
    limits = (getattr(settings, f"logprob_{name}" if budget == "bits" else name, None), getattr(lowered, name, None))
    return min((limit for limit in limits if limit is not None), default=None)


def _size(budget: ColumnElement[str]) -> ColumnElement[int]:
    return case((budget.endswith("/minute"), MINUTE_MS), else_=DAY_MS)
