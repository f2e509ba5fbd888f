"""The callback for other people's trainers: canaries, events, and what it costs."""

import json
import os
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from stanch.data import CanarySpec, inject_uncommitted, open_dataset, plan_canaries, tokenise_canary
from stanch.errors import InvalidInput, StoreError
from stanch.terms import EntryRef
from stanch.tune import NULL, StanchCallback, token_rows
from stanch.tune.callback_torch import TokenStream, check_planted
from stanch.tune.refusals import CanariesMissing

from .conftest import KEY

datasets = pytest.importorskip("datasets", reason="datasets is not installed")
ENTRY = EntryRef(3, b"\1" * 32, "act")
STATE = SimpleNamespace(global_step=0, is_world_process_zero=True)


class Kept:
    def __init__(self, fails_at=None):
        self.events = []
        self.fails_at = fails_at

    def record(self, event):
        if event.kind == self.fails_at:
            raise StoreError("the log is full")
        self.events.append(event)

    @property
    def kinds(self):
        return [event.kind for event in self.events]


pytestmark = pytest.mark.usefixtures("without_collection")


@pytest.fixture(scope="module")
def tokenizer(base):
    return AutoTokenizer.from_pretrained(base)


@pytest.fixture
def canaries(chats):
    # Of twelve coins of chance all fall alike once in two thousand plans.
    return plan_canaries(chats, CanarySpec(n=12), preregistration={"alpha": 0.05}, rng=lambda size: bytes(range(size)))


@pytest.fixture
def planted(chats, canaries, tmp_path, tokenizer):
    return list(token_rows(inject_uncommitted(chats, canaries, out=tmp_path / "planted.jsonl").dataset, tokenizer))


@pytest.fixture
def make_trainer(base, tokenizer, tmp_path):
    def build(callback, rows, **arguments):
        settings = {
            "output_dir": str(tmp_path / "out"), "use_cpu": True, "max_steps": 2, "logging_steps": 1, "save_steps": 2,
            "per_device_train_batch_size": 1, "disable_tqdm": True, **arguments,
        }  # fmt: skip
        rows = [{name: row[name] for name in ("input_ids", "labels")} for row in rows]
        return Trainer(
            AutoModelForCausalLM.from_pretrained(base), TrainingArguments(**settings), train_dataset=rows,
            processing_class=tokenizer, callbacks=[callback], data_collator=_collate,
        )  # fmt: skip

    return build


def _collate(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def test_a_run_is_recorded(make_trainer, planted, canaries):
    kept = Kept()
    with StanchCallback(canaries, kept) as callback:
        make_trainer(callback, planted).train()
    assert kept.kinds == [
        "train.begin",
        "train.progress",
        "train.progress",
        "checkpoint.saved",
        "train.progress",
        "train.end",
    ]
    begin, progress, *_ = kept.events
    assert begin.facts["guarantee"] == "none"
    assert begin.facts["canary_commitment"] == canaries.commitment
    assert begin.facts["canaries_cut"] == 0
    assert begin.facts["base_digest"].startswith("sha256:")
    assert progress.facts["loss"] > 0
    assert kept.events[3].facts["files_digest"].startswith("sha256:")
    assert len({event.run for event in kept.events}) == 1
    text = json.dumps([dict(event.facts) for event in kept.events])
    assert not any(canary.secret in text for canary in canaries.canaries)


@pytest.mark.parametrize("what", ["lost", "twice", "out"])
def test_canaries_that_are_not_as_planned_stop_training(make_trainer, planted, canaries, tokenizer, what):
    inside = next(canary for canary in canaries.canaries if canary.member)
    outside = next(canary for canary in canaries.canaries if not canary.member)
    spot = tokenise_canary(inside, tokenizer).ids
    (first, *_) = [row for row in planted if tuple(row["input_ids"]) == spot]
    if what == "lost":
        planted.remove(first)
    elif what == "twice":
        planted.append(first)
    else:
        ids = list(tokenise_canary(outside, tokenizer).ids)
        planted.append({"input_ids": ids, "labels": [-100] * len(ids)})
    kept = Kept()
    trainer = make_trainer(StanchCallback(canaries, kept), planted)
    with pytest.raises(CanariesMissing, match=(outside if what == "out" else inside).id) as caught:
        trainer.train()
    assert trainer.state.global_step == 0
    assert kept.kinds == ["train.failed"]
    assert kept.events[0].facts == {"error": "CanariesMissing"}
    assert inside.secret not in f"{caught.value} {caught.value.why}"


def test_a_secret_without_labels_is_missing(planted, canaries, tokenizer):
    rows = [(row["input_ids"], [label != -100 for label in row["labels"]]) for row in planted]
    assert check_planted(canaries, TokenStream.of(rows), tokenizer) == 0
    unlearned = TokenStream.of([(ids, [False] * len(ids)) for ids, _ in rows])
    with pytest.raises(CanariesMissing):
        check_planted(canaries, unlearned, tokenizer)
    with pytest.raises(CanariesMissing):
        check_planted(canaries, TokenStream.of([]), tokenizer)


def test_packed_rows_are_read_as_one_stream(planted, canaries, tokenizer):
    tokens = [token for row in planted for token in row["input_ids"]]
    secret = tokenise_canary(next(canary for canary in canaries.canaries if canary.member), tokenizer)
    spot = [tuple(row["input_ids"]) for row in planted].index(secret.ids)
    start = sum(len(row["input_ids"]) for row in planted[:spot])
    middle = start + sum(secret.span) // 2
    cut = {}
    for place in (start, middle):
        parts = (tokens[:place], tokens[place:])
        cut[place] = check_planted(canaries, TokenStream.of((p, [True] * len(p)) for p in parts), tokenizer)
    assert cut == {start: 0, middle: 1}


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=6),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple), min_size=1, max_size=5, unique=True),
)
def test_all_occurrences_are_found(rows, needles):
    stream = TokenStream.of((row, [True] * len(row)) for row in rows)
    joined = [token for row in rows for token in row]
    found = sorted((name, span.start, span.stop) for name, span in stream.find({n: str(n) for n in needles}))
    wanted = sorted(
        (str(needle), place, place + len(needle))
        for needle in needles
        for place in range(len(joined) - len(needle) + 1)
        if tuple(joined[place : place + len(needle)]) == needle
    )
    assert found == wanted


