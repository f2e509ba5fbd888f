"""Budgets that were found used up: who asks on is refused at once, and recorded once a minute with a count."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from stanch.access import Session
from stanch.errors import StanchError
from stanch.gateway.budgets import CUT, DRAWN, MINUTE_MS, WINDOWS, Amounts, Charge
from stanch.ledger import Act, denied, new_act_id
from stanch.ledger import Credential as RecordedCredential
from stanch.terms import ArtifactRef, JsonValue
from stanch.workspace import Workspace


class _Refused(NamedTuple):
    """What the refusals that are counted together have in common."""

    kind: str
    principal: str
    credential: tuple[str, str]
    model: ArtifactRef
    row: str


class Exhausted:
    """Remembers for a minute at most which budgets refused how much; an entry may have reset one meanwhile.

    Without it each refusal would be read, judged and written down, and a loop of one client would fill the log.
    """

    def __init__(self, workspace: Workspace, *, now_ms: Callable[[], int]) -> None:
        self._workspace = workspace
        self._now_ms = now_ms
        self._known: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
        self._counts: Counter[_Refused] = Counter()
        self._lock = threading.Lock()

    def find(self, charge: Charge) -> str:
        """Return the row of a budget that refused as much just now, such as ``tokens/day``; empty if none did."""
        key, now = (charge.principal, charge.model), self._now_ms()
        if key not in self._known:
            return ""
        with self._lock:
            left = {row: one for row, one in self._known.pop(key, {}).items() if now < one[1]}
            if left:
                self._known[key] = left
        return next((row for row, (amount, _) in left.items() if _amount(charge.amounts, row) >= amount), "")

    def note(self, charge: Charge, row: str) -> None:
        """Remember that a budget refused a charge."""
        window = WINDOWS.get(row.partition("/")[2], 0)
        minute = self._now_ms() + MINUTE_MS
        until = min(minute, charge.at_ms - charge.at_ms % window + window) if window else minute
        with self._lock:
            self._known.setdefault((charge.principal, charge.model), {})[row] = (_amount(charge.amounts, row), until)

    def forget(self, charge: Charge, used: Amounts) -> None:
        """Forget the budgets to which a request has given something back."""
        kept, reserved = used.by_budget(), charge.amounts.by_budget()
        with self._lock:
            known = self._known.get((charge.principal, charge.model), {})
            for row in [row for row in known if kept.get(budget := row.partition("/")[0], 0) < reserved.get(budget, 0)]:
                del known[row]

    def count(self, kind: str, session: Session, model: ArtifactRef, row: str) -> None:
        """Count a request that was refused by what is remembered."""
        with self._lock:
            self._counts[_Refused(kind, session.principal, (session.kind, session.key_id), model, row)] += 1

    def flush(self) -> None:
        """Record what was counted: one refusal for each principal, credential, model and budget.

        Raises:
            LedgerUnavailable: The log cannot be written; what was not recorded is kept.
        """
        with self._lock:
            counts, self._counts = self._counts, Counter()
        try:
            while counts:
                one, count = next(iter(counts.items()))
                self._record(one, count)
                del counts[one]
        except StanchError:
            with self._lock:
                self._counts.update(counts)
            raise

    def _record(self, one: _Refused, count: int) -> None:
        now_ms = self._now_ms()
        act = Act(
            kind=one.kind, id=new_act_id(now_ms), principal=one.principal, subject=(one.model,),
            profile="team" if self._workspace.door.profile == "team" else "solo",
            credential=RecordedCredential(kind=one.credential[0], key_id=one.credential[1]),
        )  # fmt: skip
        payload: dict[str, JsonValue] = {"error": "budget-exhausted", "budget": one.row, "refused": count}
        self._workspace.ledger.append(denied(act, time_ms=now_ms, payload=payload))


def _amount(amounts: Amounts, row: str) -> int:
    """Return how much of a budget is asked for; what left of training text is asked for by nobody."""
    return 0 if row in {DRAWN, CUT} else amounts.by_budget()[row.partition("/")[0]]
