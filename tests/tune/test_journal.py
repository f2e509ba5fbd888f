"""The budget journal: its chain, its lock, torn tails, rollbacks, and kills."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.crypto import canonical_json
from stanch.errors import InvalidInput, StoreError, Tampered
from stanch.tune.journal import BudgetJournal, JournalHead, JournalLine, read_journal
from stanch.tune.plan import ParameterShape, PrivacyParams, PrivacyPlan
from stanch.tune.refusals import BudgetBusy, BudgetExhausted, BudgetRolledBack
from stanch.tune.units import Unit, UnitTable

GOLDEN = json.loads((Path(__file__).parents[1] / "vectors/tune/journal.json").read_text())
CLOCK = lambda: datetime(2026, 1, 1, tzinfo=UTC)  # noqa: E731 - a clock


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    units = UnitTable("record", "each record", "00", tuple(Unit(f"{n:03}", (f"{n}",)) for n in range(60)))
    return PrivacyPlan.make(units, [ParameterShape("a", (2,))], PrivacyParams(epsilon=1.0, steps=4, expected_batch=8))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "budget.jsonl"


@pytest.fixture
def whole(path, plan) -> bytes:
    """A journal with an opening, three charges and a close."""
    with BudgetJournal.create(path, plan, clock=CLOCK) as journal:
        for step in range(3):
            journal.charge(step)
        journal.close(3)
    return path.read_bytes()


def test_the_line_and_its_head_are_the_published_ones():
    line = JournalLine(**json.loads(GOLDEN["line"]))
    assert line.to_bytes().decode() == GOLDEN["line"]
    assert line.hash == GOLDEN["head"]


def test_charges_count_up_and_stop_at_the_plan(path, plan):
    with BudgetJournal.create(path, plan) as journal:
        assert [journal.charge(step) for step in range(4)] == [1, 2, 3, 4]
        with pytest.raises(BudgetExhausted):
            journal.charge(4)
        assert journal.charged == 4
    assert read_journal(path.read_bytes(), plan).head == journal.head


def test_a_charge_is_on_disk_when_it_returns(path, plan, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(path.read_bytes()), fsync(handle)))
    with BudgetJournal.create(path, plan) as journal:
        journal.charge(0)
    assert b'"charged":1' in synced[-1]
    assert synced[-1] == path.read_bytes()


def test_a_charge_that_cannot_be_written_is_no_charge(path, plan, monkeypatch):
    with BudgetJournal.create(path, plan) as journal:

        def full(_handle):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="durable"):
            journal.charge(0)
        assert journal.charged == 0


@pytest.mark.parametrize("case", GOLDEN["broken"], ids=lambda case: case["name"])
def test_a_broken_journal_is_refused(whole, plan, case):
    lines = whole.splitlines()
    if "drop" in case:
        del lines[case["drop"]]
    elif "repeat" in case:
        lines.insert(case["repeat"], lines[case["repeat"]])
    else:
        value = json.loads(lines[case["line"]]) | case["set"]
        lines[case["line"]] = canonical_json(value)
    with pytest.raises(Tampered, match=r"budget\.jsonl"):
        read_journal(b"\n".join(lines) + b"\n", plan)


@settings(max_examples=60)
@given(st.data())
def test_any_changed_byte_is_seen(plan, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("j") / "budget.jsonl"
    with BudgetJournal.create(path, plan, clock=CLOCK) as journal:
        journal.charge(0)
        journal.close(1)
    whole, head = path.read_bytes(), journal.head
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    try:
        reading = read_journal(changed, plan)
    except Tampered:
        return
    assert reading.head != head or reading.torn


@pytest.mark.parametrize("data", [b"", b"\n", b"{}\n", b"[1]\n", b"\xff\n", b"x" * 3000 + b"\n"])
def test_no_journal(plan, data):
    with pytest.raises(Tampered):
        read_journal(data, plan)


def test_a_second_writer_is_refused(path, plan):
    with BudgetJournal.create(path, plan), pytest.raises(BudgetBusy):
        BudgetJournal.open(path, plan)
    with BudgetJournal.open(path, plan) as journal:
        assert journal.charged == 0


def test_a_journal_is_not_started_twice(path, plan, whole):
    with pytest.raises(InvalidInput, match="exists"):
        BudgetJournal.create(path, plan)
    assert path.read_bytes() == whole


def test_a_missing_journal_is_a_rollback(path, plan):
    with pytest.raises(BudgetRolledBack, match="missing"):
        BudgetJournal.open(path, plan)


def test_another_plan_is_refused(path, plan, whole):
    assert whole
    from dataclasses import replace  # noqa: PLC0415 - used here alone

    with pytest.raises(Tampered):
        BudgetJournal.open(path, replace(plan, epsilon=1.5))


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_torn_tail_counts_as_a_charge_and_is_kept(path, plan, cut):
    with BudgetJournal.create(path, plan) as journal:
        journal.charge(0)
        journal.charge(1)
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    torn = data[:-cut].rpartition(b"\n")[2]
    with BudgetJournal.open(path, plan) as journal:
        assert journal.charged == 2
    events = [line.event for line in read_journal(path.read_bytes(), plan).lines]
    assert events == ["open", "charge", "torn", "resume"]
    assert path.with_name("budget.torn").read_bytes() == torn + b"\n"


def test_heads_are_announced_and_anchor_the_journal(path, plan):
    heads: list[JournalHead] = []
    with BudgetJournal.create(path, plan, on_head=heads.append) as journal:
        first = path.read_bytes()
        journal.charge(0)
        journal.announce()
        journal.close(1)
    assert [head.charged for head in heads] == [0, 1, 1]
    for head in heads:
        with BudgetJournal.open(path, plan, anchor=head) as journal:
            journal.require(head, checkpoint="c")
            for other in (None, JournalHead(head.lines, head.hash, head.charged + 1), JournalHead(99, head.hash, 1)):
                with pytest.raises(BudgetRolledBack, match="c: the journal does not hold"):
                    journal.require(other, checkpoint="c")
    path.write_bytes(first)
    with BudgetJournal.open(path, plan, anchor=heads[0]):
        pass
    path.write_bytes(first)
    with pytest.raises(BudgetRolledBack):
        BudgetJournal.open(path, plan, anchor=heads[1])
    with pytest.raises(BudgetRolledBack):
        BudgetJournal.open(path, plan, anchor=JournalHead(1, "00" * 32, 0))


def test_times_are_utc_and_processes_differ(path, plan):
    with BudgetJournal.create(path, plan, clock=CLOCK):
        pass
    with BudgetJournal.open(path, plan, clock=CLOCK):
        pass
    first, second = read_journal(path.read_bytes(), plan).lines
    assert first.at == second.at == "2026-01-01T00:00:00Z"
    assert first.process != second.process


KILLED = """
import sys
from pathlib import Path
from stanch.tune.journal import BudgetJournal
from stanch.tune.plan import PrivacyPlan
folder = Path(sys.argv[1])
plan = PrivacyPlan.from_json((folder / "plan.json").read_bytes())
with BudgetJournal.open(folder / "budget.jsonl", plan) as journal:
    print("ready", flush=True)
    while True:
        step = journal.charged
        journal.charge(step)
        with (folder / "applied").open("a") as file:
            file.write("x")
