"""A training by somebody's own script, recorded as a tuning: an audit trusts its canaries, and privacy adds up."""

import json
from dataclasses import replace
from types import SimpleNamespace

import life
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from stanch.audit import AuditParams, audit, preregister
from stanch.audit.hf_torch import HfScorer
from stanch.cli.auditing import gather_material, tuned_at
from stanch.data import CanarySpec, open_dataset, plan_canaries
from stanch.errors import InvalidInput
from stanch.ledger import EntryQuery, decode_entry
from stanch.terms import Digest
from stanch.tune import (
    NULL,
    PrivacyParams,
    PrivacyPlan,
    StanchCallback,
    TrainEvent,
    TuneSpec,
    UnitTable,
    accountant,
    journal_name,
    state_privacy,
    token_rows,
)
from stanch.tune.journal import BudgetJournal
from stanch.tune.plan import ParameterShape
from stanch.tune.refusals import PrivacySpent
from stanch.tune.statement import EarlierRun, RunFacts, UnfinishedRun, exclude_unfinished
from stanch.tune.units import Unit
from stanch.tune.verify import model_files
from stanch.weights import directory_digest
from stanch.workspace import Workspace, verbs_model
from stanch.workspace.artifacts import dataset_ref
from stanch.workspace.tuning_log import find_spent, find_tuning
from stanch.workspace.verbs_data import plant_canaries
from stanch.workspace.verbs_training import record_training
from stanch.workspace.verbs_tune import keep_heads
from tiny_base import write_base

pytest.importorskip("datasets", reason="datasets is not installed")
SMALL = AuditParams(exposure_candidates=19, exposure_secrets=3)
LEARNED = {"max_tokens": 1024, "completion_only": True}


@pytest.fixture
def workspace(tmp_path):
    with Workspace.init(tmp_path / "w") as workspace:
        yield workspace


def told(workspace, kind, phase):
    reader = workspace.ledger.reader()
    entries = (reader.entry(ref.index) for ref in reader.query(EntryQuery(kind=kind, phase=phase)))
    return [decode_entry(entry)["unmapped"]["stanch"]["payload"] for entry in entries]


