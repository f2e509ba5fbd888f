"""The private trainer over TRL's."""

import json
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="trl is not installed")

import datasets
import torch
import trl.trainer.base_trainer
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig

from stanch.data import open_dataset
from stanch.errors import InvalidInput
from stanch.tune import (
    PrivacyParams,
    PrivacyPlan,
    PrivateSFTTrainer,
    PrivateTrainer,
    RecordUnit,
    accountant,
    adapter_shapes,
    form_units,
    training_rows,
    verify_run,
)
from stanch.tune.refusals import UnsafeArgument

from .conftest import KEY
from .test_trainer import STEPS, Stop, is_pickle, make_model

CONFIG = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}


pytestmark = pytest.mark.usefixtures("without_collection")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"prompt": f"question {n:03} " * 2, "completion": f"answer {n * 7:04}"} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_dataset(path, key=KEY)


@pytest.fixture(scope="module")
def units(pairs):
    return form_units(pairs, unit=RecordUnit(), duplicates=None)


@pytest.fixture(scope="module")
def plan(units, base):
    shapes = adapter_shapes(make_model(base))
    with pytest.MonkeyPatch.context() as patch:
        # Searching the noise multiplier takes seconds, and is tested elsewhere.
        patch.setattr(accountant, "calibrate", lambda *_args: 1.0)
        return PrivacyPlan.make(units, shapes, PrivacyParams(epsilon=8.0, steps=STEPS, expected_batch=8))


@pytest.fixture
def make_trainer(base, pairs, units, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(
        trl.trainer.base_trainer, "send_telemetry", lambda *_args, **_kwargs: pytest.fail("telemetry was sent")
    )
    monkeypatch.delenv("CI", raising=False)

    def build(*, given=None, **arguments):
        settings = {
            "output_dir": str(tmp_path / "checkpoints"), "use_cpu": True, "bf16": False, "learning_rate": 1e-2,
            "save_steps": 2, "logging_steps": 1, "disable_tqdm": True, **arguments,
        }  # fmt: skip
        more = {
            "plan": plan, "units": units, "run_dir": tmp_path / "run", "peft_config": LoraConfig(**CONFIG),
            "train_dataset": datasets.Dataset.from_list(list(training_rows(pairs))),
            "processing_class": AutoTokenizer.from_pretrained(base, pad_token="<|im_end|>"), **(given or {}),
        }  # fmt: skip
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        return PrivateSFTTrainer(model, SFTConfig(**settings), **more)

    return build


def test_a_run_with_checkpointing_is_stated_and_verified(make_trainer, tmp_path, capsys):
    trainer = make_trainer()
    assert isinstance(trainer, PrivateTrainer)
    assert trainer.args.activation_checkpointing  # TRL's default
    # TRL labels the completion alone.
    record = next(iter(trainer._records.values()))
    tokenizer = trainer.processing_class
    assert tokenizer.decode([record.ids[place] for place in record.labelled]).startswith("answer")
    trainer.train()
    assert verify_run(tmp_path / "run").statement.fields["updates"] == STEPS
    assert all(
        set(line) <= {"learning_rate", "grad_norm", "epsilon", "epoch", "step"} for line in trainer.state.log_history
    )
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if is_pickle(path)]
    assert not [path for path in written if b"question 0" in path.read_bytes()]
    assert "loss" not in capsys.readouterr().out


def test_a_crashed_run_resumes(make_trainer, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_trainer(given={"callbacks": [Stop(3)]}).train()
    make_trainer().train(resume_from_checkpoint=True)
    assert verify_run(tmp_path / "run").head.charged == STEPS


def test_autocast_is_stated(make_trainer, tmp_path):
    trainer = make_trainer(bf16=True)
    trainer.train()
    fields = verify_run(tmp_path / "run").statement.fields
    assert fields["dtype"] == "bfloat16"
    assert any("bfloat16" in text for text in fields["excluded"])


def test_dropped_rows_and_packing_are_refused(make_trainer):
    with pytest.raises(InvalidInput, match="60 records of units have no row"):
        make_trainer(max_length=8)
    with pytest.raises(UnsafeArgument, match="packing"):
        make_trainer(packing=True)


def test_every_folder_is_checked_for_pickle(tmp_path):
    torch.save({"a": 1}, tmp_path / "bad.bin")
    Path(tmp_path / "good.json").write_text("{}")
    assert is_pickle(tmp_path / "bad.bin")
    assert not is_pickle(tmp_path / "good.json")
