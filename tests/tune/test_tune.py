"""Whole runs on a tiny base: output, statement, verification, resume, refusals."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from stanch.crypto import canonical_json
from stanch.data import CanarySpec, inject_uncommitted, open_dataset, plan_canaries
from stanch.errors import InvalidInput, NotFound, StoreError, Tampered, UnexpectedFile, VerificationError
from stanch.terms import Digest
from stanch.tune import (
    NULL,
    EarlierRun,
    JournalHead,
    Keeping,
    PrivacyPlan,
    TuneSpec,
    UnfinishedRun,
    VerifyExpectations,
    describe_run,
    prepare,
    run_folder,
    session_torch,
    trainable_shapes,
    tune,
    verify_run,
)
from stanch.tune.journal import read_journal
from stanch.tune.refusals import (
    BudgetRolledBack,
    GuaranteeVoid,
    PlanChanged,
    PrivacySpent,
    ProgressLost,
    RunExists,
    UnsupportedModule,
)
from stanch.tune.session_torch import Session
from stanch.tune.statement import PrivacyStatement

from .conftest import KEY, write_chats

PRIVACY = "epsilon = 1.0"


class Events:
    """Keeps events; fails at the kinds named."""

    def __init__(self, *failing: str) -> None:
        self.seen = []
        self.failing = failing

    def record(self, event):
        self.seen.append(event)
        if event.kind in self.failing:
            raise StoreError("the ledger is full")

    @property
    def kinds(self):
        return [event.kind for event in self.seen]


@pytest.fixture(scope="module")
def private_run(base, tmp_path_factory):
    """One private run; tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("private")
    chats = open_dataset(write_chats(folder / "chats.jsonl", 60), key=KEY)
    spec = TuneSpec.from_toml(
        f'[base]\npath = "{base}"\n[method]\nrank = 2\nalpha = 4\n[privacy]\nepsilon = 1.0\n'
        f'[train]\nsteps = 4\nbatch = 8\ndtype = "float32"\ncheckpoint_every = 2\n'
        f'[output]\npath = "{folder}/out"\n'.encode()
    )
    events, heads = Events(), []
    tuned = tune(spec, dataset=chats, recorder=events, keeping=Keeping(on_head=heads.append))
    return tuned, spec, events, heads


@pytest.fixture
def run(private_run, tmp_path) -> Path:
    return Path(shutil.copytree(private_run[0].path, tmp_path / "run"))


