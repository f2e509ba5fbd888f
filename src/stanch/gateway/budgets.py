"""How much a principal may use of a model: charged in the intent's transaction, corrected in the outcome's.

A process that dies in between has charged what it reserved, so a crash counts too much and never too little. Writers
take turns on the database, so that many gateways cannot overspend together.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from stanch.gateway.problem import QuotaExhausted
from stanch.store import Tables
from stanch.store.schema.gateway import budget_corpus, budget_drawn, budget_reset, budget_use, budget_window
from stanch.store.statement import run
from stanch.workspace.verbs_serve import BudgetReset

MINUTE_MS, DAY_MS = 60_000, 86_400_000
WINDOWS = {"minute": MINUTE_MS, "day": DAY_MS, "total": 0}
"""Lengths of the windows of time in which use is counted anew; 0 never ends."""
Budget = Literal["requests", "tokens", "vectors", "bits", "protected-windows", "cut-windows"]
DRAWN: Budget = "protected-windows"
CUT: Budget = "cut-windows"
CUT_FOR_DRAWN = 8
"""So many windows may be cut for each that may be drawn, where the settings name no number. Most cuts are of two."""
_KNOWN = (
    "SELECT 'used', budget, window_ms, used FROM budget_use WHERE principal = ? AND model = ? UNION ALL "
    "SELECT 'reset', budget, 0, count FROM budget_reset WHERE principal = ? AND model = ? UNION ALL "
    "SELECT 'lowered', '', requests_per_minute, tokens_per_day FROM budget_lowered WHERE principal = ? AND model = ?"
    " UNION ALL SELECT 'window', budget, 0, count(*) FROM budget_window"
    " WHERE principal = ? AND corpus = ? GROUP BY budget"
)
_CHARGE = (
    "INSERT INTO budget_use (principal, model, budget, window_ms, used) VALUES {} "
    "ON CONFLICT (principal, model, budget, window_ms) DO UPDATE SET used = budget_use.used + excluded.used"
)
_FORGET = "DELETE FROM budget_use WHERE principal = ? AND model = ? AND budget = ? AND window_ms < ?"
_SETTLE = (
    "UPDATE budget_use SET used = used + ? WHERE principal = ? AND model = ?"
    " AND ((budget = ? AND window_ms = ?) OR (budget = ? AND window_ms = ?) OR (budget = ? AND window_ms = ?))"
)
_REMEMBER = (
    "INSERT INTO budget_window (principal, corpus, budget, fingerprint) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_COUNT = "SELECT count(*) FROM budget_window WHERE principal = ? AND corpus = ? AND budget = ?"
_NAME = (
    "INSERT INTO budget_corpus (model, corpus) VALUES (?, ?) ON CONFLICT (model) DO UPDATE SET corpus = excluded.corpus"
)
NO_WINDOWS: Mapping[Budget, Iterable[str]] = MappingProxyType({})
_TAKE_OVER = (
    "INSERT INTO budget_window (principal, corpus, budget, fingerprint)"
    " SELECT principal, ?, ?, fingerprint FROM budget_drawn WHERE model = ? ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one principal may use of one model; None is no limit.

    Attributes:
        requests_per_minute: Requests.
        tokens_per_day: Tokens of prompts and answers.
        protected_windows: Distinct windows of training text, until somebody resets them.
        cut_windows: Distinct windows of it that answers were cut or changed for: each tells that it is protected. None:
            eight for each that may be drawn.
        vectors_per_day: Embeddings.
        bits_per_day: Information in log-probabilities.
        bits_in_total: The same, until somebody resets it; so are the other totals.
        requests_per_day: Requests.
        requests_in_total: Requests.
        tokens_per_minute: Tokens of prompts and answers.
        tokens_in_total: Tokens of prompts and answers.
        vectors_per_minute: Embeddings.
        vectors_in_total: Embeddings.
        bits_per_minute: Information in log-probabilities.
    """

    requests_per_minute: int | None = 60
    tokens_per_day: int | None = 1_000_000
    protected_windows: int = 8
    vectors_per_day: int | None = 10_000
    bits_per_day: int | None = 0
    bits_in_total: int | None = 0
    requests_per_day: int | None = None
    requests_in_total: int | None = None
    tokens_per_minute: int | None = None
    tokens_in_total: int | None = None
    vectors_per_minute: int | None = None
    vectors_in_total: int | None = None
    bits_per_minute: int | None = None
    cut_windows: int | None = None

    def of(self, row: str) -> int | None:
        """Return the limit of what a row counts, such as ``tokens/day``."""
        if row == DRAWN:
            return self.protected_windows
        if row == CUT:
            return CUT_FOR_DRAWN * self.protected_windows if self.cut_windows is None else self.cut_windows
        budget, _, window = row.partition("/")
        limit: int | None = getattr(self, f"{budget}_{'in' if window == 'total' else 'per'}_{window}", None)
        return limit


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a request reserves, or what it used."""

    requests: int = 1
    tokens: int = 0
    vectors: int = 0
    bits: int = 0

    def record(self) -> dict[str, int]:
        """Return what stands in the log: the amounts that are not 0."""
        return {budget: amount for budget, amount in self.by_budget().items() if amount}

    def by_budget(self) -> dict[str, int]:
        """Return all amounts."""
        return {"requests": self.requests, "tokens": self.tokens, "vectors": self.vectors, "bits": self.bits}

    @classmethod
    def recorded(cls, record: Mapping[str, int]) -> "Amounts":
        """Return the amounts of a record of the log."""
        return cls(**({"requests": 0} | dict(record)))


@dataclass(frozen=True, slots=True)
class Charge:
    """What a request reserved.

    Attributes:
        principal: Who asks.
        model: Digest of the model.
        amounts: How much was reserved.
        at_ms: When; it says which windows of time were charged.
        resets: How often each budget had been reset by then.
        index: Digest of the index of the model's training text; models of one index share their windows.
    """

    principal: str
    model: str
    amounts: Amounts
    at_ms: int
    resets: frozenset[tuple[str, int]] = frozenset()
    index: str = ""

    @property
    def corpus(self) -> str:
        """Under which name windows are counted."""
        return self.index or self.model


@dataclass(frozen=True, slots=True)
class Use:
    """What was used of one budget in the window of time that began at ``window_ms`` (0: ever).

    Of windows of training text ``model`` is the digest of their index.
    """

    model: str
    budget: str
    window_ms: int
    used: int


class Grown(NamedTuple):
    """How many windows of training text a principal had drawn, or had cut, before a request, and has now."""

    before: int = 0
    after: int = 0

    def crossed(self, limit: int) -> int:
        """Return the highest of 50, 80 and 100 percent of the limit that was reached just now, or 0."""
        reached = [percent for percent in (50, 80, 100) if self.before * 100 < percent * limit <= self.after * 100]
        return max(reached, default=0)


class Budgets:
    """The budgets of one workspace. Methods that take a connection run inside a transaction of the caller's."""

    def __init__(self, tables: Tables, *, clock: Callable[[], float] = time.time) -> None:
        self.tables = tables
        self._clock = clock

    def now_ms(self) -> int:
        """Return the present time."""
        return int(self._clock() * 1000)

    def reserve(self, connection: Connection, charge: Charge, limits: Limits) -> Charge:
        """Charge what a request may use at most; return the charge as it has to be settled.

        Raises:
            QuotaExhausted: One of the budgets does not have that much left; the caller's transaction is to be undone.
        """
        known = _Known.read(connection, charge)
        limits = known.lower(limits)
        for kind in (DRAWN, CUT):
            if known.windows.get(kind, 0) >= (limits.of(kind) or 0):
                raise QuotaExhausted(kind)
        charged: list[tuple[str, int, int]] = []
        for row, start, amount in rows(charge.amounts, charge.at_ms):
            if amount and (limit := limits.of(row)) is not None:
                # Nobody else writes before this transaction ends, so what was read still holds when it is charged.
                if known.used.get((row, start), 0) + amount > limit:
                    raise QuotaExhausted(row)
                charged.append((row, start, amount))
        _add(connection, charge, known, charged)
        return replace(charge, resets=known.resets)

    def settle(
        self, connection: Connection, charge: Charge, used: Amounts, seen: Mapping[Budget, Iterable[str]] = NO_WINDOWS
    ) -> dict[Budget, Grown]:
        """Correct the charge to what was used, and remember which windows of training text were drawn, and which cut.

        A budget that was reset meanwhile keeps what was used since.
        """
        who = (charge.principal, charge.model)
        resets = run(connection, "SELECT budget, count FROM budget_reset WHERE principal = ? AND model = ?", who)
        same = {name for name, _ in charge.resets ^ frozenset(resets)}
        reserved, at_ms = charge.amounts.by_budget(), charge.at_ms
        for budget, amount in used.by_budget().items():
            change = amount - reserved[budget]
            if change and budget not in same:
                windows = [part for window in WINDOWS for part in (f"{budget}/{window}", _start(window, at_ms))]
                run(connection, _SETTLE, (change, *who, *windows))
        grown: dict[Budget, Grown] = {}
        for kind, fingerprints in seen.items():
            if fresh := sorted(set(fingerprints)):
                key = (charge.principal, charge.corpus, kind)
                before = run(connection, _COUNT, key)[0][0]
                for fingerprint in fresh:
                    run(connection, _REMEMBER, (*key, fingerprint))
                grown[kind] = Grown(before, run(connection, _COUNT, key)[0][0])
        return grown

    def name_corpora(self, corpora: Mapping[str, str]) -> None:
        """Say which index stands before each model, by digest, and take over windows that were counted by model."""
        with self.tables.write() as connection:
            for model, corpus in corpora.items():
                run(connection, _NAME, (model, corpus))
                run(connection, _TAKE_OVER, (corpus, DRAWN, model))

    def reset(self, connection: Connection, order: BudgetReset) -> None:
        """Set what a principal has used of one budget to nothing; requests on their way give nothing back to it."""
        principal, budget = order.principal, order.budget
        for model in order.models:
            if budget in {DRAWN, CUT}:
                self._forget_windows(connection, principal, model, budget)
                continue
            names = [f"{budget}/{window}" for window in WINDOWS]
            mine = (budget_use.c.principal == principal) & (budget_use.c.model == model)
            connection.execute(delete(budget_use).where(mine & budget_use.c.budget.in_(names)))
            key = {"principal": principal, "model": model, "budget": budget}
            counted = update(budget_reset).filter_by(**key).values(count=budget_reset.c.count + 1)
            if not connection.execute(counted).rowcount:
                connection.execute(insert(budget_reset).values(**key, count=1))

    @staticmethod
    def _forget_windows(connection: Connection, principal: str, model: str, budget: str) -> None:
        window, corpus = budget_window.c, select(budget_corpus.c.corpus).where(budget_corpus.c.model == model)
        mine = (window.principal == principal) & (window.budget == budget)
        connection.execute(delete(budget_window).where(mine & ((window.corpus == model) | window.corpus.in_(corpus))))
        if budget == DRAWN:  # else the next start would bring them back
            old = budget_drawn.c
            connection.execute(delete(budget_drawn).where((old.principal == principal) & (old.model == model)))

    def restore(
        self, connection: Connection, used: Mapping[tuple[str, str, str, int], int], since_ms: int, *, ever: bool
    ) -> int:
        """Make the rows say what the log says, and return how many of them did not.

        Args:
            connection: The caller's transaction.
            used: By principal, model, row and beginning of the window.
            since_ms: Windows that begin earlier are left alone.
            ever: Whether ``used`` was counted over the whole log, so that windows that never end are restored, too.
        """
        began = budget_use.c.window_ms
        known = {
            (row.principal, row.model, row.budget, row.window_ms): row.used
            for row in connection.execute(
                select(budget_use).where((began >= since_ms) | (began == 0) if ever else began >= since_ms)
            )
        }
        wanted = {
            key: amount for key, amount in used.items() if amount and (key[3] >= since_ms or (ever and not key[3]))
        }
        changed = {key for key in known.keys() | wanted.keys() if known.get(key, 0) != wanted.get(key, 0)}
        for key in changed:
            principal, model, name, start = key
            connection.execute(delete(budget_use).where(_row(*key)))
            if key in wanted:
                values = {"principal": principal, "model": model, "budget": name, "window_ms": start}
                connection.execute(insert(budget_use).values(**values, used=wanted[key]))
        return len(changed)

    def uses(self, principal: str) -> tuple[Use, ...]:
        """Return what a principal has used in the windows of time that are kept."""
        with self.tables.read() as connection:
            found = connection.execute(select(budget_use).where(budget_use.c.principal == principal)).all()
            window = budget_window.c
            windows = connection.execute(
                select(window.corpus, window.budget, func.count())
                .where(window.principal == principal)
                .group_by(window.corpus, window.budget)
            ).all()
        timed = [Use(row.model, row.budget, row.window_ms, row.used) for row in found]
        return tuple(sorted([*timed, *(Use(corpus, kind, 0, count) for corpus, kind, count in windows)], key=repr))


