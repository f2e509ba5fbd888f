"""The verbs of a case: each is refused to nobody, recorded, and does nothing when the log takes no entries."""

import json
import time
from datetime import timedelta

import life
import pytest

from stanch.errors import InvalidInput, LedgerUnavailable, NotPermitted
from stanch.ledger import Ledger, decode_entry
from stanch.trace import ErrorBudgetExhausted, Inconclusive, Period, Reason, beacons
from stanch.trace.custody import utc
from stanch.workspace import case_log, verbs_trace
from stanch.workspace.release_state import FACTS, PROOF, ReleaseState
from stanch.workspace.verbs_release import release_folder
from stanch.workspace.verbs_trace import Suspect


def suspect(workspace, path, case_id="c-1"):
    return Suspect(
        path=path, case=case_id, description="found", received_from="a host", discovered=workspace.now()
    )  # fmt: skip


def test_a_case_is_a_row_of_recorded_acts_and_names_the_copy(case, stolen, tmp_path):
    with case.acting("ines") as workspace:
        start = workspace.ledger.reader().size()
        traced = verbs_trace.trace_suspect(workspace, suspect(workspace, stolen), "r1")
        assert [who.recipient for who in traced.decision.recipients] == ["acme"]
        verbs_trace.pack_evidence(workspace, traced, tmp_path / "evidence.zip")
        kinds = [entry[:2] for entry in life.entries(workspace, start)]
        assert kinds == [
            (phase, kind)
            for kind in ("trace.open", "trace.plan", "trace.examine", "trace.pack")
            for phase in ("intent", "outcome")
        ]
        assert verbs_trace.load_case(workspace, "c-1").decision == traced.decision
        assert traced.case.custody().lines[-1].action == "exported"


def test_a_key_that_a_pack_opened_accuses_nobody_in_a_later_case(case, stolen, tmp_path):
    with case.acting("ines") as workspace:
        first = verbs_trace.trace_suspect(workspace, suspect(workspace, stolen), "r1")
        verbs_trace.pack_evidence(workspace, first, tmp_path / "evidence.zip")
        leaf = first.decision.recipients[0].leaf
        opened = verbs_trace.key_history(workspace, "r1").disclosed[leaf]
        while workspace.now() < opened + timedelta(seconds=1):
            time.sleep(0.05)
        second = verbs_trace.trace_suspect(workspace, suspect(workspace, stolen, "c-2"), "r1")
        assert isinstance(second.decision, Inconclusive)
        assert second.decision.reason is Reason.KEY_DISCLOSED
        assert verbs_trace.load_case(workspace, "c-1").decision == first.decision
        period = Period(opened - timedelta(days=1), opened + timedelta(days=1))
        counted = verbs_trace.count_period(workspace, period).entries
        assert [len(counted[name]) for name in ("case.accused", "case.inconclusive", "case.packed")] == [1, 1, 1]


def test_the_plan_is_in_the_log_before_any_score_and_spends_the_budget(case, stolen):
    with case.acting("ines") as workspace:
        first = verbs_trace.trace_suspect(workspace, suspect(workspace, stolen), "r1")
        second = verbs_trace.trace_suspect(workspace, suspect(workspace, stolen, "c-2"), "r1")
        assert first.examination.plan.entry.index < second.examination.plan.entry.index
        assert case_log.spent(workspace.ledger.reader()) == ("1e-9", "1e-9")


def test_of_two_plans_at_once_the_logs_order_decides_what_the_budget_allows(case, stolen, monkeypatch):
    with case.acting("ines") as workspace:
        record = verbs_trace.release_record(workspace, ReleaseState.load(release_folder(workspace, "r1")))
        cases = [verbs_trace.take_suspect(workspace, suspect(workspace, stolen, name)) for name in ("c-1", "c-2")]
        monkeypatch.setattr(verbs_trace, "PER_CASE", "6e-7")
        fix = verbs_trace.fix_plan

        def overtaken(*arguments, **options):
            plan = fix(*arguments, **options)
            monkeypatch.setattr(verbs_trace, "fix_plan", fix)
            verbs_trace.plan_case(workspace, cases[1], record)
            return plan

        monkeypatch.setattr(verbs_trace, "fix_plan", overtaken)
        with pytest.raises(ErrorBudgetExhausted):
            verbs_trace.plan_case(workspace, cases[0], record)
        assert case_log.spent(workspace.ledger.reader()) == ("6e-7",)
        assert not (cases[0].folder / "plan.json").exists()


def test_a_pack_that_failed_opened_nothing_and_the_next_opens_few_decoys(case, stolen, tmp_path, monkeypatch):
    with case.acting("ines") as workspace:
        traced = verbs_trace.trace_suspect(workspace, suspect(workspace, stolen), "r1")
        plan = traced.examination.plan.plan
        state = ReleaseState.load(release_folder(workspace, "r1"))
        proposed = decode_entry(workspace.ledger.reader().entry(state.facts.entry))["unmapped"]["stanch"]["payload"]
        assert proposed["base"] == plan.release.base == state.facts.base_digest

        def fail(*_arguments, **_options):
            raise InvalidInput("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(verbs_trace, "pack", fail)
            with pytest.raises(InvalidInput):
                verbs_trace.pack_evidence(workspace, traced, tmp_path / "evidence.zip")
        assert not verbs_trace.key_history(workspace, "r1").disclosed
        verbs_trace.pack_evidence(workspace, traced, tmp_path / "evidence.zip")
        disclosed = verbs_trace.key_history(workspace, "r1").disclosed
        assert len(disclosed) == 1 + 64
        record = verbs_trace.release_record(workspace, state)
        later = utc(workspace.now() + timedelta(seconds=2))
        assert len(record.closed_decoys(later)) == len(record.decoys) - 64
        assert record.closed_decoys(traced.case.custody().acquired) == record.decoys


def test_a_release_of_format_1_keeps_the_beacon_that_its_copies_are_marked_with(case):
    with case.acting("ines") as workspace:
        folder = release_folder(workspace, "r1")
        text, note = beacons((folder / PROOF).read_bytes())
        assert ReleaseState.load(folder).beacon() == text != note
        facts = json.loads((folder / FACTS).read_text()) | {"schema": "stanch/release/v1"}
        del facts["base_digest"]
        kept = (folder / FACTS).read_bytes()
        try:
            (folder / FACTS).write_text(json.dumps(facts))
            assert ReleaseState.load(folder).beacon() == note
        finally:
            (folder / FACTS).write_bytes(kept)


def test_nobody_without_the_role_opens_a_case(case, stolen):
    with case.acting("nina") as workspace:
        start = workspace.ledger.reader().size()
        with pytest.raises(NotPermitted):
            verbs_trace.trace_suspect(workspace, suspect(workspace, stolen), "r1")
        assert [entry[:2] for entry in life.entries(workspace, start)] == [("denied", "trace.open")]
        assert not (workspace.state / "cases").exists()


def test_no_record_no_case(case, stolen, monkeypatch):
    def refuse(*_arguments, **_options):
        raise LedgerUnavailable("the log takes no entries")

    with case.acting("ines") as workspace:
        monkeypatch.setattr(Ledger, "append_nowait", refuse)
        with pytest.raises(LedgerUnavailable):
            verbs_trace.trace_suspect(workspace, suspect(workspace, stolen), "r1")
        assert not (workspace.state / "cases").exists()
