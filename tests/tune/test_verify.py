"""Verification of a run that nobody ran: plan, journal, statement and files made here; every false word is named.

Whole runs are verified in ``test_tune.py``.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput, StanchError, Tampered, VerificationError
from stanch.tune import PrivacyPlan, RunFacts, VerifyExpectations, describe_run, state_privacy, verify_run
from stanch.tune.accountant import attack_bounds, compose_epsilon
from stanch.tune.journal import BudgetJournal, JournalHead
from stanch.tune.plan import ParameterShape, PrivacyParams
from stanch.tune.refusals import BudgetRolledBack, PlanInfeasible
from stanch.tune.statement import EarlierRun, PrivacyStatement, read_plan
from stanch.tune.units import JOINED, Unit, UnitTable
from stanch.tune.verify import model_files

FILES = ("plan.json", "budget.jsonl", "statement.json", "adapter_model.safetensors")


def table(policy: str = "record") -> UnitTable:
    return UnitTable(policy, "each record", "00", tuple(Unit(f"{n:03}", (f"{n}",)) for n in range(60)))


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return PrivacyPlan.make(table(), [ParameterShape("a", (2,))], PrivacyParams(epsilon=1.0, steps=4, expected_batch=8))


def write_run(folder: Path, plan: PrivacyPlan, *, charges: int = 4, earlier: tuple[EarlierRun, ...] = ()) -> Path:
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(200)))
    (folder / "plan.json").write_bytes(plan.to_json())
    with BudgetJournal.create(folder / "budget.jsonl", plan) as journal:
        for step in range(charges):
            journal.charge(step)
        journal.close(charges)
        head = journal.head
    facts = RunFacts(
        files=model_files(folder), base_digest="sha256:" + "00" * 32, dataset_root="00" * 32, updates=charges,
        dtype="float32", device="cpu", versions={"stanch": "1"}, earlier_runs=earlier,
    )  # fmt: skip
    (folder / "statement.json").write_bytes(state_privacy(plan, head, facts).to_json())
    return folder


def head_of(charged: int) -> JournalHead:
    return JournalHead(charged + 2, f"{charged:064x}", charged)


@pytest.fixture(scope="module")
def run(plan, tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("verify") / "run", plan)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_changed_byte_of_any_file_is_named(run, name, place, flip):
    data = (run / name).read_bytes()
    at = int(place * len(data))
    (run / name).write_bytes(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
    try:
        with pytest.raises(VerificationError) as caught:
            verify_run(run)
    finally:
        (run / name).write_bytes(data)
    assert name in caught.value.what
    assert caught.value.exit_code == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), data=st.binary(max_size=300))
def test_whatever_lies_there_instead_is_refused(run, name, data):
    whole = (run / name).read_bytes()
    (run / name).write_bytes(data)
    try:
        with pytest.raises(StanchError):
            verify_run(run)
    finally:
        (run / name).write_bytes(whole)


def test_a_run_that_was_charged_less_states_less(plan, tmp_path):
    verified = verify_run(write_run(tmp_path / "run", plan, charges=2))
    assert verified.head.charged == 2
    assert 0 < verified.statement.epsilon < plan.epsilon_after(4)


def test_a_torn_last_line_can_charge_beyond_the_plan_and_is_then_stated(plan, tmp_path):
    run = write_run(tmp_path / "run", plan)
    journal = run / "budget.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    with BudgetJournal.open(journal, plan) as opened:
        opened.close(4)
        head = opened.head
    assert head.charged == 5
    facts = RunFacts(
        files=model_files(run), base_digest="", dataset_root="00", updates=4, dtype="float32", device="cpu", versions={}
    )
    (run / "statement.json").write_bytes(state_privacy(plan, head, facts).to_json())
    assert verify_run(run).statement.epsilon > plan.epsilon_after(4)


def test_earlier_runs_are_recomputed_and_composed(plan, tmp_path):
    earlier = EarlierRun.of(plan, head_of(3))
    run = write_run(tmp_path / "run", plan, earlier=(earlier,))
    fields = verify_run(run).statement.fields
    assert fields["earlier_runs"][0]["epsilon"] == plan.epsilon_after(3)
    both = (plan.mechanism_after(4), plan.mechanism_after(3))
    assert fields["composed_epsilon"] == compose_epsilon(both, plan.delta)
    assert [one["tpr_max"] for one in fields["attack_bound"]] == [one.tpr_max for one in attack_bounds(both)]
    assert "the model and those of 1 earlier run on the same data (epsilon" in fields["reading"]
    body = json.loads((run / "statement.json").read_bytes())
    for false in ({"epsilon": 0.01}, {"charged_steps": 1}, {"composable": False}):
        changed = [{**body["earlier_runs"][0], **false}]
        rest = {name: value for name, value in body.items() if name not in {"schema", "digest", "guarantee"}}
        (run / "statement.json").write_bytes(PrivacyStatement("dp", {**rest, "earlier_runs": changed}).to_json())
        with pytest.raises(Tampered, match="statement"):
            verify_run(run)


def test_runs_with_other_units_are_listed_but_not_composed(plan, tmp_path):
    other = replace(EarlierRun.of(plan, head_of(4)), units_digest="11" * 32)
    fields = verify_run(write_run(tmp_path / "run", plan, earlier=(other,))).statement.fields
    assert fields["earlier_runs"][0]["composable"] is False
    assert fields["composed_epsilon"] is None
    alone = attack_bounds((plan.mechanism_after(4),))
    assert [one["tpr_max"] for one in fields["attack_bound"]] == [one.tpr_max for one in alone]
    assert "the bound of this run alone: 1 earlier run on the same data with other units" in fields["reading"]
    assert describe_run(verify_run(tmp_path / "run")).privacy is None


@pytest.mark.parametrize(
    "false", [{"rate": 2.0}, {"noise_multiplier": 0.0}, {"charged_steps": -1}, {"delta": 1.0}, {"journal": ""}]
)
def test_an_impossible_earlier_run_is_refused(plan, tmp_path, false):
    run = write_run(tmp_path / "run", plan)
    body = json.loads((run / "statement.json").read_bytes())
    rest = {name: value for name, value in body.items() if name not in {"schema", "digest", "guarantee"}}
    earlier = [{**asdict(EarlierRun.of(plan, head_of(4))), **false}]
    (run / "statement.json").write_bytes(PrivacyStatement("dp", {**rest, "earlier_runs": earlier}).to_json())
    with pytest.raises(Tampered, match="statement"):
        verify_run(run)


def test_a_plan_that_protects_nobody_is_refused_before_it_is_computed(plan, run, tmp_path):
    hollow = replace(plan, noise_multiplier=0.02)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "plan.json").write_bytes(hollow.to_json())
    with BudgetJournal.create(folder / "budget.jsonl", hollow) as journal:
        journal.charge(0)
        journal.close(1)
    statement = PrivacyStatement.from_json((run / "statement.json").read_bytes())
    head = journal.head
    fields = {
        **statement.fields, "plan_digest": hollow.digest.hex, "journal_head": {"hash": head.hash, "lines": head.lines},
    }  # fmt: skip
    (folder / "statement.json").write_bytes(PrivacyStatement("dp", fields).to_json())
    with pytest.raises(PlanInfeasible, match="above 100"):
        verify_run(folder)


def test_the_anchor_is_a_head_as_text(run):
    head = verify_run(run).head
    assert JournalHead.parse(str(head)) == head
    assert verify_run(run, expect=VerifyExpectations(anchor=JournalHead.parse(str(head)))).head == head
    with pytest.raises(BudgetRolledBack):
        verify_run(run, expect=VerifyExpectations(anchor=replace(head, charged=head.charged + 1)))
    for text in ("", "1:2:3", f"{head}:", f"-{head}", str(head).upper()):
        with pytest.raises(InvalidInput, match="journal head"):
            JournalHead.parse(text)


def test_a_plan_is_read_aloud_in_three_sentences(plan):
    text = read_plan(plan)
    assert "one record (each record; 60 units)" in text
    assert "recognises at most" in text
    assert "Not covered: base model's pre-training" in text
    assert "anonymous" not in text
    assert "everything with one value of user" in read_plan(replace(plan, unit="column:user"))


def test_the_reading_does_not_promise_a_person_the_whole_of_a_joined_unit(plan):
    rule = f"records with the same value of user; {JOINED}"
    text = read_plan(replace(plan, unit="column:user", unit_rule=rule))
    assert "Protected is a whole unit: everything with one value of user, together with all that" in text
    assert "The part of one value of user in a joined unit is protected less: it moves a step by up to 2 times" in text
    assert "The part of one record in a joined unit" in read_plan(replace(plan, unit_rule=f"each record; {JOINED}"))
    assert "protected less" not in read_plan(replace(plan, unit_rule="each record; no near-duplicates found"))
