from datetime import timedelta

import pytest
from trace_world import NOW, PRINCIPAL, Log

from stanch.errors import InvalidInput
from stanch.ledger import Act, denied, intent, noted, outcome
from stanch.trace import Period, render_transparency, report_transparency
from stanch.trace.blocked import BlockedAnswers
from stanch.trace.transparency import _ranges

YEAR = (
    ("release.propose", "done", {"batch_root": "00"}), ("release.create", "done", {}), ("release.create", "done", {}),
    ("release.create", "failed", {}), ("audit.gate", "done", {}), ("audit.gate", "failed", {}),
    ("trace.open", "done", {}), ("trace.plan", "done", {}), ("trace.examine", "done", {"verdict": "accused"}),
    ("trace.pack", "done", {}), ("trace.plan", "done", {}), ("trace.examine", "done", {"verdict": "nothing"}),
    ("data.scan", "done", {}), ("watch.incident.open", "done", {}),
    ("watch.incident.update", "done", {"change": "task"}), ("watch.incident.update", "done", {"change": "notify"}),
    ("model.quarantine", "done", {}), ("log.hold", "done", {}),
)  # fmt: skip


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    """A year with one entry a second: intents, outcomes, one refusal; the entries' numbers are the seconds."""
    log, number = Log.create(tmp_path_factory.mktemp("year") / "log"), 0

    def add(make, kind, **fields):
        nonlocal number
        act = Act(kind=kind, id=f"01900000-0000-7000-8000-{number:012x}", principal=PRINCIPAL)
        log.ledger.append(make(act, time_ms=int(NOW.timestamp() + number) * 1000, **fields))
        number += 1

    for kind, result, payload in YEAR:
        add(intent, kind, payload={"epsilon": "1e-9"} if kind == "trace.plan" else {})
        add(outcome, kind, result=result, payload=payload)
    add(denied, "release.create")
    add(noted, "log.read")
    log.ledger.publish()
    return log.ledger.reader()


def counts(report):
    return {item["id"]: item["count"] for item in report["statements"] if item["count"]}


def test_the_report_equals_a_count_by_hand(scripted):
    report = report_transparency(scripted, Period(NOW, NOW + timedelta(days=1))).to_json()
    assert counts(report) == {
        "release.proposed": 1, "release.made": 2, "act.failed": 1, "gate.passed": 1, "gate.refused": 1,
        "case.opened": 1, "case.accused": 1, "case.nothing": 1, "case.packed": 1, "access.denied": 1,
        "incident.opened": 1, "incident.notified": 1, "model.quarantined": 1, "hold.laid": 1,
    }  # fmt: skip
    made = next(item for item in report["statements"] if item["id"] == "release.made")
    assert made["entries"] == [3, 5]
    assert report["error_budget"]["spent"] == report["error_budget"]["spent_in_period"] == "2 × 1e-9"
    assert report["error_budget"]["left"] == "9.98e-07"
    assert report["checkpoint"]["size"] == 38
    assert PRINCIPAL not in str(report)


def test_a_period_is_half_open_and_the_budget_counts_all_before_its_end(scripted):
    report = report_transparency(scripted, Period(NOW + timedelta(seconds=5), NOW + timedelta(seconds=21))).to_json()
    assert counts(report) == {
        "release.made": 1, "act.failed": 1, "gate.passed": 1, "gate.refused": 1, "case.opened": 1, "case.accused": 1,
        "case.packed": 1,
    }  # fmt: skip
    later = report_transparency(scripted, Period(NOW + timedelta(hours=1), NOW + timedelta(hours=2))).to_json()
    assert counts(later) == {}
    assert (later["error_budget"]["spent"], later["error_budget"]["spent_in_period"]) == ("2 × 1e-9", "0")


def answer(log, number, verdict, findings, *, days=0):
    act = Act(kind="gateway.infer", id=f"01900000-0000-7000-8000-{number:012x}", principal=PRINCIPAL)
    payload = {"verdict": verdict, "findings": findings, "request": '"verdict":"block"'}
    time_ms = int((NOW + timedelta(days=days)).timestamp()) * 1000 + number
    log.ledger.append(outcome(act, time_ms=time_ms, result="done", payload=payload))


def test_blocked_answers_are_counted_by_month_and_kind(tmp_path):
    log, blocked, period = Log.create(tmp_path / "log"), BlockedAnswers(), Period(NOW, NOW + timedelta(days=60))

    def found(read):
        report = report_transparency(log.ledger.reader(), period, read).to_json()
        return {(one["month"], one["kind"]): one["entries"] for one in report["blocked"]}

    answer(log, 0, "block", {"canary": 2})
    answer(log, 1, "redact", {"email": 1})
    answer(log, 2, "allow", {})
    answer(log, 3, "block", {"canary": 1, "email": 3})
    log.ledger.publish()
    first = {(f"{NOW:%Y-%m}", "canary"): [0, 3], (f"{NOW:%Y-%m}", "email"): [3]}
    assert found(blocked) == first
    answer(log, 4, "block", {}, days=40)
    answer(log, 5, "block", {"canary": 1}, days=70)  # after the period
    assert found(blocked) == first  # no checkpoint says of the new ones
    log.ledger.publish()
    later = first | {(f"{NOW + timedelta(days=40):%Y-%m}", "other"): [4]}
    assert found(blocked) == found(None) == later
    report = report_transparency(log.ledger.reader(), period).to_json()
    assert "<td>canary</td>" in render_transparency(report)
    assert {
        one["count"] for one in report_transparency(log.ledger.reader(), period).to_json(banded=True)["blocked"]
    } == {"1 to 4"}


def test_small_counts_are_banded_without_their_entries(scripted):
    report = report_transparency(scripted, Period(NOW, NOW + timedelta(days=1))).to_json(banded=True)
    assert set(counts(report).values()) == {"1 to 4"}
    assert all(item["entries"] == [] for item in report["statements"])


def test_the_page_is_whole_and_always_the_same(scripted):
    report = report_transparency(scripted, Period(NOW, NOW + timedelta(days=1))).to_json()
    page = render_transparency(report)
    assert page == render_transparency(report)
    assert "<script" not in page
    assert report["checkpoint"]["root"] in page
    assert "copies were marked" in page


def test_a_period_that_ends_before_it_begins_is_refused():
    with pytest.raises(InvalidInput, match="ends before"):
        Period(NOW, NOW)


@pytest.mark.parametrize(
    ("numbers", "text"), [((), "–"), ((3,), "3"), ((3, 4, 5), "3–5"), ((0, 1, 3, 7, 8), "0–1, 3, 7–8")]
)
def test_ranges(numbers, text):
    assert _ranges(numbers) == text
