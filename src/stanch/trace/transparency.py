"""The transparency report: what the log holds of a period, in counts, without a name.

Every statement is counted from entries of the log and carries their numbers, so that whoever may read the log can look
them up. Nothing else enters the report.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from typing import Any

from stanch.audit.page import grid, page
from stanch.errors import InvalidInput
from stanch.ledger import EntryQuery, LedgerReader, decode_entry
from stanch.ledger.index import EntryState
from stanch.terms import JsonValue
from stanch.trace.blocked import Blocked, BlockedAnswers
from stanch.trace.budget import LIFETIME, ErrorBudget
from stanch.trace.custody import utc

SCHEMA = "urn:stanch:transparency:v1"
BAND = 5
"""Counts from 1 to one less are shown as a band where that is asked for: they could point at somebody."""

STATEMENTS = {
    "model.audits": "audits of models for leaks were run",
    "gate.passed": "checks at the gate were passed",
    "gate.refused": "checks at the gate ended without a pass",
    "release.proposed": "releases were proposed, each with a commitment to its recipients' keys",
    "release.made": "copies were marked, sealed and signed",
    "release.delivered": "deliveries to recipients were made",
    "release.received": "recipients signed for the copies that they got",
    "release.revoked": "releases to recipients were revoked",
    "case.opened": "suspects were taken into custody",
    "case.accused": "examinations ended with an accusation",
    "case.nothing": "examinations found nothing",
    "case.inconclusive": "examinations were inconclusive",
    "case.packed": "evidence packs were written; each opens the keys of those accused",
    "incident.opened": "incidents were opened",
    "incident.notified": "notices of incidents were given, to an authority or to people",
    "model.quarantined": "models were quarantined",
    "hold.laid": "legal holds were laid on artifacts",
    "access.denied": "acts were refused for want of permission",
    "access.emergency": "emergency rights were taken",
    "act.failed": "permitted acts failed",
    "log.erased": "erasures of personal data from the log were made",
}

GATE, EXAMINE, INCIDENT = "audit.gate", "trace.examine", "watch.incident.update"
DONE, FAILED, ABANDONED = 1, 2, 99
_DONE = {
    "audit.run": "model.audits",
    "release.propose": "release.proposed",
    "release.create": "release.made",
    "release.deliver": "release.delivered",
    "release.receive": "release.received",
    "release.revoke": "release.revoked",
    "trace.open": "case.opened",
    "trace.pack": "case.packed",
    "watch.incident.open": "incident.opened",
    "model.quarantine": "model.quarantined",
    "log.hold": "hold.laid",
    "access.break-glass": "access.emergency",
    "log.erase": "log.erased",
}


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open period of time: from ``since`` until just before ``until``."""

    since: datetime
    until: datetime

    def __post_init__(self) -> None:
        if utc(self.since) >= utc(self.until):
            raise InvalidInput("transparency report: the period ends before it begins")


@dataclass(frozen=True, slots=True)
class Transparency:
    """What the log holds of a period.

    Attributes:
        log: The log's name.
        size: Entries under the checkpoint that the report rests on.
        root: Root hash (hex) in that checkpoint.
        period: Which entries were counted.
        entries: Numbers of the entries behind each statement of :data:`STATEMENTS`.
        blocked: Answers that the guard ended, by month and kind.
        epsilon: Error probabilities of false accusation spent by all plans until the period's end, and in it.
    """

    log: str
    size: int
    root: str
    period: Period
    entries: dict[str, tuple[int, ...]]
    blocked: tuple[Blocked, ...]
    epsilon: tuple[ErrorBudget, ErrorBudget]

    def to_json(self, *, banded: bool = False) -> dict[str, JsonValue]:
        """Return the report for machines; where counts are banded, small ones come without their entries."""
        before, within = self.epsilon
        return {
            "schema": SCHEMA,
            "log": self.log,
            "checkpoint": {"size": self.size, "root": self.root},
            "since": utc(self.period.since),
            "until": utc(self.period.until),
            "statements": [
                {"id": name, "text": text, **_count(self.entries[name], banded=banded)}
                for name, text in STATEMENTS.items()
            ],
            "blocked": [
                {"month": one.month, "kind": one.kind, **_count(one.entries, banded=banded)} for one in self.blocked
            ],
            "error_budget": {
                "total": before.total,
                "spent_in_period": _decimal(within),
                "spent": _decimal(before),
                "left": f"{before.left:.6g}",
            },
        }


