"""What an audit believes of a tuning: its claim computed again, its base, and what of the data it learned."""

import json
import shutil
from dataclasses import replace

import life
import pytest

from stanch.audit.sections import RepeatedTier
from stanch.cli.audit import describe
from stanch.cli.auditing import Tuned, base_of, gather_material, tuned_at
from stanch.crypto import canonical_json
from stanch.errors import Tampered, VerificationError
from stanch.terms import Digest
from stanch.tune import BudgetJournal, PrivacyParams, PrivacyPlan, UnitTable, accountant
from stanch.tune.journal import JournalHead
from stanch.tune.plan import ParameterShape
from stanch.tune.statement import EarlierRun, PrivacyStatement, RunFacts, _checksum, state_no_privacy, state_privacy
from stanch.tune.units import Unit
from stanch.tune.verify import model_files
from stanch.weights import directory_digest
from stanch.workspace import Workspace
from stanch.workspace.artifacts import dataset_ref
from stanch.workspace.tuning_log import Tuning

BASE = f"sha256:{'ab' * 32}"


@pytest.fixture(scope="module")
def plan():
    units = UnitTable("record", "each record", "00", tuple(Unit(f"{n:03}", (f"r{n}",)) for n in range(60)))
    with pytest.MonkeyPatch.context() as patch:
        # Searching the noise multiplier takes seconds, and is tested elsewhere.
        patch.setattr(accountant, "calibrate", lambda *_args: 2.0)
        return PrivacyPlan.make(units, [ParameterShape("a", (3,))], PrivacyParams(steps=2, expected_batch=8))


def facts_of(folder, **more):
    versions = {"stanch": "0.1.0", "torch": "2"}
    settings = {"base_digest": BASE, "dataset_root": "00", "updates": 2, "dtype": "float32", "device": "cpu"}
    return RunFacts(files=model_files(folder), versions=versions, **settings | more)


def make_run(folder, plan, **facts):
    """Write the folder of a finished run of two steps: a model of one file, plan, journal and statement."""
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    about = facts_of(folder, **facts)
    (folder / "plan.json").write_bytes(plan.to_json())
    with BudgetJournal.create(folder / "budget.jsonl", plan) as journal:
        journal.charge(0)
        journal.charge(1)
        journal.close(2)
        statement = state_privacy(plan, journal.head, about)
    (folder / "statement.json").write_bytes(statement.to_json())
    return statement


@pytest.fixture(scope="module")
def run(tmp_path_factory, plan):
    """A run's folder, which no test changes, and its statement."""
    folder = tmp_path_factory.mktemp("made") / "run"
    return folder, make_run(folder, plan)


def test_the_claim_and_the_base_are_those_of_the_verified_run(run, plan):
    folder, statement = run
    found = tuned_at(folder)
    assert found.digest == directory_digest(folder).root
    assert (found.claim.epsilon, found.claim.delta) == (pytest.approx(statement.epsilon), plan.delta)
    assert (found.claim.unit, found.base) == ("record", BASE)


def test_an_edited_claim_is_refused_though_its_checksum_holds(tmp_path, run):
    shutil.copytree(run[0], tmp_path / "run")
    path = tmp_path / "run" / "statement.json"
    value = {name: item for name, item in json.loads(path.read_bytes()).items() if name != "digest"}
    value |= {"epsilon": 0.1, "composed_epsilon": 0.1}
    path.write_bytes(canonical_json({**value, "digest": _checksum(value)}))
    assert PrivacyStatement.from_json(path.read_bytes()).epsilon == 0.1
    with pytest.raises(Tampered, match="composed_epsilon"):
        tuned_at(tmp_path / "run")


def test_a_statement_of_other_files_is_refused(tmp_path, run):
    shutil.copytree(run[0], tmp_path / "run")
    (tmp_path / "run" / "adapter_model.safetensors").write_bytes(b"others")
    with pytest.raises(VerificationError, match="adapter_model"):
        tuned_at(tmp_path / "run")


def test_earlier_runs_on_the_data_add_to_the_claim_or_leave_none(tmp_path, run, plan):
    earlier = EarlierRun.of(plan, JournalHead(3, "cd" * 32, 2))
    make_run(tmp_path / "both", plan, earlier_runs=(earlier,))
    assert tuned_at(tmp_path / "both").claim.epsilon > run[1].epsilon * 1.1
    make_run(tmp_path / "strange", plan, earlier_runs=(replace(earlier, units_digest="11" * 32),))
    assert tuned_at(tmp_path / "strange").claim is None


def test_a_model_without_a_statement_or_without_privacy_claims_nothing(tmp_path):
    model = life.make_adapter(tmp_path / "model")
    assert tuned_at(model) == Tuned(directory_digest(model).root)
    (model / "statement.json").write_bytes(state_no_privacy(facts_of(model)).to_json())
    assert (tuned_at(model).claim, tuned_at(model).base) == (None, BASE)


def test_the_private_trainers_name_no_folder_as_base(run):
    versions = {"stanch": "0.1.0", "torch": "2", "accelerate": "1.15"}
    made = run[1]
    assert base_of(made) == BASE
    assert base_of(PrivacyStatement("none", {**made.fields, "versions": versions})) is None


def test_rows_are_taken_as_the_tuning_learned_them(tmp_path, monkeypatch):
    """Cut, masked and de-duplicated as the log says, and from what the statement names as base."""
    data = life.make_data(tmp_path / "d.jsonl", 12)
    data.write_text(data.read_text() + "".join(data.read_text().splitlines(keepends=True)[:3]))
    digest = dataset_ref(data).digest
    tuning = Tuning(began=9, dataset=str(digest), max_tokens=77, completion_only=False, duplicates="drop", is_told=True)
    with Workspace.init(tmp_path / "w") as workspace:
        for duplicates, rows in (("drop", 12), ("keep", 15)):
            about = replace(tuning, duplicates=duplicates)
            monkeypatch.setattr("stanch.cli.auditing.find_tuning", lambda *_, about=about: about)
            found = gather_material(workspace, Tuned(Digest.sha256(b"m"), None, BASE), None, data, None)
            assert (found.max_tokens, found.completion_only, len(found.members)) == (77, False, rows)
            assert (found.tuned_from, found.problems, found.dataset_digest) == (BASE, (), str(digest))
            assert found.limits == ()
        monkeypatch.undo()
        plain = gather_material(workspace, Tuned(Digest.sha256(b"m")), None, data, None)
        assert (plain.max_tokens, plain.completion_only, len(plain.members)) == (1024, True, 15)
        assert "cut after 1,024 tokens" in plain.limits[0]


def test_the_summary_names_repeated_rows_that_come_out(tmp_path):
    report = life.make_result(life.make_adapter(tmp_path / "model")).report
    assert "repeated" not in describe(report)
    tiers = (RepeatedTier("1", 5, 90, 5, 0.1), RepeatedTier("2-3", 2, 40, 1, 0.1), RepeatedTier("4-15", 2, 8, 2, 0.6))
    several = replace(report, extraction=replace(report.extraction, tiers=tiers))
    assert "repeated     3 of 48 rows" in describe(several)