def collate(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def test_a_script_with_the_callback_reaches_a_formal_epsilon(workspace, tmp_path):
    torch.set_num_threads(1)
    base, chats = write_base(tmp_path / "base"), life.make_data(tmp_path / "chats.jsonl")
    data = open_dataset(chats, key=workspace.keys.secret("dataset"))
    made = plan_canaries(data, CanarySpec(n=64), preregistration=preregister(SMALL).to_json())
    planted = plant_canaries(workspace, data, made, tmp_path / "planted.jsonl")
    planted.plan.save(tmp_path / "plan.json")

    def train(recorder, earlier):
        assert earlier == ()
        tokenizer, callback = AutoTokenizer.from_pretrained(base), StanchCallback(planted.plan, recorder)
        rows = [{name: row[name] for name in ("input_ids", "labels")} for row in token_rows(planted.dataset, tokenizer)]
        settings = {"max_steps": 1, "per_device_train_batch_size": 1, "logging_steps": 1, "save_strategy": "no"}
        trainer = Trainer(
            AutoModelForCausalLM.from_pretrained(base),
            TrainingArguments(output_dir=str(tmp_path / "t"), use_cpu=True, disable_tqdm=True, **settings),
            train_dataset=rows, processing_class=tokenizer, callbacks=[callback], data_collator=collate,
        )  # fmt: skip
        with callback:
            trainer.train()
        trainer.save_model(str(tmp_path / "out"))
        return tmp_path / "out"

    out = record_training(workspace, tmp_path / "planted.jsonl", train, **LEARNED)
    assert [event["event"] for event in told(workspace, "tune.event", "intent")][::3] == ["train.begin", "train.end"]
    material = gather_material(workspace, tuned_at(out), tmp_path / "plan.json", tmp_path / "planted.jsonl", None)
    assert material.problems == ()
    # The rows themselves are not asked for: that takes long, and has no part in it.
    canaries = replace(material, members=())
    report = audit(HfScorer(out), base=HfScorer(base), material=canaries, params=SMALL).report
    assert report.epsilon.formal


# Privacy that was spent before.


class Script:
    """A script with a private trainer, which makes a run of two steps at once."""

    def __init__(self, folder):
        self._folder = folder
        units = UnitTable("record", "each record", "00", tuple(Unit(f"{n:03}", (f"r{n}",)) for n in range(60)))
        with pytest.MonkeyPatch.context() as patch:
            # Searching the noise multiplier takes seconds, and is tested elsewhere.
            patch.setattr(accountant, "calibrate", lambda *_args: 2.0)
            self._plan = PrivacyPlan.make(units, [ParameterShape("a", (3,))], PrivacyParams(steps=2, expected_batch=8))

    def make(self, name, recorder=NULL, earlier=(), on_head=None):
        """Write the folder of a finished run."""
        facts = {"guarantee": "dp", "earlier": [run.journal for run in earlier]}
        recorder.record(TrainEvent("train.begin", "ab", "2026-01-01T00:00:00Z", facts))
        folder = self._folder / name
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(name.encode())
        (folder / "plan.json").write_bytes(self._plan.to_json())
        about = RunFacts(
            files=model_files(folder), base_digest=f"sha256:{'ab' * 32}", dataset_root="00", updates=2, device="cpu",
            dtype="float32", versions={"stanch": "0"}, earlier_runs=tuple(earlier),
        )  # fmt: skip
        with BudgetJournal.create(folder / "budget.jsonl", self._plan, on_head=on_head) as journal:
            journal.charge(0)
            journal.charge(1)
            journal.close(2)
            (folder / "statement.json").write_bytes(state_privacy(self._plan, journal.head, about).to_json())
        return folder


def test_private_runs_that_the_log_holds_add_up(workspace, tmp_path, monkeypatch):
    chats, script = life.make_data(tmp_path / "chats.jsonl"), Script(tmp_path)
    ref = dataset_ref(chats)
    first = record_training(workspace, chats, lambda *given: script.make("first", *given), **LEARNED)
    with pytest.raises(PrivacySpent, match=r"this one does not count \(1\)"):
        record_training(workspace, chats, lambda recorder, _earlier: script.make("forgetful", recorder), **LEARNED)
    assert not (tmp_path / "forgetful").exists()
    second = record_training(workspace, chats, lambda *given: script.make("second", *given), **LEARNED)
    (one, two), untold = (spent := find_spent(workspace, ref.digest)).runs, spent.untold
    assert (one.charged_steps, one.noise_multiplier, untold) == (2, 2.0, frozenset())
    assert json.loads((second / "statement.json").read_bytes())["earlier_runs"][0]["journal"] == one.journal
    assert find_spent(workspace, directory_digest(first).root).runs == ()
    tuning = find_tuning(workspace, directory_digest(second).root)
    assert (tuning.max_tokens, tuning.is_told, tuning.dataset) == (1024, True, str(ref.digest))
    # The workspace's own tuning counts them too, unless it has no privacy.
    given = []
    made = SimpleNamespace(path=first, statement=SimpleNamespace(guarantee="none", epsilon=None))
    monkeypatch.setattr(verbs_model, "tune", lambda _spec, **more: given.append(more["earlier"]) or made)
    for enabled in (True, False):
        spec = TuneSpec.from_toml(b'base = { path = "base" }').changed(privacy={"enabled": enabled})
        verbs_model.run_tuning(workspace, spec, open_dataset(chats, key=bytes(32)))
    assert given == [(one, two), ()]


def test_what_an_earlier_release_did_not_tell_must_be_named(workspace, tmp_path, monkeypatch):
    chats, script = life.make_data(tmp_path / "chats.jsonl"), Script(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(EarlierRun, "stated", lambda _statement: None)
        old = record_training(workspace, chats, lambda *given: script.make("old", *given), **LEARNED)
    with pytest.raises(PrivacySpent, match=r"does not count \(1\)"):
        record_training(workspace, chats, lambda *given: script.make("new", *given), **LEARNED)
    data, spec = open_dataset(chats, key=bytes(32)), TuneSpec.from_toml(b'base = { path = "base" }')
    with pytest.raises(PrivacySpent, match=r"does not say what .* spent \(1\)") as caught:
        verbs_model.run_tuning(workspace, spec, data)
    assert "--earlier" in caught.value.next_step
    with pytest.raises(InvalidInput, match="expected a model folder"):
        verbs_model.run_tuning(workspace, spec.with_earlier([old]), data)


def test_runs_that_never_ended_are_told_apart(workspace, tmp_path):
    chats, script = life.make_data(tmp_path / "chats.jsonl"), Script(tmp_path)
    digest = dataset_ref(chats).digest

    def keeping(name):
        return keep_heads(workspace, chats, tmp_path / name).on_head

    def end(recorder, earlier):
        return script.make("ended", recorder, earlier, on_head=keeping("ended"))

    record_training(workspace, chats, end, **LEARNED)
    assert find_spent(workspace, digest).unfinished == ()
    dead = script.make("dead", on_head=keeping("dead"))
    name, spent = journal_name(dead), find_spent(workspace, digest)
    assert (len(spent.runs), spent.unfinished) == (1, (UnfinishedRun(name, 2),))
    assert find_spent(workspace, digest, [name]).unfinished == ()
    assert find_spent(workspace, Digest.sha256(b"other")).unfinished == ()
    # A script is told of it, too, and none begins that does not count it.
    given = record_training(workspace, chats, lambda _recorder, earlier: given_of(script, earlier), **LEARNED)
    assert given.name == f"told-{name[:8]}-{len(spent.runs)}"
    with pytest.raises(PrivacySpent, match=r"does not count \(1\)"):
        record_training(
            workspace, chats, lambda recorder, earlier: script.make("deaf", recorder, earlier[:-1]), **LEARNED
        )


def given_of(script, earlier):
    """Make a run whose name says of what runs its script was told."""
    *ended, dead = earlier
    return script.make(f"told-{dead.journal[:8]}-{len(ended)}", earlier=ended)


def test_a_run_that_charged_nothing_as_far_as_is_known_is_told_too(workspace, tmp_path):
    """Heads are kept at the start, at checkpoints and at the end: between them a run may have charged any number."""
    chats = life.make_data(tmp_path / "chats.jsonl")
    keep = keep_heads(workspace, chats, tmp_path / "run").on_head
    with pytest.raises(OSError, match="killed"):
        Script(tmp_path).make("killed", on_head=lambda head: keep(head) or killed())
    (dead,) = find_spent(workspace, dataset_ref(chats).digest).unfinished
    assert dead.charged_steps == 0
    assert exclude_unfinished([dead], None) == (
        "runs on the same data that never ended (1, with at least 0 charged steps together)",
    )
    assert exclude_unfinished([dead], dead.journal) == ()


def killed():
    raise OSError("killed")


def test_of_several_processes_the_first_alone_asks_and_records(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    chats, size = life.make_data(tmp_path / "chats.jsonl"), len(told(workspace, "tune.run", "intent"))
    assert record_training(workspace, chats, lambda *given: given, **LEARNED) == (NULL, ())
    assert len(told(workspace, "tune.run", "intent")) == size == 0


def test_a_training_that_fails_makes_no_model(workspace, tmp_path):
    chats = life.make_data(tmp_path / "chats.jsonl")
    with pytest.raises(ZeroDivisionError):
        record_training(workspace, chats, lambda *_given: 1 / 0, **LEARNED)
    assert [payload["error"] for payload in told(workspace, "tune.run", "outcome")] == ["ZeroDivisionError"]
