"""Ray Train starts the processes of a run, and a worker that fails is an error that says what to do."""

import sys
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest

from stanch.crypto import SigningKey
from stanch.data import open_dataset
from stanch.errors import ExternalError, MissingExtraError
from stanch.tune import (
    CheckpointSeal,
    JournalHead,
    Keeping,
    TrainEvent,
    TuneSpec,
    UnfinishedRun,
    tune_on_ray,
    verify_run,
)
from stanch.tune.journal import read_journal
from stanch.tune.plan import PrivacyPlan
from stanch.tune.refusals import CheckpointNotSealable, PrivacySpent, RunExists
from stanch.tune.scale_ray import _Told

from .conftest import KEY, spec_text, write_chats

WORKERS = 2


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of this machine; its workers see what this process imports."""
    pytest.importorskip("ray.train", reason="ray is not installed")
    import ray  # noqa: PLC0415 - optional part

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", ":".join(sys.path))
        patch.setenv("OMP_NUM_THREADS", "1")
        ray.init(
            num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20,
            configure_logging=False,
        )  # fmt: skip
        yield
        ray.shutdown()


@dataclass
class Told:
    """A recorder that takes some events and refuses the next."""

    events: list
    most: int = 9

    def record(self, event):
        if len(self.events) == self.most:
            raise PrivacySpent("the log holds private runs that this one does not count")
        self.events.append(event)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("cluster")
@pytest.mark.nightly
def test_a_run_that_the_log_refuses_does_not_begin(base, tmp_path):
    data = str(write_chats(tmp_path / "chats.jsonl", 60))
    spec = TuneSpec.from_toml(spec_text(base, tmp_path / "out").encode())
    with pytest.raises(PrivacySpent, match="does not count"):
        tune_on_ray(
            spec, open_data=lambda: open_dataset(Path(data), key=KEY), workers=WORKERS, recorder=Told([], most=0)
        )
    assert not list(tmp_path.glob("out*"))


def test_what_a_worker_tells_is_kept_here_or_it_goes_no_further():
    """The queues are plain ones; Ray's are used alike."""
    told, recorder, heads, failures = _Told(Queue(), Queue()), Told([], most=1), [], []
    listener = Thread(target=told.take, args=(recorder, heads.append, failures))
    listener.start()
    event, head = TrainEvent("train.begin", "ab", "2026-01-01T00:00:00Z", {}), JournalHead(1, "ab" * 32, 0)
    told.record(event)
    told.on_head(head)
    for tell, what in ((told.record, event), (told.on_head, head)):
        with pytest.raises(ExternalError, match="could not be kept"):
            tell(what)
    told.questions.put(None)
    listener.join(timeout=30)
    assert (recorder.events, heads[0], type(failures[0])) == ([event], head, PrivacySpent)


def test_keys_that_sign_checkpoints_go_to_no_worker(base, tmp_path):
    pytest.importorskip("ray.train", reason="ray is not installed")
    spec = TuneSpec.from_toml(spec_text(base, tmp_path / "out").encode())
    keeping = Keeping(seal=CheckpointSeal((), SigningKey.from_seed(bytes(32))))
    with pytest.raises(CheckpointNotSealable, match="refused here"):
        tune_on_ray(spec, open_data=lambda: None, workers=WORKERS, keeping=keeping)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("cluster")
@pytest.mark.nightly
def test_workers_share_a_run(base, tmp_path):
    data = str(write_chats(tmp_path / "chats.jsonl", 60))
    spec = TuneSpec.from_toml(spec_text(base, tmp_path / "out").encode())

    def opens():
        return open_dataset(Path(data), key=KEY)

    told, heads, dead = Told([]), [], UnfinishedRun("ab" * 32, 7)
    tuned = tune_on_ray(
        spec, open_data=opens, workers=WORKERS, earlier=(dead,), recorder=told, keeping=Keeping(on_head=heads.append)
    )
    # Both are told in this process, in order; and the statement counts what the log knows of earlier runs.
    assert [event.kind for event in told.events] == ["train.begin", "train.end"]
    assert told.events[0].facts["earlier"] == [dead.journal]
    assert "never ended (1, with at least 7 charged steps together)" in tuned.statement.reading
    assert tuned.statement.fields["anchored"] is True
    verified = verify_run(tuned.path)
    assert verified.statement == tuned.statement
    assert tuned.statement.fields["ranks"] == WORKERS
    plan = PrivacyPlan.from_json((tuned.path / "plan.json").read_bytes())
    lines = read_journal((tuned.path / "budget.jsonl").read_bytes(), plan).lines
    # One process alone charges.
    assert len({line.process for line in lines}) == 1
    assert verified.head.charged == plan.steps
    assert heads[-1] == verified.head
    assert not (tmp_path / "out.ray").exists()
    with pytest.raises(RunExists, match="exists already"):
        tune_on_ray(spec, open_data=opens, workers=WORKERS)


def test_a_worker_that_fails_is_an_error_that_says_what_to_do(base, tmp_path, monkeypatch):
    torch = pytest.importorskip("ray.train.torch", reason="ray is not installed")

    def fails(_trainer):
        raise RuntimeError("a worker died")

    monkeypatch.setattr(torch.TorchTrainer, "fit", fails)
    spec = TuneSpec.from_toml(spec_text(base, tmp_path / "out").encode())
    with pytest.raises(ExternalError, match="a worker of the run failed") as caught:
        tune_on_ray(spec, open_data=lambda: None, workers=WORKERS)
    assert "resume" in caught.value.next_step
    assert not list(tmp_path.glob("out*"))


def test_without_ray_its_extra_is_named(base, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.train", None)
    spec = TuneSpec.from_toml(spec_text(base, tmp_path / "out").encode())
    with pytest.raises(MissingExtraError) as caught:
        tune_on_ray(spec, open_data=lambda: None, workers=WORKERS)
    assert caught.value.extra == "ray"
