"""What the log says was used: intents, outcomes and resets, counted in the order in which they became durable.

An intent costs its whole reservation until an outcome says what was used; one that never got such an outcome, because
its process died, keeps that price.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from stanch.gateway.budgets import DAY_MS, Amounts, Budgets, Limits, rows
from stanch.ledger import EntryQuery, LedgerReader, decode_entry

_MARKS = (b'"gateway.infer"', b'"gateway.embed"', b'"gateway.reset"')


class Book:
    """Counts entries of one log. Feed every entry once, in order.

    Attributes:
        used: By principal, model, row and beginning of the window.
    """

    def __init__(self) -> None:
        self.used: Counter[tuple[str, str, str, int]] = Counter()
        self._open: dict[str, tuple[str, str, Amounts, int]] = {}

    def read(self, data: bytes) -> None:
        """Count one entry; those of other kinds change nothing."""
        if not any(mark in data for mark in _MARKS):
            return
        entry = decode_entry(data)
        ours: dict[str, Any] = entry["unmapped"]["stanch"]
        payload: dict[str, Any] = ours.get("payload", {})
        match ours["kind"], ours["phase"]:
            case "gateway.infer" | "gateway.embed", "intent" if "reserved" in payload:
                reserved = Amounts.recorded(payload["reserved"])
                who, model = entry["actor"]["user"]["uid"], ours["subject"][0]["digest"]
                self._open[entry["metadata"]["correlation_uid"]] = (who, model, reserved, payload["charged_ms"])
                self._add(who, model, reserved, payload["charged_ms"])
            case "gateway.infer" | "gateway.embed", "outcome":
                self._settle(entry["metadata"]["correlation_uid"], payload)
            case "gateway.reset", "outcome" if ours.get("result") == "done":
                self._reset(payload)

    def _add(self, who: str, model: str, amounts: Amounts, at_ms: int, sign: int = 1) -> None:
        for row, start, amount in rows(amounts, at_ms):
            self.used[who, model, row, start] += sign * amount

    def _settle(self, act: str, payload: Mapping[str, Any]) -> None:
        if act in self._open and "used" in payload:
            who, model, reserved, at_ms = self._open.pop(act)
            self._add(who, model, reserved, at_ms, -1)
            kept = {name: amount for name, amount in payload["used"].items() if getattr(reserved, name)}
            self._add(who, model, Amounts.recorded(kept), at_ms)

    def _reset(self, payload: Mapping[str, Any]) -> None:
        who, models, budget = payload["principal"], payload["models"], payload["budget"]
        for key in self.used:
            if key[0] == who and key[1] in models and key[2].startswith(f"{budget}/"):
                self.used[key] = 0
        for act, (principal, model, reserved, at_ms) in self._open.items():
            if principal == who and model in models and hasattr(reserved, budget):
                left = {name: amount for name, amount in reserved.record().items() if name != budget}
                self._open[act] = (principal, model, Amounts.recorded(left), at_ms)


def rederive(budgets: Budgets, reader: LedgerReader, limits: Mapping[str, Limits]) -> int:
    """Make the budgets of today say what the log says, and return how many rows did not.

    The last entries are read while nobody else can write, so that nothing falls in between.

    Args:
        budgets: What is restored. Windows of days before are settled late at most, and stay.
        reader: The log.
        limits: By digest of the model; what has no limit is not kept.

    Raises:
        StoreError: Log or budgets cannot be read or written.
    """
    today = budgets.now_ms() // DAY_MS * DAY_MS
    ever = any(limit.of(f"{name}/total") for limit in limits.values() for name in Amounts.__slots__)
    at = 0
    if not ever:
        first = next(reader.query(EntryQuery(since_ms=today - DAY_MS, limit=1)), None)
        at = first.index if first is not None else reader.size()
    book = Book()
    for index, data in reader.tail(at):
        book.read(data)
        at = index + 1
    with budgets.tables.write() as connection:
        for _, data in reader.tail(at):
            book.read(data)
        kept = {
            key: amount
            for key, amount in book.used.items()
            if key[1] in limits and limits[key[1]].of(key[2]) is not None
        }
        return budgets.restore(connection, kept, today, ever=ever)
