"""The verb of this package: tune a model on private records, and say what that reveals."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stanch.crypto import random_bytes
from stanch.data import Dataset
from stanch.errors import MissingExtraError
from stanch.terms import SILENT, Digest, Progress
from stanch.tune.keeping import Keeping
from stanch.tune.prepare import prepare
from stanch.tune.record import NULL, Recorder
from stanch.tune.refusals import RunExists
from stanch.tune.sampler import seeded_bytes
from stanch.tune.spec import TuneSpec
from stanch.tune.statement import Earlier, PrivacyStatement


@dataclass(frozen=True, slots=True)
class TunedModel:
    """A finished run.

    Attributes:
        path: Folder with the adapter in PEFT's format, tokenizer files, plan, journal and statement.
        digest: Digest of the model's files in it.
        statement: What the run guarantees (``guarantee`` is ``none`` without privacy).
    """

    path: Path
    digest: Digest
    statement: PrivacyStatement


def run_folder(spec: TuneSpec) -> Path:
    """Return where an unfinished run keeps journal and checkpoints: beside the output."""
    output = Path(spec.output.path)
    return output.with_name(f"{output.name}.run")


def tune(
    spec: TuneSpec,
    *,
    dataset: Dataset,
    earlier: Sequence[Earlier] = (),
    recorder: Recorder = NULL,
    progress: Progress = SILENT,
    resume: bool = False,
    keeping: Keeping | None = None,
) -> TunedModel:
    """Fine-tune the base model of ``spec`` on ``dataset``, with differential privacy unless the spec disables it.

    Under ``torchrun`` every process calls this, and they share the steps; process 0 alone records, charges and writes.

    Args:
        spec: What to tune and how.
        dataset: The private records; opened with its key, ids and digests of it are keyed.
        earlier: Earlier private runs on this dataset beside those that the spec names, as a log tells of them; of
            those that never ended the statement says that it does not count them.
        recorder: Where events go, durably: ``train.begin`` before the first step, ``train.end`` or ``train.failed``.
        progress: Told of stages and steps.
        resume: Continue the unfinished run beside the output; steps that a crash lost stay charged.
        keeping: How the journal's heads and the checkpoints are kept.

    Raises:
        MissingExtraError: torch, transformers or peft is not installed.
        RunExists: The output exists, or an unfinished run does and ``resume`` is false.
        InvalidInput: Spec, base model or data do not allow the run; see :mod:`stanch.tune.refusals`.
        PrivacySpent: The base was tuned on this dataset without a guarantee.
        ProgressLost: A run with charged steps and without a checkpoint is resumed.
        VerificationError: A self-check failed, or the journal is not the one that was seen before.
        RankLost: Another process of the run is gone.
    """
    try:
        from stanch.tune import ranks_torch, session_torch  # noqa: PLC0415 - optional part
    except ImportError as error:
        raise MissingExtraError("train") from error
    with ranks_torch.Ranks.join() as ranks:
        if ranks.leads:
            check_places(spec, resume=resume)
        seed = spec.privacy.insecure_reproducible
        random = random_bytes if seed is None else seeded_bytes(seed)
        session = session_torch.Session(
            prepare(spec, dataset, earlier=earlier), run_folder(spec), recorder, progress, random=random, ranks=ranks
        )
        path, statement = session.run(dataset, resume=resume, keeping=keeping or Keeping())
    return TunedModel(path, Digest.parse(statement.model_digest), statement)


def check_places(spec: TuneSpec, *, resume: bool) -> None:
    """Raise :class:`RunExists` where the output, or a run that is not to be resumed, is in the way."""
    output, unfinished = Path(spec.output.path), run_folder(spec)
    if output.exists():
        raise RunExists(f"{output}: exists already", next_step="choose another output folder")
    if unfinished.exists() and not resume:
        raise RunExists(
            f"{unfinished}: an unfinished run lies here",
            why="its charged steps may have been seen",
            next_step="resume it, or choose another output folder",
        )
    if resume and not unfinished.exists():
        raise RunExists(f"{unfinished}: there is no unfinished run to resume", next_step="start the run without resume")
