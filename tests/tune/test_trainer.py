"""The private trainers: what they refuse, and that what they run is the plan's mechanism."""

import json
import pickle
import zipfile
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, EarlyStoppingCallback, TrainerCallback, TrainingArguments
from trl import SFTConfig

from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.data import TokenRecord
from stanch.errors import InvalidInput, StoreError
from stanch.tune import (
    NULL,
    CheckpointSeal,
    Goldfish,
    Keeping,
    PrivacyParams,
    PrivacyPlan,
    PrivateTrainer,
    RecordUnit,
    StanchCallback,
    UnfinishedRun,
    VerifyExpectations,
    accountant,
    adapter_shapes,
    form_units,
    token_rows,
    verify_run,
)
from stanch.tune import arguments as allowed
from stanch.tune.chunks import Row
from stanch.tune.coverage_torch import check_coverage
from stanch.tune.device_torch import name_precision
from stanch.tune.gradient_torch import PrivateGradient
from stanch.tune.hosted_torch import HostedModel
from stanch.tune.journal import read_journal
from stanch.tune.refusals import (
    BudgetExhausted,
    BudgetRolledBack,
    PlanChanged,
    PrivacySpent,
    ProgressLost,
    RunExists,
    SelfCheckFailed,
    UncoveredParameter,
    UnsafeArgument,
    UnsupportedModule,
)
from stanch.tune.statement import exclude_rounding

from .engine_models import make_net

STEPS = 4


def make_model(base: Path, **changes):
    torch.manual_seed(0)
    settings = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM", **changes}
    return get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraConfig(**settings))


pytestmark = pytest.mark.usefixtures("without_collection")


class NoNoise:
    """Noise of zeros."""

    def draw(self, _step, _parameter, count, _scale, take):
        take(slice(0, count), np.zeros(count))


@pytest.fixture(scope="module")
def tokenizer(base):
    return AutoTokenizer.from_pretrained(base)


@pytest.fixture(scope="module")
def shapes(base):
    return adapter_shapes(make_model(base))


@pytest.fixture
def units(chats):
    return form_units(chats, unit=RecordUnit(), duplicates=None)


@pytest.fixture
def rows(chats, tokenizer):
    return list(token_rows(chats, tokenizer))


@pytest.fixture
def plan(units, shapes):
    with pytest.MonkeyPatch.context() as patch:
        # Searching the noise multiplier takes seconds, and is tested elsewhere.
        patch.setattr(accountant, "calibrate", lambda *_args: 1.0)
        return PrivacyPlan.make(units, shapes, PrivacyParams(epsilon=8.0, steps=STEPS, expected_batch=8))


@pytest.fixture
def make_trainer(base, units, rows, plan, tmp_path):
    def build(*, model=None, given=None, **arguments):
        settings = {
            "output_dir": str(tmp_path / "checkpoints"), "use_cpu": True, "learning_rate": 1e-2, "save_steps": 2,
            "logging_steps": 1, "disable_tqdm": True, "per_device_train_batch_size": 4, **arguments,
        }  # fmt: skip
        more = {"plan": plan, "units": units, "run_dir": tmp_path / "run", "train_dataset": rows, **(given or {})}
        return PrivateTrainer(model or make_model(base), TrainingArguments(**settings), **more)

    return build


class Stop(TrainerCallback):
    """Dies after some steps, as a crash would."""

    def __init__(self, after):
        self.after = after

    def on_step_end(self, _args, state, _control, **_kwargs):
        if state.global_step == self.after:
            raise KeyboardInterrupt


def die(*_given):
    raise KeyboardInterrupt


def is_pickle(path: Path) -> bool:
    if zipfile.is_zipfile(path):
        return True
    try:
        pickle.loads(path.read_bytes())  # noqa: S301 - files that the test itself had written
    except Exception:  # noqa: BLE001 - whatever unpickling foreign bytes raises
        return False
    return True


def test_a_run_is_stated_and_verified(make_trainer, tmp_path, plan, tokenizer, capsys):
    trainer = make_trainer(given={"processing_class": tokenizer})
    output = trainer.train()
    assert output.global_step == STEPS
    verified = verify_run(tmp_path / "run")
    assert verified.statement == trainer.statement
    assert verified.head.charged == STEPS
    assert verified.statement.epsilon <= plan.epsilon
    assert "float32 (tested" in verified.statement.fields["excluded"][-1]
    # The adapter is in PEFT's format, and its weights moved.
    saved = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert len(saved) == len(plan.trainable)
    assert any(name.endswith("lora_B.weight") and value.any() for name, value in saved.items())
    logs = trainer.state.log_history
    assert len(logs) == STEPS
    assert all(set(line) == {"learning_rate", "grad_norm", "epsilon", "epoch", "step"} for line in logs)
    assert all(line["grad_norm"] > 0 for line in logs)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "chats.jsonl"]
    assert not [path.name for path in written if is_pickle(path)]
    assert {path.name for path in (tmp_path / "checkpoints" / "checkpoint-4").iterdir()} == {
        "adapter_model.safetensors", "optimizer.safetensors", "state.json", "trainer_state.json",
    }  # fmt: skip
    row = json.loads((tmp_path / "chats.jsonl").read_text().splitlines()[0])["messages"][1]["content"]
    assert not [path.name for path in written if row.encode() in path.read_bytes()]
    assert "loss" not in (tmp_path / "checkpoints" / "checkpoint-4" / "trainer_state.json").read_text()
    assert "loss" not in capsys.readouterr().out
    # Ordinary autograd is back.
    trainer.model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
    assert all(p.grad is not None for p in trainer.model.parameters() if p.requires_grad)