def report_transparency(
    reader: LedgerReader, period: Period, blocked: BlockedAnswers | None = None, *, budget: str = LIFETIME
) -> Transparency:
    """Count the published entries of a period.

    The log must have been verified before (``stanch log verify``): here its entries are read, not re-hashed.

    Args:
        reader: The log.
        period: Which entries count.
        blocked: What was read of blocked answers for an earlier report.
        budget: The lifetime bound on false accusations.

    Raises:
        InvalidInput: An entry is malformed.
        NotFound: No checkpoint was published.
    """
    checkpoint = reader.checkpoint().checkpoint
    found: dict[str, list[int]] = defaultdict(list)
    told = []
    for state in _counted(reader, period):
        if state.index >= checkpoint.size:
            continue
        if state.kind in {EXAMINE, INCIDENT} and state.phase == "outcome" and state.status == DONE:
            told.append(state.index)
        elif (statement := _statement(state)) is not None:
            found[statement].append(state.index)
    for index, data in reader.entries(told).items():
        payload = decode_entry(data)["unmapped"]["stanch"]["payload"]
        if "verdict" in payload:
            found[f"case.{payload['verdict']}"].append(index)
        elif payload["change"] == "notify":
            found["incident.notified"].append(index)
    spent, within = [], []
    query = EntryQuery(kind="trace.plan", phase="intent", until_ms=_ms(period.until))
    for _, entry in _entries(reader, checkpoint.size, query):
        epsilon = str(entry["unmapped"]["stanch"]["payload"]["epsilon"])
        spent.append(epsilon)
        within += [epsilon] if entry["time"] >= _ms(period.since) else []
    return Transparency(
        log=reader.origin,
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        period=period,
        entries={name: tuple(sorted(found[name])) for name in STATEMENTS},
        blocked=(blocked or BlockedAnswers()).within(reader, _ms(period.since), _ms(period.until), checkpoint.size),
        epsilon=(ErrorBudget(budget, tuple(spent)), ErrorBudget(budget, tuple(within))),
    )


def _counted(reader: LedgerReader, period: Period) -> Iterable[EntryState]:
    """Return every entry of a period that could count, once: what was refused or failed, and outcomes of some kinds.

    All others are passed over by the indexes of the database: most of a log are requests to models that were answered.
    """
    within = EntryQuery(since_ms=_ms(period.since), until_ms=_ms(period.until))
    queries = [replace(within, phase="denied")]
    queries += [replace(within, phase="outcome", status=status) for status in (FAILED, ABANDONED)]
    for query in queries:
        yield from reader.states(query)
    # Not by their state, too: a database could then choose the index of states, and read all that was done.
    for kind in (GATE, EXAMINE, INCIDENT, *_DONE):
        states = reader.states(replace(within, kind=kind))
        yield from (state for state in states if state.phase == "outcome" and state.status == DONE)


def _entries(reader: LedgerReader, size: int, query: EntryQuery) -> Iterable[tuple[int, dict[str, Any]]]:
    indexes = [ref.index for ref in reader.query(query) if ref.index < size]
    for index, data in reader.entries(indexes).items():
        yield index, decode_entry(data)


def _ms(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1000)


def _statement(state: EntryState) -> str | None:
    """Return which statement an entry counts for; each counts for one at most."""
    if state.phase == "denied":
        return "access.denied"
    if state.kind == GATE:
        return "gate.passed" if state.status == DONE else "gate.refused"
    return _DONE.get(state.kind) if state.status == DONE else "act.failed"


def _count(entries: Sequence[int], *, banded: bool) -> dict[str, JsonValue]:
    if banded and 0 < len(entries) < BAND:
        return {"count": f"1 to {BAND - 1}", "entries": []}
    return {"count": len(entries), "entries": list(entries)}


def _decimal(budget: ErrorBudget) -> str:
    """Return what was spent as counts of each probability, exactly: ``12 × 1e-9``; ``0`` for nothing."""
    counts = Counter(budget.spent)
    return " + ".join(f"{count} × {epsilon}" for epsilon, count in sorted(counts.items())) or "0"


def render_transparency(report: dict[str, JsonValue]) -> str:
    """Return the page of a report's JSON (:meth:`Transparency.to_json`). The same report gives the same bytes."""
    told: Any = report
    rows = [(item["count"], item["text"], _ranges(item["entries"])) for item in told["statements"]]
    blocked = [(item["month"], item["kind"], item["count"], _ranges(item["entries"])) for item in told["blocked"]]
    budget = told["error_budget"]
    body = (
        f'<header><h1>Transparency report</h1><p class="mute">{escape(told["since"])} to {escape(told["until"])}, '
        f"log {escape(told['log'])}</p></header>"
        f"<section><h2>What was recorded</h2>{grid(('Count', '', 'Entries'), rows)}</section>"
        f"<section><h2>Answers that were blocked</h2>{grid(('Month', 'Found', 'Count', 'Entries'), blocked)}"
        f"<p>{'An answer in which two kinds were found counts for both.' if blocked else 'None.'}</p></section>"
        "<section><h2>Risk of a false accusation</h2>"
        f"<p>Over the organisation's whole life it is at most {escape(budget['total'])}. Plans of this period spent "
        f"{escape(budget['spent_in_period'])}; all plans until its end spent {escape(budget['spent'])}; "
        f"{escape(budget['left'])} is left.</p></section>"
        "<section><h2>How to check this</h2>"
        f"<p>The counts are of the first {told['checkpoint']['size']} entries of the log, with root hash "
        f"<code>{escape(told['checkpoint']['root'])}</code>. What was never recorded is not counted.</p>"
        "<p><code>stanch log verify</code> recomputes that root from the entries.</p></section>"
    )
    return page("Transparency report", body)


def _ranges(entries: Sequence[int]) -> str:
    """Return numbers with neighbours joined: ``3, 7–9``."""
    starts = [b for a, b in pairwise([-2, *entries]) if a + 1 != b]
    ends = [a for a, b in pairwise([*entries, -2]) if a + 1 != b]
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True)) or "–"