"""


def test_killed_at_any_moment_never_forgets_a_charge(tmp_path, plan):
    """Eight kills: every applied step is charged, a kill costs at most one step, and the chain holds."""
    from dataclasses import replace  # noqa: PLC0415 - used here alone

    plan = replace(plan, steps=10**6)
    (tmp_path / "plan.json").write_bytes(plan.to_json())
    path = tmp_path / "budget.jsonl"
    BudgetJournal.create(path, plan).release()
    charged = 0
    for kill in range(8):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.004 * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        reading = read_journal(path.read_bytes(), plan)
        applied = len((tmp_path / "applied").read_bytes()) if (tmp_path / "applied").exists() else 0
        assert reading.head.charged >= charged
        assert 0 <= reading.head.charged + bool(reading.torn) - applied <= kill + 1
        charged = reading.head.charged
    assert charged > 0


def test_how_long_a_step_took_is_not_kept(path, plan):
    minutes = iter(range(60))

    def clock():
        return datetime(2026, 1, 1, 0, next(minutes), tzinfo=UTC)

    with BudgetJournal.create(path, plan, clock=clock) as journal:
        journal.charge(0)
        journal.charge(1)
    with BudgetJournal.open(path, plan, clock=clock) as journal:
        journal.charge(2)
        journal.close(3)
    lines = read_journal(path.read_bytes(), plan).lines
    assert [(line.event, line.at[14:16]) for line in lines] == [
        ("open", "00"), ("charge", "00"), ("charge", "00"), ("resume", "01"), ("charge", "01"), ("close", "02"),
    ]  # fmt: skip


@pytest.mark.parametrize("tail", [b"{", b'{"at":"2026', b"\x00\xff", b"x" * 3000])
def test_whatever_a_crash_leaves_behind_the_last_line_is_charged_and_kept(path, plan, tail):
    with BudgetJournal.create(path, plan) as journal:
        journal.charge(0)
    with path.open("ab") as file:
        file.write(tail)
    for again in (2, 2):
        with BudgetJournal.open(path, plan) as journal:
            assert journal.charged == again
    assert path.with_name("budget.torn").read_bytes() == tail + b"\n"
    assert [line.event for line in read_journal(path.read_bytes(), plan).lines] == [
        "open", "charge", "torn", "resume", "resume",
    ]  # fmt: skip


def test_torn_lines_exhaust_the_budget_too(path, plan):
    with BudgetJournal.create(path, plan) as journal:
        for step in range(3):
            journal.charge(step)
    for charged in (4, 5):
        with path.open("ab") as file:
            file.write(b"{")
        with BudgetJournal.open(path, plan) as journal:
            assert journal.charged == charged
            with pytest.raises(BudgetExhausted):
                journal.charge(3)
