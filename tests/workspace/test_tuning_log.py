"""What the log says of a tuning: which file it read, what of it was learned, and whether the canaries were in it."""

import json
from types import SimpleNamespace

import life
import pytest

from stanch.audit.evidence import Reason
from stanch.audit.integrity import Problem
from stanch.data import CanarySpec, inject_uncommitted, open_dataset, plan_canaries
from stanch.terms import CommitmentEvidence, Digest
from stanch.tune import TuneSpec
from stanch.weights import directory_digest
from stanch.workspace import Workspace, verbs_model
from stanch.workspace.artifacts import dataset_ref
from stanch.workspace.tuning_log import Tuning, find_commitment, find_tuning
from stanch.workspace.verbs_data import plant_canaries

SPEC = b"""
base = { path = "base" }
data = { max_tokens = 77, completion_only = false }
privacy = { enabled = false }
"""


class Ground:
    """A workspace with a data set and a plan; a tuning in it makes the adapter that lies there already."""

    def __init__(self, workspace, folder, monkeypatch):
        self.workspace, self.folder = workspace, folder
        self.model, self.chats = life.make_adapter(folder / "out"), life.make_data(folder / "chats.jsonl")
        self.plan = plan_canaries(self.open(self.chats), CanarySpec(n=64), preregistration={"tests": 1})
        tuned = SimpleNamespace(path=self.model, statement=SimpleNamespace(guarantee="none", epsilon=None))
        monkeypatch.setattr(verbs_model, "tune", lambda *_, **__: tuned)
        monkeypatch.setattr(verbs_model, "keep_heads", lambda *_: None)

    def open(self, path):
        return open_dataset(path, key=self.workspace.keys.secret("dataset"))

    def plant(self, name="planted.jsonl"):
        plant_canaries(self.workspace, self.open(self.chats), self.plan, self.folder / name)
        return self.folder / name

    def tune(self, data):
        verbs_model.run_tuning(self.workspace, TuneSpec.from_toml(SPEC), self.open(data))
        return find_tuning(self.workspace, directory_digest(self.model).root)

    def look(self, tuning, data):
        return find_commitment(self.workspace, self.plan, tuning, dataset_ref(data).digest)


@pytest.fixture
def ground(tmp_path, monkeypatch):
    with Workspace.init(tmp_path / "w") as workspace:
        yield Ground(workspace, tmp_path, monkeypatch)


def test_a_model_that_was_tuned_on_the_planted_file_has_a_commitment(ground):
    planted = ground.plant()
    tuning = ground.tune(planted)
    assert (tuning.max_tokens, tuning.completion_only, tuning.duplicates) == (77, False, "keep")
    assert (tuning.is_told, tuning.dataset) == (True, str(dataset_ref(planted).digest))
    found = ground.look(tuning, planted)
    assert isinstance(found, CommitmentEvidence)
    assert (found.commitment, found.tuning_start_index) == (ground.plan.commitment, tuning.began)
    assert 0 <= found.entry_index < tuning.began
    assert find_tuning(ground.workspace, Digest.sha256(b"another model")) is None


def test_a_model_that_never_saw_the_canaries_has_none(ground):
    """Plan, plant, tune on the file without canaries, and audit with the one that has them."""
    planted = ground.plant()
    tuning = ground.tune(ground.chats)
    found = ground.look(tuning, planted)
    assert isinstance(found, Problem)
    assert found.reason is Reason.BROKEN_CANARY_PATH
    assert tuning.dataset in found.found
    # The file that was tuned on is no better: the canaries went into another.
    assert "another file" in ground.look(tuning, ground.chats).found
    assert isinstance(find_commitment(ground.workspace, ground.plan, tuning, None), Problem)


def test_the_canaries_must_have_gone_into_that_very_file(ground):
    planted = ground.plant()
    copy = ground.folder / "edited.jsonl"
    copy.write_text(planted.read_text() + json.dumps({"messages": [{"role": "user", "content": "x"}] * 2}) + "\n")
    found = ground.look(ground.tune(copy), copy)
    assert (found.reason, "another file" in found.found) == (Reason.BROKEN_CANARY_PATH, True)


def test_what_was_never_or_too_late_committed_to_has_no_commitment_and_no_problem(ground):
    loose = ground.folder / "loose.jsonl"
    inject_uncommitted(ground.open(ground.chats), ground.plan, out=loose)
    tuning = ground.tune(loose)
    assert ground.look(tuning, loose) is None
    assert ground.plant().read_bytes() == loose.read_bytes()
    assert ground.look(tuning, loose) is None


def test_a_tuning_of_an_earlier_release_shows_nothing(ground):
    planted = ground.plant()
    told = ground.tune(planted)
    untold = Tuning(began=told.began, dataset=told.dataset)
    found = ground.look(untold, planted)
    assert (found.reason, "tune again" in found.found) == (Reason.BROKEN_CANARY_PATH, True)
