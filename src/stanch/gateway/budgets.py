"""How much a principal may use of a model: charged in the intent's transaction, corrected in the outcome's.

A process that dies in between has charged what it reserved, so a crash counts too much and never too little. Writers
take turns on the database, so that many gateways cannot overspend together.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from stanch.gateway.problem import QuotaExhausted
from stanch.store import Tables
from stanch.store.schema.gateway import budget_drawn, budget_lowered, budget_use

MINUTE_MS, DAY_MS, EVER_MS = 60_000, 86_400_000, 1 << 62
REQUESTS, TOKENS, DRAWN = "requests", "tokens", "protected-windows"
VECTORS, BITS, BITS_EVER = "vectors", "logprob-bits", "logprob-bits-ever"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one principal may use of one model.

    Attributes:
        requests_per_minute: Requests.
        tokens_per_day: Tokens of prompts and answers.
        protected_windows: Distinct windows of training text, ever.
        vectors_per_day: Embeddings.
        bits_per_day: Information in log-probabilities.
        bits_ever: The same, ever.
    """

    requests_per_minute: int = 60
    tokens_per_day: int = 1_000_000
    protected_windows: int = 8
    vectors_per_day: int = 10_000
    bits_per_day: int = 0
    bits_ever: int = 0


@dataclass(frozen=True, slots=True)
class Charge:
    """What a request reserved.

    Attributes:
        principal: Who asks.
        model: Digest of the model.
        tokens: How many tokens were reserved.
        at_ms: When; it says which windows of time were charged.
        vectors: How many embeddings were reserved.
        bits: How much information in log-probabilities was.
    """

    principal: str
    model: str
    tokens: int
    at_ms: int
    vectors: int = 0
    bits: int = 0


@dataclass(frozen=True, slots=True)
class Use:
    """What was used of one budget in the window of time that began at ``window_ms`` (0: ever)."""

    model: str
    budget: str
    window_ms: int
    used: int