def test_a_private_run_leaves_a_whole_output(private_run):
    tuned, spec, events, heads = private_run
    assert tuned.path == Path(spec.output.path)
    names = {path.name for path in tuned.path.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"} < names
    assert {"plan.json", "budget.jsonl", "statement.json"} < names
    assert not run_folder(spec).exists()
    assert events.kinds == ["train.begin", "checkpoint.saved", "checkpoint.saved", "train.end"]
    assert [head.charged for head in heads] == [0, 2, 4, 4]
    verified = verify_run(tuned.path, expect=VerifyExpectations(anchor=heads[1]))
    assert verified.budget is not None
    assert verified.budget.epsilon <= 1.0
    assert verified.head == heads[-1]
    assert verified.statement.model_digest == str(tuned.digest)
    assert verified.notes == ()


def test_a_private_run_is_described_for_provenance_from_its_plan_and_journal(private_run):
    folder, statement = private_run[0].path, private_run[0].statement
    plan, journal = json.loads((folder / "plan.json").read_bytes()), (folder / "budget.jsonl").read_bytes().splitlines()
    run = describe_run(verify_run(folder))
    assert {subject.name for subject in run.model} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert run.config == Digest.sha256((folder / "plan.json").read_bytes())
    assert [f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (run.started, run.finished)] == [
        json.loads(journal[0])["at"], json.loads(journal[-1])["at"],
    ]  # fmt: skip
    assert set(run.byproducts) == {"statement.json", "plan.json", "budget.jsonl"}
    assert (run.privacy.steps, run.privacy.epsilon) == (4, statement.epsilon)
    assert (run.privacy.sample_rate, run.privacy.noise_multiplier) == (pytest.approx(8 / 60), plan["noise_multiplier"])


def test_the_statement_says_what_is_protected_and_what_is_not(private_run):
    statement = private_run[0].statement
    assert statement.guarantee == "dp"
    assert statement.epsilon == pytest.approx(1.0, abs=0.05)
    assert "60 units" in statement.reading
    assert "at most" in statement.reading
    assert "hyper-parameters" in statement.reading
    assert "near-duplicates" in statement.reading
    assert "anonymous" not in statement.reading
    assert PrivacyStatement.from_json(statement.to_json()) == statement


def test_the_adapter_opens_with_peft_and_has_moved(private_run, base):
    tensors = load_file(private_run[0].path / "adapter_model.safetensors")
    assert all(part.abs().sum() > 0 for part in tensors.values())
    net = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), private_run[0].path)
    found = {name.replace(".default", ""): value for name, value in net.state_dict().items() if "lora_" in name}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_no_file_of_a_run_holds_a_row_or_a_pickle(private_run):
    tuned, spec, _, _ = private_run
    rows = (Path(spec.output.path).parent / "chats.jsonl").read_bytes().splitlines()
    texts = [json.loads(row)["messages"][1]["content"].encode() for row in rows]
    for path in tuned.path.iterdir():
        data = path.read_bytes()
        assert not any(text in data for text in texts)
        assert not re.search(rb'loss"\s*:\s*[-\d]', data)
        assert not data.startswith((b"\x80\x02", b"\x80\x04", b"PK"))


