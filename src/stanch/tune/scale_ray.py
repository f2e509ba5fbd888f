"""Ray Train starts the processes of a run, here or on other machines; they share its steps as under ``torchrun``.

Every machine must see base model, data and output under the same paths. Ray ships the function that opens the dataset
to the workers as a pickle, so it must fetch the dataset's key where it runs, and not hold it.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from stanch.data import Dataset
from stanch.errors import ExternalError, MissingExtraError
from stanch.terms import Digest
from stanch.tune import statement as statements
from stanch.tune.run import TunedModel, check_places, tune
from stanch.tune.spec import TuneSpec
from stanch.tune.statement import PrivacyStatement


def tune_on_ray(
    spec: TuneSpec, *, open_data: Callable[[], Dataset], workers: int, resume: bool = False, cpus_per_worker: int = 1
) -> TunedModel:
    """Fine-tune as :func:`stanch.tune.tune` does, in ``workers`` processes on the Ray cluster that is there.

    Without a cluster Ray starts one on this machine. Ray's usage statistics stay off unless you set
    ``RAY_USAGE_STATS_ENABLED``.

    Args:
        spec: What to tune and how, with absolute paths that every worker sees.
        open_data: Opens the private records in each worker.
        workers: How many processes share the steps.
        resume: Continue the unfinished run beside the output; steps that a crash lost stay charged.
        cpus_per_worker: Processors that Ray reserves for each.

    Raises:
        MissingExtraError: Ray is not installed.
        RunExists: As :func:`stanch.tune.tune`.
        ExternalError: A worker failed; Ray's own report says how. No step is lost that was not charged.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: PLC0415 - optional part
        from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415 - same
    except ImportError as error:
        raise MissingExtraError("ray") from error
    check_places(spec, resume=resume)
    output = Path(spec.output.path).absolute()
    # Ray's own notes about the run: they hold nothing of ours, and go when it is over.
    notes = output.with_name(f"{output.name}.ray")
    trainer = TorchTrainer(
        lambda config: _work(config, open_data),
        train_loop_config={"spec": msgspec.json.encode(spec).decode(), "resume": resume},
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": cpus_per_worker}),
        # A second try would start the run anew beside its own journal; resuming it is for a person to decide.
        run_config=RunConfig(
            storage_path=str(notes.parent), name=notes.name, failure_config=FailureConfig(max_failures=0)
        ),
        torch_config=TorchConfig(backend="gloo"),
    )
    try:
        trainer.fit()
    except Exception as error:
        raise ExternalError(
            f"{output}: a worker of the run failed",
            why=type(error).__name__,
            next_step="see Ray's report; then resume: charged steps stay charged",
        ) from error
    finally:
        shutil.rmtree(notes, ignore_errors=True)
    statement = PrivacyStatement.from_json((output / statements.NAME).read_bytes())
    return TunedModel(output, Digest.parse(statement.model_digest), statement)


def _work(config: dict[str, Any], open_data: Callable[[], Dataset]) -> None:
    """Take part in the run, as one of its processes: Ray has set rank and world, and made their group."""
    spec = msgspec.json.decode(config["spec"], type=TuneSpec)
    tune(spec, dataset=open_data(), resume=config["resume"])