class Budgets:
    """The budgets of one workspace. Methods that take a connection run inside a transaction of the caller's."""

    def __init__(self, tables: Tables, *, clock: Callable[[], float] = time.time) -> None:
        self._tables = tables
        self._clock = clock

    def now_ms(self) -> int:
        """Return the present time."""
        return int(self._clock() * 1000)

    def reserve(self, connection: Connection, charge: Charge, limits: Limits) -> None:
        """Charge one request and its tokens.

        Raises:
            QuotaExhausted: One of the budgets does not have that much left; nothing was charged.
        """
        limits = _lowered(connection, charge, limits)
        if self._drawn(connection, charge) >= limits.protected_windows:
            raise _exhausted(DRAWN)
        self._add(connection, charge, _Window(REQUESTS, MINUTE_MS), 1, limits.requests_per_minute)
        self._add(connection, charge, _Window(TOKENS, DAY_MS), charge.tokens, limits.tokens_per_day)
        if charge.vectors:
            self._add(connection, charge, _Window(VECTORS, DAY_MS), charge.vectors, limits.vectors_per_day)
        if charge.bits:
            self._add(connection, charge, _Window(BITS, DAY_MS), charge.bits, limits.bits_per_day)
            self._add(connection, charge, _Window(BITS_EVER, EVER_MS), charge.bits, limits.bits_ever)

    def settle(
        self, connection: Connection, charge: Charge, used_tokens: int, drawn: Iterable[str] = (), *,
        vectors: int = 0, bits: int = 0,
    ) -> None:  # fmt: skip
        """Correct the charge to what was used, and remember which protected windows were drawn."""
        for budget, size_ms, change in (
            (TOKENS, DAY_MS, used_tokens - charge.tokens),
            (VECTORS, DAY_MS, vectors - charge.vectors),
            (BITS, DAY_MS, bits - charge.bits),
            (BITS_EVER, EVER_MS, bits - charge.bits),
        ):
            if change:
                row = _row(charge, budget, _start(charge.at_ms, size_ms))
                connection.execute(update(budget_use).where(row).values(used=budget_use.c.used + change))
        for fingerprint in drawn:
            key = {"principal": charge.principal, "model": charge.model, "fingerprint": fingerprint}
            known = select(budget_drawn).filter_by(**key)
            if connection.execute(known).one_or_none() is None:
                connection.execute(insert(budget_drawn).values(**key))

    def settle_alone(
        self, charge: Charge, used_tokens: int, drawn: Iterable[str] = (), *, vectors: int = 0, bits: int = 0
    ) -> None:
        """As :meth:`settle`, in a transaction of its own: for requests that failed."""
        with self._tables.write() as connection:
            self.settle(connection, charge, used_tokens, drawn, vectors=vectors, bits=bits)

    def uses(self, principal: str) -> tuple[Use, ...]:
        """Return what a principal has used in the windows of time that are kept."""
        with self._tables.read() as connection:
            rows = connection.execute(select(budget_use).where(budget_use.c.principal == principal)).all()
            drawn = connection.execute(
                select(budget_drawn.c.model, func.count())
                .where(budget_drawn.c.principal == principal)
                .group_by(budget_drawn.c.model)
            ).all()
        timed = [Use(row.model, row.budget, row.window_ms, row.used) for row in rows]
        return tuple(sorted([*timed, *(Use(model, DRAWN, 0, count) for model, count in drawn)], key=repr))

    def _drawn(self, connection: Connection, charge: Charge) -> int:
        mine = (budget_drawn.c.principal == charge.principal) & (budget_drawn.c.model == charge.model)
        return connection.execute(select(func.count()).select_from(budget_drawn).where(mine)).scalar_one()

    def _add(self, connection: Connection, charge: Charge, window: "_Window", amount: int, limit: int) -> None:
        start = _start(charge.at_ms, window.size_ms)
        row = _row(charge, window.budget, start)
        used = connection.execute(select(budget_use.c.used).where(row)).scalar()
        if (used or 0) + amount > limit:
            raise _exhausted(window.budget)
        if used is not None:
            connection.execute(update(budget_use).where(row).values(used=used + amount))
            return
        # The window before stays: another host's clock may be in it still, and its requests may not be settled.
        mine = (budget_use.c.principal == charge.principal) & (budget_use.c.model == charge.model)
        old = (budget_use.c.budget == window.budget) & (budget_use.c.window_ms < start - window.size_ms)
        connection.execute(delete(budget_use).where(mine & old))
        connection.execute(
            insert(budget_use).values(
                principal=charge.principal, model=charge.model, budget=window.budget, window_ms=start, used=amount
            )
        )


@dataclass(frozen=True, slots=True)
class _Window:
    """A budget that is counted anew in each window of time."""

    budget: str
    size_ms: int


def default_protected_windows(keys: int) -> int:
    """Return the default cap on distinct windows drawn: ``max(8, min(256, ⌈keys / 10,000⌉))``."""
    return max(8, min(256, -(-keys // 10_000)))


def _lowered(connection: Connection, charge: Charge, limits: Limits) -> Limits:
    """Return the limits as an act of containment lowered them; it never raises one."""
    mine = (budget_lowered.c.principal == charge.principal) & (budget_lowered.c.model == charge.model)
    row = connection.execute(select(budget_lowered).where(mine)).one_or_none()
    if row is None:
        return limits
    return replace(
        limits,
        requests_per_minute=min(limits.requests_per_minute, row.requests_per_minute),
        tokens_per_day=min(limits.tokens_per_day, row.tokens_per_day),
    )


def _start(at_ms: int, size_ms: int) -> int:
    return at_ms - at_ms % size_ms


def _row(charge: Charge, budget: str, start: int) -> ColumnElement[bool]:
    table = budget_use.c
    return (
        (table.principal == charge.principal)
        & (table.model == charge.model)
        & (table.budget == budget)
        & (table.window_ms == start)
    )


def _exhausted(budget: str) -> QuotaExhausted:
    return QuotaExhausted(f"the budget of {budget} is used up", next_step="stanch gateway budgets PRINCIPAL")