def test_a_second_reader_agrees(private_run):
    """A small standard-library reader of plan, journal and statement: the second implementation."""
    import hashlib  # noqa: PLC0415 - the second reader is self-contained

    def digest(*parts: bytes) -> str:
        return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()

    folder = private_run[0].path
    plan_bytes = (folder / "plan.json").read_bytes()
    plan, statement = json.loads(plan_bytes), json.loads((folder / "statement.json").read_bytes())
    head, charged = "0" * 64, 0
    for number, raw in enumerate((folder / "budget.jsonl").read_bytes().splitlines()):
        line = json.loads(raw)
        assert raw == json.dumps(line, sort_keys=True, separators=(",", ":")).encode()
        assert (line["n"], line["prev"]) == (number, head)
        assert line["plan"] == hashlib.sha256(plan_bytes).hexdigest() == statement["plan_digest"]
        charged += line["event"] in {"charge", "torn"}
        assert line["charged"] == charged
        head = digest(b"stanch/tune/v1/journal", raw)
    assert statement["journal_head"]["hash"] == head
    assert statement["charged_steps"] == charged == plan["steps"]
    assert {**statement["plan"], "schema": plan["schema"]} == plan
    assert int(plan["sampling_threshold"]) == plan["expected_batch"] * 2**64 // plan["n_units"]
    for file in statement["files"]:
        data = (folder / file["name"]).read_bytes()
        assert (file["size"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("name", ["plan.json", "budget.jsonl", "statement.json", "adapter_model.safetensors"])
def test_any_changed_byte_of_the_output_is_named(run, name):
    data = (run / name).read_bytes()
    places = np.random.default_rng(1).choice(len(data), size=12, replace=False)
    for at in [0, len(data) - 1, *places.tolist()]:
        (run / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(VerificationError) as caught:
            verify_run(run)
        assert name in caught.value.what
    (run / name).write_bytes(data)
    assert verify_run(run).plan is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon", 0.5),
        ("epsilon_rdp", 0.5),
        ("charged_steps", 3),
        ("composed_epsilon", 0.1),
        ("attack_bound", [{"fpr": 0.01, "tpr_max": 0.01}]),
        ("reading", "Everybody is safe."),
        ("excluded", []),
        ("delta", 1e-9),
        ("guarantee", "none"),
        ("guarantee", "perfect"),
        ("model_digest", "sha256:" + "00" * 32),
        ("updates", "4"),
        ("files", []),
        ("plan_digest", "00" * 32),
    ],
)
def test_a_statement_with_a_new_checksum_still_has_to_be_true(run, field, value):
    body = json.loads((run / "statement.json").read_bytes()) | {field: value}
    guarantee = body.pop("guarantee")
    fields = {name: item for name, item in body.items() if name not in {"schema", "digest"}}
    (run / "statement.json").write_bytes(PrivacyStatement(guarantee, fields).to_json())
    with pytest.raises(VerificationError):
        verify_run(run)


def test_a_shortened_journal_is_seen_and_the_anchor_too(run, private_run):
    heads = private_run[3]
    lines = (run / "budget.jsonl").read_bytes().splitlines(keepends=True)
    (run / "budget.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(Tampered, match=r"budget\.jsonl"):
        verify_run(run)
    (run / "budget.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(BudgetRolledBack):
        verify_run(run, expect=VerifyExpectations(anchor=JournalHead(9, heads[-1].hash, 4)))


def test_files_that_are_missing_or_too_many(run, tmp_path):
    with pytest.raises(Tampered, match="dataset root"):
        verify_run(run, expect=VerifyExpectations(dataset_root="00" * 32))
    (run / "extra.bin").write_bytes(b"x")
    with pytest.raises(UnexpectedFile, match=r"extra\.bin"):
        verify_run(run)
    (run / "extra.bin").unlink()
    (run / "tokenizer.json").unlink()
    with pytest.raises(VerificationError, match=r"tokenizer\.json"):
        verify_run(run)
    (run / "statement.json").unlink()
    with pytest.raises(NotFound):
        verify_run(run)
    with pytest.raises(NotFound):
        verify_run(tmp_path / "nowhere")


def test_a_public_seed_repeats_a_run_and_voids_its_guarantee(make_spec, chats, tmp_path):
    spec = make_spec(privacy="epsilon = 1.0\ninsecure_reproducible = 7")
    first = tune(spec, dataset=chats)
    other = tune(spec.changed(output={"path": str(tmp_path / "again")}), dataset=chats)
    assert first.digest == other.digest
    assert first.statement.guarantee == "void: public seed"
    assert first.statement.epsilon is None
    assert "Nothing bounds" in first.statement.reading
    with pytest.raises(GuaranteeVoid, match="public seed") as caught:
        verify_run(first.path)
    assert (caught.value.exit_code, caught.value.next_step != "") == (1, True)
    verified = verify_run(first.path, expect=VerifyExpectations(allow_void=True))
    assert verified.budget is None
    assert "nothing is protected" in verified.notes[-1]
    assert verified.plan.warnings[0].endswith("nothing is protected")
    assert describe_run(verified).privacy is None
    # Nor can it stand among the earlier runs of one with a guarantee.
    with pytest.raises(GuaranteeVoid):
        tune(make_spec(output=f'path = "{tmp_path}/next"', privacy=PRIVACY).with_earlier([first.path]), dataset=chats)


def test_without_privacy_nothing_is_guaranteed(make_spec, chats, run):
    spec = make_spec(privacy="enabled = false")
    events = Events()
    tuned = tune(spec, dataset=chats, recorder=events)
    assert tuned.statement.guarantee == "none"
    assert tuned.statement.epsilon is None
    assert "Nothing bounds" in tuned.statement.reading
    verified = verify_run(tuned.path)
    assert (verified.budget, verified.plan, verified.head) == (None, None, None)
    assert not (tuned.path / "plan.json").exists()
    assert events.seen[0].facts["guarantee"] == "none"
    shutil.copy(run / "plan.json", tuned.path)
    with pytest.raises(Tampered, match=r"plan\.json"):
        verify_run(tuned.path)


def test_training_without_privacy_learns(make_spec, chats):
    spec = make_spec(
        privacy="enabled = false",
        train='steps = 30\nbatch = 20\ndtype = "float32"\nlearning_rate = 0.02\ncheckpoint_every = 0',
    )
    losses = []

    def watch(stage, _done, _total):
        if stage == "tune":
            losses.append(watched[0].mean_loss)

    watched = []
    session = Session(prepare(spec, chats), run_folder(spec), NULL, watch)
    loop = session._loop

    def keep(*given):
        made = loop(*given)
        watched.append(made.gradient)
        return made

    session._loop = keep
    session.run(chats, resume=False, keeping=Keeping())
    # Random frozen embeddings leave little to learn: 5.68 falls by about 0.1, far beyond its spread between batches.
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.04


def test_bfloat16_is_named_in_the_statement(make_spec, chats):
    spec = make_spec(privacy=PRIVACY, train='steps = 4\nbatch = 8\ndtype = "bfloat16"')
    tuned = tune(spec, dataset=chats)
    assert tuned.statement.fields["dtype"] == "bfloat16"
    assert any("bfloat16" in text for text in tuned.statement.fields["excluded"])
    assert verify_run(tuned.path).budget is not None


class Stop(Exception):
    pass


def crash(*_given):
    raise Stop


def crash_at(spec, chats, step, **given):
    """Run until ``step`` steps are done, then crash."""

    def progress(stage, done, _total):
        if (stage, done) == ("tune", step):
            raise Stop

    with pytest.raises(Stop):
        tune(spec, dataset=chats, progress=progress, **given)


def test_a_resumed_run_keeps_its_charges(make_spec, chats):
    spec, heads = make_spec(privacy=PRIVACY), []
    events = Events()
    crash_at(spec, chats, 3, keeping=Keeping(on_head=heads.append), recorder=events)
    assert events.kinds[-1] == "train.failed"
    assert not Path(spec.output.path).exists()
    with pytest.raises(RunExists, match="unfinished"):
        tune(spec, dataset=chats)
    tuned = tune(spec, dataset=chats, resume=True, keeping=Keeping(anchor=heads[-1]))
    lines = read_journal(
        (tuned.path / "budget.jsonl").read_bytes(), PrivacyPlan.from_json((tuned.path / "plan.json").read_bytes())
    ).lines
    assert [line.event for line in lines] == ["open", "charge", "charge", "charge", "resume", "charge", "close"]
    # The third step was lost with the crash, but stays charged: three updates for four charges.
    assert tuned.statement.fields["charged_steps"] == 4
    assert tuned.statement.fields["updates"] == 3
    assert verify_run(tuned.path).budget is not None


def test_a_run_without_privacy_resumes_from_its_checkpoint(make_spec, chats):
    spec = make_spec(privacy="enabled = false")
    crash_at(spec, chats, 3)
    steps = []
    tune(spec, dataset=chats, resume=True, progress=lambda stage, done, _: stage == "tune" and steps.append(done))
    assert steps == [3, 4]


def test_a_run_that_crashed_after_its_last_step_is_finished(make_spec, chats, monkeypatch):
    spec = make_spec(privacy=PRIVACY)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "_write_model", crash)
        with pytest.raises(Stop):
            tune(spec, dataset=chats)
    tuned = tune(spec, dataset=chats, resume=True)
    assert tuned.statement.fields["updates"] == 4
    assert verify_run(tuned.path).head.charged == 4


def test_a_run_without_checkpoints_is_not_finished_untrained(make_spec, chats, monkeypatch):
    spec = make_spec(privacy=PRIVACY, train='steps = 4\nbatch = 8\ndtype = "float32"\ncheckpoint_every = 0')
    with monkeypatch.context() as patch:
        patch.setattr(Session, "_write_model", crash)
        with pytest.raises(Stop):
            tune(spec, dataset=chats)
    with pytest.raises(ProgressLost, match="4 of 4 steps are charged, and no checkpoint") as caught:
        tune(spec, dataset=chats, resume=True)
    assert "start a new run" in caught.value.next_step
    assert not Path(spec.output.path).exists()


def test_what_may_not_change_on_resume(make_spec, chats, tmp_path):
    spec = make_spec(privacy=PRIVACY)
    crash_at(spec, chats, 3)
    with pytest.raises(PlanChanged, match="epsilon"):
        tune(make_spec(privacy="epsilon = 1.2"), dataset=chats, resume=True)
    other = open_dataset(write_chats(tmp_path / "other.jsonl", 60, seed=9), key=KEY)
    with pytest.raises(PlanChanged, match="dataset_root"):
        tune(spec, dataset=other, resume=True)
    faster = make_spec(
        privacy=PRIVACY, train='steps = 4\nbatch = 8\ndtype = "float32"\ncheckpoint_every = 2\nlearning_rate = 0.5'
    )
    with pytest.raises(PlanChanged, match="another run"):
        tune(faster, dataset=chats, resume=True)
    journal = run_folder(spec) / "budget.jsonl"
    data = journal.read_bytes()
    journal.write_bytes(data.splitlines(keepends=True)[0])
    with pytest.raises(BudgetRolledBack):
        tune(spec, dataset=chats, resume=True)
    journal.unlink()
    with pytest.raises(BudgetRolledBack, match="missing"):
        tune(spec, dataset=chats, resume=True)


def test_there_must_be_something_to_resume(make_spec, chats):
    with pytest.raises(RunExists, match="no unfinished run"):
        tune(make_spec(privacy=PRIVACY), dataset=chats, resume=True)
    spec = make_spec(privacy=PRIVACY)
    Path(spec.output.path).mkdir()
    with pytest.raises(RunExists, match="exists"):
        tune(spec, dataset=chats)


def test_nothing_starts_when_the_beginning_cannot_be_recorded(make_spec, chats):
    spec, steps = make_spec(privacy="enabled = false"), []
    with pytest.raises(StoreError):
        tune(
            spec,
            dataset=chats,
            recorder=Events("train.begin"),
            progress=lambda stage, done, _: stage == "tune" and steps.append(done),
        )
    assert steps == []
    assert not run_folder(spec).exists()


def test_duplicates_are_grouped_dropped_or_kept(make_spec, tmp_path):
    path = write_chats(tmp_path / "twice.jsonl", 60)
    path.write_bytes(path.read_bytes() * 2)
    ds = open_dataset(path, key=KEY)
    grouped = prepare(make_spec(privacy=PRIVACY, train="steps = 4\nbatch = 8"), ds)
    assert {len(unit.record_ids) for unit in grouped.units.units} == {2}
    assert grouped.plan is not None
    assert grouped.plan.n_units == 60
    dropped = prepare(make_spec(privacy="enabled = false"), ds)
    assert len(dropped.units.units) == 60
    kept = prepare(make_spec(privacy="enabled = false", extra='duplicates = "keep"'), ds)
    assert len(kept.units.units) == 120
    with pytest.raises(InvalidInput, match="drop"):
        prepare(make_spec(extra='duplicates = "drop"'), ds)


def test_planted_copies_are_not_dropped(make_spec, tmp_path):
    path = write_chats(tmp_path / "twice.jsonl", 40)
    path.write_bytes(path.read_bytes() * 2)
    ds = open_dataset(path, key=KEY)
    plan = plan_canaries(ds, CanarySpec(n=8, repetitions=(4,)), preregistration={}, rng=lambda size: bytes(range(size)))
    planted = inject_uncommitted(ds, plan, out=tmp_path / "planted.jsonl")
    tuned_on = prepare(make_spec(privacy="enabled = false"), planted.dataset)
    assert len(tuned_on.units.units) == 80 + planted.inserted
    for chosen in ("drop", "group"):
        with pytest.raises(InvalidInput, match=f'"{chosen}" is refused for data that holds canaries'):
            prepare(make_spec(privacy="enabled = false", extra=f'duplicates = "{chosen}"'), planted.dataset)


def test_a_column_is_a_unit(make_spec, tmp_path):
    ds = open_dataset(write_chats(tmp_path / "c.jsonl", 180, customers=60), key=KEY)
    spec = make_spec(data='unit = "column:customer_id"', privacy=PRIVACY)
    tuned = tune(spec, dataset=ds)
    assert "everything with one value of customer_id" in tuned.statement.reading
    assert tuned.statement.fields["plan"]["n_units"] == 60


def test_earlier_runs_add_up(make_spec, private_run):
    tuned, spec, _, _ = private_run
    ds = open_dataset(Path(spec.output.path).parent / "chats.jsonl", key=KEY)
    second = tune(make_spec(privacy=f'epsilon = 1.0\nearlier = ["{tuned.path}"]'), dataset=ds)
    fields = second.statement.fields
    assert fields["earlier_runs"][0]["plan"] == tuned.statement.fields["plan_digest"]
    assert fields["earlier_runs"][0]["composable"] is True
    assert max(fields["epsilon"], 1.0) < fields["composed_epsilon"] < 2.0
    assert describe_run(verify_run(second.path)).privacy.epsilon == fields["composed_epsilon"]
    assert verify_run(second.path).statement.fields["composed_epsilon"] == fields["composed_epsilon"]


def test_what_an_earlier_run_names_adds_up_too_and_once(make_spec, private_run, tmp_path):
    tuned, spec, _, _ = private_run
    ds = open_dataset(Path(spec.output.path).parent / "chats.jsonl", key=KEY)

    def run(name, *earlier):
        paths = json.dumps([str(path) for path in earlier])
        given = {"train": "steps = 6\nbatch = 8", "output": f'path = "{tmp_path / name}"'}
        return tune(make_spec(privacy=f"epsilon = 1.0\nearlier = {paths}", **given), dataset=ds)

    second = run("second", tuned.path)
    # The same plan as the second's: the journals tell them apart.
    third = run("third", second.path)
    fourth = run("fourth", tuned.path, third.path, second.path)
    first, second, third, fourth = (one.statement for one in (tuned, second, third, fourth))
    assert second.fields["plan_digest"] == third.fields["plan_digest"]
    counts = [len(one.fields["earlier_runs"]) for one in (second, third, fourth)]
    assert counts == [1, 2, 3]
    assert first.epsilon < second.composed_epsilon < third.composed_epsilon < fourth.composed_epsilon


def test_a_rank_stabilised_adapter_is_scaled_so_by_peft_too(make_spec, chats):
    """The run compares the reloaded adapter's loss with its own before it ends."""
    spec = make_spec(
        method="rank = 16\nalpha = 32\nrank_stabilised = true",
        privacy="enabled = false",
        train='steps = 6\nbatch = 20\ndtype = "float32"\nlearning_rate = 0.05',
    )
    assert spec.method.scale == 8
    tuned = tune(spec, dataset=chats)
    net = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(spec.base.path), tuned.path)
    scales = {part.scaling["default"] for part in net.modules() if isinstance(part, LoraLayer)}
    assert scales == {8}


@pytest.fixture
def full_run(make_spec, tmp_path):
    """Return a builder of whole models, each a base for others."""

    def build(data, **tables):
        spec = make_spec(method='kind = "full"', **tables)
        return tune(spec.changed(output={"path": str(tmp_path / "whole")}), dataset=data).path

    return build


def test_a_base_that_a_private_run_on_this_data_made_counts(make_spec, chats, full_run, tmp_path):
    whole = full_run(chats, privacy=PRIVACY)
    spec = make_spec(base=f'path = "{whole}"', privacy=PRIVACY)
    (before,), run = prepare(spec, chats).earlier, verify_run(whole)
    assert before == EarlierRun.of(run.plan, run.head)
    # Named besides, it counts once.
    assert prepare(spec.with_earlier([whole]), chats).earlier == (before,)
    # What another dataset taught the base is its pre-training.
    assert prepare(spec, open_dataset(write_chats(tmp_path / "other.jsonl", 60, seed=9), key=KEY)).earlier == ()
    (whole / "statement.json").unlink()
    with pytest.raises(PrivacySpent):
        prepare(spec, chats)


def test_the_statement_says_that_unfinished_runs_are_not_counted(make_spec, chats):
    spec = make_spec(privacy=PRIVACY)
    dead = (UnfinishedRun("ab" * 32, 7), UnfinishedRun("cd" * 32, 0))
    tuned = tune(spec, dataset=chats, earlier=dead)
    told = "runs on the same data that never ended (2, with at least 7 charged steps together)"
    assert told in tuned.statement.reading
    assert verify_run(tuned.path).statement == tuned.statement


def test_a_base_that_learned_this_data_without_privacy_is_refused(make_spec, chats, full_run):
    whole = full_run(chats, privacy="enabled = false")
    spec = make_spec(base=f'path = "{whole}"', privacy=PRIVACY)
    with pytest.raises(PrivacySpent, match="tuned on this very dataset"):
        tune(spec, dataset=chats)
    assert not run_folder(spec).exists()
    assert prepare(make_spec(base=f'path = "{whole}"', privacy="enabled = false"), chats).plan is None


def test_shapes_are_known_without_weights(base, make_spec):
    spec = make_spec(method='rank = 2\nalpha = 4\nlayers = [1]\ntargets = ["q_proj"]')
    shapes = trainable_shapes(base, spec.method)
    assert [(shape.name, shape.shape) for shape in shapes] == [
        ("model.layers.1.self_attn.q_proj.lora_A.weight", (2, 32)),
        ("model.layers.1.self_attn.q_proj.lora_B.weight", (32, 2)),
    ]
    for wrong in ('targets = ["z_proj"]', "layers = [7]"):
        with pytest.raises(InvalidInput, match="method"):
            trainable_shapes(base, make_spec(method=wrong).method)
    with pytest.raises(UnsupportedModule, match="embed_tokens"):
        trainable_shapes(base, make_spec(method='targets = ["embed_tokens"]').method)


def test_the_run_digest_follows_what_matters(make_spec, chats):
    def digest(train):
        return prepare(make_spec(privacy="enabled = false", train=train), chats).digest

    first = digest("steps = 4")
    assert first == digest("steps = 4\nchunk_tokens = 7\ncheckpoint_every = 1\ngradient_checkpointing = true")
    assert first != digest("steps = 5")
    assert first != digest("steps = 4\nlearning_rate = 0.5")


def test_a_run_whose_records_give_other_tokens_is_not_resumed(make_spec, chats, monkeypatch):
    """As after an update of what renders conversations."""
    spec = make_spec(privacy=PRIVACY)
    crash_at(spec, chats, 3)
    tokenise = session_torch.tokenise

    def other(record, *given, **more):
        found = tokenise(record, *given, **more)
        return replace(found, ids=(found.ids[0] ^ 1, *found.ids[1:]))

    monkeypatch.setattr(session_torch, "tokenise", other)
    with pytest.raises(PlanChanged, match="another run"):
        tune(spec, dataset=chats, resume=True)


def test_a_preparation_shows_no_text(make_spec, chats):
    text = repr(prepare(make_spec(privacy="enabled = false"), chats))
    assert chats.uri not in text or len(text) < 4000
    assert not any(record.id in text for record in chats)


def test_canonical_statement_only(run):
    statement = json.loads((run / "statement.json").read_bytes())
    (run / "statement.json").write_bytes(json.dumps(statement, indent=1).encode())
    with pytest.raises(Tampered, match="canonical"):
        verify_run(run)
    (run / "statement.json").write_bytes(canonical_json({**statement, "schema": "other"}))
    with pytest.raises(Tampered, match="checksum"):
        verify_run(run)