def make_whole(base: Path):
    """Return the base model itself, all of whose weights are trained; head and embedding are tied."""
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def make_noisy_adapter(base: Path):
    model = make_model(base, init_lora_weights="gaussian")
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.05)
    return model


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


PARTS = {
    "adapter": make_noisy_adapter,
    "all weights, tied": make_whole,
    "all weights, learned positions": lambda _base: without_dropout(make_net("gpt2")),
}


@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}, {"use_reentrant": True}])
@pytest.mark.parametrize("part", PARTS)
def test_the_clipped_sum_is_that_of_one_record_at_a_time(base, rows, plan, checkpointing, part):
    model = PARTS[part](base)
    hosted = HostedModel(model, nullcontext)
    records = [
        TokenRecord("r", tuple(row["input_ids"]), (len(row["input_ids"]) - 9, len(row["input_ids"]))) for row in rows
    ]
    units = [records[:1], records[1:4], records[4:5], [], records[5:7]]
    expected = {
        name: torch.zeros_like(value, dtype=torch.float64) for name, value in hosted.adapter.parameters().items()
    }
    for unit in units:
        for value in hosted.adapter.parameters().values():
            value.grad = None
        for record in unit:
            hosted.loss([Row(record, 1 / (9 * len(unit)))]).backward()
        if unit:
            grads = {name: value.grad for name, value in hosted.adapter.parameters().items()}
            norm = sum(float(grad.double().square().sum()) for grad in grads.values()) ** 0.5
            for name, grad in grads.items():
                expected[name] += grad.double() * min(1.0, plan.max_grad_norm / norm)
    if checkpointing is not None:
        model.train()
        model.gradient_checkpointing_enable(checkpointing)
        model.enable_input_require_grads()
    gradient = PrivateGradient(hosted, replace(plan, trainable=hosted.adapter.shapes()), None, budget=100)
    found = gradient.sum_clipped(units)
    error = sum(float((found[name] - expected[name]).square().sum()) for name in expected) ** 0.5
    assert error <= 1e-5 * sum(float(value.square().sum()) for value in expected.values()) ** 0.5


@pytest.mark.parametrize("part", PARTS)
def test_in_training_mode_one_unit_moves_the_sum_by_at_most_the_bound(base, rows, plan, part):
    hosted = HostedModel(PARTS[part](base), nullcontext)
    hosted.model.train()
    gradient = PrivateGradient(hosted, replace(plan, trainable=hosted.adapter.shapes()), None, budget=10**6)
    units = [[TokenRecord("r", tuple(row["input_ids"]), (9, len(row["input_ids"])))] for row in rows[:12]]

    def sums(some):
        torch.manual_seed(42)
        return {name: value.double() for name, value in gradient.sum_clipped(some).items()}

    with_all, without = sums(units), sums(units[:5] + units[6:])
    moved = sum(float((with_all[name] - without[name]).square().sum()) for name in with_all) ** 0.5
    assert moved <= plan.max_grad_norm * (1 + 1e-5)


def test_dropout_is_refused_by_name_and_whatever_else_is_random_too(base, make_trainer):
    with pytest.raises(UnsafeArgument, match=r"transformer\.drop\.p: dropout of 0\.1") as caught:
        make_trainer(model=make_net("gpt2"))
    assert "attention_dropout=0.0" in caught.value.next_step
    with pytest.raises(UnsafeArgument, match=r"lora_dropout\.default\.p: dropout of 0\.05"):
        HostedModel(make_model(base, lora_dropout=0.05), nullcontext)
    with pytest.raises(UnsafeArgument, match=r"model\.decoder\.dropout: dropout of 0\.1"):
        # Attention that keeps its share as a number.
        HostedModel(without_dropout(make_net("opt")), nullcontext)
    odd = make_model(base)
    odd.base_model.model.lm_head.register_forward_pre_hook(
        lambda module, given: (given[0] * (1 + 1e-3 * torch.rand(given[0].shape) * module.training),)
    )
    with pytest.raises(UnsupportedModule, match="two passes over the same tokens differ"):
        HostedModel(odd, nullcontext)


