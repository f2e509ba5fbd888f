"""The log keeps the heads of a run's journal: a journal that was cut or exchanged cannot be resumed."""

import pytest

from stanch.ledger import EntryQuery
from stanch.terms import Digest
from stanch.tune import BudgetJournal, JournalHead, Keeping, PrivacyParams, PrivacyPlan, UnitTable, accountant
from stanch.tune.plan import ParameterShape
from stanch.tune.refusals import BudgetRolledBack
from stanch.tune.units import Unit
from stanch.workspace import Workspace
from stanch.workspace.verbs_tune import keep_heads


@pytest.fixture
def workspace(tmp_path):
    with Workspace.init(tmp_path / "solo") as workspace:
        yield workspace


@pytest.fixture
def plan(monkeypatch):
    # Searching the noise multiplier takes seconds, and is tested elsewhere.
    monkeypatch.setattr(accountant, "calibrate", lambda *_args: 1.0)
    units = UnitTable("record", "each record", "00", tuple(Unit(f"{n:03}", (f"r{n}",)) for n in range(60)))
    return PrivacyPlan.make(units, [ParameterShape("a", (3,))], PrivacyParams(steps=4, expected_batch=8))


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("{}\n")
    return path


def begin(folder, plan, keeping) -> JournalHead:
    """Start a run that charges three steps, announces two of them, and dies."""
    folder.mkdir()
    with BudgetJournal.create(folder / "budget.jsonl", plan, on_head=keeping.on_head) as journal:
        journal.charge(0)
        journal.charge(1)
        journal.announce()
        journal.charge(2)
        return journal.head


def resume(folder, plan, keeping) -> None:
    with BudgetJournal.open(folder / "budget.jsonl", plan, anchor=keeping.anchor, on_head=keeping.on_head) as journal:
        journal.close(3)


def test_a_resumed_run_must_hold_the_last_head_that_the_log_kept(workspace, dataset, plan, tmp_path):
    heads, run = [], tmp_path / "run"
    first = keep_heads(workspace, dataset, run, Keeping(on_head=heads.append))
    assert first.anchor is None
    begin(run, plan, first)
    begin(tmp_path / "other", plan, keep_heads(workspace, dataset, tmp_path / "other"))
    again = keep_heads(workspace, dataset, run, Keeping(on_head=heads.append))
    assert again.anchor == heads[-1]
    assert again.anchor.charged == 2
    resume(run, plan, again)
    assert [head.charged for head in heads] == [0, 2, 3, 3]
    assert keep_heads(workspace, dataset, run).anchor == heads[-1]
    query = EntryQuery(kind="tune.anchor", phase="outcome")
    assert len(list(workspace.ledger.reader().query(query))) == 4 + 2


def test_a_cut_or_exchanged_journal_is_refused(workspace, dataset, plan, tmp_path):
    run, path = tmp_path / "run", tmp_path / "run" / "budget.jsonl"
    begin(run, plan, keep_heads(workspace, dataset, run))
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    with pytest.raises(BudgetRolledBack, match="not the one that was seen"):
        resume(run, plan, keep_heads(workspace, dataset, run))
    path.unlink()
    with BudgetJournal.create(path, plan):
        pass
    with pytest.raises(BudgetRolledBack, match="the log holds no head") as caught:
        keep_heads(workspace, dataset, run)
    assert "--anchor" in caught.value.next_step
    # Who kept a head may name it.
    anchor = JournalHead(1, Digest.sha256(b"").hex, 0)
    assert keep_heads(workspace, dataset, run, Keeping(anchor=anchor)).anchor == anchor
    path.write_bytes(whole)
    resume(run, plan, keep_heads(workspace, dataset, run))
