"""Ray Train starts the processes of a run, and a worker that fails is an error that says what to do."""

import sys
from pathlib import Path

import pytest

from stanch.data import open_dataset
from stanch.errors import ExternalError, MissingExtraError
from stanch.tune import TuneSpec, tune_on_ray, verify_run
from stanch.tune.journal import read_journal
from stanch.tune.plan import PrivacyPlan
from stanch.tune.refusals import RunExists

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

    tuned = tune_on_ray(spec, open_data=opens, workers=WORKERS)
    verified = verify_run(tuned.path)
    assert verified.statement == tuned.statement
    assert tuned.statement.fields["ranks"] == WORKERS
    plan = PrivacyPlan.from_json((tuned.path / "plan.json").read_bytes())
    lines = read_journal((tuned.path / "budget.jsonl").read_bytes(), plan).lines
    # One process alone charges.
    assert len({line.process for line in lines}) == 1
    assert verified.head.charged == plan.steps
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