def test_without_noise_and_clipping_an_update_is_the_ordinary_one(make_trainer, plan, monkeypatch):
    """The trainer's step is the plan's mechanism: its noiseless release times L is the clipped sum of the draw."""
    trainer = make_trainer()
    seen = []
    fill = PrivateGradient.fill

    def watched(self, step, some):
        self._noise = NoNoise()
        sums = {name: value.double() for name, value in self.sum_clipped(some).items()}
        fill(self, step, some)
        parameters = self._model.adapter.parameters()
        seen.append((len(some), {name: (parameters[name].grad.clone(), sums[name]) for name in sums}))

    monkeypatch.setattr(PrivateGradient, "fill", watched)
    monkeypatch.setattr("stanch.tune.coverage_torch.check_noise", lambda _gradient: None)
    trainer.train()
    assert len(seen) == STEPS
    for _, pairs in seen:
        for gradient, total in pairs.values():
            assert torch.allclose(gradient.double() * plan.denominator, total, atol=1e-3)


def test_empty_draws_are_steps(make_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr("stanch.tune.sampler.UnitSampler.draw", lambda _self, _step: ())
    trainer = make_trainer()
    trainer.train()
    assert verify_run(tmp_path / "run").head.charged == STEPS
    assert all(line["grad_norm"] > 0 for line in trainer.state.log_history)


def test_a_crashed_run_resumes_within_its_budget(make_trainer, tmp_path, plan):
    with pytest.raises(KeyboardInterrupt):
        make_trainer(given={"callbacks": [Stop(3)]}).train()
    journal = tmp_path / "run" / "budget.jsonl"
    assert read_journal(journal.read_bytes(), plan).head.charged == 3
    with pytest.raises(RunExists, match="a run lies here"):
        make_trainer().train()
    with pytest.raises(PlanChanged, match="another run"):
        make_trainer(learning_rate=5e-3).train(resume_from_checkpoint=True)
    # That attempt loaded nothing and took no step; the lost third step stays charged.
    trainer = make_trainer()
    output = trainer.train(resume_from_checkpoint=True)
    verified = verify_run(tmp_path / "run")
    assert (output.global_step, verified.head.charged) == (STEPS, STEPS)
    assert verified.statement.fields["updates"] == 3
    assert [line["step"] for line in trainer.state.log_history] == [1, 2, 4]
    assert trainer.state.log_history[-1]["learning_rate"] == pytest.approx(1e-2 / 4)
    # Nothing is left to spend: no further step, the same statement of the budget.
    again = make_trainer()
    assert again.train(resume_from_checkpoint=True).global_step == STEPS
    assert again.statement.epsilon == verified.statement.epsilon


def test_a_run_that_has_steps_and_no_checkpoint_is_not_resumed(make_trainer, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_trainer(given={"callbacks": [Stop(1)]}).train()
    with pytest.raises(ProgressLost, match=f"1 of {STEPS} steps are charged, and no checkpoint"):
        make_trainer().train(resume_from_checkpoint=True)
    assert not (tmp_path / "run" / "statement.json").exists()


def test_a_crash_before_the_first_step_resumes(make_trainer, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(PrivateGradient, "fill", die)
        with pytest.raises(KeyboardInterrupt):
            make_trainer().train()
    assert make_trainer().train(resume_from_checkpoint=True).global_step == STEPS
    assert verify_run(tmp_path / "run").statement.fields["updates"] == STEPS


def test_a_crash_between_checkpoint_and_trainer_state_resumes(make_trainer, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_trainer(given={"callbacks": [Stop(3)]}).train()
    (tmp_path / "checkpoints" / "checkpoint-2" / "trainer_state.json").unlink()
    make_trainer().train(resume_from_checkpoint=True)
    assert verify_run(tmp_path / "run").statement.fields["updates"] == STEPS - 1


def test_a_checkpoint_without_its_journal_is_refused(make_trainer, tmp_path, plan):
    with pytest.raises(RunExists, match="no run to resume"):
        make_trainer().train(resume_from_checkpoint=True)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(given={"callbacks": [Stop(3)]}).train()
    journal = tmp_path / "run" / "budget.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(BudgetRolledBack, match="does not hold the line"):
        make_trainer().train(resume_from_checkpoint=True)
    (tmp_path / "run" / "plan.json").write_bytes(replace(plan, epsilon=9.0).to_json())
    with pytest.raises(PlanChanged, match="another plan"):
        make_trainer().train(resume_from_checkpoint=True)


def test_another_optimizer_resumes(make_trainer, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_trainer(given={"callbacks": [Stop(3)]}, optim="adafactor").train()
    make_trainer(optim="adafactor").train(resume_from_checkpoint=True)
    assert verify_run(tmp_path / "run").head.charged == STEPS


def test_an_optimizer_over_other_tensors_is_caught(make_trainer):
    trainer = make_trainer()
    next(value for value in trainer.model.parameters() if not value.requires_grad).requires_grad_()
    with pytest.raises(UncoveredParameter, match="trainable"):
        trainer.train()
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(UncoveredParameter):
        check_coverage(trainer._hosted, other)


def test_a_step_that_moves_nothing_is_caught(make_trainer, monkeypatch):
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *_args, **_kwargs: None)
    with pytest.raises(SelfCheckFailed, match="changed no weight"):
        make_trainer(optim="sgd").train()


def test_a_saved_adapter_with_other_weights_is_caught(make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer()
    save = trainer._save

    def late(folder):
        save(folder)
        with torch.no_grad():
            next(iter(trainer._hosted.adapter.parameters().values())).add_(1)

    monkeypatch.setattr(trainer, "_save", late)
    with pytest.raises(SelfCheckFailed, match="saved files"):
        trainer.train()
    assert not (tmp_path / "run" / "statement.json").exists()


def test_no_step_beyond_the_plan(make_trainer):
    trainer = make_trainer()
    trainer.args.max_steps = STEPS + 1
    trainer.get_train_dataloader = lambda: [{"units": torch.tensor([1])}] * (STEPS + 1)
    with pytest.raises(BudgetExhausted):
        trainer.train()


def test_goldfish_leaves_out_labels(make_trainer):
    plain = make_trainer()._records
    fish = make_trainer(given={"goldfish": Goldfish(bytes(32))})._records
    assert {name: record.ids for name, record in plain.items()} == {name: record.ids for name, record in fish.items()}
    assert sum(len(record.labelled) for record in fish.values()) < sum(len(r.labelled) for r in plain.values())


# All weights.


@pytest.fixture
def whole_plan(units, base):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accountant, "calibrate", lambda *_args: 1.0)
        shapes = adapter_shapes(make_whole(base))
        return PrivacyPlan.make(units, shapes, PrivacyParams(epsilon=8.0, steps=STEPS, expected_batch=8))


def test_all_weights_are_trained_stated_and_resumed(make_trainer, tmp_path, whole_plan, base, tokenizer):
    assert whole_plan.method == "full"
    given = {"plan": whole_plan, "processing_class": tokenizer}
    with pytest.raises(KeyboardInterrupt):
        make_trainer(model=make_whole(base), given={**given, "callbacks": [Stop(3)]}).train()
    trainer = make_trainer(model=make_whole(base), given=given)
    trainer.train(resume_from_checkpoint=True)
    verified = verify_run(tmp_path / "run")
    assert (verified.head.charged, verified.statement.fields["updates"]) == (STEPS, STEPS - 1)
    assert verified.plan.method == "full"
    # The folder is a model: every weight moved, and it loads to what was trained.
    before, after = dict(make_whole(base).named_parameters()), dict(make_whole(tmp_path / "run").named_parameters())
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(after[name], value) for name, value in trainer._hosted.adapter.parameters().items())
    assert not [path.name for path in tmp_path.rglob("*") if path.is_file() and is_pickle(path)]


def test_weights_that_ask_for_no_gradient_stay(make_trainer, tmp_path, base, units):
    def partly():
        model = make_whole(base).requires_grad_(requires_grad=False)
        model.model.layers[1].requires_grad_(requires_grad=True)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accountant, "calibrate", lambda *_args: 1.0)
        params = PrivacyParams(epsilon=8.0, steps=STEPS, expected_batch=8)
        plan = PrivacyPlan.make(units, adapter_shapes(partly()), params)
    make_trainer(model=partly(), given={"plan": plan}).train()
    verify_run(tmp_path / "run")
    before, after = (dict(make_whole(path).named_parameters()) for path in (base, tmp_path / "run"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith("model.layers.1.")}


def test_a_saved_model_that_lacks_a_weight_is_caught(base, tmp_path):
    hosted = HostedModel(make_whole(base), nullcontext)
    hosted.save(tmp_path)
    hosted.check_saved(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    name = next(name for name in saved if "q_proj" in name)
    for bad in ({**saved, name: saved[name] + 1}, {key: value for key, value in saved.items() if key != name}):
        save_file(bad, tmp_path / "model.safetensors")
        with pytest.raises(SelfCheckFailed, match="saved files"):
            hosted.check_saved(tmp_path)


# What was learned before.


def test_an_adapter_that_has_learned_is_refused(make_trainer, base, tmp_path):
    with pytest.raises(PrivacySpent, match="have learned already") as caught:
        make_trainer(model=make_noisy_adapter(base)).train()
    assert "earlier=" in caught.value.next_step
    assert not (tmp_path / "run").exists()
    # Factors that are not zero, and whose product is.
    assert HostedModel(make_model(base, init_lora_weights="orthogonal"), nullcontext).is_fresh


def test_a_second_run_counts_the_first_or_does_not_start(make_trainer, tmp_path, base):
    model = make_model(base)
    make_trainer(model=model).train()
    second = {"run_dir": tmp_path / "second"}
    places = {"output_dir": str(tmp_path / "elsewhere")}
    with pytest.raises(PrivacySpent):
        make_trainer(model=model, given=second, **places).train()
    # The same weights from the folder, as another process would load them.
    loaded = PeftModel.from_pretrained(make_whole(base), tmp_path / "run", is_trainable=True)
    named = [tmp_path / "run", UnfinishedRun("ab" * 32, 7)]
    trainer = make_trainer(model=loaded, given={**second, "earlier": named}, **places)
    trainer.train()
    fields = verify_run(tmp_path / "second").statement.fields
    assert "never ended (1, with at least 7 charged steps together)" in fields["reading"]
    assert [run["plan"] for run in fields["earlier_runs"]] == [fields["plan_digest"]]
    assert fields["composed_epsilon"] > fields["epsilon"]
    # Named, but not what was loaded.
    with torch.no_grad():
        next(value for name, value in loaded.named_parameters() if "lora_B" in name).add_(1)
    third = {"run_dir": tmp_path / "third", "earlier": [tmp_path / "run", tmp_path / "second"]}
    with pytest.raises(PrivacySpent):
        make_trainer(model=loaded, given=third, output_dir=str(tmp_path / "third.out")).train()


def test_weights_that_were_trained_in_this_process_are_refused(make_trainer, tmp_path, base, whole_plan):
    model = make_whole(base)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(model=model, given={"plan": whole_plan, "callbacks": [Stop(1)]}, save_strategy="no").train()
    again = {"plan": whole_plan, "run_dir": tmp_path / "again"}
    with pytest.raises(PrivacySpent):
        make_trainer(model=model, given=again, output_dir=str(tmp_path / "again.out")).train()


# How exactly it computes.


def test_weights_in_float16_are_refused(base):
    model = make_model(base)
    model.base_model.model.model.layers[0].mlp.up_proj.half()
    with pytest.raises(UnsupportedModule, match=r"up_proj\.weight: expected .* found torch\.float16"):
        HostedModel(model, nullcontext)


@pytest.mark.parametrize(("chosen", "named"), [("ieee", "float32 (tested"), ("bf16", "bfloat16"), ("tf32", "TF32")])
def test_the_statement_says_how_products_are_rounded(chosen, named):
    kind, here = torch.backends.mkldnn.matmul, torch.device("cpu")
    before, kind.fp32_precision = kind.fp32_precision, chosen
    try:
        assert named in exclude_rounding(name_precision(torch.float32, here))
        assert "bfloat16" in exclude_rounding(name_precision(torch.bfloat16, here))
    finally:
        kind.fp32_precision = before


# What a run leaves elsewhere.


class Events:
    """A recorder that fails at one kind of event."""

    def __init__(self, fails_at: str = ""):
        self.seen = []
        self._fails_at = fails_at

    def record(self, event):
        if event.kind == self._fails_at:
            raise StoreError("no room")
        self.seen.append(event)

    @property
    def kinds(self):
        return [event.kind for event in self.seen]


def test_heads_and_events_are_handed_out(make_trainer, tmp_path):
    heads, events = [], Events()
    keeping = Keeping(on_head=heads.append)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(given={"keeping": keeping, "recorder": events, "callbacks": [Stop(3)]}).train()
    logged = ["train.progress"]
    assert events.kinds == ["train.begin", *logged * 2, "checkpoint.saved", "train.failed"]
    assert [head.charged for head in heads] == [0, 2]
    keeping = Keeping(on_head=heads.append, anchor=heads[-1])
    make_trainer(given={"keeping": keeping, "recorder": events}).train(resume_from_checkpoint=True)
    assert events.kinds[5:] == ["train.begin", "train.progress", "checkpoint.saved", "train.end"]
    assert [head.charged for head in heads] == [0, 2, 3, 4, 4]
    verified = verify_run(tmp_path / "run", expect=VerifyExpectations(anchor=heads[1]))
    assert verified.head == heads[-1]
    assert verified.statement.fields["anchored"]
    assert events.seen[-1].facts["model_digest"] == verified.statement.model_digest
    assert not [event for event in events.seen if "loss" in str(event.facts)]


def test_a_journal_without_its_anchor_is_refused(make_trainer, tmp_path):
    heads = []
    with pytest.raises(KeyboardInterrupt):
        make_trainer(given={"keeping": Keeping(on_head=heads.append), "callbacks": [Stop(3)]}).train()
    journal = tmp_path / "run" / "budget.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(BudgetRolledBack, match="not the one that was seen"):
        make_trainer(given={"keeping": Keeping(anchor=heads[-1])}).train(resume_from_checkpoint=True)


def test_what_cannot_be_recorded_does_not_start(make_trainer, tmp_path):
    with pytest.raises(StoreError):
        make_trainer(given={"recorder": Events("train.begin")}).train()
    assert not (tmp_path / "run").exists()


def test_sealed_checkpoints_hold_no_plaintext_and_resume(make_trainer, tmp_path):
    identity = generate_identity()
    seal = CheckpointSeal((identity.recipient,), SigningKey.generate("ed25519"), (identity,))
    given = {"keeping": Keeping(seal=seal)}
    with pytest.raises(KeyboardInterrupt):
        make_trainer(given={**given, "callbacks": [Stop(3)]}).train()
    checkpoints = tmp_path / "checkpoints"
    assert not [path for path in checkpoints.rglob("*") if path.is_file() and b"lora_A" in path.read_bytes()]
    with pytest.raises(InvalidInput, match="is sealed"):
        make_trainer().train(resume_from_checkpoint=True)
    make_trainer(given=given).train(resume_from_checkpoint=True)
    assert verify_run(tmp_path / "run").statement.fields["updates"] == STEPS - 1


def test_private_metrics_are_logged_where_the_plan_says_so(make_trainer, tmp_path, units, shapes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accountant, "calibrate", lambda *_args: 1.0)
        params = PrivacyParams(epsilon=8.0, steps=STEPS, expected_batch=8, log_private_metrics_unsafe=True)
        plan = PrivacyPlan.make(units, shapes, params)
    trainer = make_trainer(given={"plan": plan})
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    # A random model of 300 tokens.
    assert len(losses) == STEPS
    assert all(4 < loss < 8 for loss in losses)
    statement = verify_run(tmp_path / "run").statement
    assert "private training metrics, which were logged" in statement.fields["excluded"]
    assert "private training metrics" in statement.reading


# What is caught in a run.


def test_noise_that_is_not_the_plans_is_caught_before_it_is_charged(make_trainer, tmp_path, plan, monkeypatch):
    monkeypatch.setattr("stanch.tune.noise.AesGaussian.draw", NoNoise.draw)
    with pytest.raises(SelfCheckFailed, match="the noise has 0 times the variance"):
        make_trainer().train()
    journal = read_journal((tmp_path / "run" / "budget.jsonl").read_bytes(), plan)
    assert journal.head.charged == 0


def test_a_gradient_of_stale_parameters_is_caught(make_trainer):
    class Thief(TrainerCallback):
        """Puts another tensor in the place of a trained one after the first step."""

        def on_step_end(self, _args, _state, _control, model=None, **_kwargs):
            layer = next(part for name, part in model.named_modules() if name.endswith("lora_A.default"))
            layer.weight = torch.nn.Parameter(layer.weight.detach().clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stanch.tune.gradient_torch._CHECK_EVERY", 1)
        with pytest.raises(UncoveredParameter, match="trainable"):
            make_trainer(given={"callbacks": [Thief()]}).train()


# What is refused.

EXAMPLES = {
    "num_train_epochs": 1.0, "max_steps": 7, "gradient_accumulation_steps": 2, "auto_find_batch_size": True,
    "train_sampling_strategy": "sequential", "dataloader_drop_last": True, "label_smoothing_factor": 0.1,
    "neftune_noise_alpha": 5.0, "use_liger_kernel": True, "liger_kernel_config": {"rope": True}, "torch_compile": True,
    "torch_compile_backend": "inductor", "torch_compile_mode": "default", "optim_args": "x=1",
    "optim_target_modules": "all-linear", "include_num_input_tokens_seen": "all", "save_only_model": True,
    "save_total_limit": 3, "enable_jit_checkpoint": True, "restore_callback_states_from_checkpoint": True,
    "push_to_hub": True, "debug": "underflow_overflow", "max_grad_norm": 0.7, "fp16": True,
    "accelerator_config": {"split_batches": True}, "fsdp": True, "fsdp_config": {"min_num_params": 5},
    "deepspeed": {"a": 1}, "parallelism_config": object(), "load_best_model_at_end": True,
    "shuffle_dataset": True, "packing": True, "eval_packing": True, "padding_free": True, "loss_type": "dft",
    "router_aux_loss_coef": 0.1, "activation_offloading": True, "model_init_kwargs": {"a": 1},
    "chat_template_path": "somewhere", "trust_remote_code": True,
}  # fmt: skip


@pytest.fixture
def arguments(tmp_path):
    return SFTConfig(output_dir=str(tmp_path), use_cpu=True)


@pytest.mark.parametrize("kind", [TrainingArguments, SFTConfig])
def test_every_field_of_the_installed_versions_is_classified(kind):
    known = [allowed.FREE, allowed.EVALUATION, frozenset(allowed.CHOICES), frozenset(allowed.FORCED)]
    assert sum(len(group) for group in known) == len(frozenset().union(*known)), "a field is in two groups"
    assert {field.name for field in fields(kind)} <= frozenset().union(*known)
    if kind is SFTConfig:
        assert frozenset().union(*known) == {field.name for field in fields(kind)}


def test_usual_arguments_pass(arguments, tmp_path):
    allowed.check_arguments(arguments, eval_is_public=False)
    allowed.check_arguments(TrainingArguments(output_dir=str(tmp_path), use_cpu=True), eval_is_public=False)
    free = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, learning_rate=1.0, warmup_steps=3, weight_decay=0.1, seed=7,
        lr_scheduler_type="cosine", optim="sgd", max_grad_norm=0.0, save_strategy="no", bf16=True,
    )  # fmt: skip
    allowed.check_arguments(free, eval_is_public=False)


@pytest.mark.parametrize("name", sorted(allowed.FORCED))
def test_each_forced_field_is_refused_with_what_to_do(arguments, name):
    if name == "ignore_data_skip":
        arguments.ignore_data_skip = True
        allowed.check_arguments(arguments, eval_is_public=False)
        return
    setattr(arguments, name, EXAMPLES[name])
    with pytest.raises(UnsafeArgument, match=name) as caught:
        allowed.check_arguments(arguments, eval_is_public=True)
    assert caught.value.why
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optim", "galore_adamw"),
        ("lr_scheduler_type", "reduce_lr_on_plateau"),
        ("lr_scheduler_type", "greedy"),
        ("save_strategy", "best"),
    ],
)
def test_choices_beside_the_list_are_refused(arguments, name, value):
    setattr(arguments, name, value)
    with pytest.raises(UnsafeArgument, match=f"{name}: '{value}'") as caught:
        allowed.check_arguments(arguments, eval_is_public=True)
    assert caught.value.next_step


@pytest.mark.parametrize("name", sorted(allowed.EVALUATION))
def test_evaluation_needs_public_data(arguments, name):
    setattr(arguments, name, "steps" if getattr(arguments, name) != "steps" else "no")
    with pytest.raises(UnsafeArgument, match=f"{name}: evaluation"):
        allowed.check_arguments(arguments, eval_is_public=False)
    allowed.check_arguments(arguments, eval_is_public=True)


def test_unknown_fields_and_several_devices_are_refused(arguments, monkeypatch):
    @dataclass
    class Later(TrainingArguments):
        reveal: bool = False

    monkeypatch.setattr(SFTConfig, "n_gpu", 2)
    with pytest.raises(UnsafeArgument, match="2 processes or devices"):
        allowed.check_arguments(arguments, eval_is_public=False)
    later = Later(output_dir=arguments.output_dir, use_cpu=True, reveal=True)
    with pytest.raises(UnsafeArgument, match="reveal") as caught:
        allowed.check_arguments(later, eval_is_public=False)
    assert "unknown to this release" in caught.value.why


@pytest.mark.parametrize("name", [*sorted(allowed.CONSTRUCTOR_FORCED), "surprise"])
def test_constructor_arguments_are_refused(name):
    with pytest.raises(UnsafeArgument, match=name) as caught:
        allowed.check_constructor({name: object()}, eval_is_public=True)
    assert caught.value.next_step


@pytest.mark.parametrize("name", sorted(allowed.CONSTRUCTOR_EVALUATION))
def test_constructor_arguments_for_evaluation(name):
    with pytest.raises(UnsafeArgument, match=name):
        allowed.check_constructor({name: object()}, eval_is_public=False)
    allowed.check_constructor({name: object()}, eval_is_public=True)


def test_evaluation_runs_on_public_data_alone(make_trainer, rows, tmp_path):
    trainer = make_trainer()
    for act in (trainer.evaluate, lambda: trainer.predict([])):
        with pytest.raises(UnsafeArgument, match="evaluation is refused"):
            act()
    with pytest.raises(UnsafeArgument, match="hyperparameter_search"):
        trainer.hyperparameter_search()
    public_rows = [{name: row[name] for name in ("input_ids", "labels")} for row in rows[:1]]
    public = make_trainer(
        given={"eval_is_public": True, "run_dir": tmp_path / "other", "eval_dataset": public_rows},
        eval_strategy="steps",
        eval_steps=4,
        output_dir=str(tmp_path / "c2"),
    )
    public.train()
    assert any("eval_loss" in line for line in public.state.log_history)
    assert all("loss" not in line for line in public.state.log_history)


def test_other_places_callbacks_and_plans_are_refused(make_trainer, tmp_path, plan, base):
    with pytest.raises(UnsafeArgument, match="output_dir"):
        make_trainer(output_dir=str(tmp_path / "run" / "x"))
    with pytest.raises(UnsafeArgument, match="StanchCallback"):
        make_trainer(given={"callbacks": [StanchCallback(None, NULL)]})
    with pytest.raises(UnsafeArgument, match="StanchCallback"):
        make_trainer().add_callback(StanchCallback(None, NULL))
    with pytest.raises(UnsafeArgument, match="a name"):
        make_trainer(model="some/model")
    with pytest.raises(UnsafeArgument, match="void: public seed"):
        make_trainer(given={"plan": replace(plan, guarantee="void: public seed")})
    with pytest.raises(PlanChanged, match="other units"):
        make_trainer(given={"plan": replace(plan, units_digest="00")})
    with pytest.raises(PlanChanged, match="other parameters"):
        make_trainer(model=make_model(base, r=3))
    make_trainer(given={"callbacks": [EarlyStoppingCallback()]})


def test_mixed_precision_from_the_environment_is_refused(make_trainer, monkeypatch):
    trainer = make_trainer()
    monkeypatch.setattr(type(trainer.accelerator), "mixed_precision", "fp16")
    with pytest.raises(UnsafeArgument, match="fp16"):
        trainer._check_accelerator()


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed:UserWarning")
@pytest.mark.parametrize(
    ("changes", "error", "word"),
    [
        ({"use_dora": True}, UnsupportedModule, "DoraLinearLayer"),
        ({"modules_to_save": ["lm_head"]}, UnsupportedModule, "modules_to_save"),
        ({"modules_to_save": ["norm"]}, UnsupportedModule, "RMSNorm"),
        ({"trainable_token_indices": [1, 2]}, UnsupportedModule, "trainable"),
        ({"target_modules": ["embed_tokens"]}, UnsupportedModule, "lora_embedding|Embedding"),
        ({"lora_bias": True}, UnsupportedModule, "bias"),
        ({"init_lora_weights": "pissa"}, UnsafeArgument, "pissa"),
    ],
)
def test_adapters_without_an_exact_gradient_are_refused(base, changes, error, word):
    with pytest.raises(error, match=word) as caught:
        adapter_shapes(make_model(base, **changes))
    assert caught.value.next_step


def test_models_that_mix_rows_are_refused(base):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with pytest.raises(InvalidInput, match="no trainable"):
        adapter_shapes(model.requires_grad_(requires_grad=False))
    model.add_adapter(LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(UnsupportedModule, match="add_adapter"):
        adapter_shapes(model)
    two = make_model(base)
    two.add_adapter("other", LoraConfig(target_modules=["q_proj"]))
    two.base_model.set_adapter(["default", "other"])
    with pytest.raises(UnsupportedModule, match="one active adapter, found 2"):
        adapter_shapes(two)
    with pytest.raises(InvalidInput, match="float32"):
        adapter_shapes(make_model(base).to(torch.bfloat16))
    frozen = make_model(base).requires_grad_(requires_grad=False)
    with pytest.raises(InvalidInput, match="no trainable"):
        adapter_shapes(frozen)
    quantised = make_model(base)
    quantised.base_model.model.quantization_method = "bitsandbytes"
    with pytest.raises(UnsupportedModule, match="quantised"):
        HostedModel(quantised, nullcontext)
    batched = make_model(base)
    batched.base_model.model.extra = torch.nn.BatchNorm1d(4, affine=False)
    with pytest.raises(UnsupportedModule, match="BatchNorm1d"):
        HostedModel(batched, nullcontext)
    for change, word in ((lambda h: h.flip(1) + h, "look ahead"), (lambda h: h + h.flip(0), "feel each other")):
        odd = make_model(base)
        odd.base_model.model.lm_head.register_forward_pre_hook(lambda _m, given, change=change: (change(given[0]),))
        with pytest.raises(UnsupportedModule, match=word):
            HostedModel(odd, nullcontext)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"record_id": None}, "record_id"),
        ({"labels": [1] * 9}, "as many labels"),
        ({"attention_mask": [0]}, "without padding"),
        ({"labels": [-100]}, "no token is left"),
        ({"labels": [7]}, "not the token at its place"),
        ({"record_id": "other"}, "1 records of units have no row, 1 rows no unit"),
    ],
)
def test_rows_that_are_not_the_units_records_are_refused(make_trainer, rows, change, word):
    length = len(rows[0]["input_ids"])
    values = {
        key: value * length if key in {"labels", "attention_mask"} and len(value) == 1 else value
        for key, value in change.items()
    }
    rows[0].update(values)
    with pytest.raises(InvalidInput, match=word) as caught:
        make_trainer()
    assert caught.value.next_step


def test_a_repeated_row_is_refused(make_trainer, rows):
    rows.append(rows[0])
    with pytest.raises(InvalidInput, match="record_id"):
        make_trainer()