def default_protected_windows(keys: int) -> int:
    """Return the default cap on distinct windows drawn: ``max(8, min(256, ⌈keys / 10,000⌉))``."""
    return max(8, min(256, -(-keys // 10_000)))


class _Known(NamedTuple):
    """What the tables say of one principal and model, read at once: every request needs all of it.

    Attributes:
        used: By row and beginning of the window.
        windows: How many windows of training text it drew, and had cut.
        resets: How often each budget was reset.
        lowered: Requests a minute and tokens a day, as an act of containment lowered them.
    """

    used: dict[tuple[str, int], int]
    windows: dict[str, int]
    resets: frozenset[tuple[str, int]]
    lowered: tuple[int, int] | None

    @classmethod
    def read(cls, connection: Connection, charge: Charge) -> "_Known":
        used: dict[tuple[str, int], int] = {}
        windows: dict[str, int] = {}
        resets, lowered = set[tuple[str, int]](), None
        who = (charge.principal, charge.model)
        for kind, budget, first, second in run(connection, _KNOWN, (*who * 3, charge.principal, charge.corpus)):
            match kind:
                case "used":
                    used[budget, first] = second
                case "reset":
                    resets.add((budget, second))
                case "lowered":
                    lowered = (first, second)
                case "window":
                    windows[budget] = second
        return cls(used, windows, frozenset(resets), lowered)

    def lower(self, limits: Limits) -> Limits:
        """Return the limits as an act of containment lowered them; it never raises one."""
        if self.lowered is None:
            return limits
        return replace(
            limits,
            requests_per_minute=_lower(limits.requests_per_minute, self.lowered[0]),
            tokens_per_day=_lower(limits.tokens_per_day, self.lowered[1]),
        )


def _lower(limit: int | None, lowered: int) -> int:
    return lowered if limit is None else min(limit, lowered)


def _add(connection: Connection, charge: Charge, known: _Known, charged: list[tuple[str, int, int]]) -> None:
    """Charge amounts by row and beginning of the window, and forget the windows that ended long ago."""
    if not charged:
        return
    who = (charge.principal, charge.model)
    values = [part for row in charged for part in (*who, *row)]
    run(connection, _CHARGE.format(", ".join(["(?, ?, ?, ?, ?)"] * len(charged))), values)
    for name, start, _ in charged:
        # The window before stays: another host's clock may be in it still, and its requests may not be settled.
        oldest = start - WINDOWS[name.partition("/")[2]]
        if (name, start) not in known.used and any(row == name and began < oldest for row, began in known.used):
            run(connection, _FORGET, (*who, name, oldest))


def rows(amounts: Amounts, at_ms: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, beginning of the window and amount for every row that amounts at one time belong to."""
    for budget, amount in amounts.by_budget().items():
        for window in WINDOWS:
            yield f"{budget}/{window}", _start(window, at_ms), amount


def _start(window: str, at_ms: int) -> int:
    size = WINDOWS[window]
    return at_ms - at_ms % size if size else 0


def _row(principal: str, model: str, name: str, start: int) -> ColumnElement[bool]:
    table = budget_use.c
    return (table.principal == principal) & (table.model == model) & (table.budget == name) & (table.window_ms == start)