def test_what_cannot_be_recorded_does_not_happen(make_trainer, planted, canaries):
    trainer = make_trainer(StanchCallback(canaries, Kept("train.begin")), planted)
    with pytest.raises(StoreError):
        trainer.train()
    assert trainer.state.global_step == 0
    kept = Kept("train.progress")
    callback = StanchCallback(canaries, kept)
    trainer = make_trainer(callback, planted)
    with pytest.raises(StoreError), callback:
        trainer.train()
    assert trainer.state.global_step == 1
    assert kept.kinds == ["train.begin", "train.failed"]
    assert kept.events[-1].facts == {"error": "StoreError"}


def test_a_failure_is_recorded_once(make_trainer, planted, monkeypatch):
    kept = Kept()
    callback = StanchCallback(None, kept)
    trainer = make_trainer(callback, planted)
    monkeypatch.setattr(trainer, "training_step", lambda *_args: 1 / 0)
    with pytest.raises(ZeroDivisionError), callback:
        trainer.train()
    assert kept.kinds == ["train.begin", "train.failed"]


def test_planting_keeps_the_columns(chats, canaries, tmp_path, tokenizer):
    callback = StanchCallback(canaries, NULL)
    with pytest.raises(InvalidInput, match="commitment"):
        callback.plant(chats, committed=None, out=tmp_path / "never.jsonl")
    rows = callback.plant(chats, committed=ENTRY, out=tmp_path / "planted.jsonl")
    assert rows.column_names == ["messages"]
    assert len(rows) == 60 + sum(canary.copies for canary in canaries.canaries if canary.member)
    assert callback._plan == replace(canaries, committed=True)
    with pytest.raises(InvalidInput, match="no canary plan"):
        StanchCallback(None, NULL).plant(chats, committed=ENTRY, out=tmp_path / "other.jsonl")
    (tmp_path / "list.jsonl").write_text('"text"\n' * 30)
    listed = open_dataset(tmp_path / "planted.jsonl", key=KEY)
    assert len(list(token_rows(listed, tokenizer))) == len(rows)


def test_a_stream_is_refused(canaries, tokenizer):
    callback = StanchCallback(canaries, NULL)
    args = SimpleNamespace(to_sanitized_dict=dict)
    loader = SimpleNamespace(dataset=iter([]), collate_fn=_collate)
    with pytest.raises(CanariesMissing, match="cannot be read"):
        callback.on_train_begin(args, STATE, None, train_dataloader=loader, processing_class=tokenizer)


def test_of_several_processes_the_first_alone_records(canaries, tmp_path):
    kept = Kept()
    callback = StanchCallback(canaries, kept)
    args = SimpleNamespace(to_sanitized_dict=dict, output_dir=str(tmp_path))
    other = SimpleNamespace(global_step=0, is_world_process_zero=False)
    for event in (callback.on_train_begin, callback.on_log, callback.on_save, callback.on_train_end):
        event(args, other, None)
    callback.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert kept.kinds == []
    StanchCallback(None, kept).on_train_begin(args, STATE, None)
    assert kept.kinds == ["train.begin"]


def test_callback_overhead(tmp_path):
    """Less than 1 % of a step of 100 ms, with a durable recorder and a log line every tenth step."""

    def record(event):
        with (tmp_path / "events").open("ab") as file:
            file.write(json.dumps(dict(event.facts)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    callback = StanchCallback(None, SimpleNamespace(record=record))
    state = SimpleNamespace(global_step=1, is_world_process_zero=True)
    costs = []
    for _ in range(20):
        start = time.perf_counter()
        for step in range(10):
            callback.on_step_begin(None, state, None)
            callback.on_step_end(None, state, None)
            if step == 0:
                callback.on_log(None, state, None, logs={"loss": 1.0, "learning_rate": 1e-3, "grad_norm": 1.0})
        costs.append((time.perf_counter() - start) / 10)
    # The best of twenty: whatever else runs on the machine only adds.
    assert min(costs) < 0.01 * 0.1
