"""Ray Train starts the processes of a run, here or on other machines; they share its steps as under ``torchrun``.

Every machine must see base model, data and output under the same paths. Ray ships the function that opens the dataset
to the workers as a pickle, so it must fetch the dataset's key where it runs, and not hold it. Recorder and keeper of
heads stay in the process that asks: the worker that charges waits until they have made durable what it tells.
"""

import contextvars
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec

from stanch.data import Dataset
from stanch.errors import ExternalError, MissingExtraError
from stanch.terms import Digest
from stanch.tune import statement as statements
from stanch.tune.journal import JournalHead
from stanch.tune.keeping import Keeping
from stanch.tune.record import NULL, Recorder, TrainEvent
from stanch.tune.refusals import CheckpointNotSealable
from stanch.tune.run import TunedModel, check_places, tune
from stanch.tune.spec import TuneSpec
from stanch.tune.statement import Earlier, PrivacyStatement

OnHead = Callable[[JournalHead], None]


@dataclass
class _Told:
    """What a worker tells, on its way to the process that asked for the run, and the answers on their way back.

    ``questions`` and ``answers`` are queues of Ray. On the worker's side it is a recorder and keeps heads.
    """

    questions: Any
    answers: Any

    def record(self, event: TrainEvent) -> None:
        """Make an event durable there, or raise."""
        self._ask(event)

    def on_head(self, head: JournalHead) -> None:
        """Keep a head there, or raise."""
        self._ask(head)

    def _ask(self, told: TrainEvent | JournalHead) -> None:
        self.questions.put(told)
        if not self.answers.get():
            raise ExternalError("what the run told could not be kept", next_step="see the error of who started it")

    def take(self, recorder: Recorder, on_head: OnHead | None, failures: list[Exception]) -> None:
        """Hand on what is told until None comes."""
        while (told := self.questions.get()) is not None:
            try:
                if isinstance(told, TrainEvent):
                    recorder.record(told)
                elif on_head is not None:
                    on_head(told)
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker must not go on
                failures.append(error)
            self.answers.put(not failures)


def tune_on_ray(  # noqa: PLR0913 - by keyword; those of tune, and what Ray needs
    spec: TuneSpec,
    *,
    open_data: Callable[[], Dataset],
    workers: int,
    earlier: Sequence[Earlier] = (),
    recorder: Recorder = NULL,
    resume: bool = False,
    keeping: Keeping | None = None,
    cpus_per_worker: int = 1,
) -> TunedModel:
    """Fine-tune as :func:`stanch.tune.tune` does, in ``workers`` processes on the Ray cluster that is there.

    Without a cluster Ray starts one here. Its usage statistics stay off unless you set ``RAY_USAGE_STATS_ENABLED``.

    Args:
        spec: What to tune and how, with absolute paths that every worker sees.
        open_data: Opens the private records in each worker.
        workers: How many processes share the steps.
        earlier: Earlier private runs on this dataset, as :func:`stanch.tune.tune` takes them.
        recorder: Where events go; it stays in this process.
        resume: Continue the unfinished run beside the output; steps that a crash lost stay charged.
        keeping: Who keeps the journal's heads, in this process.
        cpus_per_worker: Processors that Ray reserves for each.

    Raises:
        MissingExtraError: Ray is not installed.
        RunExists: As :func:`stanch.tune.tune`.
        CheckpointNotSealable: ``keeping`` seals checkpoints.
        PrivacySpent: The recorder knows of private runs on the data that ``earlier`` leaves out.
        ExternalError: A worker failed; Ray's own report says how. No step is lost that was not charged.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        from ray.train import torch  # noqa: F401, PLC0415 - optional part
    except ImportError as error:
        raise MissingExtraError("ray") from error
    kept = keeping or Keeping()
    if kept.seal is not None:
        raise CheckpointNotSealable(
            "sealed checkpoints are refused here",
            why="the key that signs them would go to every worker in a pickle",
            next_step="share the steps under torchrun: stanch tune run SPEC.toml --checkpoint-to RECIPIENT",
        )
    check_places(spec, resume=resume)
    failures: list[Exception] = []
    with _listening(recorder, kept.on_head, failures) as told:
        work = partial(_work, open_data=open_data, earlier=tuple(earlier), told=told, anchor=kept.anchor)
        try:
            output = _fit(work, spec, workers=workers, resume=resume, cpus=cpus_per_worker)
        except Exception as error:
            if failures:
                raise failures[0] from error
            raise ExternalError(
                f"{spec.output.path}: a worker of the run failed",
                why=type(error).__name__,
                next_step="see Ray's report; then resume: charged steps stay charged",
            ) from error
    statement = PrivacyStatement.from_json((output / statements.NAME).read_bytes())
    return TunedModel(output, Digest.parse(statement.model_digest), statement)


def _fit(work: Callable[[dict[str, Any]], None], spec: TuneSpec, *, workers: int, resume: bool, cpus: int) -> Path:
    """Let Ray start the processes, and wait for them. Returns where the output lies."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: PLC0415 - optional part
    from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415 - same

    output = Path(spec.output.path).absolute()
    # Ray's own notes about the run: they hold nothing of ours, and go when it is over.
    notes = output.with_name(f"{output.name}.ray")
    trainer = TorchTrainer(
        work,
        train_loop_config={"spec": msgspec.json.encode(spec).decode(), "resume": resume},
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": cpus}),
        # A second try would start the run anew beside its own journal; resuming it is for a person to decide.
        run_config=RunConfig(
            storage_path=str(notes.parent), name=notes.name, failure_config=FailureConfig(max_failures=0)
        ),
        torch_config=TorchConfig(backend="gloo"),
    )
    try:
        trainer.fit()
    finally:
        shutil.rmtree(notes, ignore_errors=True)
    return output


@contextmanager
def _listening(recorder: Recorder, on_head: OnHead | None, failures: list[Exception]) -> Iterator[_Told | None]:
    """Hand on what the run tells while it goes on, in a thread of its own; None where nobody wants to be told."""
    if recorder is NULL and on_head is None:
        yield None
        return
    from ray.util.queue import Queue  # noqa: PLC0415 - optional part, checked by the caller

    told = _Told(Queue(), Queue())
    listener = Thread(target=contextvars.copy_context().run, args=(told.take, recorder, on_head, failures))
    listener.start()
    try:
        yield told
    finally:
        told.questions.put(None)
        listener.join()
        told.questions.shutdown()
        told.answers.shutdown()


def _work(
    config: dict[str, Any],
    *,
    open_data: Callable[[], Dataset],
    earlier: tuple[Earlier, ...],
    told: _Told | None,
    anchor: JournalHead | None,
) -> None:
    """Take part in the run, as one of its processes: Ray has set rank and world, and made their group."""
    spec = msgspec.json.decode(config["spec"], type=TuneSpec)
    tune(
        spec, dataset=open_data(), earlier=earlier, recorder=told or NULL, resume=config["resume"],
        keeping=Keeping(on_head=None if told is None else told.on_head, anchor=anchor),
    )  # fmt: skip
